"""What ``check`` says of a next hop: evidence and forecast as one JSON object. Pure.

The keys and words are a contract with others' scripts (docs/check.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypedDict

from requiretls_milter.forecast import dane
from requiretls_milter.forecast.authentication import authenticate
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import MailServer
from requiretls_milter.forecast.servers import secure_tlsa, tlsa_lookup_failed
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsMode,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Requirement,
    TlsaRecord,
)

Starttls = Literal["offered", "not_offered", "refused", "failed", "unreachable", "unknown"]


class CertificateReport(TypedDict):
    """How the presented certificate was verified (``dane``, ``pkix``), or why it was not."""

    verified_by: Literal["dane", "pkix"] | None
    error: str | None


class ServerReport(TypedDict):
    """What was seen of a server, and what a delivery to it alone would end with."""

    starttls: Starttls
    tls_version: str | None
    certificate: CertificateReport
    requiretls: bool | None
    status: str
    reason: str


class AddressReport(ServerReport):
    """One address of a host."""

    address: str


class HostReport(ServerReport):
    """One MX host; what it shares with :class:`ServerReport` is that of its decisive address.

    ``secure``: its address lookup is. ``tlsa``: its secure TLSA records in
    presentation form; null where the lookup failed.
    """

    host: str
    preference: int
    secure: bool
    mta_sts_match: bool | None
    tlsa: list[str] | None
    addresses: list[AddressReport]


class MtaStsReport(TypedDict):
    """The MTA-STS policy of the domain; ``max_age`` in seconds."""

    mode: str
    mx: list[str]
    max_age: int
    id: str


class ForecastReport(TypedDict):
    """What the MTA's delivery would end with."""

    status: str
    outcome: str
    compliant: bool | None
    reason: str
    text: str
    mx: str | None
    tls: str | None
    valid_until: str | None


class VerdictReport(TypedDict):
    """What the profile ``rfc8689`` says of the same evidence."""

    status: str
    reason: str


class NextHopReport(TypedDict):
    """One element of the array that ``check --format json`` prints.

    ``mx_lookup_secure`` is null where the next hop names the server itself.
    """

    nexthop: str
    requirement: str
    forecast: ForecastReport
    rfc8689: VerdictReport
    mx_lookup_secure: bool | None
    mta_sts: MtaStsReport | None
    hosts: list[HostReport]


def report(
    given: str,
    evidence: DomainEvidence,
    *,
    requirement: Requirement,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
) -> NextHopReport:
    """Judge *evidence* and say everything about it.

    Args:
        given: the next hop as it was asked for.
        evidence: what is known of it.
        requirement: what the message asks for, and the MTA carries.
        profile: how the MTA delivers.
        trust: the certification authorities that count.
        now: seconds since the epoch.
    """
    judge_of = _Judge(evidence, requirement, profile, trust, now)
    forecast = judge_of.forecast(evidence)
    policy = evidence.mta_sts.policy
    return NextHopReport(
        nexthop=given,
        requirement=requirement.value,
        forecast=_forecast(forecast),
        rfc8689=_verdict(forecast),
        mx_lookup_secure=evidence.mx.secure if evidence.nexthop.kind is HopKind.MX else None,
        mta_sts=None
        if policy is None
        else MtaStsReport(
            mode=policy.mode.value, mx=list(policy.mx), max_age=policy.max_age, id=policy.id
        ),
        hosts=[_host(host, judge_of) for host in evidence.hosts],
    )


def exit_status(reports: Iterable[NextHopReport]) -> int:
    """The worst of several: 1 (fails for good) over 75 (temporary or unknown) over 0."""
    outcomes = {report["forecast"]["outcome"] for report in reports}
    if Outcome.BOUNCE in outcomes:
        return 1
    return 75 if outcomes - {Outcome.DELIVER} else 0


def _forecast(forecast: Forecast) -> ForecastReport:
    return ForecastReport(
        status=forecast.status,
        outcome=forecast.outcome.value,
        compliant=forecast.compliant,
        reason=forecast.reason.value,
        text=forecast.text,
        mx=forecast.mx or None,
        tls=forecast.tls,
        valid_until=_time(forecast.valid_until),
    )


def _verdict(forecast: Forecast) -> VerdictReport:
    verdict = forecast.rfc8689
    if verdict is None:
        return VerdictReport(status=forecast.status, reason=forecast.reason.value)
    return VerdictReport(status=verdict.status, reason=verdict.reason.value)


def _time(seconds: float) -> str | None:
    """RFC 3339 in UTC; None where there is no end (0)."""
    if not seconds:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- hosts


