"""Mistakes in a configuration, each as one sentence that begins with its place and its key.

The schema says what is allowed. This module makes plain sentences of what pydantic found, with what
to write instead where that can be told; for an unknown key it looks for the key that was probably
meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.config.places import MAX_DEPTH, KeyPath, Place
from requiretls_milter.config.reading import Watched
from requiretls_milter.config.repair import BOOLEANS, WITH_UNIT, heading, key_text
from requiretls_milter.config.values import TableError, given
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import Mode
from requiretls_milter.syntax.secrecy import without_secrets
from requiretls_milter.syntax.text import bounded, quoted, visible

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
MAX_MISTAKE = 1000
"""Characters of one mistake: all the wrong entries of a table make one mistake together."""

INCLUDE = "include"
"""The key at the top of the main file that names further files."""

ANY_NAME = "*"
"""Stands in a path of the schema for a name that the operator chooses (a domain, a transport)."""


class ConfigError(RequiretlsMilterError):
    """A configuration that cannot be used.

    Conclude: nothing can be started with this file; a service that runs goes on with the
    configuration that it has.

    Attributes:
        mistakes: all of them, in the order of the schema, each on one line of printable ASCII
            without a password, whatever the file holds.
        watched: the files that were read; when they change, the mistakes may be gone.
    """

    def __init__(self, mistakes: tuple[str, ...], watched: Watched | None = None) -> None:
        self.mistakes = tuple(
            bounded(visible(without_secrets(text)), MAX_MISTAKE) for text in mistakes
        )
        self.watched = watched or Watched()
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: the key that it is about, if any, what is wrong, and where that stands."""

    path: KeyPath
    text: str
    place: Place | None = None

    def __str__(self) -> str:
        parts = (str(self.place or ""), dotted(self.path), self.text)
        return ": ".join(part for part in parts if part)


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as TOML writes it: ``rules.recipient."example.org".mode``, ``dns.nameservers[1]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = step if _BARE_KEY.fullmatch(step) else quoted(step)
            text += f".{key}" if text else key
    return text


