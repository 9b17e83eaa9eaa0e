"""Where the mail in a log went, by next hop; and the downgrades that the log tells. Pure.

Postfix logs all mail, the milter only what asks for something (and, with ``probe.plain_mail``, all
other mail). So if there is any delivery of Postfix in the logs, Postfix's lines count and those of
the milter do not: no recipient counts twice. A recipient counts once, however often Postfix tries.
Postfix logs no next hops: ``[mta]`` says where mail to an address goes, as it does for mail of
which the MTA tells the milter nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.config import Mta
from requiretls_milter.model import Feature, HopKind, ProfileName, Reason
from requiretls_milter.readiness.values import Downgrade
from requiretls_milter.reports.logs import milter
from requiretls_milter.reports.logs.events import Event, Logged
from requiretls_milter.reports.logs.postfix import LogDelivery
from requiretls_milter.reports.logs.relay import SMTP_PORT, Relay
from requiretls_milter.syntax import nexthop

MAX_HOPS = 100_000
"""Next hops that are counted by name; mail to further ones is counted together."""

MAX_RECENT = 100_000
"""Recipients of whom it is known that they were counted, when Postfix tries again."""

MAX_TEXT = 320
"""Characters of a next hop or a transport."""

MAX_DOWNGRADES = 1_000
"""Downgrades that are kept; beyond it the oldest goes."""

_NO_RELAY = "none"


class Hop(NamedTuple):
    """A next hop, in canonical form, and the transport that leads there."""

    nexthop: str
    transport: str


@dataclass(slots=True)
class Mail:
    """Mail by next hop.

    Attributes:
        hops: recipients by next hop.
        others: recipients of next hops that are too many, or are none.
        since, until: the first and the last time, seconds since the epoch.
    """

    hops: dict[Hop, int] = field(default_factory=dict)
    others: int = 0
    since: float | None = None
    until: float | None = None

    def add(self, hop: Hop | None, time: float | None) -> None:
        """Count a recipient; None: of a next hop that is none."""
        if hop is None or (hop not in self.hops and len(self.hops) >= MAX_HOPS):
            self.others += 1
        else:
            self.hops[hop] = self.hops.get(hop, 0) + 1
        if time is not None:
            self.since = time if self.since is None else min(self.since, time)
            self.until = time if self.until is None else max(self.until, time)


class Traffic:
    """Counts mail while something else reads the same events.

    Args:
        mta: where mail goes.
    """

    def __init__(self, mta: Mta) -> None:
        self._postfix = Mail()
        self._milter = Mail()
        self._recent: BoundedMap[tuple[str, str], bool] = BoundedMap(MAX_RECENT)
        self._downgrades: BoundedMap[tuple[str, str, float | None], Downgrade] = BoundedMap(
            MAX_DOWNGRADES
        )
        self._lost: BoundedMap[tuple[str, str], tuple[str, str, float | None]] = BoundedMap(
            MAX_DOWNGRADES
        )
        self.forecasts = 0
        """Lines of the milter about a recipient."""
        self._hop_of = functools.lru_cache(maxsize=MAX_RECENT)(lambda to: hop_of(to, mta))

    @property
    def mail(self) -> Mail:
        """The mail that counts."""
        return self._postfix if self._postfix.hops or self._postfix.others else self._milter

    @property
    def downgrades(self) -> tuple[Downgrade, ...]:
        """The downgrades that were logged, in order of time."""
        found = (one for _, one in self._downgrades.items())
        return tuple(sorted(found, key=lambda one: one.at or 0.0))

    def counted(self, events: Iterable[Event]) -> Iterator[Event]:
        """Give all *events* on, and count them."""
        for event in events:
            what = event.what
            if isinstance(what, LogDelivery):
                self._add_delivery(what, event.time)
            elif isinstance(what, Logged):
                self._add_line(what.fields, event.time)
            yield event

    # ------------------------------------------------------------ Postfix

    def _add_delivery(self, delivery: LogDelivery, time: float | None) -> None:
        if not is_remote(delivery.relay):
            return
        key = (delivery.queue_id, delivery.to)
        if key in self._recent:
            return
        self._recent.put(key, True)
        try:
            hop = self._hop_of(delivery.to[:MAX_TEXT])
        except nexthop.NextHopError:
            self._postfix.add(None, time)
        else:
            if hop is not None:
                self._postfix.add(hop, time)

    # ------------------------------------------------------------ the milter

    def _add_line(self, fields: milter.Fields, time: float | None) -> None:
        match fields.get("event"):
            case milter.RECIPIENT:
                self._add_recipient(fields, time)
            case "downgrade":
                self._add_downgrade(fields, time)
            case "restored":
                self._restore(fields, time)

    def _add_recipient(self, fields: milter.Fields, time: float | None) -> None:
        self.forecasts += 1
        text = fields.get("nexthop", "")
        if fields.get("reason") == Reason.LOCAL or not text:
            return
        try:
            hop = nexthop.parse(text[:MAX_TEXT])
        except nexthop.NextHopError:
            self._milter.add(None, time)
        else:
            if hop.kind is not HopKind.LOCAL:
                transport = fields.get("transport", "")[:MAX_TEXT]
                self._milter.add(Hop(str(hop), transport), time)

    def _add_downgrade(self, fields: milter.Fields, time: float | None) -> None:
        found = _subject(fields)
        if found is not None:
            key = (*found, time)
            self._lost.put(found, key)
            self._downgrades.put(key, Downgrade(found[0], Feature(found[1]), time))

    def _restore(self, fields: milter.Fields, time: float | None) -> None:
        found = _subject(fields)
        key = self._lost.get(found) if found is not None else None
        before = self._downgrades.get(key) if key is not None else None
        if key is not None and before is not None:
            restored = Downgrade(before.subject, before.feature, before.at, time)
            self._downgrades.put(key, restored)


def _subject(fields: Mapping[str, str]) -> tuple[str, str] | None:
    subject, kind = fields.get("subject", "")[:MAX_TEXT], fields.get("kind", "")
    return (subject, kind) if subject and kind in [feature.value for feature in Feature] else None


def hop_of(recipient: str, mta: Mta) -> Hop | None:
    """Where mail to a recipient goes by ``[mta]``; None if this host delivers it.

    Raises:
        NextHopError: what its domain, or the configuration, names is no next hop.
    """
    way = mta.way(recipient, "", postfix=mta.profile is ProfileName.POSTFIX)
    if way.nexthop.kind is HopKind.LOCAL:
        return None
    return Hop(str(way.nexthop), way.transport)


def is_remote(relay: str) -> bool:
    """Whether an attempt went to another host, or would have: not to a program or a filter here."""
    server = Relay.parse(relay)
    if server is None:
        return relay == _NO_RELAY
    return server.is_address and not (server.is_here and server.port != SMTP_PORT)