@dataclass(frozen=True, slots=True)
class _Judge:
    """Forecasts the delivery, or that to a single host as if the others did not exist."""

    evidence: DomainEvidence
    requirement: Requirement
    profile: MtaProfile
    trust: TrustStore
    now: float

    def forecast_of(self, host: HostEvidence) -> Forecast:
        mx = self.evidence.mx
        own = tuple(record for record in mx.records if record.host == host.host)
        alone = replace(mx, records=own[:1], partial=False)
        return self.forecast(replace(self.evidence, mx=alone, hosts=(host,)))

    def forecast(self, evidence: DomainEvidence) -> Forecast:
        return judge(
            evidence,
            asked=self.requirement,
            carried=self.requirement,
            profile=self.profile,
            trust=self.trust,
            now=self.now,
        )


def _host(host: HostEvidence, judge_of: _Judge) -> HostReport:
    probes = {probe.address: probe for probe in host.probes}
    addresses = [
        _address(host, probes.get(address, ProbeEvidence(address)), judge_of)
        for address in host.addresses.addresses
    ]
    # Of addresses that the MTA would never come to nothing is known: they do not count.
    known = [address for address in addresses if address["status"] != UNKNOWN_STATUS]
    tried = tuple(address["address"] for address in known or addresses)
    forecast = judge_of.forecast_of(_only(host, tried))
    decisive = next(
        (address for address in known if address["status"] == forecast.status),
        next(iter(known or addresses), None),
    )
    policy = judge_of.evidence.mta_sts.policy
    return HostReport(
        host=host.host,
        preference=host.preference,
        secure=host.addresses.secure,
        mta_sts_match=None
        if policy is None or policy.mode is MtaStsMode.NONE
        else mta_sts_match(policy, host.host),
        tlsa=None if tlsa_lookup_failed(host) else [_tlsa(record) for record in secure_tlsa(host)],
        starttls=decisive["starttls"] if decisive else "unknown",
        tls_version=decisive["tls_version"] if decisive else None,
        certificate=decisive["certificate"] if decisive else _NO_CERTIFICATE,
        requiretls=decisive["requiretls"] if decisive else None,
        status=forecast.status,
        reason=forecast.reason.value,
        addresses=addresses,
    )


def _only(host: HostEvidence, addresses: tuple[str, ...]) -> HostEvidence:
    """A host that has only these of its addresses."""
    return replace(
        host,
        addresses=replace(host.addresses, addresses=addresses),
        probes=tuple(probe for probe in host.probes if probe.address in addresses),
    )


def _address(host: HostEvidence, probe: ProbeEvidence, judge_of: _Judge) -> AddressReport:
    status, reason = UNKNOWN_STATUS, Reason.UNKNOWN
    family = f"ipv{ipaddress.ip_address(probe.address).version}"
    if family in judge_of.profile.inet_protocols:
        forecast = judge_of.forecast_of(_only(host, (probe.address,)))
        status, reason = forecast.status, forecast.reason
    certificate = _NO_CERTIFICATE
    if probe.chain:
        server = MailServer(host, probe.address, probe)
        result = authenticate(
            server, judge_of.evidence, judge_of.profile.reading, judge_of.trust, judge_of.now
        )
        certificate = CertificateReport(verified_by=result.verified_by, error=result.mismatch)
    return AddressReport(
        address=probe.address,
        starttls=starttls_word(probe),
        tls_version=probe.tls_version or None,
        certificate=certificate,
        requiretls=probe.requiretls,
        status=status,
        reason=reason.value,
    )


_NO_CERTIFICATE = CertificateReport(verified_by=None, error=None)


def starttls_word(probe: ProbeEvidence) -> Starttls:
    """What came of STARTTLS at an address."""
    if probe.starttls_reply is not None:
        return "refused"
    match probe.stage:
        case ProbeStage.NOT_PROBED:
            return "unknown"
        case ProbeStage.CONNECT | ProbeStage.BANNER | ProbeStage.EHLO:
            return "unknown" if _says_nothing(probe) else "unreachable"
        case ProbeStage.STARTTLS | ProbeStage.HANDSHAKE:
            return "failed"
        case ProbeStage.EHLO_TLS | ProbeStage.DONE:
            return "offered" if probe.starttls_offered else "not_offered"


def _says_nothing(probe: ProbeEvidence) -> bool:
    """We may not look there, or not for so long, which says nothing of the server."""
    return probe.failure in (ProbeFailure.FORBIDDEN, ProbeFailure.LIMIT)


def _tlsa(record: TlsaRecord) -> str:
    """A record in presentation form (RFC 6698 section 2.2), with a remark if it is of no use."""
    text = f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()}"
    return text if dane.usable((record,)) else f"{text} (unusable)"
