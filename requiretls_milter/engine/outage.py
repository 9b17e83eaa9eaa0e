"""Being unreachable is not being incapable: is it they who are away, or we?

A server that does not answer is told as such. But where servers of many
networks fail at once and none can be reached, it is our own connection that is
gone: port 25 is blocked for us, the uplink is down, the resolver is dead. No
domain is judged by that: what would have been forecast from it becomes
``unknown``, which rules treat as they treat every other ignorance.

That nobody is reached is hard to tell from that nobody who is well is called:
successes are kept for an hour, while failures are tried again after a minute.
So whoever answered lately is asked again before it is called an outage, and
while it lasts, so that its end is seen (:meth:`Outbound.doubts`). Where nobody
has answered so far there is nobody to ask.

Pure: time comes in with each observation, others do the asking, and no more is
remembered than it takes to decide. One success is the end of it, by itself.

What it cannot see: a packet filter that *refuses* port 25 on behalf of all
others (an RST for each SYN, or ICMP port unreachable, which the kernel tells in
the same words). That looks like servers at which nobody listens; it counts
neither as reached nor as unreachable.
"""

from __future__ import annotations

import enum
import ipaddress
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.evidence.addresses import is_global
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    MxEvidence,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
)
from requiretls_milter.syntax.names import address_literal, valid_hostname
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Gauges
from requiretls_milter.telemetry.labels import OutboundService

LEAST = 5
"""Networks, or domains, that must have failed: that so many different operators fail at once, and
nobody is reached between, is hardly their doing."""

WITHIN = 300.0
"""Seconds in which they must have failed."""

SETTLED = 60.0
"""Seconds over which failures of IPv6 must extend: a host without it is told so at once, while
IPv4 servers that are called at the same time take seconds to answer."""

KNOWN = 8
"""Networks, or zones, of each family that are remembered for having answered."""

KNOWN_FOR = 86_400.0
"""Seconds for which they are: as long as anything that they said is kept (cache.MAX_LIFE), so
that whoever does not show that he is well, since nobody needs to ask him, can be asked."""

ASKED = 3
"""Of these so many are asked at once."""

NETWORK_V4 = 24
NETWORK_V6 = 48
"""Bits of an address that stand for its network: what one operator has, hosts of one site."""

ZONE_LABELS = 2
"""Last labels of a name that stand for its zone: names of one operator fail together."""

_log = log.get_logger("engine.outage")


@dataclass(frozen=True, slots=True)
class Server:
    """One to call."""

    address: str
    port: int
    server_name: str


@dataclass(frozen=True, slots=True)
class Name:
    """One to look up: the MX of a domain, or the addresses of a host."""

    name: str
    is_domain: bool


Whom = Server | Name

_People = OrderedDict[str, tuple[float, Whom]]
"""By network or zone: when one of it failed or answered, and who it was."""


class _Family:
    """What was tried over one protocol: who failed since anybody answered, and who answered."""

    def __init__(self, settled: float) -> None:
        self._settled = settled
        self._since = 0.0
        self.failed: _People = OrderedDict()
        self.known: _People = OrderedDict()
        """First the one that was neither heard of nor asked for the longest time."""

    def fail(self, whose: str, who: Whom, now: float) -> None:
        if not self.failed:
            self._since = now
        _put(self.failed, whose, (now, who), LEAST)

    def know(self, whose: str, who: Whom, heard: float) -> None:
        _put(self.known, whose, (heard, who), KNOWN)

    def forget(self, silent: Mapping[Whom, str]) -> None:
        for whose in [whose for whose, (_, who) in self.known.items() if who in silent]:
            del self.known[whose]

    def many_failed(self, now: float) -> bool:
        if len(self.failed) < LEAST or now < self._since + self._settled:
            return False
        return all(when >= now - WITHIN for when, _ in self.failed.values())

    def answered_since(self, moment: float) -> list[str]:
        return [whose for whose, (heard, _) in self.known.items() if heard >= moment]


