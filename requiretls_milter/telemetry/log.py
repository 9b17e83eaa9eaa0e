"""Logging: structlog to stderr, one line for each event, as logfmt or JSON.

Values come from hostile mail servers and senders: each is made printable ASCII and
cut to :data:`MAX_VALUE` characters, so that one event is one line (R62). If
the journal reads stderr, a line begins with its priority as in sd-daemon(3) and has
no time, since the journal has a better one; otherwise it has the time in UTC. What
libraries log through :mod:`logging` takes the same path.

A line has the keys that say something: one whose value is empty is left out, and ``component`` and
``process``, which are of use to those who look for a fault, stand at the end of each line if the
level is debug. Time, level and event come first, then the keys in the order of the call: what
happened, to whom, why, and the details.

One line is written for each message that asks something. To take it through structlog costs more
than all else that is done for the message, so that :class:`LineLogger` renders it directly: byte
for byte the same.

A command writes its lines at once. The service never waits for its reader: see
:func:`write_at_turns`, :func:`write_in_thread` and :mod:`.output`.

Log line, with keys that stay as they are: ``event=log_lines_dropped`` (with ``lines``).
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import structlog

from requiretls_milter.syntax.text import bounded, escape
from requiretls_milter.telemetry.output import (
    LAST_WORDS,
    Output,
    StandardError,
    ThreadOutput,
    TurnOutput,
)
from requiretls_milter.telemetry.syslog import Syslog
from requiretls_milter.telemetry.targets import Descriptor

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

STDERR = 2
"""The descriptor of standard error."""

_FIRST = ("timestamp", "level", "event")
"""The keys with which a line begins."""

_FOR_DEBUGGING = ("component", "process")
"""The keys with which a line ends, if the level is debug."""

_PLAIN = re.compile(rf"[!#-<>-\[\]-~]{{0,{MAX_VALUE}}}")
"""What logfmt writes as it is: printable ASCII without a blank, quote, = or backslash."""

_process = ""

_direct: _Direct | None = None
"""How lines are rendered without structlog; None unless the format is logfmt."""

_output: Output | None = None
"""Where the lines go; None while they are written at once."""

_syslog: Syslog | None = None
"""The daemon that gets the lines in place of standard error."""


def get_logger(name: str) -> Any:
    """A logger, whose lines have ``component=name`` at level debug.

    It follows every later :func:`configure`.
    """
    return structlog.get_logger(component=name)


def set_process(name: str) -> None:
    """Put ``process=name`` on each line of this process, one of several, if the level is debug."""
    global _process
    _process = name


def to_syslog(daemon: Syslog) -> None:
    """Write to a syslog daemon in place of standard error; before :func:`write_at_turns`."""
    global _syslog
    _syslog = daemon


def write_at_turns() -> None:
    """Write without ever waiting, in a process without threads; :func:`flush` at each turn."""
    _write_to(TurnOutput(_syslog or Descriptor(STDERR), _dropped))


def write_in_thread(descriptor: int) -> None:
    """Write in a thread of its own, in a child after the fork.

    Args:
        descriptor: where standard error led to before the fork.
    """
    if isinstance(_output, TurnOutput):
        _output.forget()
    _write_to(ThreadOutput(_syslog or Descriptor(descriptor), _dropped))


def replace_file(descriptor: int) -> None:
    """Write to another file from now on; *descriptor* is closed."""
    if _output is not None and isinstance(_output.target, Descriptor):
        number = _output.target.number
        os.dup2(descriptor, number, inheritable=number == STDERR)
    os.close(descriptor)


def _write_to(output: Output) -> None:
    global _output
    _output = output
    sys.stderr = StandardError(output.put)


def flush() -> None:
    """Write what the reader takes by now, after :func:`write_at_turns`."""
    if isinstance(_output, TurnOutput):
        _output.flush()


def write_raw(line: str) -> None:
    """Write a line that another program has printed, as it is."""
    _write_line(line)


def take_dropped() -> int:
    """How many lines were dropped since the last call; for ``log_lines_dropped_total``."""
    return 0 if _output is None else _output.take_dropped()


def last_words() -> None:
    """Write what is left at the end of a process, for at most :data:`LAST_WORDS`."""
    global _output, _syslog
    if _output is not None:
        _output.close(LAST_WORDS)
        _output = None
        sys.stderr = sys.__stderr__
    if _syslog is not None:
        _syslog.close()
        _syslog = None


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
    journal = _syslog is not None or stderr_is_journal()
    ours: list[Any] = [structlog.stdlib.add_log_level]
    if not journal:
        ours.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    finish: list[Any] = [structlog.processors.format_exc_info]
    if format == "json":
        finish += [printable_event, structlog.processors.JSONRenderer()]
    else:
        finish.append(logfmt)
    if journal:
        finish.append(_put_priority_first)
    debug = level == "debug"
    processors = [*ours, _for_debugging if debug else _not_for_debugging, _arrange, *finish]
    global _direct
    _direct = None
    if format == "logfmt":
        _direct = _Direct(processors, finish[-1], LEVELS[level], journal, debug)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*ours, _add_library, _arrange],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries may only report that something is wrong.
    root.setLevel(max(LEVELS[level], logging.WARNING) if level != "debug" else logging.INFO)
    logging.captureWarnings(True)


def stderr_is_journal() -> bool:
    """Whether the log is a stream to the journal ($JOURNAL_STREAM, systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(_descriptor())
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (OSError, ValueError, AttributeError):
        # No such variable, or a stderr that is closed or is not a file.
        return False


def _descriptor() -> int:
    if _output is not None and isinstance(_output.target, Descriptor):
        return _output.target.number
    return sys.stderr.fileno()


def loggable(value: object, limit: int = MAX_VALUE) -> str:
    """``value`` as printable ASCII on one line, at most ``limit`` characters (R62)."""
    text = value if isinstance(value, str) else str(value)
    text = bounded(text, limit)
    return text if text.isascii() and text.isprintable() else bounded(escape(text), limit)


@dataclass(frozen=True, slots=True)
class _Direct:
    """What a line takes that is rendered without structlog.

    Attributes:
        processors: structlog's list, which a test may change in place.
        last: the last of them, as long as it is ours.
        threshold: of the level.
        journal: whether a line has a priority in place of the time.
        debug: whether a line ends with its component and process.
    """

    processors: list[Any]
    last: Callable[..., Any]
    threshold: int
    journal: bool
    debug: bool


class LineLogger:
    """Writes lines whose pieces the caller has rendered, byte for byte as :func:`get_logger` does.

    Args:
        component: what ``component=`` says.
        event: what ``event=`` says.
    """

    __slots__ = ("_component", "_event")

    def __init__(self, component: str, event: str) -> None:
        self._component = component
        self._event = event

    def takes(self, level: str) -> bool | None:
        """Whether a line of this level is written; None if it has to go by way of structlog."""
        direct = _direct
        if direct is None or direct.processors[-1] is not direct.last:
            return None
        return LEVELS[level] >= direct.threshold

    def line(self, level: str, pieces: str) -> str:
        """A line, to be handed to :func:`write_lines`.

        Args:
            level: one that :meth:`takes` says is written.
            pieces: what :func:`words` has made of keys and values.
        """
        line = f"level={level} event={self._event} {pieces}"
        if _direct is not None and _direct.debug:
            line = f"{line} {words({'component': self._component, 'process': _process})}"
        if _direct is not None and _direct.journal:
            return f"<{_PRIORITY[level]}>{line}"
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return f"timestamp={now} {line}"


def words(values: Mapping[str, object]) -> str:
    """Render keys and values as they stand in a line of logfmt, but for those that are empty."""
    return " ".join([word(k, v) for k, v in values.items() if v is not None and v != ""])


def following(name: str, value: str) -> str:
    """Render a key behind others, with a blank before it; "" if its value is empty."""
    return f" {word(name, value)}" if value else ""


def word(name: str, value: object) -> str:
    """Render one key, which is a plain word, and its value as they stand in a line of logfmt."""
    if type(value) is str and _PLAIN.fullmatch(value):
        return f"{name}={value}"
    return _word(name, _safe(name, value))


def write_lines(lines: Sequence[str]) -> None:
    """Write lines of :meth:`LineLogger.line`, as many as fit at once."""
    if _output is not None:
        _output.put_all(lines)
        return
    for line in lines:
        _write_line(line)


class _Stderr:
    """The output of structlog: each line whole, and never an exception.

    A log that cannot be written must not end a mail transaction.
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


class _Rendered:
    """An output of structlog that gives the line back."""

    def warning(self, line: str) -> str:
        return line


def _dropped(lines: int) -> str | None:
    """The line that says how many lines are missing at its place."""
    logger = structlog.wrap_logger(_Rendered(), component="log")
    line = logger.warning("log_lines_dropped", lines=lines)
    return None if line is None else str(line)


def _write_line(line: str) -> None:
    if _output is not None:
        _output.put(line)
        return
    try:
        # sys.stderr is looked up for each line, since it may have been replaced.
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # stderr is closed or gone, and there is no other place to report that.
        return


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _for_debugging(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["component"] = event.pop("component", None)
    event["process"] = event.pop("process", _process)
    return event


def _not_for_debugging(
    _: Any, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in _FOR_DEBUGGING:
        event.pop(key, None)
    return event


def _arrange(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the keys into their order and leave out what is empty."""
    first = {key: event[key] for key in _FIRST if key in event}
    return {key: value for key, value in {**first, **event}.items() if not _is_empty(value)}


def _put_priority_first(_: Any, level: str, line: str) -> str:
    return f"<{_PRIORITY.get(level, 6)}>{line}"


def _add_library(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["component"] = record.name
    return event


def printable_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make every key and value of an event printable and bounded (R62); a structlog processor."""
    return {_name(key): _safe(key, value) for key, value in islice(event.items(), MAX_KEYS)}


def logfmt(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """Render an event as :func:`printable_event` and structlog's LogfmtRenderer would, but faster.

    A structlog processor. ``recipient``, the line that is written for each message that asks
    something, has twenty values, and the processors of structlog would take half of the time that
    the message costs.
    """
    found = {}
    for key, value in islice(event.items(), MAX_KEYS):
        name = _name(key)
        if type(value) is str and _PLAIN.fullmatch(value):
            found[name] = f"{name}={value}"
        else:
            found[name] = _word(name, _safe(key, value))
    first = [one for key in _FIRST if (one := found.pop(key, "")) and event[key] is not None]
    return " ".join(first + list(found.values()))


def _word(name: str, value: str | float | None) -> str:
    """``name=value``, the value in quotes if it needs them; for True the name alone."""
    if value is None:
        return f"{name}="
    if isinstance(value, bool):
        return name if value else f"{name}=false"
    text = str(value)
    if " " in text or "=" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{text}"'
    return f"{name}={text}"


def _safe(key: str, value: object) -> str | float | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key == "exception":
        return loggable(str(value)[-MAX_TRACEBACK:], MAX_TRACEBACK)
    return loggable(value)


@functools.lru_cache(maxsize=512)
def _name(key: str) -> str:
    return loggable(key, 64).replace(" ", "_").replace("=", "_") or "_"
