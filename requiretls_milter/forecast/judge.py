"""The judge: evidence in, forecast out.

One entry, :func:`judge`. It asks the profile what the MTA's own delivery would
end with, and whether that delivery would satisfy RFC 8689 section 4.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from requiretls_milter.forecast import postfix, rfc8689
from requiretls_milter.forecast.attempt import Attempt
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.postfix import Delivery
from requiretls_milter.forecast.servers import (
    Server,
    name_is_authenticated,
    servers_of,
    within_reach,
)
from requiretls_milter.model import (
    LOCAL_FORECAST,
    DomainEvidence,
    Forecast,
    HopKind,
    MtaProfile,
    ProfileName,
    Reason,
    Requirement,
    Verdict,
)
from requiretls_milter.syntax import status


def judge(
    evidence: DomainEvidence,
    *,
    asked: Requirement,
    carried: Requirement,
    profile: MtaProfile,
    trust: TrustStore,
    now: float,
) -> Forecast:
    """Forecast what the MTA's delivery to one next hop ends with.

    Args:
        evidence: what is known of the next hop.
        asked: what the sender or an operator's rule asks; ``compliant`` is
            about this.
        carried: what the MTA itself acts on; ``status`` is about this.
        profile: how the MTA delivers over the transport in question.
        trust: the certification authorities that count.
        now: the time of the delivery, seconds since the epoch.
    """
    if evidence.nexthop.kind is HopKind.LOCAL:
        return LOCAL_FORECAST
    delivery = Delivery(evidence, carried, profile, trust, now)
    servers = servers_of(evidence, profile)
    possible = postfix.deliver(delivery, servers)
    by_level = possible[0] if len(possible) == 1 else _worst(possible, asked, delivery)
    # RFC 8689 section 4.2.1 governs REQUIRETLS mail only; all other goes by TLS level.
    by_letter = by_level
    if carried is Requirement.REQUIRETLS:
        reached = within_reach(servers, profile.mx_address_limit)
        by_letter = rfc8689.deliver(evidence, reached, profile.reading, trust, now)
    postfix_delivers = profile.name is ProfileName.POSTFIX
    result = by_level if postfix_delivers else by_letter
    compliance = _compliance(result, asked, delivery)
    uncertain = result is by_level and not _alike(possible, asked, delivery)
    return Forecast(
        status=result.status,
        outcome=status.outcome_of(result.status),
        reason=compliance if compliance else result.reason,
        text=_text(result, compliance, uncertain),
        compliant=_compliant(result, asked, compliance),
        mx=result.server.host.host if result.server else "",
        tls=result.tls if postfix_delivers else None,
        rfc8689=Verdict(by_letter.status, by_letter.reason),
        valid_until=min(_expiries(evidence), default=0.0),
        downgraded_at=evidence.downgraded_at,
    )


def judge_server(server: Server, delivery: Delivery) -> Attempt:
    """What the delivery would end with if *server* were the only one."""
    letter = delivery.profile.name is ProfileName.RFC8689
    if letter and delivery.carried is Requirement.REQUIRETLS:
        reading = delivery.profile.reading
        return rfc8689.attempt(server, delivery.evidence, reading, delivery.trust, delivery.now)
    return postfix.attempt(server, delivery)


# ---------------------------------------------------------------- what the dice decide


def _worst(possible: Sequence[Attempt], asked: Requirement, delivery: Delivery) -> Attempt:
    """The worst that can happen: of deliveries one that does not satisfy, if there is one."""
    worst = status.worst_of(attempt.status for attempt in possible)
    equal = [attempt for attempt in possible if attempt.status == worst]
    lacking = [attempt for attempt in equal if _compliance(attempt, asked, delivery)]
    return (lacking or equal)[-1]


def _alike(possible: Sequence[Attempt], asked: Requirement, delivery: Delivery) -> bool:
    """Whether all that can happen would be reported alike, token and compliance included."""
    if len(possible) == 1:
        return True
    told = {
        (attempt.status, attempt.tls, _compliance(attempt, asked, delivery)) for attempt in possible
    }
    return len(told) == 1


# ---------------------------------------------------------------- compliance


def _compliance(result: Attempt, asked: Requirement, delivery: Delivery) -> Reason | None:
    """Why a delivery that would be made is not what RFC 8689 section 4.2.1 asks; None if it is."""
    if asked is not Requirement.REQUIRETLS or not result.delivered or result.server is None:
        return None
    server = result.server
    if not result.verified:
        return Reason.NONCOMPLIANT_UNVERIFIED
    if not name_is_authenticated(delivery.evidence, server.host, delivery.profile.reading):
        return Reason.NONCOMPLIANT_MX_INSECURE
    if server.probe.requiretls is not True:
        return Reason.NONCOMPLIANT_NOT_OFFERED
    # An MTA that carries REQUIRETLS must pass it on. One that does not know it is
    # judged by the session: there the milter is the enforcement.
    if delivery.carried is Requirement.REQUIRETLS and not result.requiretls_sent:
        return Reason.NONCOMPLIANT_NOT_CARRIED
    return None


def _compliant(result: Attempt, asked: Requirement, compliance: Reason | None) -> bool | None:
    if asked is Requirement.NONE or not result.delivered:
        return None
    return compliance is None


# ---------------------------------------------------------------- words and times

_SHORTCOMINGS = {
    Reason.NONCOMPLIANT_UNVERIFIED: "the server is not authenticated as RFC 8689 wants",
    Reason.NONCOMPLIANT_MX_INSECURE: "the MX records are neither signed nor confirmed by MTA-STS",
    Reason.NONCOMPLIANT_NOT_OFFERED: "the server does not offer REQUIRETLS",
    Reason.NONCOMPLIANT_NOT_CARRIED: "this MTA is told not to pass REQUIRETLS on",
}


def _text(result: Attempt, compliance: Reason | None, uncertain: bool) -> str:
    text = result.text
    if compliance:
        text += f"; {_SHORTCOMINGS[compliance]}"
    if uncertain:
        text += "; servers of equal preference differ, and Postfix tries them in random order"
    return text


def _expiries(evidence: DomainEvidence) -> Iterator[float]:
    """When each piece of the evidence ends; 0 stands for one that never had an end."""
    yield from filter(None, (evidence.mx.expires, evidence.mta_sts.expires))
    for host in evidence.hosts:
        yield from filter(None, (host.addresses.expires, host.tlsa.expires))
        yield from filter(None, (probe.expires for probe in host.probes))
