"""Row ``scrape``: what a scrape costs with thousands of rules, and what it holds up."""

from __future__ import annotations

import asyncio
import time

from requiretls_milter.engine.web.exposition import Readings, render, set_build_info
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.bench.figures import figure
from tests.bench.rows import Effort, Row, number

RULES = 5_000

WORKERS = 2

TURN = 0.0005
"""Seconds that a turn of a loop takes which has little to do."""

GOAL_SECONDS, GOAL_OCTETS = 0.05, 1_000_000

CASES = (
    ("nothing has happened for any domain", ()),
    ("each has had mail and was assessed", ("2.0.0",)),
    ("the same, mail with three results", ("2.0.0", "4.4.1", "5.7.30")),
)


def scraped(effort: Effort) -> Row:
    """Measure the copy that is made on the loop, and the text that a thread makes of it."""
    lines = []
    data = []
    for title, statuses in CASES:
        aggregate, gauges, domains = _service(statuses)
        on_loop, in_thread, held, octets, samples = [], [], [], 0, 0
        for _ in range(5 * effort.runs):
            began = time.perf_counter()
            readings = Readings(aggregate.copy().totals, gauges.copy(), domains)
            read = time.perf_counter()
            page = render(readings, "")
            on_loop.append(read - began)
            in_thread.append(time.perf_counter() - read)
            octets, samples = len(page.body), page.body.count(b"\n")
            held.append(asyncio.run(_held_up(readings)))
        loop, thread, waits = figure(on_loop), figure(in_thread), figure(held)
        lines.append(
            (
                title,
                number(samples),
                number(octets),
                f"{1000 * loop.median:.2f}",
                f"{1000 * thread.median:.1f}",
                f"{1000 * waits.median:.1f}",
            )
        )
        data.append(
            {
                "case": title,
                "lines": samples,
                "octets": octets,
                "loop_seconds": loop.median,
                "thread_seconds": thread.median,
                "held_seconds": waits.median,
            }
        )
    return Row(
        "scrape",
        f"a scrape of the metrics with {number(RULES)} rules",
        tuple(lines),
        ("domains", "lines", "octets", "ms on the loop", "ms in a thread", "longest turn, ms"),
        (
            f"medians of {5 * effort.runs} scrapes; goal: less than {1000 * GOAL_SECONDS:.0f} ms "
            f"and {number(GOAL_OCTETS)} octets",
        ),
        tuple(data),
    )


async def _held_up(readings: Readings) -> float:
    """The longest time that the loop takes for a turn while a thread renders, in seconds."""
    rendering = asyncio.create_task(asyncio.to_thread(render, readings, ""))
    longest, last = 0.0, time.perf_counter()
    while not rendering.done():
        await asyncio.sleep(TURN)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def _service(statuses: tuple[str, ...]) -> tuple[Aggregate, Gauges, tuple[str, ...]]:
    """The counters of some workers, and the engine's gauges."""
    domains = tuple(f"partner-{n}.example-{n % 97}.org" for n in range(RULES))
    aggregate, gauges = Aggregate(), Gauges()
    set_build_info(gauges)
    for worker in range(WORKERS):
        counters = Counters(domains)
        for domain in domains:
            for status in statuses:
                counters.inc("domain_forecasts_total", (domain, status))
        aggregate.update(f"worker-{worker + 1}", 1, counters.totals())
    if statuses:
        for domain in domains:
            gauges.set("domain_ready", 1.0, (domain,))
            gauges.set_word("domain_state", (domain,), "deliver")
            gauges.set_word("domain_reason", (domain,), "ok")
            for what in ("last_assessed", "certificate_expiry", "policy_expiry"):
                gauges.set(f"domain_{what}_timestamp_seconds", 1.8e9, (domain,))
    return aggregate, gauges, domains
