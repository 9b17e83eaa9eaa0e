"""Logging: structlog to stderr, one line for each event, as logfmt or JSON.

Values come from hostile mail servers and senders: each is made printable ASCII and
cut to :data:`MAX_VALUE` characters, so that one event is one line (R62). If
the journal reads stderr, a line begins with its priority as in sd-daemon(3) and has
no time, since the journal has a better one; otherwise it has the time in UTC. What
libraries log through :mod:`logging` takes the same path.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

from requiretls_milter.syntax.text import bounded, escape

MAX_VALUE = 1000
"""Characters of one value."""

MAX_TRACEBACK = 8000
"""Characters of a traceback, of which the end is kept."""

MAX_KEYS = 60
"""Keys in one line."""

Format = Literal["logfmt", "json"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_PRIORITY: Mapping[str, int] = {
    "debug": 7,
    "info": 6,
    "warning": 4,
    "error": 3,
    "critical": 2,
    "exception": 3,
}
"""sd-daemon(3)."""

_process = ""


def get_logger(name: str) -> Any:
    """A logger whose lines have ``component=name``; follows every later :func:`configure`."""
    return structlog.get_logger(component=name)


def set_process(name: str) -> None:
    """Put ``process=name`` on each line of this process, which is one of several."""
    global _process
    _process = name


def configure(format: str = "logfmt", level: str = "info") -> None:
    """Set up logging; may be called again.

    Args:
        format: "logfmt" or "json".
        level: the lowest level that is logged, "debug" to "error".

    Raises:
        ValueError: an unknown format or level.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is not one of {', '.join(LEVELS)}")
    if format not in ("logfmt", "json"):
        raise ValueError(f"log format {format!r} is neither logfmt nor json")
    journal = stderr_is_journal()
    ours: list[Any] = [structlog.stdlib.add_log_level, _add_process]
    if not journal:
        ours.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    finish: list[Any] = [structlog.processors.format_exc_info, printable_event]
    if format == "json":
        render: Any = structlog.processors.JSONRenderer()
    else:
        render = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    last = [*finish, _Line(render, journal)]
    structlog.configure(
        processors=[*ours, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*ours, _add_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries may only report that something is wrong.
    root.setLevel(max(LEVELS[level], logging.WARNING) if level != "debug" else logging.INFO)
    logging.captureWarnings(True)


def stderr_is_journal() -> bool:
    """Whether stderr is a stream to the journal ($JOURNAL_STREAM, systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (OSError, ValueError, AttributeError):
        # No such variable, or a stderr that is closed or is not a file.
        return False


def loggable(value: object, limit: int = MAX_VALUE) -> str:
    """``value`` as printable ASCII on one line, at most ``limit`` characters (R62)."""
    text = value if isinstance(value, str) else str(value)
    text = bounded(text, limit)
    return text if text.isascii() and text.isprintable() else bounded(escape(text), limit)


class _Stderr:
    """The output of structlog: one write(2) for each line, and never an exception.

    ``sys.stderr`` is looked up for each line, since it may have been replaced. A log
    that cannot be written must not end a mail transaction.
    """

    def __init__(self, *_: object) -> None:
        pass

    def _write(self, line: str) -> None:
        _write_line(line)

    msg = debug = info = warning = error = critical = exception = fatal = log = _write


class _Handler(logging.Handler):
    """The output of what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - such as a library's bad format string
            line = f"level=error event=log_failed error={type(error).__name__}"
        _write_line(line)


def _write_line(line: str) -> None:
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # stderr is closed or gone, and there is no other place to report that.
        return


class _Line:
    """Renders an event, with its priority before it if the journal reads the line."""

    def __init__(self, render: Any, journal: bool) -> None:
        self._render = render
        self._journal = journal

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = _PRIORITY.get(str(event.get("level")), 6)
        line = str(self._render(logger, method, event))
        return f"<{priority}>{line}" if self._journal else line


def _add_process(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _process:
        event.setdefault("process", _process)
    return event


def _add_library(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["component"] = record.name
    return event


def printable_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make every key and value of an event printable and bounded (R62); a structlog processor."""
    safe: dict[str, Any] = {}
    for key, value in list(event.items())[:MAX_KEYS]:
        name = loggable(key, 64).replace(" ", "_").replace("=", "_") or "_"
        if value is None or isinstance(value, bool | int | float):
            safe[name] = value
        elif key == "exception":
            safe[name] = loggable(str(value)[-MAX_TRACEBACK:], MAX_TRACEBACK)
        else:
            safe[name] = loggable(value)
    return safe
