"""Logs as they are found in the field, with the answers that are right."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.telemetry.labels import AuditResult
from tests.support.commandline import call
from tests.support.paths import DATA

LOGS = DATA / "logs"
CASES: list[dict[str, Any]] = tomllib.loads((LOGS / "answers.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case["logs"]))
def test_audit_says_what_is_right(case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    logs = [LOGS / name for name in case["logs"]]
    status, told, error = call(capsys, "audit", "--format", "json", *logs)
    assert status == case.get("status", 0)
    if "error" in case:
        assert (told, error) == ("", f"error: {LOGS}/{case['error']}\n")
        return
    found = json.loads(told)
    for counted in AuditResult:
        assert found[counted] == case.get(counted, 0), counted


@pytest.mark.parametrize("name", ["report.log", "report.log.gz"])
def test_report_reads_the_same_log_compressed_or_not(
    name: str, defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("report", "--would-have", "--format", "json", "--config", defaults)
    status, told, _ = call(capsys, *arguments, LOGS / name)
    assert status == 0
    assert [(mode["refused"], mode["deferred"]) for mode in json.loads(told)] == [(0, 2), (2, 0)]


def test_each_log_has_an_answer() -> None:
    named = {name for case in CASES for name in case["logs"]}
    there = {str(path.relative_to(LOGS)) for path in LOGS.rglob("*") if path.is_file()}
    assert there - {"answers.toml"} == named
