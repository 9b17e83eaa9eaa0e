"""What ``check`` reports on a next hop: evidence and forecast as one JSON object. Pure.

The keys and words are a contract with other people's scripts (docs/check.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    Action,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsMode,
    OnNoncompliant,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Requirement,
    Standing,
    TlsaRecord,
)
from requiretls_milter.reports.carrying import Asking, ToldBy
from requiretls_milter.reports.details import AddressDetails, details_of
from requiretls_milter.reports.observation import Observation, oldest
from requiretls_milter.rules import decide, refuses_noncompliant
from requiretls_milter.syntax.moments import moment_if_any

Starttls = Literal["offered", "not_offered", "refused", "failed", "unreachable", "unknown"]


class CertificateReport(TypedDict):
    """How the presented certificate was verified (``dane``, ``pkix``), or why it was not."""

    verified_by: Literal["dane", "pkix"] | None
    error: str | None


class ServerReport(TypedDict):
    """What was observed of a server, and how a delivery to it alone would end."""

    starttls: Starttls
    tls_version: str | None
    certificate: CertificateReport
    requiretls: bool | None
    status: str
    reason: str
    observed_at: str | None


class AddressReport(ServerReport):
    """One address of a host; ``details`` are null unless they were asked for."""

    address: str
    details: AddressDetails | None


class HostReport(ServerReport):
    """One MX host; the keys of :class:`ServerReport` are those of its decisive address.

    ``secure`` is about the address lookup. ``tlsa`` has the secure TLSA records
    in presentation form, or null if the lookup failed. Each has the time of its lookup.
    """

    host: str
    preference: int
    secure: bool
    addresses_observed_at: str | None
    mta_sts_match: bool | None
    tlsa: list[str] | None
    tlsa_observed_at: str | None
    addresses: list[AddressReport]


class MtaStsReport(TypedDict):
    """The MTA-STS policy of the domain; ``max_age`` in seconds."""

    mode: str
    mx: list[str]
    max_age: int
    id: str
    observed_at: str | None


class ForecastReport(TypedDict):
    """How the MTA's delivery would end."""

    status: str
    outcome: str
    compliant: bool | None
    reason: str
    text: str
    mx: str | None
    tls: str | None
    valid_until: str | None


class Rfc8689Report(TypedDict):
    """How a delivery strictly by RFC 8689 would end with the same evidence."""

    status: str
    reason: str


class RuleReport(TypedDict):
    """What the rule in force does with such mail; ``reply`` is null if it is accepted."""

    mode: str
    on_noncompliant: str
    action: str
    why: str
    reply: str | None


class NextHopReport(TypedDict):
    """One element of the array that ``check --format json`` prints.

    ``carried`` is what the MTA acts on, ``carried_by`` who says so. ``mx_lookup_secure`` is null if
    the next hop names the server itself. ``mta_sts_error`` says why the policy could not be looked
    up or fetched, or renewed if there is one. ``observed_at`` is the time of the oldest piece of
    evidence.
    """

    nexthop: str
    requirement: str
    carried: str
    carried_by: str
    mta: str | None
    rule: RuleReport
    forecast: ForecastReport
    rfc8689: Rfc8689Report
    observed_by: str
    observed_at: str | None
    resolver_validates: bool
    mx_lookup_secure: bool | None
    mx_observed_at: str | None
    mta_sts: MtaStsReport | None
    mta_sts_error: str | None
    hosts: list[HostReport]


