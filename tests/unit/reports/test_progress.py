"""The line at the bottom of a terminal."""

from __future__ import annotations

import io

import pytest

from requiretls_milter.reports.progress import ProgressLine, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


def test_a_line_takes_the_place_of_the_former_one_and_is_cut_to_the_width() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line.show("one")
    line.show("x" * 200)
    line.clear()
    line.clear()
    assert terminal.getvalue() == "\r\x1b[2Kone\r\x1b[2K" + "x" * 79 + "\r\x1b[2K"


@pytest.mark.parametrize("is_dumb", [True, False])
def test_what_is_no_terminal_or_a_dumb_one_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, is_dumb: bool
) -> None:
    stream: io.StringIO = Terminal() if is_dumb else io.StringIO()
    monkeypatch.setenv("TERM", "dumb" if is_dumb else "xterm")
    line = ProgressLine(stream)
    line.show("one")
    line.clear()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("done", "total", "full"), [(0, 10, 0), (5, 10, 10), (10, 10, 20), (12, 10, 20), (0, 0, 20)]
)
def test_the_bar_is_full_when_all_is_done(done: int, total: int, full: int) -> None:
    assert bar(done, total) == "[" + "#" * full + "." * (20 - full) + "]"
