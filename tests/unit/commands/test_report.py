"""``report``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from requiretls_milter.reports.logs.sources import UNIT
from requiretls_milter.reports.would_have import MAX_MESSAGES
from tests.support.commandline import call
from tests.support.milterlogs import recipient_line as line


def test_the_command_reads_files_and_tells_domains(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(line() + "\n" + line("logfmt", to="<w@example.net>", queue_id="4B") + "\n")
    status, told, _ = call(capsys, "report", "--would-have", "--config", defaults, log)
    assert status == 0
    assert "mode reject: 2 recipients refused, 0 deferred, 2 messages hit" in told
    assert "  example.net: 1 refused, 0 deferred, mostly requiretls_not_offered\n    4B\n" in told
    arguments = ("report", "--would-have", "--config", defaults, "--format", "json", log)
    found = json.loads(call(capsys, *arguments).out)
    assert [(item["mode"], item["refused"], item["deferred"]) for item in found] == [
        ("defer", 0, 2),
        ("reject", 2, 0),
    ]
    assert found[1]["domains"]["example.org"]["messages"] == ["4A"]


def test_of_many_messages_the_first_are_shown(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{line(queue_id=f'4{number:04}')}\n" for number in range(1200)))
    arguments = ("report", "--would-have", "--config", defaults, log)
    assert "\n    40000 40001 40002 40003 40004 and more\n" in call(capsys, *arguments).out
    told = json.loads(call(capsys, *arguments, "--format", "json").out)
    (rejected,) = [mode for mode in told if mode["mode"] == "reject"]
    assert rejected["messages"] == 1200
    assert len(rejected["domains"]["example.org"]["messages"]) == MAX_MESSAGES


def test_what_strangers_wrote_is_printed_as_printable_text(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    log.write_text(line(to=f"<u@{evil}>", queue_id=evil, nexthop=evil) + "\n")
    status, told, _ = call(capsys, "report", "--would-have", "--config", defaults, log)
    assert status == 0
    assert all(text.isascii() and text.isprintable() for text in told.splitlines())
    assert "  \\x1b]0;owned\\x07" in told


def test_a_log_that_cannot_be_read_is_told(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("report", "--would-have", "--config", defaults, tmp_path / "none")
    status, told, error = call(capsys, *arguments)
    assert (status, told) == (2, "")
    assert "No such file" in error


def test_without_a_log_the_journal_of_the_unit_is_read(
    defaults: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/arguments\necho '{line()}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    status, told, _ = call(capsys, "report", "--would-have", "--config", defaults, "--days", 3)
    assert status == 0
    assert "mode reject: 1 recipients refused" in told
    assert (tmp_path / "arguments").read_text().startswith(f"--unit {UNIT} --since -3d ")


def test_without_tables_there_is_no_domain_to_report_on(
    defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told, _ = call(capsys, "report", "--config", defaults)
    assert status == 0
    assert "no domain has a rule" in told


# ---------------------------------------------------------------- can it be switched on


@pytest.mark.parametrize(
    "arguments",
    [
        ("--would-have", "--format", "html"),
        ("--would-have", "--from", "-"),
        ("--from", "-", "mail.log"),
        ("counters:", "mail.log"),
        ("--would-have", "counters:"),
        ("--limit", "0"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_usage(
    arguments: tuple[str, ...], defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told, error = call(capsys, "report", "--config", defaults, *arguments)
    assert (status, told) == (2, "")
    assert error.startswith("Usage: ")


def test_a_log_in_which_nothing_is_understood_is_told(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("nothing of ours\n")
    status, told, error = call(capsys, "report", "--config", defaults, log)
    assert (status, told) == (2, "")
    assert "no line of the milter or of Postfix was found" in error


def test_without_any_mail_nothing_is_known_in_any_form(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(line(nexthop="local", reason="local", forecast="2.0.0") + "\n")
    arguments = ("report", "--config", alone, log)
    status, told, _ = call(capsys, *arguments)
    assert status == 0
    assert told.startswith("Nothing is known: no next hop was assessed.\n")
    assert json.loads(call(capsys, *arguments, "--format", "json").out)["answer"] == "unknown"
    told = call(capsys, "report", "--config", alone, "--format", "html").out
    assert told.startswith("<!DOCTYPE html>\n<html ")


def test_a_file_that_cannot_be_written_is_told(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "report"
    status, told, error = call(capsys, "report", "--config", defaults, "--output", path)
    assert (status, told) == (2, "")
    assert error == f"error: {path}: No such file or directory\n"


def test_a_device_that_is_full_is_told(defaults: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = call(capsys, "report", "--config", defaults, "--output", "/dev/full")
    assert status == 2
    assert error == "error: /dev/full: No space left on device\n"


def test_no_colours_go_to_a_file(
    defaults: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, log = tmp_path / "report", tmp_path / "log"
    log.write_text(line() + "\n")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    arguments = ("report", "--would-have", "--config", defaults, log)
    assert call(capsys, *arguments, "--output", path) == (0, "", "")
    assert path.read_text().startswith("mode defer: 0 recipients refused, 1 deferred, ")


def test_any_report_can_go_to_a_file(
    defaults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report"
    path.write_text("earlier\n" * 100)
    assert call(capsys, "report", "--config", defaults, "--output", path) == (0, "", "")
    assert path.read_text() == "no domain has a rule of its own in [rules]\n"
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
