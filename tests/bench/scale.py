"""Row ``scale``: a busy site and a fleet, simulated as far as that can be had, else estimated.

Each line says how it was had. Where both can be had they are compared: lines of the same case
stand one below the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.bench.simulation import Setup
from tests.bench.world import TENANT_TTL, USUAL, Kind, World

SITE = World(
    domains=200_000,
    kinds={Kind.LARGE: 0.3, Kind.TENANTS: 0.25, Kind.HOSTER: 0.25, Kind.OWN: 0.2},
    pool=400,
    hosters=2_000,
    skew=0.8,
    policies={Kind.LARGE: 0.1, Kind.TENANTS: 0.05, Kind.HOSTER: 0.0, Kind.OWN: 0.0},
    signed=0.15,
    offers=0.4,
    tenant_ttl=TENANT_TTL,
    health=USUAL,
)
"""The domains to which a site with a million messages a day writes."""

FLEET = replace(
    SITE,
    domains=5_000_000,
    kinds={Kind.LARGE: 0.3, Kind.TENANTS: 0.25, Kind.HOSTER: 0.445, Kind.OWN: 0.005},
    hosters=8_000,
)
"""Five million domains behind 50,000 servers: 5 + 400 + 16,000 + 33,000."""

SMALL = replace(FLEET, domains=50_000, hosters=400)
"""One that a simulation can hold."""

MONITOR = Setup(mode="monitor")

DAYS = 2
"""Simulated days, of which the last is counted: what lives longer than that is what was sent to."""


@dataclass(frozen=True)
class Case:
    """What is simulated, and estimated beside."""

    title: str
    world: World
    setup: Setup
    messages: int


SIMULATED = (
    Case("site, 1 % asks", SITE, MONITOR, 10_000),
    Case("site, 10 % asks", SITE, MONITOR, 100_000),
    Case("site, 1 % asks, rules act", SITE, Setup(mode="reject"), 10_000),
    Case("5 milters, one store", SMALL, replace(MONITOR, services=5), 50_000),
)
QUICK = (
    Case("site", SITE, MONITOR, 300),
    Case("3 milters, one store", SMALL, replace(MONITOR, services=3), 300),
)
