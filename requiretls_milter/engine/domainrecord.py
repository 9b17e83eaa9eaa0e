"""What was found out last about each configured domain, and since when; for ``status``.

It outlives reloads, not the engine.
"""

from __future__ import annotations

from collections.abc import Iterable

from requiretls_milter.ipc.wire import DomainStatus
from requiretls_milter.model import Forecast, Outcome
from requiretls_milter.readiness.values import Destination
from requiretls_milter.syntax.text import bounded, printable

MAX_TEXT = 200
"""Characters of a forecast's text that are kept."""

_RANK = {False: 0, None: 1, True: 2}
"""The order in which domains are shown, by whether they are ready."""


class DomainRecord:
    """The last forecast of each configured domain."""

    def __init__(self) -> None:
        self._known: dict[str, DomainStatus] = {}
        self._destinations: dict[str, Destination] = {}

    def note(self, domain: str, forecast: Forecast, *, ready: bool, now: float) -> None:
        """Take a forecast.

        Args:
            domain: a configured one.
            forecast: of REQUIRETLS mail to it.
            ready: whether such mail gets there.
            now: seconds since the epoch.
        """
        before = self._known.get(domain)
        verdict = (forecast.outcome, forecast.status, forecast.reason)
        is_same = before is not None and verdict == (before.outcome, before.status, before.reason)
        self._known[domain] = DomainStatus(
            domain=domain,
            outcome=forecast.outcome,
            status=forecast.status,
            reason=forecast.reason,
            text=bounded(printable(forecast.text, MAX_TEXT + 1), MAX_TEXT),
            ready=None if forecast.outcome is Outcome.UNKNOWN else ready,
            assessed_at=now,
            since=before.since if before is not None and is_same else now,
        )

    def note_destination(self, found: Destination) -> None:
        """Take what a report says of a configured domain."""
        self._destinations[found.nexthop] = found

    def destinations(self) -> tuple[Destination, ...]:
        """What a report says of each domain that was assessed."""
        return tuple(self._destinations.values())

    def retain(self, domains: Iterable[str]) -> None:
        """Forget all other domains: they are configured no more."""
        kept = frozenset(domains)
        self._known = {name: one for name, one in self._known.items() if name in kept}
        self._destinations = {name: one for name, one in self._destinations.items() if name in kept}

    def copy(self) -> DomainRecord:
        """The same at this moment, for another thread."""
        other = DomainRecord()
        other._known = self._known.copy()
        return other

    def shown(self, most: int | None) -> tuple[DomainStatus, ...]:
        """At most *most* domains: those that are not ready, then unknown ones, then by name."""
        order = sorted(self._known.values(), key=lambda one: (_RANK[one.ready], one.domain))
        return tuple(order[:most])
