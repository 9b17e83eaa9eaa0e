"""Find in a line of a log what the milter or Postfix wrote there. Pure.

What stands before it depends on how it came there (syslog, a container, a collector) and is not
parsed: an event is told by its own beginning. What stands before must then look like a prefix and
not like another message, see :func:`is_prefix`. JSON objects of collectors are searched for the
text that they hold.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.reports.logs import milter, postfix
from requiretls_milter.reports.logs.lines import Line
from requiretls_milter.reports.logs.milter import Fields
from requiretls_milter.reports.logs.times import Times, from_number

MAX_PREFIX = 400
"""Characters that may stand before a message."""

MAX_DEPTH = 4
"""Objects within objects that are searched: the journal's, a container's, a collector's."""

MAX_VALUES = 200
"""Values of one object that are searched."""

MAX_MESSAGE_ID = 255
"""Characters of a Message-ID that are kept."""

_WANTED = re.compile(
    rb"to=|recipient|expansion|removed|client=|message-id=|uid=|downgrade|restored|milter\.account"
    rb"|\"MESSAGE\"\s*:\s*\["
)
"""What a line has that any report needs; all others are skipped without a further look."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_COLOURS = 8
"""Changes of colour in a prefix, as ``docker compose logs`` has it; a message keeps its own."""

_OBJECT = re.compile(r'\{\s*"')
_LOGFMT = re.compile(r'[a-z_]+="?\S.* (?:msg|message|line|log)="')
_SYSLOG_ID = re.compile(r"\[ID \d+ [\w.]+\]$")
_QUOTED_GROUP = re.compile(
    r'\[[^\s\]="]+(?: [^\s=\]"]+="(?:[^"\\]|\\.)*")+\]'  # structured data of RFC 5424
    r'|\{\w+="[^"]*"(?:, *\w+="[^"]*")*\}'  # labels
)
_FACILITY = re.compile(
    r"\b(?:mail|daemon|user|local[0-7])\.(?:debug|info|notice|warn(?:ing)?|err): "
)
"""What socklog and the like put before a message; no program's name."""
_CSV_FIELD = re.compile(r'(?:^|(?<=,))(?:"((?:[^"]|"")*)"|([^",]*))(?:,|$)')
_TAG_WITH_PID = re.compile(r"[\w./-]+\[\d+\]:(?=.)")

_MESSAGE_KEYS = ("MESSAGE", "log", "message", "msg", "line", "@message", "textPayload", "_raw")
"""Where journald and collectors put the text of a line; other keys are tried after these."""

_TIME_KEYS = (
    "__REALTIME_TIMESTAMP",
    "_SOURCE_REALTIME_TIMESTAMP",
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "date",
    "DATE",
)


@dataclass(frozen=True, slots=True)
class Logged:
    """An event of the milter: the pairs of its line."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message has come into Postfix's queue; its Message-ID is told apart from its client."""

    queue_id: str
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """A message has left the queue: the next message with this queue ID is another one."""

    queue_id: str


@dataclass(frozen=True, slots=True)
class Other:
    """A line of the milter or of Postfix that no report needs."""


