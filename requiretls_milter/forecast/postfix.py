"""How Postfix 3.11 delivers: the dialect that tests/data/oracle records.

The order of the questions is smtp(8)'s own, and the last failure recorded
decides. Where Postfix is laxer than RFC 8689 the forecast follows Postfix, and
``compliant`` says so (docs/forecast.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from requiretls_milter.forecast import dane, pkix, profiles
from requiretls_milter.forecast.attempt import (
    IN_CLEAR,
    NOTHING_RECORDED,
    Attempt,
    in_order,
    in_turn,
    order_is_fixed,
    reply_status,
    session_failure,
    tls_weakness,
    unknown,
)
from requiretls_milter.forecast.authentication import dane_references, postfix_dane_references
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.servers import (
    NoServer,
    Server,
    Servers,
    in_mta_sts_policy,
    lookup_failure,
    secure_tlsa,
    tlsa_lookup_failed,
)
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HopKind,
    MtaProfile,
    MtaSts,
    MtaStsMode,
    MtaStsPolicy,
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
from requiretls_milter.syntax.endpoint import SMTP_PORT


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way: the evidence and all that decides what smtp(8) does with it."""

    evidence: DomainEvidence
    carried: Requirement
    profile: MtaProfile
    trust: TrustStore
    now: float

    @property
    def requiretls_policy(self) -> RequiretlsPolicy:
        """What smtp_requiretls_policy makes of this message."""
        if self.carried is not Requirement.REQUIRETLS:
            return RequiretlsPolicy.DISABLE
        return profiles.requiretls_policy(self.profile, self.evidence.nexthop.host)

    @property
    def tls_policy(self) -> TlsPolicy | None:
        """The static entry of smtp_tls_policy_maps that applies, if one does.

        The policy service that applies MTA-STS is asked for the domain's own name:
        an entry for that name comes before it, one for a parent after it.
        """
        if not self.profile.tls_policy:
            return None
        found, by_name = profiles.tls_policy(self.profile, self.evidence.nexthop)
        return found if by_name or self.mta_sts_policy is None else None

    @property
    def mta_sts_policy(self) -> MtaStsPolicy | None:
        """The MTA-STS policy that a policy service would answer with."""
        policy = self.evidence.mta_sts.policy
        if self.profile.mta_sts is MtaSts.OFF or policy is None:
            return None
        return policy if policy.mode is MtaStsMode.ENFORCE else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The TLS policy for one server, made before connecting (smtp_tls_policy.c).

    ``references`` are the names that the certificate must match, ``records``
    the TLSA records that it must.
    """

    level: TlsLevel
    references: tuple[str, ...] = ()
    records: tuple[TlsaRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class NoPlan:
    """A TLS policy that could not be made: the server is passed over for now."""

    why: str


def deliver(delivery: Delivery, servers: Servers) -> tuple[Attempt, ...]:
    """What the delivery may end with: more than one attempt where Postfix's dice decide."""
    if isinstance(servers, NoServer):
        return _without_server(servers)
    failure = lookup_failure(delivery.evidence, delivery.profile)
    before: tuple[Attempt | None, ...] = (None,)
    if failure is not None:
        before = _without_server(failure)
    limit = delivery.profile.mx_address_limit
    shared = limit > 1 and len(delivery.profile.inet_protocols) > 1
    if shared and any(server.unseen for group in servers for server in group):
        return _beside_unseen(servers, delivery)
    if order_is_fixed(servers, limit):
        return tuple(
            in_order((attempt(server, delivery) for (server,) in servers), recorded)
            for recorded in before
        )
    attempts = tuple(tuple(attempt(server, delivery) for server in group) for group in servers)
    return tuple(ended for recorded in before for ended in in_turn(attempts, limit, recorded))


def _beside_unseen(
    servers: tuple[tuple[Server, ...], ...], delivery: Delivery
) -> tuple[Attempt, ...]:
    """The same where servers are unseen, and those that are tried are shared by two families.

    Of which family the unseen ones are nobody knows, nor whom they leave no room for
    (smtp_balance_inet_protocols): only that one of the best group comes first.
    """
    first = tuple(attempt(server, delivery) for server in servers[0])
    if all(possible.ends for possible in first):
        return first
    (unseen, *_) = (server for group in servers for server in group if server.unseen)
    return (unknown(unseen, unseen.unseen),)


def _without_server(failure: NoServer) -> tuple[Attempt, ...]:
    """What a delivery without any server ends with: one of two where equals decide."""
    codes = filter(None, (failure.status, failure.otherwise))
    return tuple(Attempt(None, code, failure.reason, failure.text) for code in codes)


