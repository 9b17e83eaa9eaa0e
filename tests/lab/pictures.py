"""``python -m tests.lab.pictures``: draw docs/dashboard/, the rows of the dashboard.

The lab runs with a milter that has mail of several kinds for two minutes, a partner's server that
stops offering REQUIRETLS and offers it again, and a real Prometheus that scrapes each second. The
pictures are made of what the dashboard's own queries then find.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections.abc import Mapping, Sequence

from tests.lab import labconfig
from tests.lab.lab import Lab
from tests.lab.milter import METRICS, Milter
from tests.lab.roots import PROMETHEUS, ensure
from tests.lab.submission import Refused
from tests.monitoring.asking import chosen
from tests.monitoring.drawing import Found, named, picture
from tests.monitoring.panels import ROWS, Kind, Panel
from tests.monitoring.promtool import ALERTS, RECORDING
from tests.support.paths import REPOSITORY
from tests.support.prometheusserver import PrometheusServer
from tests.support.scenario import Domain, Message, Mx, Scenario, Server, Sts

DIRECTORY = REPOSITORY / "docs" / "dashboard"

SECONDS = 120.0
"""How long mail comes."""

STEP = 2
"""Seconds between two values of a line."""

PARTNER = Scenario("bank")
POLICY = Scenario("clinic", domains=(Domain(sts=Sts()),))
LACKING = Scenario("shop", domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),))
SLOW = Scenario("slow", domains=(Domain(mx=(Mx(server=Server(latency=0.3)),)),))
PLAIN = Scenario("plain", message=Message(requiretls=False))
SCENARIOS = (PARTNER, POLICY, LACKING, SLOW, PLAIN)


def _rules() -> Mapping[str, object]:
    def domain(one: Scenario) -> str:
        return one.domain_name(one.domains[0])

    watched = {domain(one): {"mode": "monitor", "watch": True} for one in (PARTNER, POLICY, SLOW)}
    return {"recipient": {**watched, domain(LACKING): {"mode": "reject", "watch": True}}}


def _send(lab: Lab) -> None:
    for one in SCENARIOS:
        with contextlib.suppress(Refused):  # as the rule for one of them wants it
            lab.send(one, authenticated=True)


def _becomes(lab: Lab, milter: Milter, server: Server) -> subprocess.Popen[bytes]:
    """The partner has another server, and the operator looks at it."""
    lab.plan_server(PARTNER, server)
    lab.update_servers()
    domain = PARTNER.domain_name(PARTNER.domains[0])
    check = ("check", "--refresh", domain, "--config", milter.config_file)
    return subprocess.Popen([*milter.program, *check], stdout=subprocess.DEVNULL)


def _mail(lab: Lab, milter: Milter) -> None:
    """Messages of all kinds; for a while one partner lacks what it had."""
    begun = time.monotonic()
    changes = [Server(requiretls="none"), Server()]
    looks = []
    while (passed := time.monotonic() - begun) < SECONDS:
        _send(lab)
        if changes and passed > SECONDS * (3 - len(changes)) / 3:
            looks.append(_becomes(lab, milter, changes.pop(0)))
        time.sleep(1)
    for look in looks:
        look.wait()


def _found(prometheus: PrometheusServer, panel: Panel, begun: float) -> Sequence[Found]:
    series = []
    now = time.time()
    for legend, expression in panel.queries.items():
        at = {"query": chosen(expression)}
        if panel.kind in (Kind.STAT, Kind.TABLE):
            for one in prometheus.get("query", **at)["result"]:
                moment, value = one["value"]
                series.append(Found(named(legend, one["metric"]), [(moment, float(value))]))
            continue
        span = {"start": f"{begun}", "end": f"{now}", "step": f"{STEP}"}
        for one in prometheus.get("query_range", **at, **span)["result"]:
            values = [(moment, float(value)) for moment, value in one["values"]]
            known = [(moment, value) for moment, value in values if not math.isnan(value)]
            if known:
                series.append(Found(named(legend, one["metric"]), known))
    return series


def main() -> None:
    """Draw them."""
    root = ensure(PROMETHEUS)
    DIRECTORY.mkdir(exist_ok=True)
    with (
        Lab(SCENARIOS) as lab,
        Milter(
            lab,
            transport=labconfig.all_transports(),
            rules=_rules(),
            mta={"tls_security_level": "dane"},
        ) as milter,
        PrometheusServer(root, METRICS, [RECORDING, ALERTS]) as prometheus,
    ):
        begun = time.time()
        _mail(lab, milter)
        milter.await_metric("recipients_total", len(SCENARIOS))
        prometheus.scraped(2)
        for row, panels in ROWS.items():
            found = [(panel, _found(prometheus, panel, begun)) for panel in panels]
            path = DIRECTORY / f"{row.lower().replace(' ', '-')}.svg"
            path.write_text(picture(row, found), encoding="utf-8")
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
