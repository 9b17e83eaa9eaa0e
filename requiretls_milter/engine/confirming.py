"""An evidence source that calls no server: it knows the sessions that were held, however old.

With it a forecast past its life is confirmed: DNS and MTA-STS say whether the domain still has
these servers, keys and this policy. What the servers themselves would say is not asked again.
"""

from __future__ import annotations

from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.model import ProbeEvidence, ServerTarget


class KeptSessions:
    """Implements :class:`~requiretls_milter.evidence.gathering.EvidenceSource`.

    Args:
        source: answers all questions but those to servers.
    """

    def __init__(self, source: CachedSource) -> None:
        self._source = source
        self.mx = source.mx
        self.srv = source.srv
        self.mta_sts = source.mta_sts
        self.addresses = source.addresses
        self.tlsa = source.tlsa

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        """The last session with an address, if it is kept; else one that was not held."""
        kept = self._source.kept_session(server)
        return kept or ProbeEvidence(server.address, error="no session is kept")
