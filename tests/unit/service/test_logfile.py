"""The log file is opened anew after a rotation, also if nobody says so, and when it is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.service.logfile import LOOK, PATIENCE, LogFile, LogFileError
from requiretls_milter.telemetry import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = os.dup(log.STDERR)
    yield
    os.dup2(before, log.STDERR)
    os.close(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    return tmp_path / "dir" / "log"


def write(text: str) -> None:
    os.write(log.STDERR, text.encode())


def opened(descriptor: int | None) -> bool:
    """Whether there is one, which is closed."""
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def test_the_file_takes_the_place_of_standard_error_and_is_appended_to(path: Path) -> None:
    path.write_text("before\n")
    LogFile(str(path))
    write("after\n")
    assert path.read_text() == "before\nafter\n"


def test_a_new_file_is_for_its_owner_and_group(path: Path) -> None:
    LogFile(str(path))
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_signal_opens_it_anew(path: Path) -> None:
    file = LogFile(str(path))
    rotated = path.rename(path.with_suffix(".1"))
    descriptor = file.reopen()
    assert descriptor is not None
    os.write(descriptor, b"of another process\n")
    os.close(descriptor)
    write("ours\n")
    assert path.read_text() == "of another process\nours\n"
    assert rotated.read_text() == ""


def test_while_it_is_in_its_place_nothing_is_done(path: Path) -> None:
    file = LogFile(str(path))
    assert file.look(0.0) is None
    assert file.look(LOOK) is None


def test_another_file_in_its_place_is_noticed_at_once(path: Path) -> None:
    file = LogFile(str(path))
    path.rename(path.with_suffix(".1"))
    path.touch()
    assert opened(file.look(10.0))
    write("here\n")
    assert path.read_text() == "here\n"


def test_a_renamed_file_is_written_until_whoever_renamed_it_had_time_to_make_another(
    path: Path,
) -> None:
    file = LogFile(str(path))
    rotated = path.rename(path.with_suffix(".1"))
    assert file.look(10.0) is None
    write("still\n")
    assert not path.exists()
    assert opened(file.look(10.0 + PATIENCE))
    assert path.exists()
    assert rotated.read_text() == "still\n"


def test_a_deleted_file_is_made_anew_at_once(path: Path) -> None:
    file = LogFile(str(path))
    path.unlink()
    assert opened(file.look(10.0))
    assert path.exists()


def test_without_its_directory_each_line_is_refused_until_it_is_back(path: Path) -> None:
    file = LogFile(str(path))
    path.unlink()
    path.parent.rmdir()
    assert opened(file.look(10.0))  # the pipe without a reader is for all processes
    with pytest.raises(BrokenPipeError):
        write("lost\n")
    assert file.look(11.0) is None
    path.parent.mkdir()
    assert opened(file.look(12.0))
    write("kept\n")
    assert path.read_text() == "kept\n"


def test_a_renamed_file_goes_on_if_no_other_can_be_made(path: Path) -> None:
    file = LogFile(str(path))
    moved = path.parent.rename(path.parent.with_name("moved"))
    assert file.look(10.0) is None
    assert file.look(10.0 + PATIENCE) is None
    write("not lost\n")
    assert (moved / "log").read_text() == "not lost\n"


@pytest.mark.parametrize("what", ["missing/log", "dir", "fifo", "/dev/null"])
def test_what_is_no_file_to_write_is_told(what: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LogFileError, match=r"^cannot open /"):
        LogFile(str(tmp_path / what))
