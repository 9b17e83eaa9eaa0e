"""The watch of configured domains: all in turn, spread, never many at once, the new ones first."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from requiretls_milter.engine.domains import watch as domainwatch
from requiretls_milter.engine.domains.watch import AT_ONCE, MIN_PAUSE, WATCH_INTERVAL, DomainWatch
from tests.support.waiting import until


class Kit:
    """A watch for which an hour takes no time: the loop's clock jumps when nothing else is left."""

    def __init__(self, domains: list[str]) -> None:
        self.domains = domains
        self.starts: list[tuple[float, str]] = []
        self.slow: set[str] = set()
        self.now = 0.0
        self.under_way = 0
        self.most = 0
        self.watch = DomainWatch(
            lambda: tuple(self.domains), self._assess, monotonic=lambda: self.now
        )

    async def _assess(self, domain: str) -> None:
        self.starts.append((self.now, domain))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if domain in self.slow:
                await asyncio.Event().wait()
        finally:
            self.under_way -= 1

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def times(self, domain: str) -> list[float]:
        return [at for at, name in self.starts if name == domain]


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    one = Run(monkeypatch)
    yield one
    for task in one.tasks:
        task.cancel()
    await asyncio.gather(*one.tasks, return_exceptions=True)


class Run:
    """Runs watches; each pause ends at once, after the clock has gone on by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.tasks: list[asyncio.Task[None]] = []

    async def until(self, kit: Kit, seconds: float) -> None:
        """Let *seconds* pass for the watch."""
        ends = kit.now + seconds
        reached = asyncio.Event()

        async def wait(_: DomainWatch, pause: float) -> None:
            await kit.settle()
            if kit.now + pause >= ends:
                reached.set()
                await asyncio.Event().wait()
            kit.now += pause

        self._monkeypatch.setattr(domainwatch.DomainWatch, "_wait", wait)
        task = asyncio.create_task(kit.watch.run())
        self.tasks.append(task)
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait({task, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


async def test_each_domain_is_assessed_each_interval_and_they_are_spread_over_it(run: Run) -> None:
    kit = Kit([f"d{number}.example" for number in range(10)])
    await run.until(kit, 10 * WATCH_INTERVAL)
    for domain in kit.domains:
        assert 9 <= len(kit.times(domain)) <= 12
    later = [at for at, _ in kit.starts if at > WATCH_INTERVAL]
    gaps = [b - a for a, b in itertools.pairwise(later)]
    assert all(gap == pytest.approx(WATCH_INTERVAL / 10) for gap in gaps)


async def test_5000_domains_are_all_assessed_in_a_round_with_a_pause_between_two(run: Run) -> None:
    kit = Kit([f"d{number}.example" for number in range(5_000)])
    await run.until(kit, 5_000 * MIN_PAUSE + 1)
    assert set(Counter(name for _, name in kit.starts).values()) <= {1, 2}
    assert len({name for _, name in kit.starts}) == 5_000
    times = [at for at, _ in kit.starts]
    assert min(b - a for a, b in itertools.pairwise(times)) >= MIN_PAUSE - 1e-9


async def test_a_few_domains_are_all_known_soon_after_the_start(run: Run) -> None:
    kit = Kit(["a.example", "b.example", "c.example"])
    await run.until(kit, 10)
    assert {name for _, name in kit.starts} == {"a.example", "b.example", "c.example"}


async def test_a_slow_domain_does_not_hold_up_the_others_nor_do_many_take_all(run: Run) -> None:
    kit = Kit([f"d{number}.example" for number in range(10)])
    kit.slow = {"d0.example", "d1.example"}
    await run.until(kit, 2 * WATCH_INTERVAL)
    assert len(kit.times("d9.example")) > 1
    crowd = Kit([f"d{number}.example" for number in range(10)])
    crowd.slow = set(crowd.domains)
    task = asyncio.create_task(run.until(crowd, WATCH_INTERVAL))
    await until(lambda: crowd.most == AT_ONCE)
    for _ in range(100):
        await asyncio.sleep(0)
    assert crowd.most == AT_ONCE
    task.cancel()


async def test_after_a_reload_new_domains_go_first_and_all_soon() -> None:
    kit = Kit([f"d{number}.example" for number in range(3)])
    task = asyncio.create_task(kit.watch.run())
    await kit.settle()
    assert [name for _, name in kit.starts] == ["d0.example"]
    kit.domains = [*kit.domains, "new.example"]
    for at, expected in enumerate(["d1.example", "d2.example", "new.example", "d0.example"]):
        kit.now = 1.0 + at
        kit.watch.begin_anew()
        await kit.settle()
        assert kit.starts[-1][1] == expected, "the one of longest ago, however often that happens"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_a_domain_it_waits_for_one() -> None:
    kit = Kit([])
    task = asyncio.create_task(kit.watch.run())
    await kit.settle()
    kit.domains = ["a.example"]
    kit.watch.begin_anew()
    await kit.settle()
    assert [name for _, name in kit.starts] == ["a.example"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_domains_have_the_interval_that_is_configured(run: Run) -> None:
    kit = Kit(["a.example"])
    kit.watch = DomainWatch(
        lambda: tuple(kit.domains), kit._assess, monotonic=lambda: kit.now, interval=lambda: 10.0
    )
    await run.until(kit, 100)
    times = kit.times("a.example")[1:]
    assert len(times) >= 9
    assert {after - before for before, after in itertools.pairwise(times)} == {10.0}
