"""The judge: evidence in, forecast out.

:func:`judge` is the one way in. It finds out what the MTA's own delivery would end
with, by the MTA's profile, and whether that delivery would satisfy RFC 8689 section
4.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from requiretls_milter.forecast import postfix, rfc8689, sentences
from requiretls_milter.forecast.attempt import DeliveryAttempt
from requiretls_milter.forecast.mta_sts import policy_end
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.postfix import Delivery
from requiretls_milter.forecast.reach import within_reach
from requiretls_milter.forecast.servers import (
    NoServer,
    name_is_authenticated,
    not_looked_up,
    servers_of,
)
from requiretls_milter.forecast.strength import weakness
from requiretls_milter.model import (
    LOCAL_FORECAST,
    NOTHING_NEEDED,
    UNKNOWN_STATUS,
    DomainEvidence,
    Forecast,
    HopKind,
    MtaProfile,
    MtaSts,
    Needs,
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
    needs: Needs = NOTHING_NEEDED,
) -> Forecast:
    """Forecast what the MTA's delivery to one next hop ends with.

    Args:
        evidence: what is known about the next hop.
        asked: what the sender or an operator's rule asks; ``compliant`` depends
            on it.
        carried: what the MTA itself acts on; ``status`` depends on it.
        profile: how the MTA delivers over the transport in question.
        trust: the certification authorities that count.
        now: the time of the delivery, seconds since the epoch.
        needs: what the message needs beside its requirement. By the letter of RFC 8689 only
            the requirement counts: profile rfc8689 does not look at it.
    """
    if evidence.nexthop.kind is HopKind.LOCAL:
        return LOCAL_FORECAST
    delivery = Delivery(evidence, carried, profile, trust, now, needs)
    servers = _policy_unasked(delivery, asked) or servers_of(evidence, profile)
    possible = postfix.deliver(delivery, servers)
    by_postfix = possible[0] if len(possible) == 1 else _worst(possible, asked, delivery)
    # RFC 8689 section 4.2.1 is about REQUIRETLS mail alone; other mail goes by Postfix's TLS level.
    by_rfc8689 = by_postfix
    if carried is Requirement.REQUIRETLS:
        reached = servers
        if not isinstance(servers, NoServer):
            reached = within_reach(servers, profile.mx_address_limit)
        by_rfc8689 = rfc8689.deliver(evidence, reached, profile.reading, trust, now)
    if _unproven(evidence):
        by_postfix = _unless_it_rests_on_dnssec(by_postfix, asked, delivery)
        by_rfc8689 = _unless_it_rests_on_dnssec(by_rfc8689, asked, delivery)
    postfix_delivers = profile.name is ProfileName.POSTFIX
    result = by_postfix if postfix_delivers else by_rfc8689
    compliance = _compliance(result, asked, delivery)
    uncertain = result is by_postfix and not _alike(possible, asked, delivery)
    return Forecast(
        status=result.status,
        outcome=status.outcome_of(result.status),
        reason=compliance if compliance else result.reason,
        text=_text(result, compliance, uncertain),
        compliant=_compliant(result, asked, compliance),
        mx=result.server.host.host if result.server else "",
        tls=result.tls if postfix_delivers else None,
        rfc8689=Verdict(by_rfc8689.status, by_rfc8689.reason),
        valid_until=_valid_until(evidence, *possible, by_rfc8689),  # R44
        downgraded_at=evidence.downgraded_at,
        largest=_largest(evidence, needs),
        proven_until=_proven_until(evidence, *possible, by_rfc8689),
    )


def _largest(evidence: DomainEvidence, needs: Needs) -> int | None:
    """The largest message for which this forecast holds: the one that fits every server."""
    smallest: int | None = None
    for host in evidence.hosts:
        for probe in host.probes:
            if probe.size_limit > 0 and (smallest is None or probe.size_limit < smallest):
                smallest = probe.size_limit
    return 0 if smallest is not None and smallest < needs.size else smallest


def _policy_unasked(delivery: Delivery, asked: Requirement) -> NoServer | None:
    """Say that nothing is known, if an MTA-STS policy that was not asked for may decide.

    It does if the MTA applies it, or if it alone could confirm the names of the servers. A
    policy that could not be fetched is another thing: then the MTA fails to fetch it as well.
    """
    evidence, sts = delivery.evidence, delivery.evidence.mta_sts
    if not sts.unasked or sts.policy is not None:
        return None
    applies = delivery.profile.mta_sts is not MtaSts.OFF
    required = Requirement.REQUIRETLS in (asked, delivery.carried)
    # A next hop in brackets names its server: no policy has to confirm it.
    confirmed = evidence.mx.secure or evidence.nexthop.kind is HopKind.HOST
    if not applies and (confirmed or not required):
        return None
    return not_looked_up(f"the MTA-STS policy of {evidence.nexthop.host}", sts.error)


# ---------------------------------------------------------------- servers in random order


def _worst(
    possible: Sequence[DeliveryAttempt], asked: Requirement, delivery: Delivery
) -> DeliveryAttempt:
    """Return the worst of several results; of equal deliveries one that does not satisfy."""
    worst = status.worst_of(attempt.status for attempt in possible)
    equal = [attempt for attempt in possible if attempt.status == worst]
    lacking = [attempt for attempt in equal if _compliance(attempt, asked, delivery)]
    return (lacking or equal)[-1]


def _alike(possible: Sequence[DeliveryAttempt], asked: Requirement, delivery: Delivery) -> bool:
    """Say whether all results would be reported alike, log token and compliance included."""
    if len(possible) == 1:
        return True
    reported = {
        (attempt.status, attempt.tls, _compliance(attempt, asked, delivery)) for attempt in possible
    }
    return len(reported) == 1


# ---------------------------------------------------------------- an unproven resolver


def _unproven(evidence: DomainEvidence) -> bool:
    """Say whether something would be secure if only the resolver were known to validate."""
    return evidence.mx.unproven or any(host.addresses.unproven for host in evidence.hosts)


def _unless_it_rests_on_dnssec(
    result: DeliveryAttempt, asked: Requirement, delivery: Delivery
) -> DeliveryAttempt:
    """Make nothing known of a result that signed answers might have turned into another one.

    A delivery that satisfies stays, since nothing that counts as insecure made it so, and so
    does what has nothing to do with TLS. The rest is our own ignorance, no verdict on the next
    hop (R20).
    """
    about_tls = result.status[1:4] == ".7." and result.reason is not Reason.SERVER_REJECTS
    if not about_tls and _compliance(result, asked, delivery) is None:
        return result
    return DeliveryAttempt(
        result.server, UNKNOWN_STATUS, Reason.UNKNOWN, sentences.RESOLVER_UNPROVEN, ends=True
    )


# ---------------------------------------------------------------- compliance


def _compliance(result: DeliveryAttempt, asked: Requirement, delivery: Delivery) -> Reason | None:
    """Say why a delivery that is made is not what RFC 8689 section 4.2.1 asks; None if it is."""
    if asked is not Requirement.REQUIRETLS or not result.delivered or result.server is None:
        return None
    server = result.server
    if not result.verified:
        return Reason.NONCOMPLIANT_UNVERIFIED
    if not delivery.profile.reading.weak_tls_counts and weakness(
        server.probe, small_key=result.small_key
    ):
        return Reason.NONCOMPLIANT_WEAK_TLS
    if not name_is_authenticated(delivery.evidence, server.host, delivery.profile.reading):
        return Reason.NONCOMPLIANT_MX_INSECURE
    if server.probe.requiretls is not True:
        return Reason.NONCOMPLIANT_NOT_OFFERED
    # An MTA that carries REQUIRETLS must pass it on. An MTA that does not know it is
    # judged by the session alone: the milter is what enforces the requirement there.
    if delivery.carried is Requirement.REQUIRETLS and not result.requiretls_sent:
        return Reason.NONCOMPLIANT_NOT_CARRIED
    return None


def _compliant(
    result: DeliveryAttempt, asked: Requirement, compliance: Reason | None
) -> bool | None:
    if asked is Requirement.NONE or not result.delivered:
        return None
    return compliance is None


# ---------------------------------------------------------------- words and times


def _text(result: DeliveryAttempt, compliance: Reason | None, uncertain: bool) -> str:
    text = result.text
    if compliance:
        text += f"; {sentences.SHORTCOMINGS[compliance]}"
    if compliance is Reason.NONCOMPLIANT_WEAK_TLS and result.server is not None:
        text += f": {weakness(result.server.probe, small_key=result.small_key)}"
    if uncertain:
        text += f"; {sentences.RANDOM_ORDER}"
    return text


def _valid_until(evidence: DomainEvidence, *results: DeliveryAttempt) -> float:
    """Say when the first thing ends on which *results* rest; 0 if none of them has an end."""
    ends = [evidence.mx.expires, evidence.mta_sts.expires]
    for host in evidence.hosts:
        ends += host.addresses.expires, host.tlsa.expires
        for probe in host.probes:
            ends.append(probe.expires)
    first = min(filter(None, ends), default=math.inf)  # 0: this piece has no end
    for result in results:
        first = min(first, result.until)
    return first if first < math.inf else 0.0


def _proven_until(evidence: DomainEvidence, *results: DeliveryAttempt) -> float:
    """Say when the first proof ends on which *results* rest; 0 if they rest on none.

    A TTL says how long an answer is to be kept. A certificate or a policy is worth nothing after
    its end.
    """
    end = min(policy_end(evidence.mta_sts), *(result.until for result in results))
    return end if end < math.inf else 0.0
