"""Each panel of the dashboard has data once a Prometheus has scraped a milter that has mail."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import Lab
from tests.lab.milter import METRICS, Milter
from tests.lab.roots import PROMETHEUS, ensure
from tests.lab.submission import Refused
from tests.monitoring.asking import chosen
from tests.monitoring.panels import EVENTS, ROWS, Panel
from tests.monitoring.promtool import ALERTS, RECORDING
from tests.support.prometheusserver import PrometheusServer
from tests.support.scenario import Domain, Message, Mx, Scenario, Server, Sts

pytestmark = pytest.mark.lab

GOOD = Scenario("dashboard-good", domains=(Domain(mx=(Mx(),)),))
POLICY = Scenario("dashboard-policy", domains=(Domain(sts=Sts()),))
LACKING = Scenario(
    "dashboard-lacking", domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)
PLAIN = Scenario(
    "dashboard-plain", domains=(Domain(mx=(Mx(),)),), message=Message(requiretls=False)
)
SCENARIOS = (GOOD, POLICY, LACKING, PLAIN)


@pytest.fixture(scope="module")
def prometheus(lab: Lab) -> Iterator[PrometheusServer]:
    """One that has scraped a milter for a while; mail came before and meanwhile."""
    try:
        root = ensure(PROMETHEUS)
    except LabUnavailable as reason:
        unavailable(reason)
    lab.add(SCENARIOS)
    rules = {
        one.domain_name(one.domains[0]): {"mode": "monitor", "watch": True}
        for one in (GOOD, POLICY)
    }
    rules[LACKING.domain_name(LACKING.domains[0])] = {"mode": "reject", "watch": True}
    with (
        Milter(lab, rules={"recipient": rules}) as milter,
        PrometheusServer(root, METRICS, [RECORDING, ALERTS]) as one,
    ):
        _send(lab)
        milter.await_metric("recipients_total", len(SCENARIOS))
        one.scraped(2)
        _send(lab)
        milter.await_metric("recipients_total", 2 * len(SCENARIOS))
        for scenario in (GOOD, POLICY, LACKING):
            domain = scenario.domain_name(scenario.domains[0])
            one.wait_for(f'requiretls_milter_domain_ready{{domain="{domain}"}}')
            one.wait_for(f'requiretls_milter_watched_server_ready{{domain="{domain}"}}')
        one.scraped(2)
        yield one


def _send(lab: Lab) -> None:
    for scenario in SCENARIOS:
        if scenario is LACKING:
            with pytest.raises(Refused):
                lab.send(scenario, authenticated=True)
        else:
            lab.send(scenario, authenticated=True)


@pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{row}: {panel.title}")
        for row, some in ROWS.items()
        for panel in some
    ],
)
def test_each_panel_has_data(prometheus: PrometheusServer, panel: Panel) -> None:
    for legend, expression in panel.queries.items():
        found = prometheus.query(chosen(expression))
        values = [float(series["value"][1]) for series in found]
        assert values, (legend, expression)
        assert not all(map(math.isnan, values)), (legend, expression)


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_can_be_asked_for(prometheus: PrometheusServer, event: str) -> None:
    prometheus.query(chosen(EVENTS[event]))


def test_each_rule_can_be_evaluated(prometheus: PrometheusServer) -> None:
    groups = prometheus.get("rules")["groups"]
    assert len(groups) == 5
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
