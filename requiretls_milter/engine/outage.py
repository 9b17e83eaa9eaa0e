"""Tells an outage of our own from failures of the other side.

A server that does not answer is reported as such. But if servers of many networks fail at once
and none can be reached, it is our own connection that is gone: port 25 is blocked for us, the
uplink is down, the resolver is dead. No domain is judged by that: a forecast that would rest on
it becomes ``unknown``, which rules treat like every other lack of knowledge.

"No server can be reached" looks the same as "no healthy server was called": successes are kept for
an hour, while failures are tried again after a minute. So servers that answered lately are called
again before an outage is declared, and while it lasts, so that its end is seen
(:meth:`OutageDetector.due_rechecks`). If no server has answered so far, there is none to recheck.

Time comes in with each observation, the caller does the rechecks, and no more is remembered than
the decision takes. One success ends an outage.

What cannot be seen: a packet filter that *refuses* port 25 on behalf of all others (an RST for
each SYN, or ICMP port unreachable, which the kernel reports with the same errno). That looks like
servers on which nothing listens; it counts neither as reached nor as unreachable.
"""

from __future__ import annotations

import enum
import ipaddress
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
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
    ServerTarget,
)
from requiretls_milter.syntax.names import address_literal, valid_hostname
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Gauges
from requiretls_milter.telemetry.labels import OutboundService

MIN_FAILED = 5
"""Networks, or zones, that must have failed. That so many different operators fail at once, and
none is reached in between, is hardly their doing."""

FAILURE_WINDOW = 300.0
"""Seconds within which they must have failed."""

IPV6_SETTLING = 60.0
"""Seconds over which failures of IPv6 must extend. On a host without IPv6 they are immediate,
while IPv4 servers that are called at the same time take seconds to answer."""

MAX_RESPONDERS = 8
"""Networks, or zones, of each address family that are remembered for having answered."""

RESPONDER_LIFE = 86_400.0
"""Seconds for which they are: as long as anything that they said is kept (``cache.MAX_LIFE``).
Until then a healthy server may not have been called, and can be rechecked."""

RECHECKS = 3
"""Responders that are rechecked at once."""

NETWORK_V4 = 24
NETWORK_V6 = 48
"""Bits of an address that stand for its network: what one operator has, the hosts of one site."""

ZONE_LABELS = 2
"""Last labels of a name that stand for its zone: names of one operator fail together."""

_log = log.get_logger("engine.outage")


@dataclass(frozen=True, slots=True)
class NameTarget:
    """A name to look up: the MX of a domain, or the addresses of a host."""

    name: str
    is_domain: bool


Target = ServerTarget | NameTarget

_Targets = BoundedMap[str, tuple[float, Target]]
"""By network or zone: when one of its targets failed or answered last, and which it was."""


class _Family:
    """One address family: the targets that failed since any answered, and those that answered."""

    def __init__(self, settling: float) -> None:
        self._settling = settling
        self._failing_since = 0.0
        self.failed: _Targets = BoundedMap(MIN_FAILED)
        self.responders: _Targets = BoundedMap(MAX_RESPONDERS)
        """In the order in which they are rechecked."""

    def add_failure(self, group: str, target: Target, now: float) -> None:
        if not self.failed:
            self._failing_since = now
        self.failed.put(group, (now, target))

    def add_responder(self, group: str, target: Target, answered_at: float) -> None:
        self.responders.put(group, (answered_at, target))

    def forget(self, unreachable: Mapping[Target, str]) -> None:
        silent = [group for group, (_, target) in self.responders.items() if target in unreachable]
        for group in silent:
            self.responders.pop(group)

    def many_failed(self, now: float) -> bool:
        if len(self.failed) < MIN_FAILED or now < self._failing_since + self._settling:
            return False
        return all(when >= now - FAILURE_WINDOW for _, (when, _) in self.failed.items())

    def answered_since(self, moment: float) -> list[str]:
        return [group for group, (when, _) in self.responders.items() if when >= moment]


