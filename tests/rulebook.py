"""The rules, the code that implements them and the tests that show them: docs/rules.md.

python -m tests.rulebook > docs/rules.md
"""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import REPOSITORY

RULES = REPOSITORY / "tests" / "data" / "rules.toml"
PAGE = REPOSITORY / "docs" / "rules.md"

HEAD = """# Rules

What a correct forecaster of REQUIRETLS has to do, rule by rule: where the rule comes from, the
code that implements it, and the tests that show it. This page is generated (`make docs`); a rule
without a test fails `make test`.

| rule | says | source | code | tests |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Rule:
    """One semantic rule."""

    number: int
    source: str
    text: str
    code: tuple[str, ...]


def rules() -> list[Rule]:
    """All rules, in order."""
    data = tomllib.loads(RULES.read_text(encoding="utf-8"))
    return [
        Rule(item["number"], item["source"], item["text"], tuple(item["code"]))
        for item in data["rule"]
    ]


def resolve(name: str) -> tuple[Path, int]:
    """The file and line of ``module:object`` below the package.

    Raises:
        LookupError: there is no such thing.
    """
    module_name, _, object_name = name.partition(":")
    module = importlib.import_module(f"requiretls_milter.{module_name}")
    path = Path(str(module.__file__))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if _defines(node, object_name):
            return path.relative_to(REPOSITORY), node.lineno
    raise LookupError(f"{name}: not defined in {path.name}")


def _defines(node: ast.stmt, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == name
        case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
            return found == name
        case _:
            return False


@functools.cache
def tests() -> dict[int, list[str]]:
    """The tests that carry ``@pytest.mark.rule(n)``, as ``file::name``, by rule."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _numbers(node):
                    name = f"{path.relative_to(REPOSITORY)}::{node.name}"
                    if name not in found[number]:
                        found[number].append(name)
    return found


def _numbers(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(attr="rule"), args=[ast.Constant(value=int(number)), *_]
            ):
                yield number


def page() -> str:
    """docs/rules.md as it should be."""
    shown = tests()
    lines = [HEAD]
    for rule in rules():
        code = "<br>".join(f"`{name}`" for name in rule.code)
        tested = "<br>".join(f"`{name.rpartition('::')[2]}`" for name in shown[rule.number])
        lines.append(f"| R{rule.number} | {rule.text} | {rule.source} | {code} | {tested} |\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
