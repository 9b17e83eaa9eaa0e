"""Evidence of a next hop, gathered from a source to the end."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.evidence.gathering import ANY_AGE, LATE, EvidenceSource, Gathering
from requiretls_milter.model import DomainEvidence, NextHop


async def gather(
    nexthop: NextHop,
    source: EvidenceSource,
    config: Config,
    now: float,
    *,
    probes: bool = True,
    since: float = ANY_AGE,
) -> DomainEvidence:
    """Gather the evidence of *nexthop*; the arguments are those of :class:`Gathering`."""
    gathering = Gathering(nexthop, source, config, now, probes=probes, since=since)
    await gathering.run()
    known = gathering.known()
    if known is None:
        raise TimeoutError(LATE)
    return known
