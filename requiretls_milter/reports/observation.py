"""Evidence together with how it was come by: who looked, and with which resolver. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from requiretls_milter.model import DomainEvidence


class ObservedBy(enum.StrEnum):
    """Who found the evidence: ``observed_by`` of the JSON."""

    SERVICE = "service"  # the engine of the running service; perhaps some time ago
    COMMAND = "command"  # this command itself, now


@dataclass(frozen=True, slots=True)
class Observation:
    """The evidence of one next hop.

    Attributes:
        evidence: what was found.
        by: who found it.
        resolver_validates: the resolver was seen to validate DNSSEC; otherwise nothing counts as
            secure.
    """

    evidence: DomainEvidence
    by: ObservedBy = ObservedBy.COMMAND
    resolver_validates: bool = True


def oldest(evidence: DomainEvidence) -> float:
    """When the oldest piece of the evidence was found, seconds since the epoch; 0 if none was."""
    mta_sts = evidence.mta_sts
    times = [evidence.mx.observed_at, mta_sts.observed_at or mta_sts.fetched_at]
    for host in evidence.hosts:
        times += [host.addresses.observed_at, host.tlsa.observed_at]
        times += [probe.probed_at for probe in host.probes]
    return min(filter(None, times), default=0.0)