class Watch:
    """Tells an outage of ours from failures of theirs, for one kind of attempt.

    Args:
        service: what is attempted.
        settled: for each family (protocol) of those that are tried, seconds over
            which failures must extend.
    """

    def __init__(self, service: OutboundService, settled: tuple[float, ...] = (0.0,)) -> None:
        self.service = service
        self._families = [_Family(seconds) for seconds in settled]
        self._next = float("-inf")
        self._asking = 0
        """How many are being asked of whom nobody has answered since."""
        self.out = False
        """Whether it is we."""

    def failure(self, whose: str, who: Whom, now: float, family: int = 0) -> bool:
        """An attempt failed; returns whether an outage begins with it: there is nobody to ask.

        Args:
            whose: the network or zone that was tried.
            who: one of it.
            now: seconds on a clock that does not jump.
            family: by which protocol.
        """
        if self.out:
            return False
        self._families[family].fail(whose, who, now)
        self.out = self._doubtful(now) and not self._anybody_known(now)
        return self.out

    def success(self, whose: str, who: Whom, now: float, family: int = 0) -> bool:
        """An attempt succeeded; returns whether an outage ends with it."""
        for each in self._families:
            each.failed.clear()
        self.know(whose, who, now, family)
        self._asking = 0
        ended, self.out = self.out, False
        return ended

    def know(self, whose: str, who: Whom, heard: float, family: int = 0) -> None:
        """Somebody answered at *heard*; maybe not us, so that this ends nothing."""
        self._families[family].know(whose, who, heard)

    def whom(self, now: float, pace: float) -> tuple[Whom, ...]:
        """Who is to be asked now, of each family some; nobody where there is no doubt.

        In an outage that began before anybody had answered, those who failed.

        Args:
            now: as above.
            pace: seconds until anybody is to be asked again.
        """
        if now < self._next or not (self.out or self._doubtful(now)):
            return ()
        chosen = [*itertools.islice(self._to_ask(now), ASKED)]
        for people, whose in chosen:
            people.move_to_end(whose)
        self._next = now + pace
        self._asking = len(chosen)
        return tuple(people[whose][1] for people, whose in chosen)

    def asked(self, silent: Mapping[Whom, str]) -> bool:
        """Those who were to be asked have been; returns whether an outage begins with it.

        It does where all were silent: who refused is there, or somebody is for
        him. Who did not answer while others did is not asked any more.

        Args:
            silent: who could not be reached, and why.
        """
        if self._asking:
            begins = len(silent) == self._asking and not self.out
            self._asking = 0
            self.out = self.out or begins
            return begins
        for each in self._families:
            each.forget(silent)
        return False

    def _doubtful(self, now: float) -> bool:
        """Whether so many failed that it might be we.

        Not by a family in which nobody has answered while in another somebody
        has: it is not ours to have, and no mail waits for it.
        """
        nobody = not self._anybody_known(now)
        return any(
            each.many_failed(now) and (nobody or each.answered_since(now - KNOWN_FOR))
            for each in self._families
        )

    def _anybody_known(self, now: float) -> bool:
        return any(each.answered_since(now - KNOWN_FOR) for each in self._families)

    def _to_ask(self, now: float) -> Iterator[tuple[_People, str]]:
        """Whom to ask, from each family in turn: an outage of one alone is none."""
        moment = float("-inf") if self.out else now - KNOWN_FOR
        lists = [
            [(each.known, whose) for whose in each.answered_since(moment)]
            for each in self._families
        ]
        if not any(lists):
            lists = [[(each.failed, whose) for whose in each.failed] for each in self._families]
        for row in itertools.zip_longest(*lists):
            yield from filter(None, row)


class _Scope(enum.Enum):
    """Servers within the own networks may be there while the internet is not."""

    GLOBAL = enum.auto()
    OWN = enum.auto()