class ReachabilityMonitor:
    """Tells an outage of our own from failures of the other side, for one kind of attempt.

    Targets are counted by *group*: the network of a server, the zone of a name.

    Args:
        service: what is attempted.
        settling: for each address family that is tried, seconds over which failures must
            extend.
    """

    def __init__(self, service: OutboundService, settling: tuple[float, ...] = (0.0,)) -> None:
        self.service = service
        self._families = [_Family(seconds) for seconds in settling]
        self._next_recheck = float("-inf")
        self._rechecking = 0
        """Targets that are being rechecked, unless any target has answered since."""
        self.is_out = False
        """Whether there is an outage of our own."""

    @property
    def remembered(self) -> tuple[int, int]:
        """The largest numbers of failed groups and of responders that any family remembers."""
        return (
            max(len(family.failed) for family in self._families),
            max(len(family.responders) for family in self._families),
        )

    def add_failure(self, group: str, target: Target, now: float, family: int = 0) -> bool:
        """Note a failed attempt.

        Args:
            group: the network or zone that was tried.
            target: the member of it that was tried.
            now: seconds on a clock that does not jump.
            family: the index of the address family.

        Returns:
            Whether an outage begins with it: many failed, and there is no responder to recheck.
        """
        if self.is_out:
            return False
        self._families[family].add_failure(group, target, now)
        self.is_out = self._is_suspected(now) and not self._has_responders(now)
        return self.is_out

    def add_success(self, group: str, target: Target, now: float, family: int = 0) -> bool:
        """Note an attempt that succeeded; returns whether an outage ends with it."""
        for each in self._families:
            each.failed.clear()
        self.add_responder(group, target, now, family)
        self._rechecking = 0
        ended, self.is_out = self.is_out, False
        return ended

    def add_responder(
        self, group: str, target: Target, answered_at: float, family: int = 0
    ) -> None:
        """Note that a target answered, perhaps another process, so that this ends no outage."""
        self._families[family].add_responder(group, target, answered_at)

    def due_rechecks(self, now: float, interval: float) -> tuple[Target, ...]:
        """Servers to recheck now, some of each family; empty unless an outage is suspected.

        In an outage that began before any target had answered, those that failed.

        Args:
            now: as above.
            interval: seconds until the next recheck.
        """
        if now < self._next_recheck or not (self.is_out or self._is_suspected(now)):
            return ()
        chosen = [*itertools.islice(self._candidates(now), RECHECKS)]
        targets = []
        for group, members in chosen:
            members.touch(group)
            if (member := members.get(group)) is not None:
                targets.append(member[1])
        self._next_recheck = now + interval
        self._rechecking = len(chosen)
        return tuple(targets)

    def rechecked(self, unreachable: Mapping[Target, str]) -> bool:
        """Note the result of a recheck; returns whether an outage begins with it.

        It does if all targets were unreachable; one that refused is there, or something
        answers for it. Targets that were unreachable while others answered are not
        rechecked any more.

        Args:
            unreachable: the targets that could not be reached, and why.
        """
        if self._rechecking:
            begins = len(unreachable) == self._rechecking and not self.is_out
            self._rechecking = 0
            self.is_out = self.is_out or begins
            return begins
        for family in self._families:
            family.forget(unreachable)
        return False

    def _is_suspected(self, now: float) -> bool:
        """Whether so many failed that it might be an outage of our own.

        A family in which no target has answered, while one in another family has, does not
        count: this host does not have it, and no mail waits for it.
        """
        none = not self._has_responders(now)
        return any(
            family.many_failed(now) and (none or family.answered_since(now - RESPONDER_LIFE))
            for family in self._families
        )

    def _has_responders(self, now: float) -> bool:
        return any(family.answered_since(now - RESPONDER_LIFE) for family in self._families)

    def _candidates(self, now: float) -> Iterator[tuple[str, _Targets]]:
        """Groups to recheck, from each family in turn: both must be out for an outage."""
        moment = float("-inf") if self.is_out else now - RESPONDER_LIFE
        lists = [
            [(group, family.responders) for group in family.answered_since(moment)]
            for family in self._families
        ]
        if not any(lists):
            lists = [
                [(group, family.failed) for group in family.failed] for family in self._families
            ]
        for row in itertools.zip_longest(*lists):
            yield from filter(None, row)


class _Reach(enum.Enum):
    """Servers within the own networks may be there while the internet is not."""

    INTERNET = enum.auto()
    OWN_NETWORKS = enum.auto()


