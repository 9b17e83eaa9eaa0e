"""The pages on MTAs show the files that the lab runs, and name tests that exist."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config
from requiretls_milter.milter.tag import Route, Tag
from requiretls_milter.model import Reason, Requirement, Source
from tests.support.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
RECIPES = DOCS / "recipes"
LAB = REPOSITORY / "tests" / "lab"

PAGES = [DOCS / "mtas.md", *sorted(RECIPES.glob("*.md"))]
FILES = sorted(path for path in RECIPES.glob("*/*") if path.is_file())

_SHOWN = re.compile(r"^\[`([^`]+)`\]\(\1\):\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(RECIPES))


@functools.cache
def shown() -> dict[str, str]:
    """What the pages show of each file."""
    found: dict[str, str] = {}
    for page in RECIPES.glob("*.md"):
        for file, text in _SHOWN.findall(page.read_text(encoding="utf-8")):
            assert file not in found
            found[file] = text
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_each_file_of_a_recipe_is_shown_as_it_stands(path: Path) -> None:
    assert shown()[name(path)] == path.read_text(encoding="utf-8")


def test_nothing_is_shown_that_is_no_file() -> None:
    assert set(shown()) == {name(path) for path in FILES}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.toml")), ids=name)
def test_each_configuration_is_good(path: Path) -> None:
    loaded = config.load(path)
    assert loaded != Config()
    assert config.warnings(loaded) == ()


@pytest.mark.parametrize("route", Route)
def test_a_line_of_the_header_checks_matches_only_its_route(route: Route) -> None:
    tag = Tag(Requirement.REQUIRETLS, Source.RULE, "2.0.0", Reason.OK, route)
    field = f"X-RequireTLS: {tag.value('route=requiretls; route=tls-optional; by=x')}"
    table = (RECIPES / "postfix-3.7/milter_header_checks").read_text(encoding="utf-8")
    lines = re.findall(r"^/(.*)/ FILTER (\S+)$", table, re.MULTILINE)
    wanted = {Route.REQUIRETLS: ["smtp-strict:"], Route.TLS_OPTIONAL: ["smtp-optional:"]}
    matching = [target for pattern, target in lines if re.search(pattern, field, re.IGNORECASE)]
    assert matching == wanted.get(route, [])


def test_the_ruleset_looks_for_the_mark_that_the_milter_sets() -> None:
    mark = config.load(RECIPES / "sendmail/config.toml").milter.envid_mark
    ruleset = (RECIPES / "sendmail/requiretls.m4").read_text(encoding="utf-8")
    assert f"R$* $| $* . {mark}\t" in ruleset
    assert f"R$* $| {mark}\t" in ruleset


def test_every_transport_that_a_recipe_filters_to_is_defined() -> None:
    checks = (RECIPES / "postfix-3.7/milter_header_checks").read_text(encoding="utf-8")
    services = (RECIPES / "postfix-3.7/master.cf").read_text(encoding="utf-8")
    for target in re.findall(r"FILTER ([a-z-]+):$", checks, re.MULTILINE):
        assert re.search(rf"^{target} unix ", services, re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {head.lower().replace(" ", "-") for head in heads}, target


# ---------------------------------------------------------------- docs/mtas.md


def page() -> str:
    return (DOCS / "mtas.md").read_text(encoding="utf-8")


def listed() -> dict[int, tuple[str, str]]:
    """Number to file and name of a test."""
    found = re.findall(r"^- \[(\d+)\] `([a-z0-9_.]+)::([a-z0-9_]+)`$", page(), re.MULTILINE)
    return {int(number): (file, test) for number, file, test in found}


def cells() -> list[tuple[str, str]]:
    """Row and content of each cell that says something of an MTA."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page().splitlines()
        if line.startswith("| ") and not line.startswith("| | ")
    ]
    assert rows
    assert {len(row) for row in rows} == {6}
    return [(row[0], cell) for row in rows for cell in row[1:]]


@pytest.mark.parametrize(("row", "cell"), cells())
def test_each_cell_names_a_test(row: str, cell: str) -> None:
    numbers = [int(number) for number in re.findall(r"\[(\d+)\]", cell)]
    assert numbers, row
    assert set(numbers) <= set(listed()), row


def test_every_test_in_the_list_is_named_by_a_cell() -> None:
    named = {int(number) for _, cell in cells() for number in re.findall(r"\[(\d+)\]", cell)}
    assert sorted(listed()) == list(range(1, len(listed()) + 1))
    assert named == set(listed())


@functools.cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((LAB / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


@pytest.mark.parametrize("number", sorted(listed()))
def test_each_test_in_the_list_exists(number: int) -> None:
    file, test = listed()[number]
    assert test.startswith("test_")
    assert test in functions_of(file)
