"""The judge is total, its answers are consistent, and it never calls a hop secure that is not."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from requiretls_milter.forecast import certificate
from requiretls_milter.forecast.der import MalformedCertificateError, public_key_info
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.postfix import Delivery, deliver
from requiretls_milter.forecast.reach import MailServer, within_reach
from requiretls_milter.forecast.servers import NoServer, servers_of
from requiretls_milter.ipc import wire
from requiretls_milter.model import (
    LOCAL_FORECAST,
    SMTP_PORT,
    UNKNOWN_STATUS,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    MtaProfile,
    MtaStsMode,
    Needs,
    Outcome,
    ProbeEvidence,
    ProbeStage,
    ProfileName,
    Reading,
    Reason,
    Requirement,
    TlsaRecord,
)
from requiretls_milter.syntax import status
from tests.support import build, strategies

TOKEN = re.compile(
    r"!?[a-z-]+(:[a-z]+)?\??(/!?requiretls(\?|:(none|nocertmatch|nostarttls|noencryption))?)?"
)
SHORTCOMINGS = {reason for reason in Reason if reason.value.startswith("noncompliant_")}
NOT_FROM_HERE = {Reason.WITHHELD, Reason.LOCAL} | SHORTCOMINGS
"""Reasons that no attempt at a server gives."""

likely_domains = st.one_of(strategies.nearly_good(), strategies.nearly_good(), strategies.domains())
all_domains = st.one_of(likely_domains, strategies.domains(chaotic=True))


def forecast(
    evidence: DomainEvidence, asked: Requirement, carried: Requirement, profile: MtaProfile
) -> Forecast:
    return judge(
        evidence,
        asked=asked,
        carried=carried,
        profile=profile,
        trust=build.trust(),
        now=build.NOW,
    )


@settings(max_examples=500)
@given(all_domains, strategies.requirements, strategies.requirements, strategies.mta_profiles)
def test_the_judge_answers_whatever_the_evidence_and_the_answer_is_consistent(
    evidence: DomainEvidence, asked: Requirement, carried: Requirement, profile: MtaProfile
) -> None:
    told = forecast(evidence, asked, carried, profile)
    if evidence.nexthop.kind is HopKind.LOCAL:
        assert told == LOCAL_FORECAST
        return
    assert told.status == UNKNOWN_STATUS or status.is_enhanced(told.status)
    assert told.outcome is status.outcome_of(told.status)
    assert told.reason not in {Reason.WITHHELD, Reason.LOCAL}
    delivered = told.outcome is Outcome.DELIVER
    assert delivered == (told.status == status.SUCCESS)
    assert (told.outcome is Outcome.UNKNOWN) == (told.status == UNKNOWN_STATUS)
    assert (told.compliant is None) == (asked is Requirement.NONE or not delivered)
    assert (told.compliant is False) == (told.reason in SHORTCOMINGS)
    assert (told.reason is Reason.OK) == (delivered and told.compliant is not False)
    assert len(told.text) <= 1000
    assert told.text.isprintable()
    _check_token(told, profile)
    verdict = told.rfc8689
    assert verdict is not None
    assert verdict.reason not in NOT_FROM_HERE
    assert (verdict.reason is Reason.OK) == (verdict.status == status.SUCCESS)
    if profile.name is ProfileName.RFC8689 and not delivered:
        assert (told.status, told.reason) == (verdict.status, verdict.reason)
    ends = [
        *(end for end in (evidence.mx.expires, evidence.mta_sts.expires) if end),
        *(
            end
            for host in evidence.hosts
            for end in (host.addresses.expires, host.tlsa.expires)
            if end
        ),
        *(probe.expires for host in evidence.hosts for probe in host.probes if probe.expires),
    ]
    end = min(ends, default=0.0)
    if told.valid_until != end:
        assert told.valid_until in _dates(evidence)
        assert not end or told.valid_until < end


def _dates(evidence: DomainEvidence) -> Iterator[float]:
    """When the certificates that a verdict may rest on begin and end, and are not over."""
    chains = (probe.chain for host in evidence.hosts for probe in host.probes)
    records = (record.data for host in evidence.hosts for record in host.tlsa.records)
    for der in (*itertools.chain.from_iterable(chains), *records, *build.trust().authorities):
        with contextlib.suppress(MalformedCertificateError):
            found = certificate.parse(der)
            yield from (date for date in (found.not_before, found.not_after) if date > build.NOW)


def _check_token(told: Forecast, profile: MtaProfile) -> None:
    if profile.name is ProfileName.RFC8689:
        assert told.tls is None
    elif told.tls is not None:
        assert TOKEN.fullmatch(told.tls), told.tls


@given(likely_domains, strategies.requirements, strategies.mta_profiles)
def test_evidence_that_has_been_over_the_wire_is_judged_alike(
    evidence: DomainEvidence, requirement: Requirement, profile: MtaProfile
) -> None:
    reply = wire.decode_reply(wire.encode(wire.EvidenceReply(id=0, evidence=evidence))[4:])
    assert isinstance(reply, wire.EvidenceReply)
    told = forecast(evidence, requirement, requirement, profile)
    assert forecast(reply.evidence, requirement, requirement, profile) == told


# ---------------------------------------------------------------- what is secure, said once more


def name_is_proven(evidence: DomainEvidence, server: MailServer, reading: Reading) -> bool:
    """RFC 8689 section 2, the second requirement: the MX name by DNSSEC or by MTA-STS."""
    if evidence.nexthop.kind is not HopKind.MX or evidence.mx.secure:
        return True
    policy = evidence.mta_sts.policy
    modes = {MtaStsMode.ENFORCE} | (
        {MtaStsMode.TESTING} if reading.testing_policies_count else set()
    )
    if policy is not None and policy.mode in modes:
        host = server.host.host
        parent = host.partition(".")[2]
        if any(pattern in (host, f"*.{parent}") for pattern in policy.mx):
            return True
    return reading.tlsa_vouches_for_unsigned_mx and bool(secure_records(server))


def secure_records(server: MailServer) -> tuple[TlsaRecord, ...]:
    tlsa = server.host.tlsa
    usable = tlsa.queried and tlsa.secure and tlsa.outcome is DnsOutcome.FOUND
    return tlsa.records if usable else ()


def certificate_is_proven(
    evidence: DomainEvidence, server: MailServer, reading: Reading, *, dane_goes_first: bool
) -> bool:
    """Section 2, the third requirement: by DANE, or by PKIX and the name of the MX host.

    What a chain is worth is known by the way it was made.
    """
    chain = server.probe.chain
    name, kind = strategies.presented()[chain]
    pkix = kind in ("match", "cnonly") and name == server.host.host
    records = secure_records(server)
    if not records:
        return pkix
    references = {server.host.tlsa.base_domain}
    if evidence.nexthop.kind is HopKind.MX and evidence.mx.outcome is DnsOutcome.FOUND:
        references |= {evidence.nexthop.host, evidence.mx.canonical}
    dane = any(
        is_match(record, chain, signed=kind in ("match", "cnonly") and name in references)
        for record in compared(records)
    )
    if dane_goes_first and any(map(is_usable, records)):
        return dane
    if dane_goes_first:
        return pkix and reading.pkix_beside_unusable_tlsa
    return dane or pkix


def compared(records: tuple[TlsaRecord, ...]) -> list[TlsaRecord]:
    """Digest agility (RFC 7671 section 9): no SHA-256 where there is a SHA-512 of its kind."""
    usable = [record for record in records if is_usable(record)]
    strong = {(r.usage, r.selector) for r in usable if r.matching_type == 2}
    return [r for r in usable if r.matching_type != 1 or (r.usage, r.selector) not in strong]


def is_usable(record: TlsaRecord) -> bool:
    """By the way that strategies.tlsa_records() makes them."""
    if record.usage not in (2, 3) or record.selector not in (0, 1):
        return False
    return len(record.data) == {1: 32, 2: 64}.get(record.matching_type, -1) or (
        record.matching_type == 0 and record.data[:1] == b"0"
    )


def is_match(record: TlsaRecord, chain: tuple[bytes, ...], *, signed: bool) -> bool:
    """Whether a record is about the leaf, or about the issuer of one that is *signed* by it.

    The lab's authority is the only issuer. It need not be sent where the record holds it, or
    its key, whole.
    """
    if not is_usable(record) or not chain:
        return False
    if record.usage == 3:
        return selects(record, chain[0])
    issuers = chain[1:]
    if (record.selector, record.matching_type, record.data) == (1, 0, build.certificate().ca_key):
        return signed
    if (record.selector, record.matching_type) == (0, 0):
        issuers = (*issuers, record.data)
    return signed and any(selects(record, issuer) for issuer in issuers)


def selects(record: TlsaRecord, der: bytes) -> bool:
    selected = der if record.selector == 0 else public_key_info(der)
    match record.matching_type:
        case 1:
            selected = hashlib.sha256(selected).digest()
        case 2:
            selected = hashlib.sha512(selected).digest()
    return selected == record.data


def takes_it(
    evidence: DomainEvidence, server: MailServer, reading: Reading, *, dane_goes_first: bool = True
) -> bool:
    """Whether a server satisfies all of RFC 8689 section 4.2.1."""
    probe = server.probe
    return (
        name_is_proven(evidence, server, reading)
        and probe.requiretls is True
        and probe.stage is ProbeStage.DONE
        and bool(probe.starttls_offered)
        and probe.starttls_reply is None
        and probe.tls_version not in ("TLSv1", "TLSv1.1", "SSLv3")
        and (reading.weak_tls_counts or is_strong(probe))
        and certificate_is_proven(evidence, server, reading, dane_goes_first=dane_goes_first)
    )


def is_strong(probe: ProbeEvidence) -> bool:
    """RFC 9325 of a session; the certificates here have strong keys, all of them."""
    kinds = {"ECDHE": True, "DHE": not probe.small_group}
    return probe.tls_version == "TLSv1.3" or kinds.get(probe.cipher.partition("-")[0], False)


def lookup_failed(server: MailServer) -> bool:
    addresses, tlsa = server.host.addresses, server.host.tlsa
    return (addresses.alias_error and not addresses.secure) or (
        tlsa.queried and tlsa.outcome is DnsOutcome.ERROR
    )


@settings(max_examples=500)
@given(likely_domains, strategies.requirements, strategies.mta_profiles)
def test_postfix_never_delivers_to_itself(
    evidence: DomainEvidence, requirement: Requirement, profile: MtaProfile
) -> None:
    """Neither to an address of its own nor to a server of its own name, at the port of SMTP."""
    profile = replace(profile, name=ProfileName.POSTFIX)
    servers = servers_of(evidence, profile)
    if isinstance(servers, NoServer) or evidence.nexthop.port != SMTP_PORT:
        return
    delivery = Delivery(evidence, requirement, profile, build.trust(), build.NOW)
    for ended in deliver(delivery, servers):
        if ended.delivered:
            assert ended.server is not None
            assert ended.server.address not in profile.my_addresses
            name = ended.server.probe.ehlo_name.lower()
            assert not profile.myhostname or name != profile.myhostname


@settings(max_examples=500)
@given(all_domains, strategies.requirements, strategies.mta_profiles, strategies.needs)
def test_what_the_message_needs_never_makes_a_delivery_and_is_had_where_one_is_made(
    evidence: DomainEvidence, requirement: Requirement, profile: MtaProfile, needs: Needs
) -> None:
    profile = replace(profile, name=ProfileName.POSTFIX)
    servers = servers_of(evidence, profile)
    if isinstance(servers, NoServer):
        return
    plain = Delivery(evidence, requirement, profile, build.trust(), build.NOW)
    without = {item.status for item in deliver(plain, servers)}
    for ended in deliver(plain._replace(needs=needs), servers):
        if ended.delivered:
            assert status.SUCCESS in without
            assert ended.server is not None
            probe = ended.server.probe
            assert not needs.smtputf8 or probe.smtputf8_in_clear
            in_clear = ended.tls is not None and ended.tls.partition("/")[0].endswith("none")
            assert not needs.smtputf8 or probe.smtputf8 or in_clear
            assert not probe.size_limit or needs.size <= probe.size_limit


@settings(max_examples=500)
@given(all_domains, strategies.requirements, strategies.mta_profiles)
def test_r06_compliant_is_only_what_a_server_does_that_proved_its_name_and_key(
    evidence: DomainEvidence, carried: Requirement, profile: MtaProfile
) -> None:
    told = forecast(evidence, Requirement.REQUIRETLS, carried, profile)
    if told.compliant is not True:
        return
    servers = servers_of(evidence, profile)
    assert not isinstance(servers, NoServer)
    # A level such as "secure" has PKIX alone decide, TLSA records or not: RFC 8689 is content.
    assert any(
        takes_it(evidence, server, profile.reading, dane_goes_first=False)
        for group in servers
        for server in group
        if server.host.host == told.mx
    )


@settings(max_examples=500)
@given(likely_domains, strategies.mta_profiles)
def test_r11_by_the_letter_a_message_is_delivered_where_a_server_satisfies_and_only_there(
    evidence: DomainEvidence, profile: MtaProfile
) -> None:
    told = forecast(evidence, Requirement.REQUIRETLS, Requirement.REQUIRETLS, profile)
    assert told.rfc8689 is not None
    servers = servers_of(evidence, profile)
    if isinstance(servers, NoServer):
        assert told.rfc8689.status == servers.status
        return
    satisfied = [
        takes_it(evidence, server, profile.reading) and not lookup_failed(server)
        for group in within_reach(servers, profile.mx_address_limit)
        for server in group
    ]
    enough = all if profile.reading.every_mx else any
    assert (told.rfc8689.status == status.SUCCESS) == enough(satisfied)
