"""What is not TOML, and what to write instead: the whole line. Pure.

People write ``mode = reject``, ``require = True``, ``[rules.recipient.*.partner.example]`` or
``timeout = 5s``. tomllib says where it stopped; :func:`syntax_mistake` looks at that line and
proposes one that is TOML. It proposes nothing that does not parse.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.config.places import KeyPath, scan
from requiretls_milter.syntax.secrecy import has_secrets
from requiretls_milter.syntax.text import bounded, quoted

MAX_LINE = 300
"""Characters of a line that is proposed."""

DOMAIN_TABLES = ("rules.recipient", "rules.nexthop", "rules.sender")
"""Tables whose own tables have the names of domains."""

NAMED_TABLES = (*DOMAIN_TABLES, "rules.list", "mta.transport")
"""Tables whose own tables the operator names."""

_STOPPED = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_OPEN_QUOTE = r"Illegal character '\n'"
_QUOTES = str.maketrans("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb", '"""\'\'""')
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_HEADING = re.compile(r"\s*\[+\s*(?P<name>[^#]*?)\s*(?:\]+\s*)?(?:#.*)?")
_PAIR = re.compile(r"\s*(?P<key>[^=:\s]+|\"[^\"]*\"?)\s*(?:=|:\s|\s)\s*(?P<value>.*?)\s*")

BOOLEANS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false"} | {
    "off": "false"
}
"""What people write for the two booleans of TOML."""

WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|sec|secs|seconds?)", re.IGNORECASE | re.ASCII)
"""A number of seconds with its unit, which TOML has not."""


def syntax_mistake(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, int, str]:
    """Say where a *text* is not TOML, and why: line, column, and a sentence."""
    found = _STOPPED.search(str(error))
    why = str(error) if found is None else str(error)[: found.start()]
    lines = text.split("\n")
    if found is None or found["line"] is None:  # at the end: something has no end
        why = f"{why}; what begins here is not closed"
        number, column = scan(text).line_of(scan(text).begun), 1
    else:
        number, column = int(found["line"]), int(found["column"])
    line = lines[number - 1] if number <= len(lines) else ""
    if twice := _twice(text, number):
        return number, 1, twice
    if why == _OPEN_QUOTE:
        why = "a quote is not closed on this line"
    instead = _instead(line)
    shown = instead and not has_secrets(line)  # a line that could be copied has its password
    hint = f"; write {bounded(instead, MAX_LINE)}" if shown else ""
    return number, column, f"not valid TOML: {why}{hint}"


# ---------------------------------------------------------------- what stands twice


def _twice(text: str, number: int) -> str:
    """The sentence about a table or key of a line that an earlier line has too."""
    lines = text.split("\n")
    before = scan("\n".join(lines[: number - 1]) + "\n")
    line = scan(lines[number - 1])
    if line.headings:
        path = line.headings[0][0]
        first = next((offset for known, offset in before.headings if known == path), None)
        if first is None:
            return ""
        return (
            f"{heading(path)} stands on line {before.line_of(first)} already: put all keys of "
            "this table below one heading"
        )
    if not line.keys:
        return ""
    table = before.headings[-1][0] if before.headings else ()
    path = table + max(line.keys, key=len)
    if path not in before.keys:
        return ""
    return (
        f"{path[-1]} stands on line {before.line_of(before.keys[path])} already: keep one of the "
        "two lines"
    )


# ---------------------------------------------------------------- a line that is TOML


def heading(path: KeyPath) -> str:
    """The heading of a table: ``[rules.recipient."example.org"]``."""
    return f"[{'.'.join(map(key_text, path))}]"


def key_text(name: str | int) -> str:
    """A key as TOML has it, in quotes if it needs them."""
    text = str(name)
    bare = _BARE_KEY.fullmatch(text) and "." not in text
    return text if bare else quoted(text, MAX_LINE)


def _instead(line: str) -> str:
    if _is_toml(line):  # what is wrong stands before it
        return ""
    for candidate in (_heading_instead(line), *_pairs_instead(line)):
        if candidate and _is_toml(candidate):
            return candidate
    return ""


def _is_toml(line: str) -> bool:
    try:
        tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True


def _heading_instead(line: str) -> str:
    if not line.lstrip().startswith("["):
        return ""
    match = _HEADING.fullmatch(line)
    if match is None:
        return ""
    name = match["name"].translate(_QUOTES)
    for table in NAMED_TABLES:
        if name.startswith(f"{table}."):
            written = name.removeprefix(f"{table}.").strip("\"' ")
            chosen = _domain(written) if table in DOMAIN_TABLES else written
            return f"[{table}.{quoted(chosen, MAX_LINE)}]"
    return f"[{name}]"


def _domain(written: str) -> str:
    """The domain that was meant by *written*; *written* itself if that cannot be told."""
    try:
        domain_pattern(written)
    except PatternError as error:
        return error.instead or written
    return written


def _pairs_instead(line: str) -> Iterator[str]:
    match = _PAIR.fullmatch(line.translate(_QUOTES))
    if match is None or match["value"].startswith(('"""', "'''")):
        return
    name, written = match["key"].strip("\"'"), match["value"]
    if name.startswith("*."):
        name = _domain(name)
    value, comment = written, ""
    if "#" in written:
        value, _, rest = written.partition("#")
        value, comment = value.strip(), f"  #{rest}"
    shown = match["key"] if _BARE_KEY.fullmatch(match["key"]) else quoted(name, MAX_LINE)
    for candidate in _values_instead(name, value):
        yield f"{shown} = {candidate}{comment}"


def _values_instead(name: str, value: str) -> Iterator[str]:
    yield value
    if value.lower() in BOOLEANS and name != "mode":  # which may be "off"
        yield BOOLEANS[value.lower()]
    if unit := WITH_UNIT.fullmatch(value):
        yield unit[1]
    if value.startswith("["):
        entries = [entry.strip(" \"'") for entry in value.strip("[] ").split(",")]
        yield f"[{', '.join(quoted(entry, MAX_LINE) for entry in entries if entry)}]"
    elif value and not value.startswith("{"):
        yield quoted(value.strip("\"'"), MAX_LINE)
