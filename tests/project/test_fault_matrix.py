"""docs/reliability.md: each fault has its test, and what it names is there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from requiretls_milter.telemetry.catalogue import METRICS
from tests.support.faultmatrix import Row, rows
from tests.support.paths import REPOSITORY

LEAST = 40
"""Faults that the matrix must have."""


@functools.cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@functools.cache
def program() -> str:
    return "".join(path.read_text() for path in (REPOSITORY / "requiretls_milter").rglob("*.py"))


SECURITY = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")

CLAIMS = re.findall(r"^\| (.*) \| `(tests/\S+)::(\w+)` \|$", SECURITY, re.M)


@pytest.mark.parametrize(("claim", "path", "name"), CLAIMS)
def test_each_claim_of_security_has_a_test_that_exists(claim: str, path: str, name: str) -> None:
    assert name in functions(REPOSITORY / path), f"{claim}: {path}::{name}"


def test_no_claim_of_security_is_without_a_test() -> None:
    tables = re.findall(r"^\| claim \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", SECURITY, re.M)
    claimed = [row for table in tables for row in table.splitlines()]
    assert len(claimed) == len(CLAIMS) > LEAST
    assert len({claim for claim, _, _ in CLAIMS}) == len(CLAIMS)


def test_there_are_enough_faults_and_each_is_there_once() -> None:
    faults = [row.fault for row in rows()]
    assert len(faults) == len(set(faults)) >= LEAST


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.fault)
def test_each_fault_has_a_test_that_exists(row: Row) -> None:
    path, _, name = row.test.partition("::")
    assert name in functions(REPOSITORY / path), row
    for named in re.findall(r"`(\w+)", row.metric):
        assert named in METRICS, row
    for event in re.findall(r"`(\w+)`", row.line):
        assert f'"{event}"' in program(), row
