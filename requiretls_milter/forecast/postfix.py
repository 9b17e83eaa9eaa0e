"""How Postfix 3.11 delivers; tests/data/oracle has recordings of it.

The checks are in the order of smtp(8), and the last failure recorded decides. If
Postfix is laxer than RFC 8689, the forecast follows Postfix, and ``compliant`` says
that the delivery does not satisfy the RFC. docs/forecast.md has a table of the states.

Two settings have "policy" in their names. In this module ``policy`` is the
smtp_requiretls_policy, ``entry`` an entry of smtp_tls_policy_maps, and ``sts`` the MTA-STS
policy of the domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from requiretls_milter.forecast import dane, pkix, profiles, sentences
from requiretls_milter.forecast.attempt import (
    AT_SECOND_EHLO,
    IN_CLEAR,
    IN_EHLO,
    IN_SECOND_EHLO,
    NOTHING_RECORDED,
    DeliveryAttempt,
    possible_results,
    reply_status,
    result_in_order,
    session_failure,
    tls_weakness,
    unknown,
    unless_too_large,
    without_smtputf8,
)
from requiretls_milter.forecast.authentication import dane_references, postfix_dane_references
from requiretls_milter.forecast.certificate import PASSED, Check
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import MailServer, has_mx_records, is_order_fixed
from requiretls_milter.forecast.servers import (
    NoServer,
    Servers,
    in_mta_sts_policy,
    lookup_failure,
    secure_tlsa,
    tlsa_lookup_failed,
)
from requiretls_milter.model import (
    NOTHING_NEEDED,
    SMTP_PORT,
    DomainEvidence,
    MailProtocol,
    MtaProfile,
    MtaSts,
    MtaStsMode,
    MtaStsPolicy,
    Needs,
    ProbeEvidence,
    ProbeStage,
    Reason,
    Requirement,
    RequiretlsPolicy,
    TlsaRecord,
    TlsLevel,
    TlsPolicy,
)
from requiretls_milter.syntax import status


class Delivery(NamedTuple):
    """One delivery: the evidence, and all that decides what smtp(8) makes of it."""

    evidence: DomainEvidence
    carried: Requirement
    profile: MtaProfile
    trust: TrustStore
    now: float
    needs: Needs = NOTHING_NEEDED

    @property
    def requiretls_policy(self) -> RequiretlsPolicy:
        """The smtp_requiretls_policy for this message: disable if it carries no REQUIRETLS."""
        if self.carried is not Requirement.REQUIRETLS:
            return RequiretlsPolicy.DISABLE
        return profiles.requiretls_policy(self.profile, self.evidence.nexthop.host)

    @property
    def tls_policy(self) -> TlsPolicy | None:
        """The static entry of smtp_tls_policy_maps that applies, if one does.

        Postfix asks the service that applies MTA-STS for the domain's own name. So an entry
        for that name takes precedence over the MTA-STS policy, and the MTA-STS policy over an
        entry for a parent.
        """
        if not self.profile.tls_policy:
            return None
        found, by_name = profiles.tls_policy(self.profile, self.evidence.nexthop)
        return found if by_name or self.mta_sts_policy is None else None

    @property
    def mta_sts_policy(self) -> MtaStsPolicy | None:
        """The MTA-STS policy that a policy service would return: only one in mode enforce (R57)."""
        policy = self.evidence.mta_sts.policy
        if self.profile.mta_sts is MtaSts.OFF or policy is None:
            return None
        nexthop = self.evidence.nexthop
        if self.profile.mta_sts_service.bare_names_only and nexthop.destination != nexthop.host:
            return None
        return policy if policy.mode is MtaStsMode.ENFORCE else None


class Plan(NamedTuple):
    """The TLS policy for one server, made before connecting (smtp_tls_policy.c).

    Attributes:
        level: Postfix's TLS security level.
        references: the names one of which the certificate must have.
        records: the TLSA records one of which must match: those that OpenSSL can use.
        why: why the level is lower than the configured one; "" if it is not.
        unusable: there are records that Postfix accepts, but OpenSSL can use none of them.
    """

    level: TlsLevel
    references: tuple[str, ...] = ()
    records: tuple[TlsaRecord, ...] = ()
    why: str = ""
    unusable: bool = False

    @property
    def session_level(self) -> TlsLevel:
        """The level of the session, once OpenSSL has read the TLSA records.

        If OpenSSL can use none of the records that Postfix has accepted, the session goes on
        unauthenticated (RFC 7672 section 2.2, R33), even under policy enforce: Postfix has
        checked the planned level before (:func:`_forbidden_by_policy`).
        """
        falls = self.unusable and self.level is not TlsLevel.DANE_ONLY
        return TlsLevel.ENCRYPT if falls else self.level


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why no TLS policy could be made: the attempt at the server fails for now."""

    reason: Reason
    why: str


