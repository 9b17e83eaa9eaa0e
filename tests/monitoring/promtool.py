"""The stories of :mod:`.cases` as files of tests for ``promtool test rules``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.cases import CASES, INSTANCE, JOB, RECORDED, Case, Story
from tests.support.paths import REPOSITORY

MONITORING = REPOSITORY / "monitoring"
ALERTS = MONITORING / "alerts.yml"
RECORDING = MONITORING / "recording.yml"

_OURS = {"instance": INSTANCE, "job": JOB}


def rules(path: Path) -> list[dict[str, Any]]:
    """All rules of a file."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> Mapping[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules(ALERTS)}


def write_tests(directory: Path) -> list[Path]:
    """Write a file of tests for each rule, with the rules that it needs beside it.

    Each story is told to one rule alone: promtool evaluates every rule that it is given at every
    moment of every story.
    """
    recorded = {rule["record"]: rule for rule in rules(RECORDING)}
    files = []
    for name, rule in {**recorded, **alerts()}.items():
        needed = [one for record, one in recorded.items() if record in rule["expr"]]
        group = {"name": "tested", "rules": [*needed, rule]}
        plain = re.sub(r"\W", "_", name)
        (directory / f"{plain}.rules.yml").write_text(yaml.safe_dump({"groups": [group]}))
        content = {
            "rule_files": [f"{plain}.rules.yml"],
            "evaluation_interval": "1m",
            "tests": list(_of_alert(name) if name in CASES else _of_record(name)),
        }
        files.append(directory / f"{plain}.test.yml")
        files[-1].write_text(yaml.safe_dump(content))
    return files


def _of_alert(name: str) -> Iterator[dict[str, Any]]:
    case = CASES[name]
    for what, story, expected in (
        ("fires", case.fires, [_fired(name, case)]),
        ("is silent", case.silent, []),
    ):
        at = {"eval_time": f"{case.at}s", "alertname": name, "exp_alerts": expected}
        yield {
            "name": f"{name} {what}",
            "interval": "1m",
            "input_series": _series(story),
            "alert_rule_test": [at],
        }


def _fired(name: str, case: Case) -> dict[str, Any]:
    rule = alerts()[name]
    labels = {**(_OURS if case.of_instance else {"job": JOB}), **case.labels}

    def filled(match: re.Match[str]) -> str:
        word = match[1].strip()
        return labels[word[8:]] if word.startswith("$labels.") else case.says

    texts = {
        key: re.sub(r"\{\{(.*?)\}\}", filled, text) for key, text in rule["annotations"].items()
    }
    return {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": texts}


def _of_record(name: str) -> Iterator[dict[str, Any]]:
    story, value, labels = RECORDED[name]
    shown = ",".join(f'{key}="{text}"' for key, text in sorted({**_OURS, **labels}.items()))
    hours = 30 if any(values.endswith("x2000") for values in story.values()) else 1
    sample = {"labels": f"{name}{{{shown}}}", "value": value}
    for what, some, samples in (("is recorded", story, [sample]), ("is silent", {}, [])):
        yield {
            "name": f"{name} {what}",
            "interval": "1m",
            "input_series": _series(some),
            "promql_expr_test": [{"expr": name, "eval_time": f"{hours}h", "exp_samples": samples}],
        }


def _series(story: Story) -> list[dict[str, str]]:
    ours = f'instance="{INSTANCE}",job="{JOB}"'
    found = []
    for series, values in story.items():
        name, _, labels = series.partition("{")
        full = name if name == "up" else f"requiretls_milter_{name}"
        inside = ",".join(filter(None, (labels.removesuffix("}"), ours)))
        found.append({"series": f"{full}{{{inside}}}", "values": values})
    return found
