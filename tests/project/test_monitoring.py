"""Rules, runbook and dashboard say the same, and speak of metrics that exist."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from requiretls_milter.telemetry.catalogue import AUDIT_METRICS, METRICS, MetricKind
from tests.monitoring import dashboard
from tests.monitoring.cases import CASES, JOB, RECORDED
from tests.monitoring.drawing import Found, picture
from tests.monitoring.panels import EVENTS, ROWS
from tests.monitoring.promtool import ALERTS, MONITORING, RECORDING, alerts, rules
from tests.support.paths import REPOSITORY

ALL = {**METRICS, **AUDIT_METRICS}
"""Of the service, and of ``audit --follow``."""

RUNBOOK = REPOSITORY / "docs" / "runbook.md"


def series() -> set[str]:
    """All names of series that can be there, without the prefix."""
    found: set[str] = set()
    for metric in ALL.values():
        if metric.kind is MetricKind.HISTOGRAM:
            found |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            found.add(metric.name)
    return found


def named(expression: str) -> set[str]:
    """The series of ours that an expression names."""
    return set(re.findall(r"(?<!:)\brequiretls_milter_(\w+)", expression))


def test_each_alert_has_all_that_it_needs() -> None:
    for name, rule in alerts().items():
        assert name.startswith("RequiretlsMilter")
        assert re.fullmatch(r"[0-9]+[mhd]", rule["for"]), name
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        texts = rule["annotations"]
        assert set(texts) == {"summary", "description", "runbook"}, name
        assert texts["summary"].endswith("."), name
        assert len(texts["summary"]) < 140, name


def test_each_alert_has_a_section_of_the_runbook_and_each_section_an_alert() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_says_what_it_means_for_mail_and_what_mends_it() -> None:
    for section in re.split(r"^#+ ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE):
        name = section.splitlines()[0] if section else ""
        if name in alerts():
            assert section.count("**Means**: ") == section.count("**Mend**: ") == 1, name


def test_each_rule_has_a_story_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    assert set(CASES) == set(alerts())
    assert set(RECORDED) == {rule["record"] for rule in rules(RECORDING)}
    for name, case in CASES.items():
        assert case.fires != case.silent, name


def test_rules_speak_of_series_that_exist() -> None:
    recorded = {rule["record"] for rule in rules(RECORDING)}
    for rule in [*rules(ALERTS), *rules(RECORDING)]:
        assert named(rule["expr"]) <= series(), rule
        assert set(re.findall(r"\binstance\w*:[\w:]+", rule["expr"])) <= recorded, rule


def test_label_values_in_rules_are_those_of_the_metrics() -> None:
    for expression in expressions():
        for name, inside in re.findall(r"requiretls_milter_(\w+)\{([^}]*)\}", expression):
            metric = ALL.get(name)
            if metric is None:
                continue
            known = dict(metric.labels)
            for label, values in re.findall(r'(\w+)!?=~?"([^"$]*)"', inside):
                if known.get(label):
                    assert set(values.split("|")) <= set(known[label] or ()), (name, label)


def test_a_bucket_in_a_rule_is_one_of_its_histogram_as_it_is_written() -> None:
    for expression in expressions():
        for name, bound in re.findall(r'requiretls_milter_(\w+)_bucket\{le="(.*?)"', expression):
            assert bound in map(str, METRICS[name].buckets), expression


def expressions() -> Iterator[str]:
    """Of all rules and panels."""
    for rule in [*rules(ALERTS), *rules(RECORDING)]:
        yield rule["expr"]
    for panel in itertools.chain(*ROWS.values()):
        yield from panel.queries.values()
    yield from EVENTS.values()


def test_the_dashboard_is_current() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.page(), "make docs"


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    read = Dashboard.from_json(json.loads(dashboard.FILE.read_text(encoding="utf-8")))
    assert JSONEncoder(sort_keys=True, indent=2).encode(read) + "\n" == dashboard.page()
    assert read.templating is not None
    chosen = [variable.name for variable in read.templating.list_val or ()]
    assert chosen == ["datasource", "instance", "domain"]
    assert read.annotations is not None
    assert [event.name for event in read.annotations.list_val or ()] == list(EVENTS)


def test_the_dashboard_speaks_of_series_that_exist() -> None:
    for expression in expressions():
        assert named(expression) <= series(), expression


def test_the_rows_of_the_dashboard_are_those_of_the_page() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text("utf-8")
    assert re.findall(r"^\| ([A-Z][a-z ]+) \| .*\? \|$", text, re.MULTILINE) == list(ROWS)


def test_each_row_has_a_picture_in_the_page() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text("utf-8")
    shown = re.findall(r"^!\[The row ([^,:\]]*).*\]\(dashboard/(.*)\.svg\)$", text, re.MULTILINE)
    assert dict(shown) == {row: row.lower().replace(" ", "-") for row in ROWS}
    for row, name in shown:
        drawn = (REPOSITORY / "docs" / "dashboard" / f"{name}.svg").read_text("utf-8")
        for word in {word for panel in ROWS[row] for word in panel.title.split()}:
            assert word in drawn, f"{name}.svg is out of date: python -m tests.lab.pictures"


def test_whatever_a_panel_has_found_can_be_drawn() -> None:
    saw = [(1e9 + 2.0 * step, float(step % 9)) for step in range(20)]
    flat = [(time, 0.0) for time, _ in saw]
    some = [Found("0.5", flat), Found("+Inf", saw), Found("1", [(1e9, math.nan)])]
    for row, panels in ROWS.items():
        for found in (some, some[:1], []):
            text = picture(row, [(panel, found) for panel in panels])
            drawn = ElementTree.fromstring(text)  # noqa: S314 - it is our own
            assert drawn.get("aria-label") == f"The row {row} of the dashboard"


def test_each_panel_asks_one_question_and_fits_into_its_row() -> None:
    for row, panels in ROWS.items():
        assert sum(panel.width for panel in panels) % 24 == 0, row
        for panel in panels:
            assert panel.asks.endswith(("?", ".", ")")), panel.title
            assert len(panel.queries) <= len("ABCDEFGH"), panel.title
    drawn = json.loads(dashboard.page())["panels"]
    assert len({panel["id"] for panel in drawn}) == len(drawn)
    for panel in drawn:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_what_is_chosen_at_the_top_is_in_each_query() -> None:
    for panel in itertools.chain(*ROWS.values()):
        for expression in panel.queries.values():
            assert "ALERTS" in expression or expression.count('"$instance"') == len(
                re.findall(r"requiretls_milter_|\bup\b", expression)
            ), panel.title


def test_provisioning_loads_the_dashboard_from_where_the_page_puts_it() -> None:
    files = MONITORING / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((files / "dashboards/requiretls-milter.yml").read_text())[
        "providers"
    ]
    assert f"cp monitoring/grafana/{dashboard.FILE.name} {provider['options']['path']}/" in (
        REPOSITORY / "docs" / "monitoring.md"
    ).read_text("utf-8")
    (source,) = yaml.safe_load((files / "datasources/requiretls-milter.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"


def test_the_scrape_configuration_names_the_job_of_the_rules_and_the_default_port() -> None:
    config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (scraped,) = config["scrape_configs"]
    assert scraped["job_name"] == JOB
    assert scraped["static_configs"] == [{"targets": ["127.0.0.1:9894"]}]
    assert {MONITORING / name for name in config["rule_files"]} == {ALERTS, RECORDING}
