"""Budgets: how often other people's hosts are called, whatever names lead to them.

Strangers write DNS. A zone in which thousands of names lead to one address, or lie in the zone of
somebody else, must not make us flood the host or the name servers behind them. So each address and
each network has a budget of connections (SMTP sessions and fetches of MTA-STS policies together),
and each zone one of DNS lookups, within a minute and within an hour.

Of the budget of an address or network, the names of one zone get half at most: the other half
remains for the names of others, who are not to blame.

A budget of *n* starts within some time is this: half of it may be used at once, and the other half
comes back evenly over that time. So no span of that length has more than *n* starts, and what is
remembered of an address is one number: the time at which it has its whole budget again. What is
remembered is bounded (:data:`MAX_KEYS`); what has its whole budget back is forgotten first.

What is refused here is not a failure of the other side: nothing is known of it, and the forecast
is ``unknown``.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.evidence.addresses import NAT64
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

if TYPE_CHECKING:
    from requiretls_milter.config import Limits

MINUTE = 60.0
HOUR = 3_600.0
"""Seconds."""

NETWORK_V4 = 24
NETWORK_V6 = 64
"""Bits of an address that stand for its network: what one site has."""

SHARE = 2
"""The names of one zone get the budget of an address or network divided by this."""

MAX_KEYS = 5_000
"""Addresses and networks, shares of them, and zones that are remembered, of each kind. A session
is forgotten after some seconds (12 at most by default), so that it takes more sessions than
limits.probes_per_minute allows to fill it."""

MAX_DEBTS = 400
"""Debts of each kind that outlive the process: the largest, in one record of the store."""

WORTH_KEEPING = 60.0
"""Seconds until an address has its whole budget again, from which that is kept over a restart:
below that few connections were made."""

ROUNDING = 1e-6
"""Seconds by which sums of intervals may be off."""

REPORT_INTERVAL = 60.0
"""Seconds between two log lines about the same budget."""

KINDS = ("address", "network", "address_share", "network_share", "zone")
"""The ledgers of :class:`Budgets`."""

_REGISTRY = re.compile(
    "ac|ad|asn|asso|co|com|ed|edu|fin|gen|go|gob|gouv|gov|govt|gr|gv|id|info|k12|lg|ltd|me|med|mil|"
    "muni|my|ne|net|nhs|nic|nom|nsw|off|or|org|plc|police|pref|pro|sch|school|web"
)
"""Labels below which registries of countries give out names, such as ``co.uk`` and ``com.br``:
the name of an organisation has one label more there."""

_log = log.get_logger("evidence.budgets")


@dataclass(frozen=True)
class Budget:
    """At most *starts* within any *seconds*; ``bound`` is the key of ``[limits]``."""

    starts: int
    seconds: float
    bound: Bound

    @functools.cached_property
    def at_once(self) -> int:
        """How many may start at once."""
        return (self.starts + 1) // 2

    @functools.cached_property
    def interval(self) -> float:
        """Seconds after which one more may start."""
        return self.seconds / (self.starts - self.at_once + 1)

    @functools.cached_property
    def longest(self) -> float:
        """Seconds until the whole budget is back, if all of it was used at once."""
        return self.at_once * self.interval

    def share(self) -> Budget:
        """What the names of one zone get of it."""
        return Budget(max(1, self.starts // SHARE), self.seconds, self.bound)


class Debt(NamedTuple):
    """What is left to wait, in seconds, until a key has each of its budgets back."""

    key: str
    seconds: tuple[float, ...]


class Ledger:
    """What was used of the budgets of some keys; a pure function of what it is told.

    Args:
        budgets: those that each key has.
        max_keys: keys that are remembered.
    """

    def __init__(self, budgets: Sequence[Budget], max_keys: int = MAX_KEYS) -> None:
        self.budgets = tuple(budgets)
        self._whole_at: BoundedMap[str, tuple[float, ...]] = BoundedMap(max_keys)
        self._swept_at = -math.inf

    def __len__(self) -> int:
        return len(self._whole_at)

    def change(self, budgets: Sequence[Budget], now: float) -> None:
        """Use other budgets, as many as before; as many starts stay spent."""
        factors = [
            new.interval / old.interval for new, old in zip(budgets, self.budgets, strict=True)
        ]
        self.budgets = tuple(budgets)
        for key, whole_at in tuple(self._whole_at.items()):
            left = (max(0.0, at - now) * by for at, by in zip(whole_at, factors, strict=True))
            self._whole_at.put(key, tuple(now + seconds for seconds in left))

    def exhausted(self, key: str, now: float) -> Budget | None:
        """The budget of *key* that allows no further start at *now*; None if all do."""
        whole_at = self._whole_at.get(key)
        if whole_at is None:
            return None
        for budget, at in zip(self.budgets, whole_at, strict=True):
            if at - now > budget.longest - budget.interval + ROUNDING:
                return budget
        return None

    def spend(self, key: str, now: float) -> None:
        """Note a start."""
        before = self._whole_at.get(key)
        if before is None:
            self._make_room(now)
            before = (now,) * len(self.budgets)
        self._whole_at.put(
            key,
            tuple(
                max(at, now) + budget.interval
                for budget, at in zip(self.budgets, before, strict=True)
            ),
        )

    def _make_room(self, now: float) -> None:
        """Forget what has its whole budget again; each second at most, since all are visited."""
        if len(self._whole_at) < self._whole_at.limit or now < self._swept_at + 1.0:
            return
        self._swept_at = now
        whole = [key for key, whole_at in self._whole_at.items() if max(whole_at) <= now]
        for key in whole:
            self._whole_at.pop(key)

    def debts(self, now: float) -> tuple[Debt, ...]:
        """The largest debts that last for a while yet, so that they may outlive the process."""
        found = (
            Debt(key, tuple(max(0.0, at - now) for at in whole_at))
            for key, whole_at in self._whole_at.items()
        )
        lasting = [debt for debt in found if max(debt.seconds) >= WORTH_KEEPING]
        return tuple(sorted(lasting, key=lambda debt: -max(debt.seconds))[:MAX_DEBTS])

    def restore(self, debts: Iterable[Debt], elapsed: float, now: float) -> None:
        """Take over the debts of an earlier process.

        Args:
            debts: what :meth:`debts` gave; no more is believed than can be.
            elapsed: the seconds since then.
            now: the time.
        """
        for debt in debts:
            if len(debt.seconds) == len(self.budgets):
                left = tuple(
                    min(max(seconds - max(elapsed, 0.0), 0.0), budget.longest)
                    for budget, seconds in zip(self.budgets, debt.seconds, strict=True)
                )
                known = self._whole_at.get(debt.key) or (now,) * len(left)
                self._whole_at.put(
                    debt.key, tuple(max(a, now + b) for a, b in zip(known, left, strict=True))
                )


class Budgets:
    """The budgets of everything that strangers' names may lead to.

    Args:
        limits: the section ``[limits]``.
        counters: ``saturated_total`` counts what is refused.
        monotonic: a clock, in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        counters: Counters,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._monotonic = monotonic
        self._reported: dict[Bound, float] = {}
        self.changes = 0
        """How often anything was spent."""
        self.ledgers: Mapping[str, Ledger] = {
            kind: Ledger(budgets) for kind, budgets in _budgets_of(limits).items()
        }

    def configure(self, limits: Limits) -> None:
        """Use other limits; what was spent stays spent."""
        for kind, budgets in _budgets_of(limits).items():
            self.ledgers[kind].change(budgets, self._monotonic())

    def debts(self, kind: str) -> tuple[Debt, ...]:
        """What is worth keeping of one ledger; see :meth:`Ledger.debts`."""
        return self.ledgers[kind].debts(self._monotonic())

    def restore(self, kind: str, debts: Iterable[Debt], elapsed: float) -> None:
        """Take over what an earlier process gave; see :meth:`Ledger.restore`."""
        self.ledgers[kind].restore(debts, elapsed, self._monotonic())

    def connection(self, address: str, name: str) -> str:
        """Spend one connection with *address*, to which *name* leads.

        Returns:
            Why there must be none; "" if it may be made, and was noted.
        """
        host, network = host_and_network(address)
        zone = zone_of(name)
        return self._spend(
            ("address", host, host),
            ("network", network, network),
            ("address_share", f"{host} {zone}", f"{host} under names of {zone or 'no zone'}"),
            ("network_share", f"{network} {zone}", f"{network} under names of {zone or 'no zone'}"),
        )

    def lookup(self, name: str) -> str:
        """Spend one lookup of *name*; returns why there must be none, or ""."""
        zone = zone_of(name)
        return self._spend(("zone", zone, f"the zone {zone}"))

    def _spend(self, *parties: tuple[str, str, str]) -> str:
        """Spend one start of each party (ledger, key, words), or of none of them."""
        now = self._monotonic()
        for kind, key, words in parties:
            budget = self.ledgers[kind].exhausted(key, now)
            if budget is not None:
                return self._refuse(budget, words, now)
        for kind, key, _ in parties:
            self.ledgers[kind].spend(key, now)
        self.changes += 1
        return ""

    def _refuse(self, budget: Budget, words: str, now: float) -> str:
        self._counters.inc("saturated_total", (budget.bound,))
        if now >= self._reported.get(budget.bound, -math.inf) + REPORT_INTERVAL:
            self._reported[budget.bound] = now
            _log.warning("budget_spent", limit=budget.bound, of=words)
        return (
            f"over budget: limits.{budget.bound} allows no more for now "
            f"({words}: {budget.starts} in {budget.seconds:g} s)"
        )