class Outbound:
    """Watches what the engine finds out, and says when nothing should be made of it.

    Args:
        gauges: where ``outbound_reachable`` is shown.
        monotonic: a clock, in seconds.
    """

    def __init__(
        self, gauges: Gauges | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._gauges = gauges if gauges is not None else Gauges()
        self._monotonic = monotonic
        self._servers = {
            scope: Watch(OutboundService.SMTP, settled=(0.0, SETTLED)) for scope in _Scope
        }
        self._names = Watch(OutboundService.DNS)
        for service in OutboundService:
            self._show(service)

    def out(self, service: OutboundService) -> bool:
        """Whether a service cannot be reached from here."""
        if service is OutboundService.DNS:
            return self._names.out
        return any(watch.out for watch in self._servers.values())

    # ------------------------------------------------------------ what is seen

    def saw_probe(self, found: ProbeEvidence, port: int, server_name: str) -> bool:
        """A session was tried; returns whether servers can be reached again with it."""
        if not _tried(found):
            return False
        watch = self._servers[_scope(found.address)]
        seen = _seen(found, port, server_name)
        if could_not_connect(found):
            if watch.failure(*seen, self._monotonic(), _family(found.address)):
                self._tell(watch, found.error)
            return False
        if found.stage is ProbeStage.CONNECT:
            return False  # refused: somebody said so, but who?
        return self._back(watch, *seen, _family(found.address))

    def knows_probe(
        self, found: ProbeEvidence, port: int, server_name: str, seconds_ago: float
    ) -> None:
        """A session that somebody else held, or we before a restart: a server to ask."""
        if _tried(found) and found.stage is not ProbeStage.CONNECT:
            self._servers[_scope(found.address)].know(
                *_seen(found, port, server_name),
                self._monotonic() - seconds_ago,
                _family(found.address),
            )

    def saw_lookup(self, name: str, found: MxEvidence | AddressLookup) -> bool:
        """A name was looked up; returns whether the resolver answers again with it."""
        if address_literal(name) is not None or not valid_hostname(name):
            return False  # nobody was asked
        who = Name(name, isinstance(found, MxEvidence))
        if found.outcome is DnsOutcome.ERROR:
            if self._names.failure(_zone(name), who, self._monotonic()):
                self._tell(self._names, found.error)
            return False
        return self._back(self._names, _zone(name), who)

    def _tell(self, watch: Watch, error: str) -> None:
        """Say it once, loudly: everything that follows from it stays quiet."""
        _log.error(
            "outbound_unreachable",
            service=watch.service,
            different=LEAST,
            within=WITHIN,
            error=error,
        )
        self._show(watch.service)

    def _back(self, watch: Watch, whose: str, who: Whom, family: int = 0) -> bool:
        if not watch.success(whose, who, self._monotonic(), family):
            return False
        _log.warning("outbound_reachable", service=watch.service)
        self._show(watch.service)
        return True

    # ------------------------------------------------------------ what is asked again

    def doubts(self, pace: float) -> list[tuple[Watch, tuple[Whom, ...]]]:
        """Who is to be asked now, since it might be we, or may have ceased to be.

        Whoever asks gives what he sees to :meth:`saw_probe` and :meth:`saw_lookup`,
        as ever, and then says :meth:`asked`.

        Args:
            pace: seconds until anybody is to be asked again.
        """
        now = self._monotonic()
        asked = [(watch, watch.whom(now, pace)) for watch in (*self._servers.values(), self._names)]
        return [(watch, whom) for watch, whom in asked if whom]

    def asked(self, watch: Watch, silent: Mapping[Whom, str]) -> None:
        """All of them have been asked; *silent* did not answer, for the reason that is given."""
        if watch.asked(silent):
            self._tell(watch, next(iter(silent.values())))

    def _show(self, service: OutboundService) -> None:
        self._gauges.set("outbound_reachable", float(not self.out(service)), (service,))

    # ------------------------------------------------------------ what is made of it

    def excuse(self, evidence: DomainEvidence, forecast: Forecast) -> str:
        """Why a forecast says nothing of the domain, since it rests on our own outage; "" if not.

        A delivery that is forecast rests on what was seen, and so does what DNS
        and policies alone decide.
        """
        if forecast.outcome is Outcome.DELIVER:
            return ""
        if forecast.reason in _OF_LOOKUPS and self._names.out:
            return "our resolver does not answer: nothing is known of the domain"
        if forecast.reason in _OF_SESSIONS and any(
            could_not_connect(probe) and self._servers[_scope(probe.address)].out
            for host in evidence.hosts
            for probe in host.probes
        ):
            return "no mail server can be reached from here: nothing is known of this one"
        return ""


_OF_LOOKUPS = frozenset({Reason.DNS_FAILURE, Reason.POLICY_LOOKUP_FAILED})

_OF_SESSIONS = frozenset(
    {
        Reason.UNREACHABLE,
        Reason.SERVER_REJECTS,
        Reason.STARTTLS_NOT_OFFERED,
        Reason.STARTTLS_REFUSED,
        Reason.TLS_HANDSHAKE_FAILED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        Reason.REQUIRETLS_NOT_OFFERED,
    }
)
"""Reasons that sessions show: the next server, which cannot be reached, might have been better."""


def could_not_connect(found: ProbeEvidence) -> bool:
    """Whether nobody at all answered."""
    return found.stage is ProbeStage.CONNECT and found.failure in (
        ProbeFailure.TIMEOUT,
        ProbeFailure.UNREACHABLE,
    )


def _tried(found: ProbeEvidence) -> bool:
    return found.stage is not ProbeStage.NOT_PROBED and (
        found.failure is not ProbeFailure.FORBIDDEN
    )


def _seen(found: ProbeEvidence, port: int, server_name: str) -> tuple[str, Server]:
    return _network(found.address), Server(found.address, port, server_name)


def _put(people: _People, whose: str, entry: tuple[float, Whom], most: int) -> None:
    """Put it last; the first makes room."""
    people[whose] = entry
    people.move_to_end(whose)
    while len(people) > most:
        people.popitem(last=False)


def _family(address: str) -> int:
    """0 for IPv4, 1 for IPv6."""
    return int(":" in address)


def _scope(address: str) -> _Scope:
    return _Scope.GLOBAL if is_global(ipaddress.ip_address(address)) else _Scope.OWN


def _network(address: str) -> str:
    bits = NETWORK_V6 if ":" in address else NETWORK_V4
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def _zone(name: str) -> str:
    return ".".join(name.split(".")[-ZONE_LABELS:])