class OutageDetector:
    """Watches what the engine finds, and says when no conclusion may be drawn from it.

    Args:
        gauges: where ``outbound_reachable`` is shown.
        clocks: only the monotonic clock counts.
    """

    def __init__(self, gauges: Gauges | None = None, *, clocks: Clocks = SYSTEM_CLOCKS) -> None:
        self._gauges = gauges if gauges is not None else Gauges()
        self._monotonic = clocks.monotonic
        self._servers = {
            reach: ReachabilityMonitor(OutboundService.SMTP, settling=(0.0, IPV6_SETTLING))
            for reach in _Reach
        }
        self._names = ReachabilityMonitor(OutboundService.DNS)
        for service in OutboundService:
            self._show(service)

    def is_out(self, service: OutboundService) -> bool:
        """Whether a service cannot be reached from here."""
        if service is OutboundService.DNS:
            return self._names.is_out
        return any(monitor.is_out for monitor in self._servers.values())

    # ------------------------------------------------------------ what is seen

    def saw_probe(self, found: ProbeEvidence, target: ServerTarget) -> bool:
        """Note a session; returns whether an outage ends with it."""
        if not _tried(found):
            return False
        monitor = self._servers[_reach(found.address)]
        group = _network(found.address)
        family = _family(found.address)
        if could_not_connect(found):
            if monitor.add_failure(group, target, self._monotonic(), family):
                self._report_outage(monitor, found.error)
            return False
        if found.stage is ProbeStage.CONNECT:
            return False  # refused, but perhaps not by the server itself
        return self._add_success(monitor, group, target, family)

    def knows_probe(self, found: ProbeEvidence, target: ServerTarget, seconds_ago: float) -> None:
        """Note a session from the store: it names a server to recheck, and ends no outage."""
        if _tried(found) and found.stage is not ProbeStage.CONNECT:
            self._servers[_reach(found.address)].add_responder(
                _network(found.address),
                target,
                self._monotonic() - seconds_ago,
                _family(found.address),
            )

    def saw_lookup(self, name: str, found: MxEvidence | AddressLookup) -> bool:
        """Note a lookup; returns whether an outage of the resolver ends with it."""
        if found.unasked or address_literal(name) is not None or not valid_hostname(name):
            return False  # the resolver was not asked
        target = NameTarget(name, isinstance(found, MxEvidence))
        if found.outcome is DnsOutcome.ERROR:
            if self._names.add_failure(_zone(name), target, self._monotonic()):
                self._report_outage(self._names, found.error)
            return False
        return self._add_success(self._names, _zone(name), target)

    def _report_outage(self, monitor: ReachabilityMonitor, error: str) -> None:
        """Log it once, as an error: everything that follows from it stays quiet."""
        _log.error(
            "outbound_unreachable",
            service=monitor.service,
            different=MIN_FAILED,
            within=FAILURE_WINDOW,
            error=error,
        )
        self._show(monitor.service)

    def _add_success(
        self, monitor: ReachabilityMonitor, group: str, target: Target, family: int = 0
    ) -> bool:
        if not monitor.add_success(group, target, self._monotonic(), family):
            return False
        _log.warning("outbound_reachable", service=monitor.service)
        self._show(monitor.service)
        return True

    # ------------------------------------------------------------ rechecks

    def due_rechecks(self, interval: float) -> list[tuple[ReachabilityMonitor, tuple[Target, ...]]]:
        """Targets to recheck now, since an outage of our own may have begun or ended.

        The caller shows what it sees to :meth:`saw_probe` and :meth:`saw_lookup`, as ever,
        and then calls :meth:`rechecked`.

        Args:
            interval: seconds until the next recheck.
        """
        now = self._monotonic()
        monitors = (*self._servers.values(), self._names)
        due = [(monitor, monitor.due_rechecks(now, interval)) for monitor in monitors]
        return [(monitor, targets) for monitor, targets in due if targets]

    def rechecked(self, monitor: ReachabilityMonitor, unreachable: Mapping[Target, str]) -> None:
        """Note that all targets were rechecked; *unreachable* did not answer, and why."""
        if monitor.rechecked(unreachable):
            self._report_outage(monitor, next(iter(unreachable.values())))

    def _show(self, service: OutboundService) -> None:
        self._gauges.set("outbound_reachable", float(not self.is_out(service)), (service,))

    # ------------------------------------------------------------ what is made of it

    def excuse(self, evidence: DomainEvidence, forecast: Forecast) -> str:
        """Why a forecast says nothing of the domain, since it rests on our own outage; "" if not.

        A delivery that is forecast rests on what was seen, and so does what DNS
        and policies alone decide.
        """
        if forecast.outcome is Outcome.DELIVER:
            return ""
        if forecast.reason in _OF_LOOKUPS and self._names.is_out:
            return "our resolver does not answer: nothing is known of the domain"
        if forecast.reason in _OF_SESSIONS and any(
            could_not_connect(probe) and self._servers[_reach(probe.address)].is_out
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
        Reason.SMTPUTF8_NOT_OFFERED,
    }
)
"""Reasons that sessions show: the next server, which cannot be reached, might have been better."""


def could_not_connect(found: ProbeEvidence) -> bool:
    """Whether no answer of any kind came from the server's side."""
    return found.stage is ProbeStage.CONNECT and found.failure in (
        ProbeFailure.TIMEOUT,
        ProbeFailure.UNREACHABLE,
    )


def _tried(found: ProbeEvidence) -> bool:
    return found.stage is not ProbeStage.NOT_PROBED and (
        found.failure is not ProbeFailure.FORBIDDEN
    )


def _family(address: str) -> int:
    """0 for IPv4, 1 for IPv6."""
    return int(":" in address)


def _reach(address: str) -> _Reach:
    return _Reach.INTERNET if is_global(ipaddress.ip_address(address)) else _Reach.OWN_NETWORKS


def _network(address: str) -> str:
    bits = NETWORK_V6 if ":" in address else NETWORK_V4
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def _zone(name: str) -> str:
    return ".".join(name.split(".")[-ZONE_LABELS:])
