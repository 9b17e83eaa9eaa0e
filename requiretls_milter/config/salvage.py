"""What a configuration still says although it has mistakes: for commands to the running service.

The service may run with what the file said before the mistakes were made. Whoever wants to suspend
its rules should not have to mend the file first.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from requiretls_milter.config.loading import DEFAULT_PATH, texts
from requiretls_milter.config.mistakes import ConfigError

_BEFORE_HEADINGS = re.compile(r"^(?=[ \t]*\[)", re.MULTILINE)


def engine_socket_in(path: Path | None) -> str:
    """The engine's socket that the files name; "" if they name none, or cannot be read.

    Args:
        path: the main file; None is the usual one.
    """
    main = path or DEFAULT_PATH
    try:
        files = [*texts(main).values()]
    except ConfigError:  # an included file may be what is wrong
        try:
            files = [main.read_text("utf-8", "replace")]
        except OSError:
            return ""
    return next((found for text in files for part in _parts(text) if (found := _socket(part))), "")


def _parts(text: str) -> Iterator[str]:
    """The whole text; then each table by itself, since a quote may be missing in another one."""
    yield text
    top, *tables = _BEFORE_HEADINGS.split(text)
    yield from tables
    for table in tables:  # the mistake may be in this very table
        heading, *lines = table.splitlines()
        yield from (f"{heading}\n{line}" for line in lines)
    yield from top.splitlines()  # engine.socket = "..."


def _socket(part: str) -> str:
    try:
        section = tomllib.loads(part).get("engine")
    except (ValueError, RecursionError):  # brackets, thousands deep
        return ""
    path = section.get("socket") if isinstance(section, dict) else None
    return path if isinstance(path, str) and "\0" not in path else ""
