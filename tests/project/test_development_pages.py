"""What the pages for developers say of the code is so."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

PACKAGE = REPOSITORY / "requiretls_milter"
PAGES = ("architecture.md", "development.md", "forecast.md", "reliability.md")
CODE = re.compile(r"`([\w./]+)`")
PARTLY = re.compile(r"of `(\w+)` only ((?:`\w+`(?: and |, )?)+)")


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


@functools.cache
def words() -> frozenset[str]:
    """Every word of the package, of its tests and of the project's own files."""
    paths: list[Path] = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]
    paths += [REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]
    return frozenset(re.findall(r"\w+", "".join(path.read_text("utf-8") for path in paths)))


@pytest.mark.parametrize("name", PAGES)
def test_each_file_that_a_page_names_exists(name: str) -> None:
    for place in re.findall(r"`([\w./-]+\.py)(?:::\w+)?`", page(name)):
        below = (REPOSITORY, PACKAGE, REPOSITORY / "tests" / "lab")
        assert any((root / place).is_file() for root in below), place


@pytest.mark.parametrize("name", ["architecture.md", "development.md"])
def test_each_name_that_a_page_has_from_the_code_exists(name: str) -> None:
    named = re.findall(r"`(?:[\w./-]+::)?((?:\w+\.)*\w+)`", page(name))
    assert len(named) > 50
    gone = {token for token in named if token.rpartition(".")[2] not in {*words(), "py"}}
    assert not gone


def test_the_code_that_decides_a_state_exists() -> None:
    table = page("forecast.md").partition("| decided in |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)\.(\w+)`", table)
    assert len(named) > 10
    for module, function in named:
        code = (PACKAGE / "forecast" / f"{module}.py").read_text("utf-8")
        assert f"\ndef {function}(" in code, f"{module}.{function}"


def test_the_layers_on_the_page_are_those_that_are_checked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (checked,) = [item["layers"] for item in contracts if item["id"] == "layers"]
    block = re.search(r"^    (bounded\b.* manuals)$", page("architecture.md"), re.M | re.S)
    assert block is not None
    shown = [sorted(re.findall(r"\w+", layer)) for layer in block[1].split("<")]
    assert shown == [sorted(re.findall(r"\w+", layer)) for layer in reversed(checked)]


def test_the_table_says_what_each_place_imports() -> None:
    imported = imports()
    everywhere = {"bounded", "clocks", "errors", "replacing"}
    table = page("architecture.md").partition("| place | what lives there |")[2]
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", table.partition("\n\n")[0], re.MULTILINE)
    for cells, cell in rows:
        named = {
            token.strip("/").removesuffix(".py") for token in CODE.findall(cells.split("|")[0])
        }
        if named & everywhere or cell == "all lower places":
            continue
        (place,) = named
        partly = {one: set(CODE.findall(some)) for one, some in PARTLY.findall(cell)}
        said = set(CODE.findall(PARTLY.sub("", cell))) | set(partly)
        found = {module.partition(".")[0] for module in imported[place]} - everywhere
        assert found == said, place
        for other, modules in partly.items():
            inner = {
                ".".join(m.split(".")[1:]) for m in imported[place] if m.startswith(f"{other}.")
            }
            assert inner == modules, (place, other)
    told = CODE.findall("".join(cells.split("|")[0] for cells, _ in rows))
    assert {token.strip("/").removesuffix(".py") for token in told} == set(imported)


def imports() -> Mapping[str, set[str]]:
    """For each place the modules of other places that it imports, also for the type checker."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if place.startswith("__"):
            continue
        modules = found.setdefault(place, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
                above = (node.module or "").partition(".")[2]
                modules |= {
                    name if is_module(name := f"{above}.{alias.name}".strip(".")) else above
                    for alias in node.names
                }
    return {
        place: {one for one in modules if one and one.partition(".")[0] != place}
        for place, modules in found.items()
    }


def is_module(name: str) -> bool:
    path = PACKAGE / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_each_exception_is_in_the_table() -> None:
    shown = dict(exceptions())
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = " ".join(map(ast.unparse, node.bases))
                if re.search(r"Error\b|\bException\b", bases) and path.name != "errors.py":
                    where = str(path.relative_to(PACKAGE))
                    assert node.name in shown, where
                    assert where.startswith(shown[node.name]), node.name
                    assert re.match("RequiretlsMilterError|StoreError|NextHopError", bases), (
                        node.name
                    )


def exceptions() -> Iterator[tuple[str, str]]:
    """Each exception that the page tells of, with the place that follows its name."""
    table = page("development.md").partition("| exception |")[2].partition("\n\n")[0]
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        place = ""
        for token in reversed(re.findall(r"`([\w./]+)`", cell)):
            if re.search(r"\W", token):
                place = token
            else:
                yield token, place


OF_A_WHOLE_PLACE = {
    "syntax/test_limits",
    "engine/test_third_parties",
    "forecast/test_clauses",
    "forecast/test_oracle",
}
"""Unit tests whose subject is all of a place, not a module of it."""


def test_each_unit_test_is_named_for_the_module_that_it_tests() -> None:
    """``test_probe.py``, or ``test_probe_faults.py`` for one side of it; rules/ is for rules.py."""
    below = REPOSITORY / "tests/unit"
    for path in below.rglob("test_*.py"):
        place = path.parent.relative_to(below)
        modules = {item.stem for item in (PACKAGE / place).glob("*.py")}
        named = path.stem.removeprefix("test_")
        assert (
            any(f"{named}_".startswith(f"{module}_") for module in modules)
            or str(place / path.stem) in OF_A_WHOLE_PLACE
            or (PACKAGE / f"{place}.py").exists()
        ), path