def _budgets_of(limits: Limits) -> dict[str, tuple[Budget, ...]]:
    address = (
        Budget(limits.address_per_minute, MINUTE, Bound.ADDRESS_PER_MINUTE),
        Budget(limits.address_per_hour, HOUR, Bound.ADDRESS_PER_HOUR),
    )
    network = (
        Budget(limits.network_per_minute, MINUTE, Bound.NETWORK_PER_MINUTE),
        Budget(limits.network_per_hour, HOUR, Bound.NETWORK_PER_HOUR),
    )
    zone = (
        Budget(limits.zone_lookups_per_minute, MINUTE, Bound.ZONE_LOOKUPS_PER_MINUTE),
        Budget(limits.zone_lookups_per_hour, HOUR, Bound.ZONE_LOOKUPS_PER_HOUR),
    )
    shares = (tuple(budget.share() for budget in whole) for whole in (address, network))
    return dict(zip(KINDS, (address, network, *shares, zone), strict=True))


def zone_of(name: str) -> str:
    """The part of a name that one organisation has, as far as the name itself tells.

    It is the last two labels, or three below a registry such as ``co.uk``. An error costs little:
    organisations that are taken for one share a budget, and one that is taken for several has
    several.
    """
    labels = name.lower().rstrip(".").split(".")
    below_registry = len(labels[-1]) == 2 and _REGISTRY.fullmatch("".join(labels[-2:-1]))
    return ".".join(labels[-3 if below_registry else -2 :])


@functools.lru_cache(MAX_KEYS)
def host_and_network(address: str) -> tuple[str, str]:
    """The host that an address stands for, and its network.

    An IPv4 host has one budget, also behind the prefix of NAT64 (RFC 6052 section 2.1) or mapped.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip
    bits = NETWORK_V4 if ip.version == 4 else NETWORK_V6
    return str(ip), str(ipaddress.ip_network((ip, bits), strict=False))