def next_hop_report(
    given: str,
    found: Observation,
    *,
    asking: Asking,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
    detailed: bool = False,
) -> NextHopReport:
    """Judge what was found and report it together with the forecast.

    Args:
        given: the next hop as it stands on the command line.
        found: what is known of it, and who looked.
        asking: what the message asks for, what the MTA acts on, and the rule in force.
        profile: how the MTA delivers.
        trust: the certification authorities that count.
        now: seconds since the epoch.
        detailed: report certificates and dialogues too.
    """
    evidence = found.evidence
    deliveries = _Deliveries(evidence, asking.requirement, asking.carried, profile, trust, now)
    forecast = deliveries.forecast(evidence)
    by_rfc8689 = replace(deliveries, carried=asking.requirement).forecast(evidence)
    policy = evidence.mta_sts.policy
    return NextHopReport(
        nexthop=given,
        requirement=asking.requirement.value,
        carried=asking.carried.value,
        carried_by=asking.told_by.value,
        mta=asking.mta or None,
        rule=_rule_report(asking, evidence, forecast, now),
        forecast=forecast_report(forecast),
        rfc8689=_rfc8689_report(by_rfc8689),
        observed_by=found.by.value,
        observed_at=moment_if_any(oldest(evidence)),
        resolver_validates=found.resolver_validates,
        mx_lookup_secure=evidence.mx.secure
        if evidence.nexthop.kind in (HopKind.MX, HopKind.SRV)
        else None,
        mx_observed_at=moment_if_any(evidence.mx.observed_at),
        mta_sts=None
        if policy is None
        else MtaStsReport(
            mode=policy.mode.value,
            mx=list(policy.mx),
            max_age=policy.max_age,
            id=policy.id,
            observed_at=moment_if_any(evidence.mta_sts.observed_at or evidence.mta_sts.fetched_at),
        ),
        mta_sts_error=evidence.mta_sts.error or None,
        hosts=[_host_report(host, deliveries, detailed) for host in evidence.hosts],
    )


def exit_status(reports: Iterable[NextHopReport]) -> int:
    """Return the worst of several: 1 (permanent failure) over 75 (temporary or unknown) over 0.

    Mail that the milter itself refuses or defers is not delivered either.
    """
    found = list(reports)
    outcomes = {report["forecast"]["outcome"] for report in found}
    actions = {report["rule"]["action"] for report in found}
    if Outcome.BOUNCE in outcomes or Action.REJECT in actions:
        return 1
    return 75 if outcomes - {Outcome.DELIVER} or Action.DEFER in actions else 0


def _rule_report(
    asking: Asking, evidence: DomainEvidence, forecast: Forecast, now: float
) -> RuleReport:
    """Decide as for mail of a client that authenticates, the same on which every mode acts."""
    decision = decide(
        asking.rule,
        forecast,
        asked=asking.requirement,
        carried=asking.carried,
        standing=Standing.AUTHENTICATED,
        null_sender=False,
        domain=evidence.nexthop.host,
        now=now,
        by_rule=asking.told_by is ToldBy.RULE,
    )
    refuses = refuses_noncompliant(asking.rule, asking.carried)
    return RuleReport(
        mode=asking.rule.mode.value,
        on_noncompliant=(OnNoncompliant.REFUSE if refuses else OnNoncompliant.ACCEPT).value,
        action=decision.action.value,
        why=str(decision.why),
        reply=str(decision.reply) if decision.reply is not None else None,
    )


def forecast_report(forecast: Forecast) -> ForecastReport:
    """Report a forecast."""
    return ForecastReport(
        status=forecast.status,
        outcome=forecast.outcome.value,
        compliant=forecast.compliant,
        reason=forecast.reason.value,
        text=forecast.text,
        mx=forecast.mx or None,
        tls=forecast.tls,
        valid_until=moment_if_any(forecast.valid_until),
    )


def _rfc8689_report(forecast: Forecast) -> Rfc8689Report:
    verdict = forecast.rfc8689
    if verdict is None:
        return Rfc8689Report(status=forecast.status, reason=forecast.reason.value)
    return Rfc8689Report(status=verdict.status, reason=verdict.reason.value)


# ---------------------------------------------------------------- hosts


@dataclass(frozen=True, slots=True)
class _Deliveries:
    """Forecasts the delivery to the next hop, or to one of its hosts as if it were the only one."""

    evidence: DomainEvidence
    requirement: Requirement
    carried: Requirement
    profile: MtaProfile
    trust: TrustStore
    now: float

    def forecast_to(self, host: HostEvidence) -> Forecast:
        mx = self.evidence.mx
        own = tuple(record for record in mx.records if record.host == host.host)
        alone = replace(mx, records=own[:1], partial=False)
        return self.forecast(replace(self.evidence, mx=alone, hosts=(host,)))

    def forecast(self, evidence: DomainEvidence) -> Forecast:
        return judge(
            evidence,
            asked=self.requirement,
            carried=self.carried,
            profile=self.profile,
            trust=self.trust,
            now=self.now,
        )


