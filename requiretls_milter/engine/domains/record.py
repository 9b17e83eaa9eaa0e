"""What was found out last about each configured domain, and since when; for ``status``.

It outlives reloads. Since when a domain is as it is outlives the engine too, in the store: a domain
that is not known for a while, as at a start, is afterwards as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from requiretls_milter.bounded import in_pieces
from requiretls_milter.engine.records import Settled, decode_settled, encode_settled
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.ipc.wire import DomainStatus
from requiretls_milter.model import Forecast, Mode, NextHop, Outcome
from requiretls_milter.readiness.values import HopReadiness
from requiretls_milter.store.base import StoreKind
from requiretls_milter.syntax.text import bounded, printable

MAX_TEXT = 200
"""Characters of a forecast's text that are kept."""

KEPT = 30 * 86_400.0
"""Seconds for which it is remembered how a domain is, and since when."""

KEPT_AGAIN = 86_400.0
"""Seconds after which that is worth writing down again, though nothing has changed."""

_RANK = {False: 0, None: 1, True: 2}
"""The order in which domains are shown, by whether they are ready."""

Answer = Callable[[str, NextHop, Forecast], tuple[Mode, str]]
"""Says which mode the rule of a domain has, and the codes of the reply that it gives."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is shown of a domain, and what its rule decides about."""

    status: DomainStatus
    nexthop: NextHop
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store has, and when it was written there; seconds since the epoch."""

    settled: Settled
    written_at: float


class DomainRecord:
    """The last forecast of each configured domain.

    Args:
        records: where it is kept since when a domain is as it is; None if nowhere.
    """

    def __init__(self, records: RecordStore | None = None) -> None:
        self._records = records
        self._known: dict[str, _Noted] = {}
        self._kept: dict[str, _Kept] = {}
        self._destinations: dict[str, HopReadiness] = {}

    async def note(
        self, domain: str, nexthop: NextHop, forecast: Forecast, *, ready: bool, now: float
    ) -> None:
        """Take a forecast.

        Args:
            domain: a configured one.
            nexthop: to which mail for it goes.
            forecast: of REQUIRETLS mail to it.
            ready: whether such mail gets there.
            now: seconds since the epoch.
        """
        is_known = forecast.outcome is not Outcome.UNKNOWN
        since = await (self._settled if is_known else self._unknown)(domain, forecast, now)
        status = DomainStatus(
            domain=domain,
            outcome=forecast.outcome,
            status=forecast.status,
            reason=forecast.reason,
            text=bounded(printable(forecast.text, MAX_TEXT + 1), MAX_TEXT),
            ready=ready if is_known else None,
            assessed_at=now,
            since=since,
        )
        self._known[domain] = _Noted(status, nexthop, forecast)

    async def _unknown(self, domain: str, forecast: Forecast, now: float) -> float:
        """Say since when nothing is known."""
        before = self._known.get(domain)
        is_same = before is not None and before.status.outcome is forecast.outcome
        return before.status.since if before is not None and is_same else now

    async def _settled(self, domain: str, forecast: Forecast, now: float) -> float:
        """Say since when a domain is as it is now, and have it kept."""
        kept = self._kept.get(domain) or await self._read(domain, now)
        settled = None if kept is None else kept.settled
        if settled is None or not settled.is_same(forecast) or settled.since > now:
            settled = Settled(forecast.outcome, forecast.status, forecast.reason, now)
            kept = None
        if kept is None or now >= kept.written_at + KEPT_AGAIN:
            kept = _Kept(settled, now)
            if self._records is not None:
                value = encode_settled(settled)
                await self._records.write(StoreKind.DOMAIN, domain, value, now + KEPT, now)
        self._kept[domain] = kept
        return settled.since

    async def _read(self, domain: str, now: float) -> _Kept | None:
        """What an earlier engine has kept; it is worth writing again."""
        if self._records is None:
            return None
        found = await self._records.read(StoreKind.DOMAIN, domain, decode_settled, now)
        return None if found is None else _Kept(found, float("-inf"))

    def note_destination(self, domains: Iterable[str], found: HopReadiness) -> None:
        """Take what a report says of the next hop of configured domains."""
        for domain in domains:
            self._destinations[domain] = replace(found, nexthop=domain)

    def destinations(self) -> tuple[HopReadiness, ...]:
        """What a report says of each domain that was assessed."""
        return tuple(self._destinations.values())

    def retain(self, domains: Container[str]) -> Iterator[None]:
        """Forget all other domains: they are configured no more.

        Yields after each piece of the work, so that the caller can do something else between.
        """
        maps: tuple[dict[str, Any], ...] = (self._known, self._kept, self._destinations)
        for kept in maps:
            for piece in in_pieces(tuple(kept)):
                for name in piece:
                    if name not in domains:
                        kept.pop(name, None)
                yield

    def copy(self) -> DomainRecord:
        """The same at this moment, for another thread; nothing is to be noted in it."""
        other = DomainRecord()
        other._known = self._known.copy()
        return other

    def shown(
        self, most: int | None, answer: Answer, named: Container[str] = ()
    ) -> tuple[DomainStatus, ...]:
        """At most *most* domains: those that are not ready, then unknown ones, then by name.

        Args:
            most: None for all.
            answer: by the rules that are in force now, which may have changed since.
            named: come before all others: one partner is not to vanish among those of a list.
        """

        def rank(one: _Noted) -> tuple[bool, int, str]:
            domain = one.status.domain
            return domain not in named, _RANK[one.status.ready], domain

        order = sorted(self._known.values(), key=rank)
        return tuple(_with_answer(one, answer) for one in order[:most])


def _with_answer(noted: _Noted, answer: Answer) -> DomainStatus:
    mode, reply = answer(noted.status.domain, noted.nexthop, noted.forecast)
    nexthop = str(noted.nexthop)
    through = "" if nexthop == noted.status.domain else nexthop
    return noted.status.model_copy(update={"mode": mode, "reply": reply, "nexthop": through})
