"""The sites that row ``scale`` simulates, and what docs/scale.md sets for a large one."""

from __future__ import annotations

from dataclasses import replace

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

LARGE = {
    "host_cache": 400_000,
    "domain_cache": 400_000,
    "forecast_cache": 100_000,
    "zone_lookups_per_minute": 10_000,
    "zone_lookups_per_hour": 200_000,
}
"""Of docs/scale.md, for a very large site."""
