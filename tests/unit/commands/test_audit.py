"""``audit``: logs that it reads, what it prints, exit statuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.reports.logs import usual
from tests.support.commandline import call
from tests.support.milterlogs import QUEUE_ID, delivery_line, forecast_line


def test_all_equal_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = tmp_path / "milter.log", tmp_path / "mail.log.1.gz"
    ours.write_text(forecast_line("2.0.0") + "\n")
    theirs.write_bytes(gzip.compress(f"{delivery_line('2.0.0')}\n".encode()))
    status, told, _ = call(capsys, "audit", ours, theirs)
    assert status == 0
    assert told.startswith("1 forecasts with a delivery attempt, 0 without one\n  equal      1\n")


def test_a_difference_is_told_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mail.log"
    forecast = forecast_line("5.7.30", "requiretls_not_offered", "dane/!requiretls:none")
    delivery = delivery_line("2.0.0", "dane/requiretls", "fine \x1b[31m")
    log.write_text(f"{forecast}\n{delivery}\n")
    status, told, _ = call(capsys, "audit", log)
    assert status == 1
    assert (
        f"{QUEUE_ID} to=<u@example.org>: forecast 5.7.30 requiretls_not_offered "
        "dane/!requiretls:none\n"
        "    was 2.0.0 dane/requiretls: fine \\x1b[31m\n"
    ) in told
    status, told, _ = call(capsys, "audit", log, "--format", "json")
    found: dict[str, Any] = json.loads(told)
    assert (status, found["different"], found["equal"]) == (1, 1, 0)
    assert found["differences"][0]["delivery"]["status"] == "2.0.0"


@pytest.mark.parametrize("name", ["missing", "mail.log.gz"])
def test_a_log_that_cannot_be_read_is_status_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mail.log.gz").write_bytes(gzip.compress(b"x" * 100)[:-3])
    status, told, error = call(capsys, "audit", tmp_path / name)
    assert (status, told) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\nhello \x1b]0;owned\x07\xff world\n", 'first line is "hello \\x1b]0;owned\\x07'),
        (b'{"event": {"kind": "recipient"}}\n', 'first line is "{"event": {'),
        (bytes(range(256)) * 1000, "no line of the milter or of Postfix was found"),
        (b"", "there is no line to read"),
        (gzip.compress(b""), "there is no line to read"),
    ],
    ids=["text", "objects", "octets", "empty", "empty archive"],
)
def test_a_log_of_which_nothing_was_understood_is_status_2_with_its_first_line(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(content)
    for command in (("audit",), ("report", "--would-have", "--config", "/dev/null")):
        status, told, error = call(capsys, *command, log)
        assert (status, told) == (2, "")
        assert error.startswith(f"error: {log}: ")
        assert said in error
        assert error.removesuffix("\n").isprintable()


def test_a_log_that_was_not_understood_beside_others_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, strange = tmp_path / "mail.log", tmp_path / "mail.log.offset"
    log.write_text(f"{forecast_line('2.0.0')}\n{delivery_line('2.0.0')}\n")
    strange.write_text("4711\n")
    status, told, error = call(capsys, "audit", log, strange)
    assert status == 0
    assert "equal      1" in told
    assert error == (
        f"warning: {strange}: no line of the milter or of Postfix was found; "
        'the first line is "4711"\n'
    )


def test_a_log_without_a_forecast_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mail.log"
    log.write_text(f"{delivery_line('2.0.0')}\n")
    status, told, error = call(capsys, "audit", log)
    assert (status, error) == (0, "warning: no forecast was found\n")
    assert told.startswith("0 forecasts with a delivery attempt, 0 without one\n")


def test_what_strangers_wrote_is_printed_as_printable_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mail.log"
    evil = "\x1b]0;owned\x07\x9b2J\u202e\n"
    forecast = forecast_line("5.7.30", f"ok{evil}", form="json", to=f"<{evil}@{evil}>")
    delivery = json.dumps({"MESSAGE": delivery_line("2.0.0", said=evil, to=f"{evil}@{evil}")})
    log.write_text(f"{forecast}\n{delivery}\n")
    status, told, error = call(capsys, "audit", log)
    assert (status, error) == (1, "")
    assert all(line.isascii() and line.isprintable() for line in told.splitlines())
    assert "\\x1b]0;owned\\x07" in told
    assert json.loads(call(capsys, "audit", log, "--format", "json").out)["different"] == 1


def test_the_milters_lines_may_be_in_the_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho '{forecast_line('2.0.0')}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    log = tmp_path / "mail.log"
    log.write_text(f"{delivery_line('2.0.0')}\n")
    status, told, _ = call(capsys, "audit", "journal:", log)
    assert status == 0
    assert told.startswith("1 forecasts with a delivery attempt, 0 without one\n  equal      1\n")


def test_without_a_log_those_of_this_host_are_read_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The milter's lines are in the journal of its unit, those of Postfix in that of all mail."""
    for name, line in (("unit", forecast_line("2.0.0")), ("mail", delivery_line("2.0.0"))):
        (tmp_path / name).write_text(f"{line}\n")
    program = tmp_path / "journalctl"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in\n--unit) cat {tmp_path}/unit;;\n'
        f"SYSLOG_FACILITY=2) cat {tmp_path}/mail;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(usual, "MAIL", ())
    monkeypatch.setattr(usual, "OWN", ())
    status, told, error = call(capsys, "audit")
    assert (status, error) == (0, "reading journal: journal:mail\n")
    assert told.startswith("1 forecasts with a delivery attempt, 0 without one\n  equal      1\n")

    log = tmp_path / "mail.log"
    log.write_text(f"{delivery_line('2.0.0')}\n")
    monkeypatch.setattr(usual, "MAIL", (str(log),))
    status, told, error = call(capsys, "audit")
    assert (status, error) == (0, f"reading journal: {log}\n")
    assert told.startswith("1 forecasts with a delivery attempt, 0 without one\n  equal      1\n")


def test_a_host_without_any_log_is_told_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(usual, "MAIL", ())
    monkeypatch.setattr(usual, "OWN", ())
    assert call(capsys, "audit") == (
        2,
        "",
        "error: no log was found on this host: name the files\n",
    )
