"""How the configured domains are, as gauges: each assessment of one of them is shown.

A domain that has no rule, and a wildcard, which names no next hop, are never shown. What could not
be found out changes only ``domain_state`` and ``domain_reason``: all else keeps its value, or is
not there yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.record import DomainRecord
from requiretls_milter.forecast.inboundserver import certificate_end
from requiretls_milter.forecast.mta_sts import policy_end
from requiretls_milter.model import (
    DomainEvidence,
    Forecast,
    NextHop,
    Outcome,
)
from requiretls_milter.telemetry.counting import Gauges

AT_ONCE = 200
"""Domains that are shown in one turn of the loop: thousands may have a gateway in common."""


class DomainStates:
    """Shows what was found out about configured domains.

    Args:
        gauges: where it is shown.
        configured: the domains that are configured, and what is asked about them.
        record: where the last forecast of each is kept.
    """

    def __init__(self, gauges: Gauges, configured: ConfiguredDomains, record: DomainRecord) -> None:
        self._gauges = gauges
        self._record = record
        self._configured = configured

    async def show(
        self,
        domains: Sequence[str],
        nexthop: NextHop,
        forecast: Forecast,
        evidence: DomainEvidence | None,
        now: float,
    ) -> None:
        """Show a forecast of REQUIRETLS mail to configured domains.

        Args:
            domains: all whose mail goes to the next hop.
            nexthop: that of the question.
            forecast: the answer.
            evidence: on which the answer rests; None if there is none.
            now: seconds since the epoch.
        """
        for number, domain in enumerate(domains, 1):
            await self._show(domain, nexthop, forecast, evidence, now)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _show(
        self,
        domain: str,
        nexthop: NextHop,
        forecast: Forecast,
        evidence: DomainEvidence | None,
        now: float,
    ) -> None:
        ready = self._configured.is_ready(domain, nexthop, forecast)
        await self._record.note(domain, nexthop, forecast, ready=ready, now=now)
        labels = (domain,)
        self._gauges.set_word("domain_state", labels, forecast.outcome)
        self._gauges.set_word("domain_reason", labels, forecast.reason)
        if forecast.outcome is Outcome.UNKNOWN:
            return
        self._gauges.set("domain_ready", float(ready), labels)
        self._gauges.set("domain_last_assessed_timestamp_seconds", now, labels)
        if evidence is not None:
            ends = map(certificate_end, evidence.hosts)
            end = min((end for end in ends if end is not None), default=None)
            self._show_end("domain_certificate_expiry_timestamp_seconds", labels, end)
            policy = evidence.mta_sts if evidence.mta_sts.policy is not None else None
            self._show_end(
                "domain_policy_expiry_timestamp_seconds",
                labels,
                policy_end(policy) if policy is not None else None,
            )

    def _show_end(self, metric: str, labels: tuple[str, ...], end: float | None) -> None:
        if end is None:
            self._gauges.drop(metric, labels)
        else:
            self._gauges.set(metric, end, labels)
