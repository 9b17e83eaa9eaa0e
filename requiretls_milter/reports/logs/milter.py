"""The milter's own log lines, in either format of :mod:`requiretls_milter.telemetry.log`. Pure.

A line may be cut by syslog. What is left of it counts if it still says what a report needs: the
pairs stand in the order in which :mod:`requiretls_milter.milter.account` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from requiretls_milter.telemetry.log import MAX_VALUE

Fields = Mapping[str, str]
"""The pairs of a line."""

BEGIN = re.compile(r"(?<![^\s\]:|>])(?:timestamp|level|event)=")
"""Where a line in logfmt begins, behind whatever stands before it."""

_PAIR = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]\S*)?)(?: |\s*$)')
_ESCAPED = re.compile(r"\\(.)")
_JSON_PAIR = re.compile(
    r'[{,]\s*"([^"\\]+)"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|(null)|([^\s",{}\[\]]+))(?=\s*[,}])'
)

RECIPIENT = "recipient"
"""The event of a recipient, which has a forecast."""

EXPANSION = "expansion"
"""The event of what the MTA makes of a recipient, which has a forecast of its own."""

FORECASTS = frozenset({RECIPIENT, EXPANSION})

LAST = "waited"
"""A pair of each line with a forecast, behind all pairs that a report needs of every line."""

_LAST_BEFORE = "action"
"""The same in lines of release 0.1.0, which have it behind the recipient."""


class LoggedForecast(NamedTuple):
    """A forecast as the milter logged it."""

    status: str
    reason: str
    tls: str
    mx: str = ""
    nexthop: str = ""


def of_logfmt(text: str) -> Fields:
    """The pairs of the milter's line with which *text* begins; {} if it is not the milter's."""
    fields, last = pairs(text)
    if "event" not in fields:
        return {}
    if fields["event"] in FORECASTS and not _is_whole(fields):
        del fields[last]  # the line was cut, perhaps within this value
    return fields


def _is_whole(fields: Fields) -> bool:
    """Whether a recipient's line has all that a report needs of every line."""
    names = list(fields)
    if LAST in fields or _LAST_BEFORE not in fields:
        return LAST in fields
    return "to" in fields and names.index("to") < names.index(_LAST_BEFORE)


def pairs(text: str) -> tuple[dict[str, str], str]:
    """The pairs with which *text* begins, and the name of the last one.

    The pairs have to follow each other without a gap: a value that a stranger chose is in quotes,
    and what a stranger wrote elsewhere is no pair.
    """
    fields: dict[str, str] = {}
    end, last = 0, ""
    while (match := _PAIR.match(text, end)) is not None:
        last = match[1]
        quoted = match[2]
        value = (match[3] or "") if quoted is None else _unescaped(quoted)
        fields.setdefault(last, value[:MAX_VALUE])
        end = match.end()
    return fields, last


def of_object(found: Mapping[str, object]) -> Fields:
    """The pairs of a line in JSON; {} if the object is not the milter's."""
    if not isinstance(found.get("event"), str):
        return {}
    return {
        str(key): "" if value is None else str(value)[:MAX_VALUE] for key, value in found.items()
    }


def of_cut_object(text: str) -> Fields:
    """The pairs of a recipient's line in JSON whose end was cut; {} if it is not such a line."""
    fields: dict[str, str] = {}
    end = 0
    while (match := _JSON_PAIR.match(text, end)) is not None:
        name, quoted, null, other = match.groups()
        value = _unescaped(quoted) if quoted is not None else "" if null else other
        fields.setdefault(name, value[:MAX_VALUE])
        end = match.end()
    # In release 0.1.0 the event stood at the end, which was cut. Only such a line has both.
    if fields.get("component") == "milter.account" and {"to", "forecast"} <= fields.keys():
        return {**fields, "event": EXPANSION if "expansion" in fields else RECIPIENT}
    return fields if "event" in fields else {}


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text
