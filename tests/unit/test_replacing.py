from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.replacing import replace, replacement


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    former = os.umask(0o022)
    yield
    os.umask(former)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_reader_that_has_the_old_file_keeps_it(file: Path) -> None:
    with file.open("rb") as reader:
        replace(file, b"new")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"


def test_until_it_is_whole_the_old_file_stands_there(file: Path) -> None:
    with replacement(file) as new:
        new.write(b"half")
        new.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"half"


def test_a_file_that_was_not_there_is_made(tmp_path: Path) -> None:
    replace(tmp_path / "new", b"text")
    assert (tmp_path / "new").read_bytes() == b"text"
    assert mode_of(tmp_path / "new") == 0o644


def test_permissions_can_be_given_whatever_the_umask(file: Path) -> None:
    os.umask(0o077)
    replace(file, b"new", mode=0o664)
    assert mode_of(file) == 0o664


def test_what_is_private_is_so_from_its_first_octet_on(file: Path) -> None:
    with replacement(file, mode=0o600) as new:
        assert stat.S_IMODE(os.fstat(new.fileno()).st_mode) == 0o600
    assert mode_of(file) == 0o600


def test_a_symbolic_link_is_replaced_and_not_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    replace(link, b"new")
    assert not link.is_symlink()
    assert file.read_bytes() == b"old"


def test_if_it_cannot_be_written_whole_the_old_file_stays_and_nothing_else(file: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, former[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            replace(file, b"too long")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_if_the_old_file_cannot_be_replaced_nothing_stays_behind(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    with pytest.raises(IsADirectoryError):
        replace(directory, b"text")
    assert list(tmp_path.iterdir()) == [directory]
