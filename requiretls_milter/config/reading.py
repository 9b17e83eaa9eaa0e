"""The files of a configuration: which ones there are, what is in them, whether they have changed.

:class:`ConfigReader` reads each file once and notes what it was then, so that :class:`Watched` can
tell later whether a file, or the files that a pattern matches, are not the same any more.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

MAX_NAMES = 10_000
"""Names in a directory of which a pattern may match some: beyond it the directory is wrong."""

Mark = tuple[int, int, int, int] | None
"""What changes whenever a file does; None for a file that is not there."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The files that a configuration was read from, as they were then.

    Attributes:
        files: each file, the main one first, with what it was.
        patterns: each pattern with the directory in which it was looked up, and what it matched.
    """

    files: tuple[tuple[Path, Mark], ...] = ()
    patterns: tuple[tuple[Path, str, tuple[Path, ...]], ...] = ()

    def have_changed(self) -> bool:
        """Say whether reading them now might give something else."""
        return any(_mark_of(file) != mark for file, mark in self.files) or any(
            _matching_now(directory, pattern) != matched
            for directory, pattern, matched in self.patterns
        )


@dataclass(frozen=True, slots=True)
class ConfigOrigin:
    """Where a configuration is from.

    Attributes:
        watched: the files, as they were when they were read.
        included: the files that the main one includes.
        password_file: the one with ``store.url``.
        warnings: what is probably not meant with these files.
    """

    watched: Watched = Watched()
    included: tuple[Path, ...] = ()
    password_file: Path | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class ConfigReader:
    """Reads the files of one configuration, and notes what they were.

    Attributes:
        instead: what is to be taken for the content of some of them, which are not read.
    """

    instead: Mapping[Path, bytes] = field(default_factory=dict)
    _files: list[tuple[Path, Mark]] = field(default_factory=list)
    _patterns: list[tuple[Path, str, tuple[Path, ...]]] = field(default_factory=list)

    @property
    def watched(self) -> Watched:
        """What was read."""
        return Watched(tuple(self._files), tuple(self._patterns))

    def any_file(self, path: Path, limit: int) -> bytes:
        """Read *limit* bytes of a file and one more, if there are so many; a pipe will do.

        Raises:
            OSError: it cannot be read.
        """
        return self._read(path, limit, os.O_RDONLY, only_regular=False)

    def regular_file(self, path: Path, limit: int) -> bytes:
        """The same of a file proper: nothing that could keep us waiting.

        Raises:
            OSError: it cannot be read, or is no regular file.
        """
        return self._read(path, limit, os.O_RDONLY | os.O_NONBLOCK, only_regular=True)

    def _read(self, path: Path, limit: int, flags: int, *, only_regular: bool) -> bytes:
        if path in self.instead:
            return self.instead[path][: limit + 1]
        self._files.append((path, None))
        with open(path, "rb", opener=lambda name, _: os.open(name, flags | os.O_CLOEXEC)) as file:
            found = os.fstat(file.fileno())
            self._files[-1] = path, _mark(found)
            if only_regular and not stat.S_ISREG(found.st_mode):
                is_directory = stat.S_ISDIR(found.st_mode)
                raise OSError(
                    errno.EINVAL, "Is a directory" if is_directory else "is no regular file"
                )
            return file.read(limit + 1)

    def matching(self, directory: Path, pattern: str) -> tuple[Path, ...]:
        """The files below *directory* that *pattern* matches, by name.

        Raises:
            OSError: a directory cannot be listed, or has too many names.
        """
        self._patterns.append((directory, pattern, ()))
        matched = matching(directory, pattern)
        self._patterns[-1] = directory, pattern, matched
        return matched


def is_pattern(text: str) -> bool:
    """Whether *text* has a character that stands for others; a file that it names need not be."""
    return any(character in text for character in "*?[")


def matching(directory: Path, pattern: str) -> tuple[Path, ...]:
    """The paths that *pattern* matches, as a shell has them: sorted, without hidden ones.

    A directory that is not there matches nothing. One that may not be listed is an error: rules
    must not vanish with a permission.

    Raises:
        OSError: see above.
    """
    found = [directory]
    for part in PurePath(pattern).parts:
        if is_pattern(part):
            found = [above / name for above in found for name in _names(above, part)]
        else:
            found = [above / part for above in found]
    return tuple(sorted(path for path in found if _is_there(path)))


def _names(directory: Path, pattern: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            names = []
            for count, entry in enumerate(entries):
                if count >= MAX_NAMES:
                    raise OSError(errno.E2BIG, f"more than {MAX_NAMES} names", str(directory))
                names.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    hidden = pattern.startswith(".")
    return [
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern) and (hidden or not name.startswith("."))
    ]


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _matching_now(directory: Path, pattern: str) -> tuple[Path, ...]:
    try:
        return matching(directory, pattern)
    except OSError:
        return ()


def _mark_of(path: Path) -> Mark:
    try:
        return _mark(path.stat())
    except OSError:
        return None


def _mark(found: os.stat_result) -> Mark:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