def attempt(server: Server, delivery: Delivery) -> Attempt:
    """What the delivery would end with if *server* were the only one."""
    if server.unseen:
        return unknown(server, server.unseen)
    policy = delivery.requiretls_policy
    plan = plan_for(server, delivery)
    if isinstance(plan, NoPlan):
        return Attempt(
            server,
            status.TLS_NOT_ESTABLISHED,
            Reason.POLICY_LOOKUP_FAILED,
            plan.why,
            tls=_token("unknown?", policy, "requiretls?"),
        )
    undecided = _token(f"{plan.level}?", policy, "requiretls?")
    return (
        _forbidden_by_policy(server, plan.level, policy)
        or _not_in_mta_sts_policy(server, delivery, undecided)
        or _with_token(session_failure(server, IN_CLEAR), undecided)
        or _with_token(_is_the_mta(server, delivery), undecided)
        or _without_tls(server, plan.level, policy)
        or _with_token(session_failure(server, _AT_STARTTLS), undecided)
        or _handshake_failure(server, plan, undecided)
        or _inside_tls(server, plan, policy, delivery)
    )


# ---------------------------------------------------------------- before connecting


def plan_for(server: Server, delivery: Delivery) -> Plan | NoPlan:
    """The TLS level for *server*, after DANE and MTA-STS have had their say."""
    profile = delivery.profile
    if delivery.carried is Requirement.TLS_REQUIRED_NO:
        # RFC 8689 section 4.2.2: as if there were neither DANE nor MTA-STS, nor any table.
        return Plan(profiles.at_most_may(profile.tls_security_level))
    entry, policy = delivery.tls_policy, delivery.mta_sts_policy
    if entry is None and policy is not None:
        # A policy table's "secure" replaces the level, DANE included.
        if profile.mta_sts is MtaSts.MX_PATTERNS:
            return Plan(TlsLevel.SECURE, (server.host.host,))
        return Plan(TlsLevel.SECURE, tuple(_match_pattern(pattern) for pattern in policy.mx))
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
    match: tuple[str, ...], server: Server, evidence: DomainEvidence
) -> tuple[str, ...]:
    """The names that ``match=`` stands for (postconf(5), smtp_tls_verify_cert_match)."""
    domain = evidence.nexthop.host
    names = {"hostname": server.host.host, "nexthop": domain, "dot-nexthop": "." + domain}
    return tuple(names.get(word, word) for word in match)


def _match_pattern(pattern: str) -> str:
    """A policy's ``*.example.org`` as policy services put it into ``match=``."""
    return pattern[1:] if pattern.startswith("*.") else pattern


def _dane_plan(server: Server, delivery: Delivery, configured: TlsLevel) -> Plan | NoPlan:
    profile = delivery.profile
    only = configured is TlsLevel.DANE_ONLY
    mx = delivery.evidence.mx
    unsigned_mx = (
        delivery.evidence.nexthop.kind is HopKind.MX
        and mx.outcome is DnsOutcome.FOUND
        and not mx.secure
    )

    def fall_back(level: TlsLevel, why: str) -> Plan | NoPlan:
        return NoPlan(f"level dane-only, but {why}") if only else Plan(level)

    if unsigned_mx and (only or profile.insecure_mx_policy in (TlsLevel.NONE, TlsLevel.MAY)):
        return fall_back(TlsLevel.MAY, "the MX records are not signed")
    if tlsa_lookup_failed(server.host):
        return NoPlan(f"TLSA lookup for {server.host.host} failed")
    found = secure_tlsa(server.host)
    if not found:
        return fall_back(TlsLevel.MAY, f"{server.host.host} has no secure TLSA records")
    records = dane.postfix_accepts(found)
    if not records:
        return fall_back(TlsLevel.ENCRYPT, f"no TLSA record of {server.host.host} is usable")
    if unsigned_mx and profile.insecure_mx_policy is TlsLevel.ENCRYPT:
        return fall_back(TlsLevel.ENCRYPT, "the MX records are not signed")
    level = TlsLevel.HALF_DANE if unsigned_mx else configured
    return Plan(level, postfix_dane_references(server.host, delivery.evidence), records)


def _forbidden_by_policy(
    server: Server, level: TlsLevel, policy: RequiretlsPolicy
) -> Attempt | None:
    if policy is RequiretlsPolicy.INVALID:
        return Attempt(
            server,
            status.MTA_POLICY_INVALID,
            Reason.MTA_POLICY_INVALID,
            "smtp_requiretls_policy holds a word that Postfix does not know",
            tls=f"{level}?",
        )
    if policy is RequiretlsPolicy.ENFORCE and not profiles.must_match(level):
        return Attempt(
            server,
            status.ENCRYPTION_NEEDED,
            Reason.TLS_LEVEL_DOES_NOT_VERIFY,
            f"this MTA's TLS level for {server.host.host} is {level}, "
            "which does not verify certificates",
            tls=f"{level}?/!requiretls:nocertmatch",
        )
    if policy is RequiretlsPolicy.OPPORTUNISTIC_STARTTLS and level is TlsLevel.NONE:
        return Attempt(
            server,
            status.ENCRYPTION_NEEDED,
            Reason.TLS_LEVEL_DOES_NOT_VERIFY,
            f"this MTA's TLS level for {server.host.host} is none",
            tls=f"{level}?/!requiretls:noencryption",
        )
    return None


