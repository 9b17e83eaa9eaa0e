"""Row ``cold``: cold assessments a second, many domains at once, against the lab.

The lab's servers take 50 ms for every answer: the scripted mail servers by
themselves, Unbound by way of a forwarder. Each domain is a new one, with an MX
host of its own: signed MX, address and TLSA records, no MTA-STS, STARTTLS and
REQUIRETLS. The engine is the service's own, asked as a worker asks it.

What limits the rate is shown beside it: how long one assessment takes alone,
the bounds of what the engine does at once, and the processor time that it and
the lab need.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from requiretls_milter.config import Limits
from requiretls_milter.telemetry import log
from tests.bench.asking import Asker
from tests.bench.figures import figure
from tests.bench.machine import cpu_seconds, family
from tests.bench.rows import Effort, Row, number
from tests.bench.trees import known_limits
from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.lab.labconfig import SELFTEST_NAMES
from tests.lab.processes import Server as Process
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.service import Service

LATENCY = 0.05
"""Seconds for every answer, of DNS and of SMTP."""

GOAL = 100.0
"""Assessments a second."""

SLOW_RESOLVER = "127.53.0.9:53"
"""Where the forwarder listens that makes Unbound slow."""

TITLE = f"cold assessments a second, every answer after {1000 * LATENCY:.0f} ms"

ONE_WORLD = {
    "network_per_minute": 100_000,
    "network_per_hour": 1_000_000,
    "zone_lookups_per_minute": 100_000,
    "zone_lookups_per_hour": 1_000_000,
}
"""``[limits]``: all domains of the lab are in one network and one zone, which share a budget."""


def planned(effort: Effort) -> list[Scenario]:
    """The domains that an effort needs, each with a good server of its own."""
    return [
        Scenario(f"bench-{n}", domains=(Domain(mx=(Mx(server=Server(latency=LATENCY)),)),))
        for n in range(1 + effort.runs + effort.domains)
    ]


def assessed(effort: Effort) -> Row:
    """Measure, or say why the lab cannot run here."""
    scenarios = planned(effort)
    try:
        with Lab(scenarios, front=False, apart=True) as lab:
            return measured(lab, scenarios, effort)
    except LabUnavailable as reason:
        return Row("cold", TITLE, skipped=str(reason))


def measured(lab: Lab, scenarios: Sequence[Scenario], effort: Effort) -> Row:
    """Measure in a lab that has these scenarios."""
    log.configure("logfmt", "warning")
    domains = [one.domain_name(one.domains[0]) for one in scenarios]
    with _slow_resolver(lab) as forwarder, _service(lab, effort.tree) as service:
        around = [
            pid
            for server in (lab.servers, forwarder, *lab.dns.servers)
            for pid in family(server.pid)
        ]
        with contextlib.closing(Asker(str(service.engine_path))) as asker:
            asker.agree(domains[0])
            alone = figure(asker.ask([one], 1)[0] for one in domains[1 : 1 + effort.runs])
            engine = [service.children["engine"]]
            engine_before, lab_before = cpu_seconds(engine), cpu_seconds(around)
            seconds, ends = asker.ask(domains[1 + effort.runs :], effort.window)
            engine_cpu = cpu_seconds(engine) - engine_before
            lab_cpu = cpu_seconds(around) - lab_before
    data = {
        "alone_seconds": asdict(alone),
        "domains": len(ends),
        "window": effort.window,
        "latency": LATENCY,
        "rate": asdict(figure(_rates(ends[effort.window : -effort.window], effort.runs))),
        "engine_cpu_ms": 1000 * engine_cpu / len(ends),
        "engine_cpu_share": engine_cpu / seconds,
        "lab_cpu_share": lab_cpu / seconds,
        "limits": {
            key: getattr(Limits(), key)
            for key in ("gatherings", "lookups", "probes", "probes_per_minute")
        },
    }
    return _row(data, effort.runs)


def _row(data: dict[str, Any], stretches: int) -> Row:
    rate, window = data["rate"], data["window"]
    rates = f"{number(rate['median'])} ({number(rate['low'])} to {number(rate['high'])})"
    limits = ", ".join(f"{name} {value}" for name, value in data["limits"].items())
    return Row(
        "cold",
        TITLE,
        (
            ("assessments/s", rates),
            ("one alone takes", f"{1000 * data['alone_seconds']['median']:.0f} ms"),
            ("engine's CPU for each", f"{data['engine_cpu_ms']:.1f} ms"),
            ("engine's share of a core", f"{100 * data['engine_cpu_share']:.0f} %"),
            ("the lab's own share of a core", f"{100 * data['lab_cpu_share']:.0f} %"),
        ),
        ("what", "median"),
        (
            f"{data['domains']} domains, {window} at once; the median of {stretches} stretches "
            f"between the first {window} and the last {window}; goal: more than {number(GOAL)}",
            f"the engine's own bounds, at once: {limits}",
        ),
        (data,),
    )


@contextlib.contextmanager
def _slow_resolver(lab: Lab) -> Iterator[Process]:
    forwarder = Process(
        "slowdns",
        [sys.executable, "-m", "tests.bench.slowdns", SLOW_RESOLVER, lab.resolver, str(LATENCY)],
        log=lab.directory / "slowdns.log",
        environment={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        yield forwarder
    finally:
        forwarder.stop()


@contextlib.contextmanager
def _service(lab: Lab, tree: Path) -> Iterator[Service]:
    selftest = "\n".join(f'{key} = "{name}"' for key, name in SELFTEST_NAMES.items())
    known = known_limits(tree)
    limits = "\n".join(f"{key} = {value}" for key, value in ONE_WORLD.items() if key in known)
    service = Service(
        f"""
[dns]
nameservers = ["{SLOW_RESOLVER}"]
{selftest}
[mta]
tls_security_level = "dane"
[probe]
ca_file = "{lab.ca_file}"
allow_networks = ["127.0.0.0/8"]
[limits]
{limits}
""",
        tree=tree,
    )
    try:
        yield service.start()
    finally:
        service.destroy()


def _rates(ends: Sequence[float], stretches: int) -> list[float]:
    """Answers a second in each of so many stretches of equal numbers of answers."""
    size = (len(ends) - 1) // stretches
    marks = [ends[number * size] for number in range(stretches + 1)]
    return [size / (later - earlier) for earlier, later in itertools.pairwise(marks)]
