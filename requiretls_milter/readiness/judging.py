"""The readiness of one next hop, from its evidence and the forecast for REQUIRETLS mail. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from requiretls_milter.forecast import dane
from requiretls_milter.forecast.attempt import tls_weakness
from requiretls_milter.forecast.authentication import authenticate
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import MailServer, servers_found
from requiretls_milter.forecast.servers import (
    in_mta_sts_policy,
    name_is_authenticated,
    secure_tlsa,
    tlsa_lookup_failed,
)
from requiretls_milter.forecast.strength import weakness
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    MtaProfile,
    Outcome,
    ProbeStage,
    Reason,
)
from requiretls_milter.readiness.values import HopReadiness, HopState, Policy, Step

_LEVEL = re.compile(r"!?([a-z-]+)")
"""The level that was planned, at the beginning of Postfix's word after ``tls=``."""

_STATES = {
    Outcome.BOUNCE: HopState.BOUNCE,
    Outcome.DEFER: HopState.DEFER,
    Outcome.UNKNOWN: HopState.UNKNOWN,
}

_OF_OUR_MTA = frozenset(
    {
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
        Reason.MTA_POLICY_INVALID,
        Reason.NO_TLSA_RECORDS,
        Reason.MX_UNSIGNED,
        Reason.NONCOMPLIANT_UNVERIFIED,
        Reason.NONCOMPLIANT_NOT_CARRIED,
        Reason.NEXTHOP_INVALID,
    }
)
"""Reasons that lie with our MTA, if the next hop has all that RFC 8689 asks of it."""


def destination(
    nexthop: str,
    mail: int,
    evidence: DomainEvidence,
    forecast: Forecast,
    *,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
) -> HopReadiness:
    """Judge one next hop.

    Args:
        nexthop: its name, as mail has it.
        mail: recipients to which mail went there.
        evidence: what was found.
        forecast: for a message that asks for REQUIRETLS.
        profile: how the MTA delivers.
        trust: the certification authorities that count.
        now: seconds since the epoch.
    """
    state = state_of(forecast)
    level = _LEVEL.match(forecast.tls or "")
    return HopReadiness(
        nexthop=nexthop,
        mail=mail,
        state=state,
        status=forecast.status,
        reason=forecast.reason,
        text=forecast.text,
        mx=forecast.mx,
        level=level[1] if level else "",
        tls_version=_tls_version(evidence, forecast.mx),
        policy=policy_of(evidence),
        missing=_missing(state, evidence, forecast, profile, trust, now),
        downgraded_at=forecast.downgraded_at,
    )


def unknown_destination(nexthop: str, forecast: Forecast) -> HopReadiness:
    """What is said of a next hop of which nothing was found out."""
    return HopReadiness(
        nexthop, 0, HopState.UNKNOWN, forecast.status, forecast.reason, text=forecast.text
    )


def state_of(forecast: Forecast) -> HopState:
    """What would become of the message."""
    if forecast.outcome is Outcome.DELIVER:
        return HopState.READY if forecast.compliant else HopState.NONCOMPLIANT
    return _STATES[forecast.outcome]


def policy_of(evidence: DomainEvidence) -> Policy:
    """By what the servers can be verified; nothing is said of what could not be looked up."""
    names_itself = evidence.nexthop.kind not in (HopKind.MX, HopKind.SRV)
    is_signed = names_itself or evidence.mx.secure
    has_dane = is_signed and any(dane.usable(secure_tlsa(host)) for host in evidence.hosts)
    has_sts = any(in_mta_sts_policy(evidence, host.host) for host in evidence.hosts)
    if has_dane:
        return Policy.BOTH if has_sts else Policy.DANE
    if has_sts:
        return Policy.MTA_STS
    is_unseen = (
        evidence.mx.outcome is DnsOutcome.ERROR
        or bool(evidence.mta_sts.error)
        or evidence.mta_sts.unasked
        or any(tlsa_lookup_failed(host) or host.unasked for host in evidence.hosts)
    )
    return Policy.UNKNOWN if is_unseen else Policy.NEITHER


def _tls_version(evidence: DomainEvidence, mx: str) -> str:
    """That of the first session inside TLS with the server that decides, or with any."""
    found = [(host.host != mx, probe) for host in evidence.hosts for probe in host.probes]
    found.sort(key=lambda item: item[0])
    return next((probe.tls_version for _, probe in found if probe.tls_version), "")


def _missing(
    state: HopState,
    evidence: DomainEvidence,
    forecast: Forecast,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
) -> tuple[Step, ...] | None:
    if state is HopState.READY:
        return ()
    lacking = [
        tuple(_lacking(server, evidence, profile, trust, now))
        for server in servers_found(evidence, profile)
        if server.unseen is None and _is_seen(server)
    ]
    fewest = min(lacking, key=len, default=None)
    if fewest:
        return fewest
    if fewest is not None and forecast.reason in _OF_OUR_MTA:
        return (Step.OWN_SETTINGS,)
    return None


def _is_seen(server: MailServer) -> bool:
    """Whether a session came far enough to tell what the server offers."""
    probe = server.probe
    return probe.stage is ProbeStage.DONE or probe.starttls_offered is not None


def _lacking(
    server: MailServer,
    evidence: DomainEvidence,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
) -> Iterator[Step]:
    """What a server lacks; what lies behind a step that is missing was not seen, so is missing."""
    probe, reading = server.probe, profile.reading
    if not name_is_authenticated(evidence, server.host, reading):
        yield Step.MX_NAME
    if not probe.starttls_offered or probe.starttls_reply is not None or not probe.chain:
        yield Step.STARTTLS
    authenticated = authenticate(server, evidence, reading, trust, now)
    if authenticated.mismatch is not None:
        yield Step.CERTIFICATE
    weak = tls_weakness(probe) or weakness(probe, small_key=authenticated.small_key)
    if not reading.weak_tls_counts and weak:
        yield Step.STRONG_TLS
    if probe.requiretls is not True:
        yield Step.REQUIRETLS