def _not_in_mta_sts_policy(server: Server, delivery: Delivery, undecided: str) -> Attempt | None:
    """New-style MTA-STS passes a server over and leaves the recorded failure as it is."""
    if (
        delivery.profile.mta_sts is not MtaSts.MX_PATTERNS
        or delivery.tls_policy is not None
        or delivery.carried is Requirement.TLS_REQUIRED_NO
        or in_mta_sts_policy(delivery.evidence, server.host.host) is not False
    ):
        return None
    return Attempt(
        server,
        NOTHING_RECORDED,
        Reason.MX_NOT_IN_MTA_STS_POLICY,
        f"{server.host.host} is not in the MTA-STS policy",
        tls=undecided,
    )


# ---------------------------------------------------------------- the session


def _is_the_mta(server: Server, delivery: Delivery) -> Attempt | None:
    """A server that says EHLO by the MTA's own name: a loop, if nothing better was tried before."""
    name = delivery.profile.myhostname
    if not name or server.probe.ehlo_name.lower() != name:
        return None
    if delivery.evidence.nexthop.port != SMTP_PORT:
        return None
    return Attempt(
        server,
        status.MAIL_LOOP if server.best else status.MAIL_LOOP_FOR_NOW,
        Reason.MAIL_LOOP,
        f"{server.name} calls itself {name}, as this MTA does",
        ends=server.best,
    )


_AT_STARTTLS = frozenset({ProbeStage.STARTTLS})
_AT_SECOND_EHLO = frozenset({ProbeStage.EHLO_TLS})


def _without_tls(server: Server, level: TlsLevel, policy: RequiretlsPolicy) -> Attempt | None:
    """STARTTLS not offered, not wanted, or refused."""
    refusal = server.probe.starttls_reply
    offered = bool(server.probe.starttls_offered)
    if offered and refusal is None and profiles.uses_tls(level):
        return None
    required = profiles.requires_tls(level)
    sent = offered and profiles.uses_tls(level)
    blocked = _token(
        f"!{level}" if required else f"{level}?",
        policy,
        "!requiretls:nostarttls" if profiles.requires_starttls(policy) else "requiretls?",
    )
    if profiles.requires_starttls(policy):
        code = status.ENCRYPTION_NEEDED if sent else status.REQUIRETLS_NEEDED
        return _blocked(server, code, sent, blocked)
    if required and sent and refusal is not None:
        code = reply_status(refusal)
        return replace(_blocked(server, code, sent, blocked), ends=code.startswith("5"))
    if required:
        return _blocked(server, status.TLS_NOT_OFFERED, sent, blocked)
    return Attempt(
        server,
        status.SUCCESS,
        Reason.OK,
        f"{server.name} would take the message in clear",
        tls=_token(_decided(level, TlsLevel.NONE), policy, "requiretls:none"),
        ends=True,
    )


def _blocked(server: Server, code: str, refused: bool, token: str) -> Attempt:
    if refused:
        reply = server.probe.starttls_reply
        said = f": {reply.code} {reply.text}" if reply else ""
        text = f"{server.name} offers STARTTLS but refuses it{said}"
        return Attempt(server, code, Reason.STARTTLS_REFUSED, text, tls=token)
    text = f"{server.name} does not offer STARTTLS"
    return Attempt(server, code, Reason.STARTTLS_NOT_OFFERED, text, tls=token)


def _handshake_failure(server: Server, plan: Plan, undecided: str) -> Attempt | None:
    """Always temporary, also under enforce; no first attempt falls back to clear text."""
    probe = server.probe
    if probe.stage is ProbeStage.HANDSHAKE:
        why = probe.error or str(probe.failure)
    elif tls_weakness(probe) and _refuses_weak_tls(plan, probe):
        why = tls_weakness(probe)
    else:
        return None
    return Attempt(
        server,
        status.TLS_NOT_ESTABLISHED,
        Reason.TLS_HANDSHAKE_FAILED,
        f"TLS handshake with {server.name} failed: {why}",
        tls=undecided,
    )


def _refuses_weak_tls(plan: Plan, probe: ProbeEvidence) -> bool:
    """Whether smtp(8) offers less than it takes for TLS with this server.

    It raises OpenSSL's security level where the session authenticates; anonymous
    suites it leaves out wherever that was planned.
    """
    anonymous = not probe.chain
    return profiles.must_match(plan.level if anonymous else _session_level(plan))


