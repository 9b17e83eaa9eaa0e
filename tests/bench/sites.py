"""The sites of row ``scale`` and of docs/scale.md: to whom they write, how much, what is set."""

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

TENTH = {"host_cache": 2_000, "domain_cache": 2_000, "forecast_cache": 1_000}
"""A tenth of what is installed: what a tenth of the mail meets is what all of it would meet."""

LARGE = {
    "host_cache": 400_000,
    "domain_cache": 400_000,
    "forecast_cache": 100_000,
    "zone_lookups_per_minute": 10_000,
    "zone_lookups_per_hour": 200_000,
}
"""Of docs/scale.md, for a very large site."""

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
    Case("site", SITE, MONITOR, 2_000),
    Case("site", SITE, MONITOR, 10_000),
    Case("site, rules act", SITE, Setup(mode="reject"), 2_000),
    Case("site, a tenth of the limits", SITE, replace(MONITOR, limits=TENTH), 10_000),
    Case("3 milters", SMALL, replace(MONITOR, services=3), 4_500),
)
QUICK = (
    Case("site", SITE, MONITOR, 100),
    Case("3 milters", SMALL, replace(MONITOR, services=3), 90),
)
"""Those that are estimated, too, so that the arithmetic is checked."""

FLEET_SIZE = 100

ESTIMATED = (
    *(Case("site", SITE, MONITOR, asked) for asked in (10_000, 100_000, 1_000_000)),
    *(
        Case("site, larger caches", SITE, replace(MONITOR, limits=LARGE), asked)
        for asked in (100_000, 1_000_000)
    ),
    *(
        Case(f"{FLEET_SIZE} milters", FLEET, replace(MONITOR, services=FLEET_SIZE), asked)
        for asked in (1_000_000, 10_000_000, 100_000_000)
    ),
    Case(
        f"{FLEET_SIZE} milters, larger caches",
        FLEET,
        replace(MONITOR, services=FLEET_SIZE, limits=LARGE),
        100_000_000,
    ),
)
"""After a month."""
