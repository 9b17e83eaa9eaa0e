"""Which log lines the code writes, read from its text: each event with its keys and levels."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import REPOSITORY

LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"}
LEVELS["exception"] = "error"

HELPERS = {"level": 0, "write": 0, "_log_problem": 0, "_refuse": 0, "_say": 1}
"""Functions that log an event, which is the argument of this number."""

NOT_SHOWN = {"exc_info"}
"""What is not a key: a traceback becomes ``exception``."""


class Written(NamedTuple):
    """An event, as one place of the code writes it."""

    event: str
    keys: tuple[str, ...]
    level: str
    """"" if it is a variable."""


@functools.cache
def written() -> dict[str, tuple[set[str], set[str]]]:
    """Keys and levels of each event, of all places that write it."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path in (REPOSITORY / "requiretls_milter").rglob("*.py"):
        for one in _written(path):
            keys, levels = found[one.event]
            keys.update(one.keys)
            if one.level:
                levels.add(one.level)
    return found


def _written(path: Path) -> Iterator[Written]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    inner = _keys_of_helpers(nodes)
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        name = _name(node)
        if _is_log(node):
            number, level = 0, LEVELS[name]
        elif name in HELPERS:
            number, level = HELPERS[name], _text(node, 0) if name == "_say" else ""
        else:
            continue
        event = _text(node, number)
        if event:
            yield Written(event, (*_keys(node), *inner.get(name, ())), level)


def _keys_of_helpers(nodes: Sequence[ast.AST]) -> dict[str, list[str]]:
    """The keys that a function writes itself whose event is an argument."""
    return {
        function.name: [
            key
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and _name(node) in {*LEVELS, *HELPERS}
            for key in _keys(node)
        ]
        for function in nodes
        if isinstance(function, ast.FunctionDef) and function.name in HELPERS
    }


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_log(call: ast.Call) -> bool:
    if _name(call) not in LEVELS or not isinstance(call.func, ast.Attribute):
        return False
    return ast.unparse(call.func.value).rpartition(".")[2] in ("_log", "logger")


def _text(call: ast.Call, number: int) -> str:
    argument = call.args[number] if len(call.args) > number else None
    known = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    return str(argument.value) if known and isinstance(argument, ast.Constant) else ""


def _keys(call: ast.Call) -> list[str]:
    return [key.arg for key in call.keywords if key.arg and key.arg not in NOT_SHOWN]
