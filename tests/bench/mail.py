"""Rows ``plain`` and ``asked``: messages a second and their latency, beside three baselines.

``C`` is a milter in C that does nothing: what libmilter itself costs. ``floor`` has empty callbacks
on pymilter, in as many processes as ours. ``pymilter`` is the milter that anybody would write. All
are there all the time, and are measured in turn: what else the machine does falls on all of them.
Ours is the service as an operator starts it: supervisor, engine, as many workers as there are by
default, the log as it is by default (in a file).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, figure, ratio
from tests.bench.load import PLAIN, Load, Mail, Run, compiled, listens, record
from tests.bench.machine import cpu_seconds, family
from tests.bench.rows import Effort, Row, number
from tests.support.authority import Authority
from tests.support.dnsserver import DnsServer
from tests.support.domains import Domains
from tests.support.processes import Process
from tests.support.service import Service

CONNECTIONS = (1, 8, 64)

MAX_CEILING_RUNS = 3
"""Of the load with a milter in C that does nothing: a check, no figure of ours."""

NO_RESOLVER = """
[dns]
nameservers = ["127.0.0.1:9"]
timeout = 1
"""
"""All else is the default, but for the paths of sockets and that nothing leaves this host."""

BENCH_DOMAIN = "bench.test"


class WrongWorkError(AssertionError):
    """A milter did something else than what is to be measured."""


@dataclass(frozen=True)
class Subject:
    """A milter that is measured: where it listens, its processes, the dialogue with it."""

    name: str
    socket: str
    pids: Callable[[], Sequence[int]]
    script: Path
    edits: int
    """Changes that it makes to each message."""


@dataclass(frozen=True)
class Measured:
    """One run: what the load saw, and processor time of the milter for each message."""

    run: Run
    cpu_us: float


@contextlib.contextmanager
def baseline(directory: Path) -> Iterator[Subject]:
    """The milter that anybody would write, in one process."""
    command = [sys.executable, "-m", "tests.bench.baseline"]
    with _running("pymilter", command, directory, edits=1) as subject:
        yield subject


@contextlib.contextmanager
def nothing(directory: Path) -> Iterator[Subject]:
    """A milter in C on libmilter that does nothing."""
    with _running("C", [compiled("nothing", "-lmilter")], directory, edits=0) as subject:
        yield subject


@contextlib.contextmanager
def floor(directory: Path) -> Iterator[Subject]:
    """Empty callbacks on pymilter, in as many processes as ours."""
    command = [sys.executable, "-m", "tests.bench.floor"]
    with _running("floor", command, directory, edits=0) as subject:
        yield subject


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str | Path], directory: Path, *, edits: int
) -> Iterator[Subject]:
    path = directory / f"{name}.sock"
    process = Process([*command, str(path)], directory / f"{name}.log")
    try:
        process.wait_until(lambda: listens(path), "listening")
        script = directory / f"{name}.script"
        yield Subject(name, str(path), lambda: family(process.pid), script, edits)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def service(config: str, tree: Path) -> Iterator[Service]:
    """The milter of a tree as it is installed, with this configuration besides the paths."""
    made = Service(config, workers=0, log_format="logfmt", tree=tree)
    try:
        yield made.start()
    finally:
        made.destroy()


def measure(load: Load, subject: Subject, connections: int, effort: Effort) -> Measured:
    pids = list(subject.pids())
    before = cpu_seconds(pids)
    run = load.send(
        subject.socket,
        subject.script,
        connections=connections,
        seconds=effort.seconds,
        warmup=effort.warmup,
    )
    spent = cpu_seconds(pids) - before
    if run.edits != run.all * subject.edits:
        raise WrongWorkError(f"{subject.name}: {run.edits} edits of {run.all} messages")
    if not run.messages:
        raise WrongWorkError(f"{subject.name}: not one message in {effort.seconds} s")
    return Measured(run, 1e6 * spent / run.all)


def _figures(measured: Sequence[Measured]) -> dict[str, Figure]:
    return {
        "rate": figure(each.run.rate for each in measured),
        "p50_ms": figure(each.run.p50_ms for each in measured),
        "p99_ms": figure(each.run.p99_ms for each in measured),
        "cpu_us": figure(each.cpu_us for each in measured),
        "load_cpu": figure(each.run.load_cpu for each in measured),
    }


def compare(
    load: Load, subjects: Sequence[Subject], connections: int, effort: Effort, directory: Path
) -> dict[str, Any]:
    """All in turn, ours first; less often, the load with a program that only answers."""
    ours, *baselines = subjects
    runs: dict[str, list[Measured]] = {subject.name: [] for subject in subjects}
    ceilings: list[Run] = []
    for number_of_run in range(effort.runs):
        for subject in subjects:
            runs[subject.name].append(measure(load, subject, connections, effort))
        if number_of_run % max(1, effort.runs // MAX_CEILING_RUNS) == 0:
            path = directory / "ceiling.sock"
            with load.answering(path, ours.script):
                ceilings.append(
                    load.send(
                        str(path),
                        ours.script,
                        connections=connections,
                        seconds=effort.seconds / 2,
                        warmup=effort.warmup,
                    )
                )
    found = {name: _figures(measured) for name, measured in runs.items()}
    return {
        "connections": connections,
        "runs": effort.runs,
        "seconds": effort.seconds,
        "milters": {
            name: {key: asdict(one) for key, one in some.items()} for name, some in found.items()
        },
        "ratios": {
            theirs.name: {
                key: asdict(ratio(found[ours.name][key], found[theirs.name][key]))
                for key in ("rate", "p99_ms", "cpu_us")
            }
            for theirs in baselines
        },
        "ceiling": asdict(figure(each.rate for each in ceilings)),
    }


COLUMNS = ("connections", "milter", "messages/s", "p50 ms", "p99 ms", "CPU µs", "load's CPU")


def _lines(data: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    connections = str(data["connections"])
    for name, some in data["milters"].items():
        medians = (some[key]["median"] for key in ("rate", "p50_ms", "p99_ms", "cpu_us"))
        load = f"{100 * some['load_cpu']['median']:.0f} %"
        yield connections, name, *map(number, medians), load
    for name, ratios in data["ratios"].items():
        rate, p99, cpu = (_ratio(ratios[key]) for key in ("rate", "p99_ms", "cpu_us"))
        yield connections, f"ours : {name}", rate, "", p99, cpu, ""
    ceiling = number(data["ceiling"]["median"])
    yield connections, "nothing but replies, in C", ceiling, "", "", "", ""


def _ratio(found: dict[str, float]) -> str:
    return f"{found['ratio']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def _row(
    name: str,
    title: str,
    data: Sequence[dict[str, Any]],
    effort: Effort,
    notes: Sequence[str] = (),
) -> Row:
    return Row(
        name,
        title,
        tuple(line for each in data for line in _lines(each)),
        COLUMNS,
        (
            f"medians of {effort.runs} runs of {effort.seconds:g} s each, in turn; in "
            "parentheses the middle half of the ratios of neighbouring runs",
            *notes,
        ),
        tuple(data),
    )


def plain(effort: Effort) -> Row:
    """Mail that asks nothing, with the default configuration."""
    load = Load()
    with (
        tempfile.TemporaryDirectory(prefix="rtls-") as name,
        nothing(Path(name)) as in_c,
        baseline(Path(name)) as in_python,
        floor(Path(name)) as empty,
        service(NO_RESOLVER, effort.tree) as milter,
    ):
        directory = Path(name)
        subjects = (_subject("ours", milter, directory, 0), in_c, empty, in_python)
        data = _compared(load, subjects, PLAIN, effort, directory)
    return _row("plain", "mail that asks nothing, default configuration", data, effort)


def _subject(name: str, milter: Service, directory: Path, edits: int) -> Subject:
    return Subject(
        name,
        str(milter.socket_path),
        lambda: [milter.pid, *milter.family],
        directory / f"{name}.script",
        edits,
    )


def _compared(
    load: Load, subjects: Sequence[Subject], mail: Mail, effort: Effort, directory: Path
) -> list[dict[str, Any]]:
    for subject in subjects:
        record(subject.socket, mail, subject.script)
    return [compare(load, subjects, connections, effort, directory) for connections in CONNECTIONS]


# ---------------------------------------------------------------- asked


@contextlib.contextmanager
def next_hop(directory: Path) -> Iterator[str]:
    """A signed domain with a server that offers REQUIRETLS; gives the configuration for it."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    found: list[str] = []
    stop = asyncio.Event()

    async def live() -> None:
        authority = Authority(directory)
        async with DnsServer() as dns, Domains(directory, dns, authority) as world:
            server = await world.server(f"mx.{BENCH_DOMAIN}")
            world.mx(BENCH_DOMAIN, f"mx.{BENCH_DOMAIN}")
            found.append(f"""
[dns]
nameservers = ["{dns.address}"]
[mta]
tls_security_level = "dane"
[probe]
port = {server.port}
ca_file = "{authority.path}"
allow_networks = ["127.0.0.0/8"]
""")
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(live())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(20)
    if not found:
        raise WrongWorkError("the next hop does not come up")
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def asked(effort: Effort) -> Row:
    """Mail with REQUIRETLS to one next hop, whose forecast the workers keep; mode monitor."""
    load = Load()
    requiretls = Mail(parameters=("REQUIRETLS",), host=BENCH_DOMAIN)
    with (
        tempfile.TemporaryDirectory(prefix="rtls-") as name,
        nothing(Path(name)) as in_c,
        baseline(Path(name)) as in_python,
        floor(Path(name)) as empty,
        next_hop(Path(name)) as config,
        service(config, effort.tree) as milter,
    ):
        directory = Path(name)
        subjects = (_subject("ours", milter, directory, 1), in_c, empty, in_python)
        data = _compared(load, subjects, requiretls, effort, directory)
        forecasts = _forecasts(milter)
    return _row(
        "asked",
        "mail with REQUIRETLS, its forecast kept in the workers, mode monitor",
        data,
        effort,
        (f"each message is tagged and leaves a line in the log (a file); {forecasts}",),
    )


def _forecasts(milter: Service) -> str:
    """What the workers had at hand; it must have been the forecast of a good delivery."""
    time.sleep(1.5)  # workers tell their counters once a second
    hits = milter.metric('cache_requests_total{layer="forecast",result="hit"}')
    others = sum(
        milter.metric(f'cache_requests_total{{layer="forecast",result="{result}"}}')
        for result in ("miss", "in_progress")
    )
    good = milter.metric('forecasts_total{reason="ok",requirement="requiretls",status="2.0.0"}')
    if not hits > 0 or not good > 0 or others > 0.1 * hits + 50:
        raise WrongWorkError(f"forecasts: {hits:g} kept, {others:g} not, {good:g} good")
    return f"{hits:,.0f} forecasts were at hand, {others:,.0f} not"