def _inside_tls(
    server: Server, plan: Plan, policy: RequiretlsPolicy, delivery: Delivery
) -> Attempt:
    """The certificate, then the second EHLO."""
    level = _session_level(plan)
    error = _mismatch(server, plan, level, delivery)
    if error and server.probe.chain_cut:
        return unknown(server, f"{server.name} presented more certificates than we keep: {error}")
    if error:
        return _certificate_failure(server, plan.level, level, policy, error)
    matched = profiles.must_match(level)
    offered = server.probe.requiretls is True
    decided = _decided(plan.level, level)
    broken = session_failure(server, _AT_SECOND_EHLO)
    if broken is not None:
        return replace(broken, tls=_token(decided, policy, "requiretls?"))
    if policy is RequiretlsPolicy.ENFORCE and not offered:
        return Attempt(
            server,
            status.REQUIRETLS_NEEDED,
            Reason.REQUIRETLS_NOT_OFFERED,
            f"{server.name} does not offer REQUIRETLS",
            tls=f"{decided}/!requiretls:none",
        )
    if not offered:
        feature = "requiretls:none"
    else:
        feature = "requiretls" if matched else "requiretls:nocertmatch"
    return Attempt(
        server,
        status.SUCCESS,
        Reason.OK,
        f"{server.name} would take the message over "
        + (f"TLS verified at level {level}" if matched else f"unverified TLS (level {level})"),
        tls=_token(decided, policy, feature),
        ends=True,
        verified=matched and _names_the_host(server, level, delivery),
        requiretls_sent=offered and profiles.takes_part(policy),
    )


def _session_level(plan: Plan) -> TlsLevel:
    """The level of the session, once OpenSSL has seen the TLSA records.

    Where it finds none of them usable after Postfix has accepted them, the
    session goes on unauthenticated, the enforce check being over.
    """
    if (
        plan.level in (TlsLevel.DANE, TlsLevel.HALF_DANE)
        and plan.records
        and not dane.usable(plan.records)
    ):
        return TlsLevel.ENCRYPT
    return plan.level


def _mismatch(server: Server, plan: Plan, level: TlsLevel, delivery: Delivery) -> str:
    """Why the certificate does not match at *level*; the empty string where it does, or need not.

    Level dane-only never goes on without a usable record.
    """
    chain = server.probe.chain
    if not profiles.must_match(level):
        return ""
    if profiles.must_pkix(level):
        return pkix.verify(chain, plan.references, delivery.trust, delivery.now)
    records = dane.usable(plan.records)
    if not records:
        return "no TLSA record is usable"
    return dane.verify(chain, records, plan.references, delivery.now)


def _names_the_host(server: Server, level: TlsLevel, delivery: Delivery) -> bool:
    """Whether the certificate names the MX host itself, not only a pattern or the domain.

    RFC 8689 section 4.2.1 step 4, RFC 8461 section 4.2. With DANE the TLSA
    records speak for the host; where the MX records are not signed, only for its
    own name (RFC 7672 section 3.2.2), and Postfix takes the domain's too.
    """
    chain, host = server.probe.chain, server.host
    if profiles.must_pkix(level):
        return not pkix.verify(chain, (host.host,), delivery.trust, delivery.now)
    if level is TlsLevel.HALF_DANE:
        records = dane.usable(secure_tlsa(host))
        references = dane_references(host, delivery.evidence)
        return not dane.verify(chain, records, references, delivery.now)
    return True


def _certificate_failure(
    server: Server, planned: TlsLevel, level: TlsLevel, policy: RequiretlsPolicy, error: str
) -> Attempt:
    enforced = policy is RequiretlsPolicy.ENFORCE
    feature = "!requiretls:nocertmatch" if enforced else "requiretls:nocertmatch"
    return Attempt(
        server,
        status.ENCRYPTION_NEEDED if enforced else status.TLS_NOT_ESTABLISHED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        f"certificate of {server.name} is not verified: {error}",
        tls=_token("!" + _decided(planned, level), policy, feature),
    )


# ---------------------------------------------------------------- Postfix's log token


def _decided(planned: TlsLevel, final: TlsLevel) -> str:
    return str(planned) if planned is final else f"{planned}:{final}"


def _token(level: str, policy: RequiretlsPolicy, feature: str) -> str:
    """The word behind ``tls=``; REQUIRETLS shows only where the policy takes part."""
    return f"{level}/{feature}" if profiles.takes_part(policy) else level


def _with_token(result: Attempt | None, token: str) -> Attempt | None:
    return None if result is None else replace(result, tls=token)
