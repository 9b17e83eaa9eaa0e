"""Turns: whatever goes out to the network waits for its turn, on behalf of a next hop.

How many lookups, fetches and sessions run at the same time, and which comes next, is not decided
here. What asks the network hands its work to a :class:`Limiter`, with a :class:`Claim` that says to
which server the work goes. The engine's limiter gives fair shares
(:mod:`requiretls_milter.engine.turns.shares`); :data:`FREE` lets everything pass.

On whose behalf the work is done travels in the context of the asyncio task, since several next
hops may wait for the same session, and more may join them while it waits: an :class:`Errand`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from requiretls_milter.errors import RequiretlsMilterError

T = TypeVar("T")


class BusyError(RequiretlsMilterError):
    """More is under way than is taken on at once, or nothing waits for the work any more.

    The caller concludes that nothing is known now: the forecast is ``unknown``.
    """


class Claim(NamedTuple):
    """To which server the work goes.

    Attributes:
        group: what shares a fate: the network of an address, the zone of a name.
        target: the server itself; empty if it is not known which one it will be.
    """

    group: str
    target: str = ""


class Limiter(Protocol):
    """Says when work may begin."""

    async def run(self, claim: Claim, work: Callable[[], Awaitable[T]]) -> T:
        """Do *work* when its turn has come, and return what it returns.

        Work that takes long may be broken off (it is cancelled) and begun anew later, so that
        others are not kept waiting.

        Raises:
            BusyError: it does not get a turn.
        """
        ...


class Free:
    """A limiter that lets everything pass at once."""

    async def run(self, claim: Claim, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work now."""
        return await work()


FREE = Free()


@dataclass(frozen=True, slots=True)
class Limiters:
    """A limiter for each resource."""

    probes: Limiter = FREE
    lookups: Limiter = FREE
    fetches: Limiter = FREE


# ---------------------------------------------------------------- on whose behalf


class Errand:
    """One thing that is to be found out, and the next hops that want to know it."""

    def __init__(self) -> None:
        self.hops: list[str] = []
        """The next hops, each once, in the order in which they asked."""
        self.waiting = 0
        """How many turns it waits for."""
        self.listeners: list[Callable[[str], None]] = []
        """Called with each further next hop while it waits for a turn."""
        self._callers = 0

    def join(self) -> None:
        """Note one more caller, and the next hop for which it asks."""
        self._callers += 1
        hop = _hop.get()
        if hop not in self.hops:
            self.hops.append(hop)
            for listener in tuple(self.listeners):
                listener(hop)

    def leave(self) -> None:
        """Note that a caller waits no more."""
        self._callers -= 1

    @property
    def abandoned(self) -> bool:
        """Whether no caller waits for it any more."""
        return self._callers <= 0


_hop: ContextVar[str] = ContextVar("hop", default="")
_errand: ContextVar[Errand | None] = ContextVar("errand", default=None)


@contextlib.contextmanager
def on_behalf_of(hop: str) -> Iterator[None]:
    """What is asked within, and in tasks that are started within, is asked for this next hop."""
    token = _hop.set(hop)
    try:
        yield
    finally:
        _hop.reset(token)


@contextlib.contextmanager
def running(errand: Errand) -> Iterator[None]:
    """What is asked within belongs to this errand."""
    token = _errand.set(errand)
    try:
        yield
    finally:
        _errand.reset(token)


def current_errand() -> Errand:
    """The errand that the current task is on; a new one, for its next hop, if it is on none."""
    errand = _errand.get()
    if errand is None:
        errand = Errand()
        errand.join()
    return errand
