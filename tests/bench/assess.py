"""Row ``assess``: cold assessments a second, many domains at once, against the lab.

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
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from requiretls_milter.config import Config, Limits
from requiretls_milter.ipc.client import EngineClient
from requiretls_milter.model import Forecast, Question, Requirement
from requiretls_milter.telemetry import log
from tests.bench.figures import figure
from tests.bench.machine import cpu_seconds
from tests.bench.rows import Effort, Row, number
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

PATIENCE = 60.0
"""Seconds for all answers of a run; the engine gives each 25."""

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
        for n in range(1 + effort.domains)
    ]


def assessed(effort: Effort) -> Row:
    """Measure, or say why the lab cannot run here."""
    scenarios = planned(effort)
    try:
        with Lab(scenarios, front=False, apart=True) as lab:
            return measured(lab, scenarios, effort)
    except LabUnavailable as reason:
        return Row("assess", TITLE, skipped=str(reason))


def measured(lab: Lab, scenarios: Sequence[Scenario], effort: Effort) -> Row:
    """Measure in a lab that has these scenarios."""
    log.configure("logfmt", "warning")
    domains = [one.domain_name(one.domains[0]) for one in scenarios]
    with _slow_resolver(lab) as forwarder, _service(lab) as service:
        around = [
            pid
            for server in (lab.servers, forwarder, *lab.dns.servers)
            for pid in (server.pid, *_children(server.pid))
        ]
        with _client(service) as client:
            alone, _ = _ask(client, domains[:1], 1)
            engine = [service.children["engine"]]
            engine_before, lab_before = cpu_seconds(engine), cpu_seconds(around)
            seconds, ends = _ask(client, domains[1:], effort.window)
            engine_cpu = cpu_seconds(engine) - engine_before
            lab_cpu = cpu_seconds(around) - lab_before
    data = {
        "alone_seconds": alone,
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
        "assess",
        TITLE,
        (
            ("assessments/s", rates),
            ("one alone takes", f"{1000 * data['alone_seconds']:.0f} ms"),
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
def _service(lab: Lab) -> Iterator[Service]:
    selftest = "\n".join(f'{key} = "{name}"' for key, name in SELFTEST_NAMES.items())
    limits = "\n".join(f"{key} = {number_of}" for key, number_of in ONE_WORLD.items())
    service = Service(f"""
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
""")
    try:
        yield service.start()
    finally:
        service.destroy()


@contextlib.contextmanager
def _client(service: Service) -> Iterator[EngineClient]:
    client = EngineClient(
        Config.model_validate({"engine": {"socket": str(service.engine_path)}}), worker="bench"
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not client.connected and time.monotonic() < deadline:
            time.sleep(0.01)
        yield client
    finally:
        client.close()


def _ask(client: EngineClient, domains: Sequence[str], window: int) -> tuple[float, list[float]]:
    """Ask for all of them, so many at once; all must be good deliveries.

    Returns how many seconds it took, and when each answer came, in order.
    """
    places = threading.Semaphore(window)
    ends: list[float] = []

    def ended(_: Future[Forecast]) -> None:
        ends.append(time.perf_counter())
        places.release()

    began = time.perf_counter()
    pending = []
    for domain in domains:
        if not places.acquire(timeout=PATIENCE):
            raise AssertionError(f"no answer within {PATIENCE:g} s")
        question = Question(domain, "smtp", Requirement.REQUIRETLS, Requirement.REQUIRETLS)
        answer = client.ask(question)
        if isinstance(answer, Forecast):
            raise AssertionError(f"{domain} is answered without an assessment: {answer.text}")
        pending.append(answer)
        answer.add_done_callback(ended)
    forecasts = [each.result(PATIENCE) for each in pending]
    wrong = [forecast for forecast in forecasts if forecast.status != "2.0.0"]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(forecasts)} wrong: {_told(wrong)}")
    return ends[-1] - began, ends


def _rates(ends: Sequence[float], stretches: int) -> list[float]:
    """Answers a second in each of so many stretches of equal numbers of answers."""
    size = (len(ends) - 1) // stretches
    marks = [ends[number * size] for number in range(stretches + 1)]
    return [size / (later - earlier) for earlier, later in itertools.pairwise(marks)]


def _told(forecasts: Sequence[Forecast]) -> str:
    counted = Counter(f"{each.status} {each.text}" for each in forecasts)
    return "; ".join(f"{count}x {text}" for text, count in counted.most_common(3))


def _children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    children = [int(word) for word in words]
    return [*children, *(below for child in children for below in _children(child))]