def tables_of(schema: type[BaseModel]) -> Mapping[str, tuple[type[BaseModel], bool]]:
    """The fields of *schema* that are tables: (their schema, whether the operator names them)."""
    found: dict[str, tuple[type[BaseModel], bool]] = {}
    for key, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[key] = (kind, False)
            continue
        for inner in getattr(kind, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found[key] = (inner, True)
    return found


def known_keys(schema: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of *schema*; ``*`` for a name that the operator chooses."""
    tables = tables_of(schema)
    for key in schema.model_fields:
        yield (*above, key)
        if key in tables:
            inner, keyed = tables[key]
            yield from known_keys(inner, (*above, key, ANY_NAME) if keyed else (*above, key))


def _nearest(path: tuple[str, ...], schema: type[BaseModel], *, is_table: bool) -> str:
    """The known key that was probably meant, in full; else the keys that are known there.

    A table at the top is first of all a section, as ``[probes]`` is ``[probe]`` and not the key
    ``limits.probes``.
    """
    generic = list(path)
    here: type[BaseModel] = schema
    for index, step in enumerate(path[:-1]):
        tables = tables_of(here)
        if step in tables:
            here, keyed = tables[step]
            if keyed and index + 1 < len(path) - 1:
                generic[index + 1] = ANY_NAME
    above, last = tuple(generic[:-1]), path[-1]
    keys = list(known_keys(schema))
    siblings = [key[-1] for key in keys if key[:-1] == above]
    if not above:
        siblings.insert(0, INCLUDE)
    elsewhere = [key for key in keys if key[-1] == last]
    if not elsewhere or (is_table and not above):
        near = difflib.get_close_matches(last, siblings, n=1)
        if near:
            return f"did you mean {dotted((*path[:-1], near[0]))}?"
    if not elsewhere:
        names = difflib.get_close_matches(last, sorted({key[-1] for key in keys}), n=1)
        elsewhere = [key for key in keys if names and key[-1] == names[0]]
    if elsewhere:
        return f"did you mean {dotted(elsewhere[0])}?".replace(f'"{ANY_NAME}"', "NAME")
    return f"known here: {', '.join(siblings)}"


_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
}

_BOUND = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_BY_DOMAIN = frozenset({"recipient", "nexthop", "sender"})


def _sentence(error: Any) -> str:
    """What is wrong, as a sentence, from one error of pydantic."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {given(value)}"
    if kind in _BOUND:
        key, words = _BOUND[kind]
        return f"expected {words} {context[key]:g}, got {given(value)}"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters, got {len(value)}"
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return str(context["error"])
    return str(error["msg"])


def explain(error: ValidationError, schema: type[BaseModel]) -> tuple[Mistake, ...]:
    """Every mistake in *error*."""
    mistakes: list[Mistake] = []
    for item in error.errors(include_url=False):
        # pydantic marks a mistake in a key of a table by a last step "[key]"
        in_key = item["loc"][-1:] == ("[key]",)
        path = tuple(step for step in item["loc"] if step != "[key]")
        cause = item.get("ctx", {}).get("error")
        if item["type"] == "extra_forbidden":
            mistakes += _unknown(path, item["input"], schema)
        elif isinstance(cause, TableError):
            mistakes += (Mistake((*path, name), why) for name, why in cause.entries.items())
        elif in_key and isinstance(cause, PatternError) and cause.instead:
            table = heading((*path[:-1], cause.instead))
            mistakes.append(Mistake(path, f"{cause.why}; write {table}"))
        else:
            hint = _instead(item["type"], path, item["input"])
            mistakes.append(Mistake(path, _sentence(item) + (f"; write {hint}" if hint else "")))
    return tuple(mistakes)


def _unknown(path: KeyPath, value: object, schema: type[BaseModel]) -> Iterator[Mistake]:
    """The mistakes about a key that is not known, and perhaps the line that was meant."""
    names = tuple(map(str, path))
    split = [below for below in _tables_in(names, value) if _is_domain_table(below, schema)]
    for table in split:
        domain = ".".join(table[2:])
        line = heading((*table[:2], domain))
        yield Mistake(table, f"a name with dots stands in quotes; write {line}")
    if split:
        return
    if len(names) >= 2 and names[0] == "rules" and isinstance(value, dict):
        for table in _tables_in(names, value):
            name = ".".join(table[1:])
            if _is_pattern(name):
                line = heading(("rules", "recipient", name))
                yield Mistake(table, f"no such table; a rule for mail to {name} is {line}")
                return
    if names[-1] == INCLUDE and len(names) > 1:
        yield Mistake(
            path, f"{INCLUDE} stands at the top of the main file, before the first [table]"
        )
        return
    yield Mistake(path, f"no such key; {_nearest(names, schema, is_table=isinstance(value, dict))}")


def _is_domain_table(path: tuple[str, ...], schema: type[BaseModel]) -> bool:
    """Whether the path is that of a table that the operator names, with a name in pieces."""
    if len(path) < 4:
        return False
    section = tables_of(schema).get(path[0])
    table = tables_of(section[0]).get(path[1]) if section else None
    return table is not None and table[1]


def _is_pattern(text: str) -> bool:
    try:
        domain_pattern(text)
    except PatternError:
        return False
    return "." in text.strip(".")


def _tables_in(path: tuple[str, ...], value: object) -> Iterator[tuple[str, ...]]:
    """The paths of the tables at and below *path* that have keys of their own."""
    if not isinstance(value, dict) or len(path) > MAX_DEPTH:
        return
    inner = {name: below for name, below in value.items() if isinstance(below, dict)}
    if len(inner) < len(value) or not value:
        yield path
    for name, below in inner.items():
        yield from _tables_in((*path, name), below)


def _instead(kind: str, path: KeyPath, value: object) -> str:
    """The line that was probably meant; "" if that cannot be told."""
    if not path or not isinstance(path[-1], str):
        return ""
    key = key_text(path[-1])
    if _EXPECTED.get(kind) == "a table":
        return _table_instead(path, value)
    if isinstance(value, str):
        text = value.strip()
        if kind == "bool_type" and text.lower() in BOOLEANS:
            return f"{key} = {BOOLEANS[text.lower()]}"
        if kind in ("int_type", "float_type"):
            unit = WITH_UNIT.fullmatch(text)
            number = unit[1] if unit else text
            if _NUMBER.fullmatch(number) and (kind == "float_type" or "." not in number):
                return f"{key} = {number}"
    if isinstance(value, int) and not isinstance(value, bool) and kind == "string_type":
        return f'{key} = "{value}"'
    if isinstance(value, bool | int) and kind == "bool_type" and value in (0, 1):
        return f"{key} = {'true' if value else 'false'}"
    if isinstance(value, float) and kind == "int_type" and value.is_integer():
        return f"{key} = {int(value)}"
    return ""


def _table_instead(path: KeyPath, value: object) -> str:
    """What to write in the place of a value where the table of a rule belongs."""
    names = tuple(map(str, path))
    if names[:1] != ("rules",) or len(names) not in (2, 3) or names[1] not in _BY_DOMAIN:
        return ""
    if len(names) == 2:
        return heading((*names, "example.org"))
    if isinstance(value, str) and value in list(Mode) and _is_pattern(names[2]):
        return f'{key_text(names[2])} = {{ mode = "{value}" }}'
    return f"it below {heading((*names[:2], 'example.org'))}"