def deliver(delivery: Delivery, servers: Servers) -> tuple[DeliveryAttempt, ...]:
    """List what the delivery may end with: several results if servers are in random order."""
    results = _results(delivery, servers)
    if not _is_to_relayhost(delivery):
        return results
    return tuple(map(_at_relayhost, results))


def _is_to_relayhost(delivery: Delivery) -> bool:
    """Say whether the next hop is relayhost word for word, whoever names it; a list never is."""
    relayhost, nexthop = delivery.profile.relayhost, delivery.evidence.nexthop
    return (
        bool(relayhost)
        and nexthop.destination == relayhost
        and nexthop.protocol is MailProtocol.SMTP
    )


def _at_relayhost(result: DeliveryAttempt) -> DeliveryAttempt:
    """Defer what fails for good at relayhost before a session (smtp_connect_inet()).

    Postfix takes it for a mistake of its own settings.
    """
    if not (result.outside and result.status.startswith("5")):
        return result
    text = f"{result.text}; at relayhost Postfix defers for this"
    return result._replace(status=status.MTA_MISCONFIGURED, text=text)


def _results(delivery: Delivery, servers: Servers) -> tuple[DeliveryAttempt, ...]:
    if isinstance(servers, NoServer):
        return _without_server(servers)
    failure = lookup_failure(delivery.evidence, delivery.profile)
    before: tuple[DeliveryAttempt | None, ...] = (None,)
    if failure is not None:
        before = _without_server(failure)
    made: list[DeliveryAttempt] = []

    def try_at(server: MailServer) -> DeliveryAttempt:
        made.append(attempt(server, delivery))
        return made[-1]

    limit = delivery.profile.mx_address_limit
    results: tuple[DeliveryAttempt, ...]
    if is_order_fixed(servers, limit):
        results = tuple(
            result_in_order((try_at(server) for (server,) in servers), recorded)
            for recorded in before
        )
    else:
        attempts = tuple(tuple(map(try_at, group)) for group in servers)
        results = tuple(
            result for recorded in before for result in possible_results(attempts, limit, recorded)
        )
    # Each of them holds only as long as no attempt at all ends differently.
    until = min([one.until for one in made])
    return tuple([result.until_at_most(until) for result in results])


def _without_server(failure: NoServer) -> tuple[DeliveryAttempt, ...]:
    """List what a delivery without any server may end with: two codes if hosts are in any order."""
    codes = filter(None, (failure.status, failure.otherwise))
    return tuple(
        DeliveryAttempt(None, code, failure.reason, failure.text, outside=True) for code in codes
    )


def attempt(server: MailServer, delivery: Delivery) -> DeliveryAttempt:
    """Say what the delivery would end with if *server* were the only one.

    The checks are in the order of smtp(8): the first one that ends the attempt decides.
    """
    if server.unseen:
        return unknown(server, server.unseen.why)
    policy = delivery.requiretls_policy
    plan = plan_for(server, delivery)
    if isinstance(plan, NoPlan):
        return DeliveryAttempt(
            server,
            status.TLS_NOT_ESTABLISHED,
            plan.reason,
            plan.why,
            tls=_token("unknown?", policy, "requiretls?"),
        )
    undecided = _token(f"{plan.level}?", policy, "requiretls?")
    in_clear, needs = server.probe.smtputf8_in_clear, delivery.needs
    result = (
        _forbidden_by_policy(server, plan, policy)
        or _not_in_mta_sts_policy(server, delivery, undecided)
        or _with_token(session_failure(server, IN_CLEAR), undecided)
        or _with_token(_is_the_mta(server, delivery), undecided)
        or _with_token(without_smtputf8(server, in_clear, needs, IN_EHLO), undecided)
        or _without_tls(server, plan.level, policy)
        or _with_token(session_failure(server, _AT_STARTTLS), undecided)
        or _handshake_failure(server, plan, undecided)
        or _inside_tls(server, plan, policy, delivery)
    )
    return unless_too_large(result, needs)


