"""Being unreachable is not being incapable: is it they who are away, or we?

A server that does not answer is told as such. But where servers of many
networks fail at once and none can be reached, it is our own connection that is
gone: port 25 is blocked for us, the uplink is down, the resolver is dead. No
domain is judged by that: what would have been forecast from it becomes
``unknown``, which rules treat as they treat every other ignorance.

Pure: time comes in with each observation, and no more is remembered than it
takes to decide. One success is the end of it, by itself.

What it cannot see: a packet filter that *refuses* port 25 on behalf of all
others (an RST for each SYN). That looks like servers at which nobody listens;
it counts neither as reached nor as unreachable.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import os
import time
from collections import OrderedDict
from collections.abc import Callable

from requiretls_milter import log
from requiretls_milter.evidence.addresses import is_global
from requiretls_milter.metrics import Gauges, OutboundService
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

LEAST = 5
"""Networks, or domains, that must have failed: that so many different operators fail at once, and
nobody is reached between, is hardly their doing."""

WITHIN = 300.0
"""Seconds in which they must have failed."""

NETWORK_V4 = 24
NETWORK_V6 = 48
"""Bits of an address that stand for its network: what one operator has, hosts of one site."""

ZONE_LABELS = 2
"""Last labels of a name that stand for its zone: names of one operator fail together."""

UNREACHABLE = frozenset(
    os.strerror(number)
    for number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM)
)
"""What the kernel says where no packet could go out, or a filter of ours stopped it."""

_log = log.get_logger("engine.outage")


class Watch:
    """Tells an outage of ours from failures of theirs, for one kind of attempt."""

    def __init__(self, least: int = LEAST, within: float = WITHIN) -> None:
        self._least = least
        self._within = within
        self._failed: OrderedDict[str, float] = OrderedDict()
        self.out = False
        """Whether it is we."""

    def failure(self, whose: str, now: float) -> bool:
        """An attempt failed; returns whether an outage begins with it.

        Args:
            whose: the network or zone that was tried.
            now: seconds on a clock that does not jump.
        """
        if self.out:
            return False
        self._failed[whose] = now
        self._failed.move_to_end(whose)
        while next(iter(self._failed.values())) < now - self._within:
            self._failed.popitem(last=False)
        if len(self._failed) < self._least:
            return False
        self._failed.clear()
        self.out = True
        return True

    def success(self) -> bool:
        """An attempt succeeded; returns whether an outage ends with it."""
        self._failed.clear()
        ended, self.out = self.out, False
        return ended


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
        self._servers = {scope: Watch() for scope in _Scope}
        self._names = Watch()
        for service in OutboundService:
            self._show(service)

    def out(self, service: OutboundService) -> bool:
        """Whether a service cannot be reached from here."""
        if service is OutboundService.DNS:
            return self._names.out
        return any(watch.out for watch in self._servers.values())

    # ------------------------------------------------------------ what is seen

    def saw_probe(self, found: ProbeEvidence) -> bool:
        """A session was tried; returns whether servers can be reached again with it."""
        if found.stage is ProbeStage.NOT_PROBED or found.failure is ProbeFailure.FORBIDDEN:
            return False
        watch = self._servers[_scope(found.address)]
        if _could_not_connect(found):
            if watch.failure(_network(found.address), self._monotonic()):
                self._tell(OutboundService.SMTP, found.error)
            return False
        if found.stage is ProbeStage.CONNECT:
            return False  # refused: somebody said so, but who?
        return self._back(watch, OutboundService.SMTP)

    def saw_lookup(self, name: str, found: MxEvidence | AddressLookup) -> bool:
        """A name was looked up; returns whether the resolver answers again with it."""
        if found.outcome is DnsOutcome.ERROR:
            if self._names.failure(_zone(name), self._monotonic()):
                self._tell(OutboundService.DNS, found.error)
            return False
        return self._back(self._names, OutboundService.DNS)

    def _tell(self, service: OutboundService, error: str) -> None:
        """Say it once, loudly: everything that follows from it stays quiet."""
        _log.error(
            "outbound_unreachable", service=service, different=LEAST, within=WITHIN, error=error
        )
        self._show(service)

    def _back(self, watch: Watch, service: OutboundService) -> bool:
        if not watch.success():
            return False
        _log.warning("outbound_reachable", service=service)
        self._show(service)
        return True

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
            _could_not_connect(probe) and self._servers[_scope(probe.address)].out
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


def _could_not_connect(found: ProbeEvidence) -> bool:
    if found.stage is not ProbeStage.CONNECT:
        return False
    return found.failure is ProbeFailure.TIMEOUT or found.error in UNREACHABLE


def _scope(address: str) -> _Scope:
    return _Scope.GLOBAL if is_global(ipaddress.ip_address(address)) else _Scope.OWN


def _network(address: str) -> str:
    bits = NETWORK_V6 if ":" in address else NETWORK_V4
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def _zone(name: str) -> str:
    return ".".join(name.split(".")[-ZONE_LABELS:])
