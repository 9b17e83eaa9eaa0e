"""What is logged: one line an event, whatever strangers put into it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.model import Reason
from requiretls_milter.telemetry import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    log.set_process("")
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_in_logfmt_begins_with_time_in_utc_level_and_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("logfmt", "info")
    log.set_process("engine")
    log.get_logger("part").info("started", pid=7, ok=True, note="two words", why="", text=None)
    (line,) = lines(capsys)
    assert line.startswith("timestamp=20")
    assert line.endswith('Z level=info event=started pid=7 ok note="two words"')


def test_at_level_debug_a_line_ends_with_the_part_of_the_program_that_wrote_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("logfmt", "debug")
    log.set_process("engine")
    log.get_logger("part").info("started", pid=7)
    (line,) = lines(capsys)
    assert line.endswith(" level=info event=started pid=7 component=part process=engine")


def test_a_line_in_json_is_an_object_with_numbers_as_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("json", "info")
    log.get_logger("part").warning("late", seconds=1.5, nothing=None, yes=True)
    fields = json.loads(lines(capsys)[0])
    assert fields["seconds"] == 1.5
    assert list(fields) == ["timestamp", "level", "event", "seconds", "yes"]
    assert fields["yes"] is True
    assert fields["level"] == "warning"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_is_below_the_level_is_not_logged(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", level)
    logger = log.get_logger("part")
    for name in log.LEVELS:
        getattr(logger, name)(name)
    told = [json.loads(line)["event"] for line in lines(capsys)]
    assert told == list(log.LEVELS)[list(log.LEVELS).index(level) :]


def test_a_logger_made_before_follows_a_new_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = log.get_logger("part")
    log.configure("json", "error")
    logger.info("no")
    log.configure("logfmt", "info")
    logger.info("yes")
    (line,) = lines(capsys)
    assert "event=yes" in line


@given(st.text() | st.binary(), st.text(min_size=1, max_size=30))
def test_r62_any_value_and_any_key_give_one_printable_bounded_line(value: object, key: str) -> None:
    event = log.printable_event(None, "info", {"event": "x", key: value, "other": value})
    for name, text in event.items():
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & {" ", "="}
        assert str(text).isascii()
        assert str(text).isprintable()
        assert len(str(text)) <= log.MAX_VALUE


VALUES = (
    st.text()
    | st.text(st.sampled_from('ab= "\\\n'))
    | st.text(st.just("x"), min_size=log.MAX_VALUE - 1, max_size=log.MAX_VALUE + 1)
    | st.binary()
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(Reason)
)
KEYS = st.sampled_from(["timestamp", "level", "event", "exception", "a b", "a_b"]) | st.text()


@given(st.dictionaries(KEYS, VALUES, max_size=log.MAX_KEYS + 5))
def test_a_line_in_logfmt_is_byte_for_byte_that_of_structlog(event: dict[str, Any]) -> None:
    structlogs = structlog.processors.LogfmtRenderer(
        key_order=["timestamp", "level", "event"], drop_missing=True
    )
    safe = dict(log.printable_event(None, "info", dict(event)))
    assert log.logfmt(None, "info", event) == structlogs(None, "info", safe)


@pytest.mark.parametrize("format_", ["json", "logfmt"])
def test_r62_a_stranger_cannot_write_a_line_of_the_log(
    format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(format_, "info")
    evil = 'x\r\n\x00\x1b[31m\x85\u2028level=error event=forged "quoted\udcff'
    log.get_logger("part").info(
        "seen", banner=evil, more={evil: [evil]}, raw=evil.encode("utf-8", "surrogateescape")
    )
    (line,) = lines(capsys)
    assert line.isprintable()
    assert line.isascii()


def test_a_value_is_cut_and_a_traceback_keeps_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    try:
        raise ValueError("the reason " + "x" * 20_000 + " the end")
    except ValueError:
        log.get_logger("part").exception("failed", long="y" * 20_000)
    fields = json.loads(lines(capsys)[0])
    assert fields["long"] == "y" * (log.MAX_VALUE - 3) + "..."
    assert fields["exception"].endswith("the end")
    assert len(fields["exception"]) <= log.MAX_TRACEBACK
    assert fields["level"] == "error"


def test_a_line_has_no_more_keys_than_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    log.get_logger("part").info("many", **{f"key{number}": number for number in range(1000)})
    assert len(json.loads(lines(capsys)[0])) <= log.MAX_KEYS


def test_what_libraries_log_takes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    logging.getLogger("aiohttp").warning("odd %s", "thing\n")
    logging.getLogger("aiohttp").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    told = [json.loads(line) for line in lines(capsys)]
    assert told[0]["event"] == "odd thing\\n"
    assert told[0]["component"] == "aiohttp"
    assert told[1]["component"] == "py.warnings"
    assert len(told) == 2


def test_a_library_s_bad_format_string_is_told_and_not_raised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("json", "info")
    logging.getLogger("aiohttp").warning("%d", "no number")
    assert "log_failed" in capsys.readouterr().err


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="xml"):
        log.configure("xml", "info")
    with pytest.raises(ValueError, match="loud"):
        log.configure("json", "loud")


PROGRAM = """
import os, sys
from requiretls_milter.telemetry import log
status = os.fstat(2)
if sys.argv[1] == "journal":
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
elif sys.argv[1] == "other":
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino + 1}"
log.configure("logfmt", "debug")
for level in log.LEVELS:
    getattr(log.get_logger("x"), level)("it")
"""


def logged(how: str) -> list[str]:
    environ = {**os.environ, "JOURNAL_STREAM": "junk"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    return result.stderr.splitlines()


def test_the_journal_gets_priorities_and_no_time() -> None:
    found = logged("journal")
    assert [line[:3] for line in found] == ["<7>", "<6>", "<4>", "<3>"]
    assert all("timestamp" not in line for line in found)


@pytest.mark.parametrize("how", ["other", "junk"])
def test_anything_else_than_the_journal_gets_the_time(how: str) -> None:
    assert all(line.startswith("timestamp=") for line in logged(how))


def test_a_log_that_cannot_be_written_does_not_end_what_we_do(tmp_path: Path) -> None:
    program = """
import os, sys
from requiretls_milter.telemetry import log
log.configure()
os.close(2)
log.get_logger("x").info("into the void")
sys.stderr = None
log.get_logger("x").info("into the void")
print("alive")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stdout == "alive\n"