# ---------------------------------------------------------------- before connecting


def plan_for(server: MailServer, delivery: Delivery) -> Plan | NoPlan:
    """Choose the TLS level for *server*, from the configured level, DANE and MTA-STS."""
    profile = delivery.profile
    if delivery.carried is Requirement.TLS_REQUIRED_NO:
        # RFC 8689 section 4.2.2: as if there were neither DANE nor MTA-STS, nor any table (R13).
        return Plan(profiles.at_most_may(profile.tls_security_level))
    entry, sts = delivery.tls_policy, delivery.mta_sts_policy
    if entry is None and sts is not None:
        # The policy service answers "secure", which replaces the level, DANE included.
        if profile.mta_sts is MtaSts.MX_PATTERNS:
            return Plan(TlsLevel.SECURE, (server.host.host,))
        return Plan(TlsLevel.SECURE, tuple(_match_pattern(pattern) for pattern in sts.mx))
    level = profile.tls_security_level if entry is None else entry.level
    if profiles.uses_dane(level):
        return _dane_plan(server, delivery, level)
    if profiles.must_pkix(level):
        match = () if entry is None else entry.match
        return Plan(level, _references(match or _MATCH[level], server, delivery.evidence))
    return Plan(level)


_MATCH = {TlsLevel.VERIFY: ("hostname",), TlsLevel.SECURE: ("nexthop", "dot-nexthop")}
"""smtp_tls_verify_cert_match and smtp_tls_secure_cert_match."""


def _references(
    match: tuple[str, ...], server: MailServer, evidence: DomainEvidence
) -> tuple[str, ...]:
    """List the names that ``match=`` stands for (postconf(5), smtp_tls_verify_cert_match)."""
    domain = evidence.nexthop.host
    names = {"hostname": server.host.host, "nexthop": domain, "dot-nexthop": "." + domain}
    return tuple(names.get(word, word) for word in match)


def _match_pattern(pattern: str) -> str:
    """Write a policy's ``*.example.org`` as policy services put it into ``match=``."""
    return pattern[1:] if pattern.startswith("*.") else pattern


def _dane_plan(server: MailServer, delivery: Delivery, configured: TlsLevel) -> Plan | NoPlan:
    """Say which level dane or dane-only becomes at this server (RFC 7672 section 2.2)."""
    profile = delivery.profile
    only = configured is TlsLevel.DANE_ONLY
    unsigned_mx = has_mx_records(delivery.evidence) and not delivery.evidence.mx.secure

    def fall_back(level: TlsLevel, reason: Reason, why: str) -> Plan | NoPlan:
        if only:
            return NoPlan(reason, f"{why}, which level dane-only demands")
        return Plan(level, why=f"{why}, so level {configured} falls to {level}")

    # RFC 7672 section 2.2.1: with an unsigned MX RRset, DANE guarantees nothing (R23).
    if unsigned_mx and (only or profile.insecure_mx_policy in (TlsLevel.NONE, TlsLevel.MAY)):
        return fall_back(TlsLevel.MAY, Reason.MX_UNSIGNED, sentences.MX_UNSIGNED)
    if tlsa_lookup_failed(server.host):
        return NoPlan(Reason.POLICY_LOOKUP_FAILED, sentences.tlsa_lookup_failed(server))
    found = secure_tlsa(server.host)
    if not found:
        return fall_back(TlsLevel.MAY, Reason.NO_TLSA_RECORDS, sentences.no_tlsa_records(server))
    # Secure records make TLS mandatory, with authentication if one is usable (RFC 7672
    # section 2.2, R32, R33).
    records = dane.usable(found)
    if not records and not dane.postfix_accepts(found):
        why = f"no TLSA record of {server.host.host} is usable"
        return fall_back(TlsLevel.ENCRYPT, Reason.NO_TLSA_RECORDS, why)
    if unsigned_mx and profile.insecure_mx_policy is TlsLevel.ENCRYPT:
        return fall_back(TlsLevel.ENCRYPT, Reason.MX_UNSIGNED, sentences.MX_UNSIGNED)
    level = TlsLevel.HALF_DANE if unsigned_mx else configured
    references = postfix_dane_references(server.host, delivery.evidence)
    return Plan(level, references, records, unusable=not records)


