"""The watch of configured domains: ``domain_ready`` stays true even if no mail goes there.

Each domain is assessed every :data:`WATCH_INTERVAL`, and the assessments are spread over it. With
many domains there is a pause of at least :data:`MIN_PAUSE` between two of them, so that a round
takes longer: 5,000 domains take 17 minutes. The sessions, lookups and fetches of an assessment
have the same limits and budgets as those that mail causes. A domain that has not been assessed
yet goes first, so that ``domain_ready`` is there soon after a start or a reload. Our own servers
(:mod:`.ownservers`) are looked at in the same way, every ``watch.interval``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from requiretls_milter.bounded import in_pieces

WATCH_INTERVAL = 300.0
"""Seconds between two assessments of a domain."""

FIRST_PAUSE = 1.0
"""Seconds between two assessments at most while a domain has not been assessed yet."""

MIN_PAUSE = 0.2
"""Seconds between two assessments at least, however many domains there are: what five domains cost
each second is a small part of what mail may cost."""

AT_ONCE = 4
"""Assessments under way: a domain that is slow must not hold up the others, nor many of them take
all that the engine does at once."""

NEVER = float("-inf")


class DomainWatch:
    """Assesses domains in turn, without end.

    Args:
        domains: gives the domains that are to be assessed.
        assess: assesses one; it does not raise.
        monotonic: a clock, in seconds.
        interval: seconds between two assessments of a domain.
    """

    def __init__(
        self,
        domains: Callable[[], Iterable[str]],
        assess: Callable[[str], Awaitable[Any]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        interval: Callable[[], float] = lambda: WATCH_INTERVAL,
    ) -> None:
        self._domains = domains
        self._assess = assess
        self._monotonic = monotonic
        self._interval = interval
        self._began: dict[str, float] = {}
        """When the last assessment of each domain began; the earliest first."""
        self._under_way: set[str] = set()
        self._anew_at = NEVER
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._changed = asyncio.Event()

    def begin_anew(self) -> None:
        """Assess all domains soon: the domains, or how they are judged, have changed."""
        self._anew_at = self._monotonic()
        self._changed.set()

    async def run(self) -> None:
        """Assess the domains; runs as a task until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                domains = await self._in_turn()
                for domain in domains:
                    if domain in self._under_way:
                        continue
                    pause = self._pause_after(domain, len(domains))
                    await self._slots.acquire()
                    self._began.pop(domain, None)
                    self._began[domain] = self._monotonic()
                    self._under_way.add(domain)
                    tasks.create_task(self._assess_one(domain))
                    await self._wait(pause)
                    if self._changed.is_set():
                        break
                if self._under_way.issuperset(domains):
                    await self._wait(self._interval())

    async def _in_turn(self) -> list[str]:
        """The domains of one round: the one that was assessed longest ago first.

        There may be a hundred thousand; the loop has other work meanwhile.
        """
        names: set[str] = set()
        new: list[str] = []
        for piece in in_pieces(self._domains()):
            names.update(piece)
            new += (domain for domain in piece if domain not in self._began)
            await asyncio.sleep(0)
        former: list[str] = []
        for known in in_pieces(tuple(self._began)):
            for domain in known:
                if domain in names:
                    former.append(domain)
                else:
                    del self._began[domain]
            await asyncio.sleep(0)
        return new + former

    def _pause_after(self, domain: str, domains: int) -> float:
        """Seconds until the next assessment may begin."""
        spread = self._interval() / domains
        is_new = self._began.get(domain, NEVER) <= self._anew_at
        return max(MIN_PAUSE, min(FIRST_PAUSE, spread) if is_new else spread)

    async def _assess_one(self, domain: str) -> None:
        try:
            await self._assess(domain)
        finally:
            self._under_way.discard(domain)
            self._slots.release()

    async def _wait(self, seconds: float) -> None:
        """Wait, or until :meth:`begin_anew` is called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