What = Logged | postfix.LogDelivery | Arrived | Removed | Other


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, and when: seconds since the epoch, or None if the line does not say it."""

    what: What
    time: float | None


def event_of(line: Line, times: Times, *, any_line: bool = False) -> Event | None:
    """The event in *line*; None if there is none.

    Args:
        line: of a log.
        times: reads its time.
        any_line: also find events that no report needs, which takes longer.
    """
    if not any_line and _WANTED.search(line.text) is None:
        return None
    # As the milter reads addresses: see milter.adapter.
    text = line.text.decode("utf-8", "backslashreplace")
    return _of_text(text, line.time, times, 0)


def time_of(line: Line, times: Times) -> float | None:
    """The time of any line, also if there is no event in it."""
    if line.time is not None:
        return line.time
    text = line.text.decode("utf-8", "backslashreplace")
    start = _OBJECT.search(text)
    if start is not None and (found := _load(text[start.start() :])) is not None:
        time = _time_of_object(found, times)
        return time if time is not None else times.of(text[: start.start()])
    return times.of(text)


def is_prefix(text: str) -> bool:
    """Whether *text* can be what stands before a message, and holds no message of its own.

    A message that was written by a program begins after the program's name and a colon, so there
    is no colon with a blank before. Text of strangers stands in quotes, in angle brackets or in
    parentheses, or after such a colon.
    """
    text = text.rstrip()
    if len(text) > MAX_PREFIX:
        return False
    text = _FACILITY.sub("", _SYSLOG_ID.sub("", text), count=1).rstrip()
    if '"' in text:
        text = _QUOTED_GROUP.sub("", text)
    return not (
        ": " in text or '"' in text or "=<" in text or "(" in text or _TAG_WITH_PID.search(text)
    )


def _of_text(text: str, outer: float | None, times: Times, depth: int) -> Event | None:
    if text.startswith("\x1b"):
        text = _COLOUR.sub("", text, count=_MAX_COLOURS)
    text = text.replace("\ufeff", "").strip("\0\x1e \t\r\n")
    start = _OBJECT.search(text) if "{" in text else None
    if start is not None and is_prefix(text[: start.start()]):
        time = _time(text[: start.start()], outer, times)
        return _of_object_text(text[start.start() :], time, times, depth)
    if '"' in (text[:1], text[-1:]) and depth < MAX_DEPTH:
        event = _of_quoted(text, outer, times, depth)
        if event is not None:
            return event
    if _LOGFMT.match(text):
        fields = milter.pairs(text)[0]
        if "event" not in fields and depth < MAX_DEPTH:
            return _of_object(fields, outer, times, depth)
    return _of_milter(text, outer, times) or _of_postfix(text, outer, times)


def _of_quoted(text: str, outer: float | None, times: Times, depth: int) -> Event | None:
    """Find the event in a string of JSON, as jq prints it, or in a quoted field of a CSV line.

    What stands between the fields must be what can stand before a message.
    """
    with contextlib.suppress(ValueError):
        string = json.loads(text)
        return _of_text(string, outer, times, depth + 1) if isinstance(string, str) else None
    time = outer
    place = 0
    while (field := _CSV_FIELD.match(text, place)) is not None and field.end() > place:
        place = field.end()
        if field[1] is None:
            if not is_prefix(field[2]):
                return None
            time = _time(field[2], time, times)
            continue
        value = field[1].replace('""', '"')
        event = _of_text(value, time, times, depth + 1)
        if event is not None and not isinstance(event.what, Other):
            return event
        time = _time(value, time, times)
    return None


def _time(prefix: str, outer: float | None, times: Times) -> float | None:
    exact = times.exact(prefix)
    if exact is not None or outer is not None:
        return exact if exact is not None else outer
    return times.without_year(prefix)


# ---------------------------------------------------------------- the programs' own lines


def _of_milter(text: str, outer: float | None, times: Times) -> Event | None:
    begin = milter.BEGIN.search(text) if "event=" in text else None
    if begin is None or not is_prefix(text[: begin.start()]):
        return None
    fields = milter.of_logfmt(text[begin.start() :])
    if not fields:
        return None
    time = times.exact(fields.get("timestamp", ""))
    prefix = text[: begin.start()]
    return Event(Logged(fields), time if time is not None else _time(prefix, outer, times))


def _of_postfix(text: str, outer: float | None, times: Times) -> Event | None:
    begin = postfix.BEGIN.search(text)
    if begin is None or not is_prefix(text[: begin.start()]):
        tag = postfix.TAG.search(text[:MAX_PREFIX])
        known = tag is not None and is_prefix(text[: tag.start()])
        return Event(Other(), _time(text, outer, times)) if known else None
    what = _message(begin, text)
    return None if what is None else Event(what, _time(text[: begin.start()], outer, times))


def _message(begin: re.Match[str], text: str) -> What | None:
    queue_id, what = begin["queue_id"], begin["what"]
    if what.startswith("to="):
        found = postfix.delivery(queue_id, text[begin.start("what") :])
        return found if found is not None else Other()
    if what.startswith("removed"):
        return Removed(queue_id)
    if "message-id" in what:
        return Arrived(queue_id, text[begin.end() :].strip()[:MAX_MESSAGE_ID])
    return Arrived(queue_id)


# ---------------------------------------------------------------- objects


def _load(text: str) -> Mapping[str, object] | None:
    try:
        found = json.loads(text.rstrip().rstrip(","))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_object_text(text: str, outer: float | None, times: Times, depth: int) -> Event | None:
    found = _load(text)
    if found is not None:
        return _of_object(found, outer, times, depth)
    fields = milter.of_cut_object(text)
    return Event(Logged(fields), outer) if fields else None


def _of_object(
    found: Mapping[str, object], outer: float | None, times: Times, depth: int
) -> Event | None:
    own = _time_of_object(found, times)
    time = own if own is not None else outer
    fields = milter.of_object(found)
    ours = Event(Logged(fields), time) if fields else None
    if fields.get("event") in milter.FORECASTS or depth >= MAX_DEPTH:
        return ours
    for value in _values(found):
        if isinstance(value, str):
            event = _of_text(value, time, times, depth + 1)
        elif isinstance(value, dict):
            event = _of_object(value, time, times, depth + 1)
        else:
            event = None
        if event is not None:
            return event
    return ours


def _values(found: Mapping[str, object]) -> Iterator[object]:
    for key in _MESSAGE_KEYS:
        if key in found:
            yield _octets(found[key])
    for number, (key, value) in enumerate(found.items()):
        if number == MAX_VALUES:
            return
        if key not in _MESSAGE_KEYS:
            yield value


def _octets(value: object) -> object:
    """The journal writes a text that is no UTF-8 as a list of its octets."""
    if not isinstance(value, list):
        return value
    try:
        return bytes(value).decode("utf-8", "backslashreplace")
    except (TypeError, ValueError):
        return value


def _time_of_object(found: Mapping[str, object], times: Times) -> float | None:
    for key in _TIME_KEYS:
        value = found.get(key)
        if isinstance(value, str):
            time = from_number(int(value)) if _is_number(value) else times.of(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            time = from_number(value)
        else:
            time = None
        if time is not None:
            return time
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20
