"""Mistakes in a configuration, each as one sentence that begins with the key that it is about.

The schema says what is allowed. This module makes plain sentences of what pydantic found, and for
an unknown key it looks for the key that was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from requiretls_milter.config.fields import given
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.text import bounded, quoted, visible

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
MAX_MISTAKE = 1000
"""Characters of one mistake: all the wrong entries of a table make one mistake together."""

ANY_NAME = "*"
"""Stands in a path of the schema for a name that the operator chooses (a domain, a transport)."""


class ConfigError(RequiretlsMilterError):
    """A configuration that cannot be used.

    Conclude: nothing can be started with this file; a service that runs goes on with the
    configuration that it has.

    Attributes:
        mistakes: all of them, in the order of the schema, each on one line of printable ASCII
            whatever the file holds.
    """

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        self.mistakes = tuple(bounded(visible(text), MAX_MISTAKE) for text in mistakes)
        super().__init__("\n".join(self.mistakes))


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


def _nearest(path: tuple[str, ...], schema: type[BaseModel]) -> str:
    """The known key that was probably meant, in full; else the keys that are known there."""
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
    elsewhere = [key for key in keys if key[-1] == last]
    if not elsewhere:
        near = difflib.get_close_matches(last, siblings, n=1)
        if near:
            return f"did you mean {dotted((*path[:-1], near[0]))}?"
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
    if kind == "value_error":
        return str(context["error"])
    return str(error["msg"])


def explain(error: ValidationError, schema: type[BaseModel]) -> tuple[str, ...]:
    """Every mistake in *error*, each as ``key: what is wrong``."""
    mistakes = []
    for item in error.errors(include_url=False):
        # pydantic marks a mistake in a key of a table by a last step "[key]"
        path = tuple(step for step in item["loc"] if step != "[key]")
        if item["type"] == "extra_forbidden":
            hint = _nearest(tuple(map(str, path)), schema)
            mistakes.append(f"{dotted(path)}: no such key; {hint}")
        else:
            mistakes.append(f"{dotted(path)}: {_sentence(item)}")
    return tuple(mistakes)