def _forbidden_by_policy(
    server: MailServer, plan: Plan, policy: RequiretlsPolicy
) -> DeliveryAttempt | None:
    level = plan.level
    if policy is RequiretlsPolicy.INVALID:
        return DeliveryAttempt(
            server,
            status.MTA_POLICY_INVALID,
            Reason.MTA_POLICY_INVALID,
            "smtp_requiretls_policy holds a word that Postfix does not know",
            tls=f"{level}?",
        )
    if policy is RequiretlsPolicy.ENFORCE and not profiles.must_match(level):
        return DeliveryAttempt(
            server,
            status.ENCRYPTION_NEEDED,
            Reason.TLS_LEVEL_DOES_NOT_VERIFY,
            (plan.why or f"this MTA's TLS level for {server.host.host} is {level}")
            + ", which does not verify certificates",
            tls=f"{level}?/!requiretls:nocertmatch",
            outside=True,
        )
    if policy is RequiretlsPolicy.OPPORTUNISTIC_STARTTLS and level is TlsLevel.NONE:
        return DeliveryAttempt(
            server,
            status.ENCRYPTION_NEEDED,
            Reason.TLS_LEVEL_DOES_NOT_VERIFY,
            f"this MTA's TLS level for {server.host.host} is none",
            tls=f"{level}?/!requiretls:noencryption",
            outside=True,
        )
    return None


def _not_in_mta_sts_policy(
    server: MailServer, delivery: Delivery, undecided: str
) -> DeliveryAttempt | None:
    """Pass over a server that the MTA-STS policy does not name (RFC 8461 section 5, R57).

    That is smtp_tls_enforce_sts_mx_patterns. The failure that is recorded so far stays; if
    none is recorded, the delivery fails for now (4.3.0).
    """
    if (
        delivery.profile.mta_sts is not MtaSts.MX_PATTERNS
        or delivery.mta_sts_policy is None
        or delivery.tls_policy is not None
        or delivery.carried is Requirement.TLS_REQUIRED_NO
        or in_mta_sts_policy(delivery.evidence, server.host.host) is not False
    ):
        return None
    return DeliveryAttempt(
        server,
        NOTHING_RECORDED,
        Reason.MX_NOT_IN_MTA_STS_POLICY,
        f"{server.host.host} is not in the MTA-STS policy",
        tls=undecided,
    )


# ---------------------------------------------------------------- the session


def _is_the_mta(server: MailServer, delivery: Delivery) -> DeliveryAttempt | None:
    """Fail at a server that gives the MTA's own name in its EHLO reply.

    At the best server that is a mail loop; at any other server the next one is tried.
    """
    name = delivery.profile.myhostname
    if not name or server.probe.ehlo_name.lower() != name:
        return None
    if delivery.evidence.nexthop.port != SMTP_PORT:
        return None
    return DeliveryAttempt(
        server,
        status.MAIL_LOOP if server.best else status.MAIL_LOOP_FOR_NOW,
        Reason.MAIL_LOOP,
        f"{server.name} calls itself {name}, as this MTA does",
        ends=server.best,
    )


_AT_STARTTLS = frozenset({ProbeStage.STARTTLS})


