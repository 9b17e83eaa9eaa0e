"""Work begins when its turn has come, is broken off for others, and is finished in the end."""

from __future__ import annotations

import asyncio

import pytest

from requiretls_milter.config import Limits
from requiretls_milter.engine.turns import schedule
from requiretls_milter.engine.turns.shares import AllShares, Shares
from requiretls_milter.engine.turns.tickets import Room
from requiretls_milter.evidence.turns import (
    FREE,
    BusyError,
    Claim,
    Errand,
    on_behalf_of,
    running,
)
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import Bound, Lane
from tests.support.stores import saturated
from tests.support.waiting import until

HERE = Claim("192.0.2.0/24", "192.0.2.1")


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.broken_off = 0
        self.end = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        return "done"


def shares(places: int, slow_after: float = 10.0, per_target: int = 0) -> tuple[Shares, Counters]:
    counters = Counters()
    return Shares(Room(places, slow_after, per_target), Bound.PROBES, counters), counters


def ask(limiter: Shares, hop: str, work: Work, claim: Claim | None = None) -> asyncio.Task[str]:
    with on_behalf_of(hop):
        return asyncio.create_task(limiter.run(claim or Claim(f"network of {hop}"), work))


async def test_what_finds_no_place_waits_which_is_counted() -> None:
    limiter, counters = shares(2)
    works = [Work() for _ in range(3)]
    tasks = [ask(limiter, f"{n}", work) for n, work in enumerate(works)]
    await until(lambda: limiter.waiting()[Lane.PROMPT])
    assert [work.begun for work in works] == [1, 1, 0]
    assert limiter.running == 2
    assert saturated(counters) == {"probes": 1}
    works[0].end.set()
    await until(lambda: works[2].begun)
    for work in works:
        work.end.set()
    assert await asyncio.gather(*tasks) == ["done"] * 3
    assert limiter.running == 0


async def test_what_is_slow_is_broken_off_for_others_and_finished_later() -> None:
    limiter, counters = shares(2, slow_after=0.05)
    slow = [Work() for _ in range(2)]
    tasks = [ask(limiter, f"slow {n}", work) for n, work in enumerate(slow)]
    await until(lambda: saturated(counters).get("slow_after") == 2)
    prompt = Work()
    prompt.end.set()
    assert await ask(limiter, "prompt", prompt) == "done"
    assert sorted(work.broken_off for work in slow) == [0, 1]
    for work in slow:
        work.end.set()
    assert await asyncio.gather(*tasks) == ["done"] * 2
    assert sorted(work.begun for work in slow) == [1, 2]


async def test_work_that_is_given_up_leaves_its_place_or_its_turn() -> None:
    limiter, _ = shares(1)
    first, second, third = Work(), Work(), Work()
    tasks = [ask(limiter, f"{n}", work) for n, work in enumerate((first, second, third))]
    await until(lambda: first.begun)
    for task in (tasks[1], tasks[0]):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: third.begun)
    assert (first.broken_off, second.begun) == (1, 0)
    third.end.set()
    assert await tasks[2] == "done"


async def test_an_error_of_the_work_is_its_caller_s_and_frees_the_place() -> None:
    limiter, _ = shares(1)

    async def fails() -> str:
        raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        await limiter.run(HERE, fails)
    assert limiter.running == 0


async def test_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "MAX_WAITING", 2)
    limiter, counters = shares(1)
    works = [Work() for _ in range(3)]
    tasks = [ask(limiter, f"{n}", work) for n, work in enumerate(works)]
    await until(lambda: limiter.waiting()[Lane.PROMPT] == 2)
    with pytest.raises(BusyError):
        await ask(limiter, "more", Work())
    assert saturated(counters) == {"probes": 3}
    for work in works:
        work.end.set()
    await asyncio.gather(*tasks)


async def test_what_nobody_waits_for_any_more_gets_no_turn() -> None:
    limiter, _ = shares(1)
    errand = Errand()
    errand.join()
    errand.leave()
    with running(errand), pytest.raises(BusyError):
        await limiter.run(HERE, Work())


async def test_a_next_hop_that_joins_is_charged_if_it_fares_better() -> None:
    limiter, _ = shares(4, slow_after=0.05)
    slow = [Work() for _ in range(6)]
    tasks = [ask(limiter, "slow", work, Claim(f"{n}")) for n, work in enumerate(slow)]
    await until(lambda: limiter.waiting()[Lane.SLOW] >= 3)
    shared, errand = Work(), Errand()
    with on_behalf_of("slow"), running(errand):
        errand.join()
        tasks.append(asyncio.create_task(limiter.run(HERE, shared)))
    await until(lambda: errand.waiting)
    with on_behalf_of("healthy"):
        errand.join()
    await until(lambda: shared.begun)
    for work in (*slow, shared):
        work.end.set()
    await asyncio.gather(*tasks)


async def test_the_limits_of_a_configuration_are_those_of_its_shares() -> None:
    counters, gauges = Counters(), Gauges()
    limits = Limits(probes=2, probes_per_host=1, lookups=1, fetches=1)
    several = AllShares.of(limits, counters)
    limiters = several.limiters()
    works = [Work() for _ in range(8)]
    begun = [
        *(limiters.probes.run(HERE, work) for work in works[:2]),
        *(limiters.probes.run(Claim("n", f"{n}"), work) for n, work in enumerate(works[2:4])),
        *(limiters.lookups.run(HERE, work) for work in works[4:6]),
        *(limiters.fetches.run(HERE, work) for work in works[6:]),
    ]
    tasks = [asyncio.ensure_future(each) for each in begun]
    await until(lambda: sum(work.begun for work in works) == 4)
    assert saturated(counters) == {
        "probes_per_host": 1,
        "probes": 1,
        "lookups": 1,
        "fetches": 1,
    }
    several.show(gauges)
    shown = {labels: value for _, labels, value in gauges.items()}
    assert shown["lookups", "prompt"] == shown["fetches", "prompt"] == 1
    assert shown["probes", "slow"] == 0
    for work in works:
        work.end.set()
    await asyncio.gather(*tasks)


async def test_a_limiter_that_is_free_lets_all_pass() -> None:
    work = Work()
    work.end.set()
    assert await FREE.run(HERE, work) == "done"
