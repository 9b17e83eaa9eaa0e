"""Row ``tarpits``: how long a healthy cold domain takes while slow ones are looked at.

Slow domains have 16 MX hosts each that take 14 s for every reply, or whose name servers are silent,
or a policy host that says nothing. Questions about so many of them wait all the time; a few
seconds after they came healthy domains are asked about, ten a second, each a new one with a
server of its own. The engine's inside runs in this process, the
internet in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requiretls_milter import config as configuration
from requiretls_milter.config import Config
from requiretls_milter.model import Outcome
from requiretls_milter.telemetry import log
from tests.bench.rows import Effort, Row, number
from tests.support.paths import REPOSITORY
from tests.support.tarpits import HEALTHY, MTA_STS, SILENT_DNS, TARPIT, Engine, in_flight

LATENCY = 0.05
"""Seconds for every answer of what is healthy."""

SETTLING = 3.0
"""Seconds from the slow questions to the first healthy one at least."""

SETTLED = 60.0
"""Seconds after which the healthy questions begin although new slow ones still come to their turn:
240 domains of 16 hosts are 12,000 lookups."""

INTERVAL = 0.1
"""Seconds between two healthy questions."""

GOAL = 3.0
"""How many times its quiet value the 99th percentile may be."""

TITLE = f"a healthy cold domain beside slow ones, every answer after {1000 * LATENCY:.0f} ms"

KINDS = {
    "16 MX hosts that tarpit": TARPIT,
    "silent name servers": SILENT_DNS,
    "policy hosts that hang": MTA_STS,
}


@dataclass(frozen=True)
class Measured:
    """What became of the healthy domains beside so many slow ones."""

    kind: str
    slow: int
    p50: float
    p99: float
    worst: float
    asked: int
    unknown: int


def tarpits(effort: Effort) -> Row:
    """Measure each kind of slow domain, few and many."""
    log.configure("logfmt", "error")
    with _internet() as (config, policy_port):

        def measured(kind: str, slow: int) -> Measured:
            return asyncio.run(measure(config, policy_port, kind, slow, effort.healthy))

        quiet = measured("", 0)
        found = [quiet, *(measured(kind, slow) for kind in KINDS for slow in effort.slow)]
    lines = tuple(
        (
            f"{one.slow} with {one.kind}" if one.slow else "quiet",
            number(1000 * one.p50),
            number(1000 * one.p99),
            number(1000 * one.worst),
            f"{one.p99 / quiet.p99:.2f}",
            f"{one.unknown} of {one.asked}",
        )
        for one in found
    )
    return Row(
        "tarpits",
        TITLE,
        lines,
        ("beside", "p50 ms", "p99 ms", "worst ms", "p99 : quiet", "unknown"),
        (f"goal: p99 less than {GOAL:g} times its quiet value, and none unknown",),
        tuple(one.__dict__ for one in found),
    )


async def measure(config: Config, policy_port: int, kind: str, slow: int, healthy: int) -> Measured:
    """Ask about *healthy* domains while *slow* questions of a kind are under way."""
    loop = asyncio.get_running_loop()
    kinds = (KINDS[kind],) if kind else ()

    async def ask(which: int) -> tuple[float, bool]:
        await asyncio.sleep(which * INTERVAL)
        began = loop.time()
        forecast = await engine.forecast(HEALTHY, which)
        return loop.time() - began, forecast.outcome is not Outcome.DELIVER

    async with Engine(config, policy_port) as engine, in_flight(engine, kinds, slow):
        if slow:
            await _settled(engine)
        answers = await asyncio.gather(*map(ask, range(healthy)))
    seconds = sorted(taken for taken, _ in answers)
    unknown = sum(failed for _, failed in answers)
    p99 = seconds[(99 * len(seconds) - 1) // 100]
    middle = seconds[len(seconds) // 2]
    return Measured(kind, slow, middle, p99, seconds[-1], len(seconds), unknown)


async def _settled(engine: Engine) -> None:
    """Wait until the slow domains have been found slow: this row is about waiting, not work."""
    for _ in range(int(SETTLED / SETTLING)):
        await asyncio.sleep(SETTLING)
        if not engine.waits_promptly():
            return


@contextlib.contextmanager
def _internet() -> Iterator[tuple[Config, int]]:
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.slowinternet", directory, str(LATENCY)],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        try:
            if process.stdout is None:
                raise RuntimeError("no pipe")
            said: Any = json.loads(process.stdout.readline())
            yield configuration.parse(said[0].encode(), str(Path(directory))), said[1]
        finally:
            process.kill()
            process.communicate()