def _without_tls(
    server: MailServer, level: TlsLevel, policy: RequiretlsPolicy
) -> DeliveryAttempt | None:
    """Deliver in clear, or fail, if TLS is not wanted, not offered, or refused; else None."""
    offered = profiles.uses_tls(level) and bool(server.probe.starttls_offered)
    refusal = server.probe.starttls_reply if offered else None
    if offered and refusal is None:
        return None
    required, demanded = profiles.requires_tls(level), profiles.requires_starttls(policy)
    if not (required or demanded):
        return DeliveryAttempt(
            server,
            status.SUCCESS,
            Reason.OK,
            f"{server.name} would take the message in clear",
            tls=_token(_decided(level, TlsLevel.NONE), policy, "requiretls:none"),
            ends=True,
        )
    token = _token(
        f"!{level}" if required else f"{level}?",
        policy,
        "!requiretls:nostarttls" if demanded else "requiretls?",
    )
    if refusal is None:
        # To Postfix a server without STARTTLS lacks REQUIRETLS (R12).
        code = status.REQUIRETLS_NEEDED if demanded else status.TLS_NOT_OFFERED
        text = sentences.starttls_not_offered(server)
        return DeliveryAttempt(server, code, Reason.STARTTLS_NOT_OFFERED, text, tls=token)
    text = sentences.starttls_refused(server)
    if demanded:  # to Postfix this server lacks encryption (R12)
        code, ends = status.ENCRYPTION_NEEDED, False
    else:
        code = reply_status(refusal)
        ends = code.startswith("5")
    return DeliveryAttempt(server, code, Reason.STARTTLS_REFUSED, text, tls=token, ends=ends)


def _handshake_failure(server: MailServer, plan: Plan, undecided: str) -> DeliveryAttempt | None:
    """Fail for now if the handshake fails, also under enforce (R61).

    No first attempt falls back to clear text, not even for a message with
    ``TLS-Required: No``: the server demands TLS by offering it (RFC 8689 section 8.4, R18).
    """
    probe = server.probe
    weakness = tls_weakness(probe)
    if probe.stage is ProbeStage.HANDSHAKE:
        why = sentences.failure_of(probe)
    elif weakness is not None and _refuses_weak_tls(plan, probe):
        why = weakness
    else:
        return None
    return DeliveryAttempt(
        server,
        status.TLS_NOT_ESTABLISHED,
        Reason.TLS_HANDSHAKE_FAILED,
        sentences.handshake_failed(server, why),
        tls=undecided,
    )


def _refuses_weak_tls(plan: Plan, probe: ProbeEvidence) -> bool:
    """Say whether smtp(8) refuses TLS that only an MTA without verification would take.

    smtp(8) raises OpenSSL's security level if the session authenticates the server. It leaves
    out anonymous suites if the plan was to authenticate the server, even if the session in
    the end does not authenticate it.
    """
    anonymous = not probe.chain
    return profiles.must_match(plan.level if anonymous else plan.session_level)


def _inside_tls(
    server: MailServer, plan: Plan, policy: RequiretlsPolicy, delivery: Delivery
) -> DeliveryAttempt:
    """Judge the certificate, then the EHLO reply inside TLS (RFC 8689 section 4.2.1)."""
    level = plan.session_level
    check = _check(server, plan, level, delivery)
    if check.mismatch is None:
        result = _after_handshake(server, plan, check, policy, delivery)
    elif server.probe.chain_cut:
        result = unknown(server, sentences.chain_cut(server, check.mismatch))
    else:
        result = _certificate_failure(server, plan.level, level, policy, check.mismatch)
    return result.until_at_most(check.until)


