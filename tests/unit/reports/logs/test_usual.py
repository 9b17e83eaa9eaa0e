"""Which logs of a host are read if none is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from requiretls_milter.reports.logs.usual import all_logs, milter_logs

NOW = 1_800_000_000.0
OWN = "var/log/requiretls-milter/requiretls-milter.log"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without anything."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def has_journal(root: Path) -> None:
    program = root / "bin/journalctl"
    program.touch(0o755)


def write(root: Path, name: str, age: float = 0) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (NOW - age, NOW - age))
    return str(path)


def test_with_a_journal_and_a_file_of_mail_each_is_read_for_its_program(root: Path) -> None:
    has_journal(root)
    mail = write(root, "var/log/mail.log")
    assert all_logs(7, NOW, root) == ["journal:", mail]
    assert milter_logs(7, NOW, root) == ["journal:"]


def test_with_a_journal_alone_it_has_both(root: Path) -> None:
    has_journal(root)
    assert all_logs(7, NOW, root) == ["journal:", "journal:mail"]


def test_a_file_of_mail_that_nobody_writes_any_more_does_not_hide_the_journal(root: Path) -> None:
    has_journal(root)
    write(root, "var/log/mail.log", age=8 * 86_400)
    assert all_logs(7, NOW, root) == ["journal:", "journal:mail"]


def test_without_a_journal_the_milter_has_a_file_of_its_own_or_is_with_the_mail(root: Path) -> None:
    mail = write(root, "var/log/maillog")
    assert milter_logs(7, NOW, root) == all_logs(7, NOW, root) == [mail]
    own = write(root, OWN)
    assert milter_logs(7, NOW, root) == [own]
    assert all_logs(7, NOW, root) == [own, mail]


def test_rotated_files_are_read_as_far_back_as_was_asked(root: Path) -> None:
    day = 86_400
    found = [
        write(root, "var/log/mail.log"),
        write(root, "var/log/mail.log-20261127", age=day),
        write(root, "var/log/mail.log.1", age=2 * day),
        write(root, "var/log/mail.log.2.gz", age=6 * day),
    ]
    write(root, "var/log/mail.log.3.gz", age=9 * day)
    write(root, "var/log/mail.log.bak")
    (root / "var/log/mail.log.4").mkdir()
    assert sorted(all_logs(7, NOW, root)) == sorted(found)


def test_a_host_without_logs_has_none(root: Path) -> None:
    assert all_logs(7, NOW, root) == []