def _host_report(host: HostEvidence, deliveries: _Deliveries, detailed: bool) -> HostReport:
    probes = {probe.address: probe for probe in host.probes}
    addresses = [
        _address_report(host, probes.get(address, ProbeEvidence(address)), deliveries, detailed)
        for address in host.addresses.addresses
    ]
    # Nothing is known of addresses that the MTA would never try: they do not count.
    known = [address for address in addresses if address["status"] != UNKNOWN_STATUS]
    tried = tuple(address["address"] for address in known or addresses)
    forecast = deliveries.forecast_to(_only(host, tried))
    decisive = next(
        (address for address in known if address["status"] == forecast.status),
        next(iter(known or addresses), None),
    )
    policy = deliveries.evidence.mta_sts.policy
    return HostReport(
        host=host.host,
        preference=host.preference,
        secure=host.addresses.secure,
        addresses_observed_at=moment_if_any(host.addresses.observed_at),
        mta_sts_match=None
        if policy is None or policy.mode is MtaStsMode.NONE
        else mta_sts_match(policy, host.host),
        tlsa=None if tlsa_lookup_failed(host) else [_tlsa(record) for record in secure_tlsa(host)],
        tlsa_observed_at=moment_if_any(host.tlsa.observed_at) if host.tlsa.queried else None,
        starttls=decisive["starttls"] if decisive else "unknown",
        tls_version=decisive["tls_version"] if decisive else None,
        certificate=decisive["certificate"] if decisive else _NO_CERTIFICATE,
        requiretls=decisive["requiretls"] if decisive else None,
        status=forecast.status,
        reason=forecast.reason.value,
        observed_at=decisive["observed_at"] if decisive else None,
        addresses=addresses,
    )


def _only(host: HostEvidence, addresses: tuple[str, ...]) -> HostEvidence:
    """Return the host with only *addresses* of its addresses."""
    return replace(
        host,
        addresses=replace(host.addresses, addresses=addresses),
        probes=tuple(probe for probe in host.probes if probe.address in addresses),
    )


def _address_report(
    host: HostEvidence, probe: ProbeEvidence, deliveries: _Deliveries, detailed: bool
) -> AddressReport:
    status, reason = UNKNOWN_STATUS, Reason.UNKNOWN
    family = f"ipv{ipaddress.ip_address(probe.address).version}"
    if family in deliveries.profile.inet_protocols:
        forecast = deliveries.forecast_to(_only(host, (probe.address,)))
        status, reason = forecast.status, forecast.reason
    certificate = _NO_CERTIFICATE
    if probe.chain:
        result = authenticate(
            MailServer(host, probe.address, probe),
            deliveries.evidence,
            deliveries.profile.reading,
            deliveries.trust,
            deliveries.now,
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
        observed_at=moment_if_any(probe.probed_at),
        details=details_of(probe) if detailed else None,
    )


_NO_CERTIFICATE = CertificateReport(verified_by=None, error=None)


def starttls_word(probe: ProbeEvidence) -> Starttls:
    """Say in one word what happened to STARTTLS at an address."""
    if probe.starttls_reply is not None:
        return "refused"
    match probe.stage:
        case ProbeStage.NOT_PROBED:
            return "unknown"
        case ProbeStage.CONNECT | ProbeStage.BANNER | ProbeStage.EHLO:
            return "unknown" if _not_attempted(probe) else "unreachable"
        case ProbeStage.STARTTLS | ProbeStage.HANDSHAKE:
            return "failed"
        case ProbeStage.EHLO_TLS | ProbeStage.DONE:
            return "offered" if probe.starttls_offered else "not_offered"


def _not_attempted(probe: ProbeEvidence) -> bool:
    """Whether our own limits ended the probe, so that it says nothing about the server."""
    return probe.failure in (ProbeFailure.FORBIDDEN, ProbeFailure.LIMIT)


def _tlsa(record: TlsaRecord) -> str:
    """Write a record in presentation form (RFC 6698 section 2.2), marked if it is unusable."""
    text = f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()}"
    return text if dane.usable((record,)) else f"{text} (unusable)"