def _after_handshake(
    server: MailServer,
    plan: Plan,
    check: Check,
    policy: RequiretlsPolicy,
    delivery: Delivery,
) -> DeliveryAttempt:
    """Judge the EHLO reply inside TLS, once the *check* of the certificate was passed."""
    level = plan.session_level
    matched = profiles.must_match(level)
    offered = server.probe.requiretls is True
    decided = _decided(plan.level, level)
    broken = session_failure(server, AT_SECOND_EHLO)
    if broken is not None:
        return broken._replace(tls=_token(decided, policy, "requiretls?"))
    without = without_smtputf8(server, server.probe.smtputf8, delivery.needs, IN_SECOND_EHLO)
    if without is not None:
        return without._replace(tls=_token(decided, policy, "requiretls?"))
    if policy is RequiretlsPolicy.ENFORCE and not offered:
        return DeliveryAttempt(
            server,
            status.REQUIRETLS_NEEDED,
            Reason.REQUIRETLS_NOT_OFFERED,
            sentences.requiretls_not_offered(server),
            tls=f"{decided}/!requiretls:none",
            until=check.until,
        )
    if not offered:
        feature = "requiretls:none"
    else:
        feature = "requiretls" if matched else "requiretls:nocertmatch"
    host_check = _check_host(server, level, delivery)
    return DeliveryAttempt(
        server,
        status.SUCCESS,
        Reason.OK,
        f"{server.name} would take the message over "
        + (f"TLS verified at level {level}" if matched else f"unverified TLS (level {level})"),
        tls=_token(decided, policy, feature),
        ends=True,
        verified=matched and host_check.mismatch is None,
        requiretls_sent=offered and profiles.takes_part(policy),
        small_key=check.small_key,
        until=min(check.until, host_check.until),
    )


def _check(server: MailServer, plan: Plan, level: TlsLevel, delivery: Delivery) -> Check:
    """Say whether the certificate matches at *level*, or need not match.

    At level dane-only a certificate never matches without a usable record.
    """
    chain = server.probe.chain
    if not profiles.must_match(level):
        return PASSED
    if profiles.must_pkix(level):
        return pkix.check(chain, plan.references, delivery.trust, delivery.now)
    if plan.unusable:
        return Check("no TLSA record is usable")
    return dane.check(chain, plan.records, plan.references, delivery.now)


def _check_host(server: MailServer, level: TlsLevel, delivery: Delivery) -> Check:
    """Say whether the certificate names the MX host itself, not only a pattern or the domain.

    RFC 8689 section 4.2.1 step 4 and RFC 8461 section 4.2 demand it (R56). With DANE the
    TLSA records prove that the server is the host. If the MX records are not signed, a
    certificate below a DANE-TA record must have the host's own name (RFC 7672 section 3.2.2),
    while Postfix accepts the domain's name too.
    """
    chain, host = server.probe.chain, server.host
    if profiles.must_pkix(level):
        return pkix.check(chain, (host.host,), delivery.trust, delivery.now)
    if level is TlsLevel.HALF_DANE:
        records = dane.usable(secure_tlsa(host))
        references = dane_references(host, delivery.evidence)
        return dane.check(chain, records, references, delivery.now)
    return PASSED


def _certificate_failure(
    server: MailServer, planned: TlsLevel, level: TlsLevel, policy: RequiretlsPolicy, mismatch: str
) -> DeliveryAttempt:
    # RFC 7672 section 2.2: a mismatch delays ordinary mail; with REQUIRETLS it is 5.7.10 (R43).
    enforced = policy is RequiretlsPolicy.ENFORCE
    feature = "!requiretls:nocertmatch" if enforced else "requiretls:nocertmatch"
    return DeliveryAttempt(
        server,
        status.ENCRYPTION_NEEDED if enforced else status.TLS_NOT_ESTABLISHED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        sentences.certificate_not_verified(server, mismatch),
        tls=_token("!" + _decided(planned, level), policy, feature),
    )


# ---------------------------------------------------------------- Postfix's log token


def _decided(planned: TlsLevel, final: TlsLevel) -> str:
    return str(planned) if planned is final else f"{planned}:{final}"


def _token(level: str, policy: RequiretlsPolicy, feature: str) -> str:
    """Write the word after ``tls=``; without *feature* if the policy ignores REQUIRETLS."""
    return f"{level}/{feature}" if profiles.takes_part(policy) else level


def _with_token(result: DeliveryAttempt | None, token: str) -> DeliveryAttempt | None:
    return None if result is None else result._replace(tls=token)
