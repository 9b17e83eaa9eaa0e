"""Scenarios as evidence: what a faultless collector would gather in the world they describe.

No network: certificates are issued, names and TLSA records taken from the lab's
own plan of the world, and what DNS and the servers do is written down as they
would show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaSts,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    Requirement,
    RequiretlsPolicy,
    TlsaEvidence,
    TlsaRecord,
    TlsLevel,
)
from tests.support import addresses
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.scenarioplan import Host, ScenarioPlan

MYDOMAIN = "sender.test"
_BROKEN_ZONES = ("bogus", "lame", "dead")
_ENHANCED = re.compile(r"[245]\.\d+\.\d+")


def requirement_of(scenario: Scenario) -> Requirement:
    """What the MTA carries for this message."""
    message = scenario.message
    if message.requiretls or "Require-TLS-ESMTP: yes" in message.headers:
        return Requirement.REQUIRETLS
    return Requirement.TLS_REQUIRED_NO if message.tls_required_no else Requirement.NONE


def profile_of(scenario: Scenario, profiles: Mapping[str, Mapping[str, str]]) -> MtaProfile:
    """The MTA profile that mirrors the parameters of the scenario's smtp(8)."""
    settings = profiles[scenario.profile]
    word = settings.get("smtp_requiretls_policy")
    styles = {domain.sts.style for domain in scenario.domains if domain.sts}
    mta_sts = MtaSts.OFF
    if "smtp_tls_policy_maps" in settings:
        mta_sts = MtaSts.MX_PATTERNS if "new" in styles else MtaSts.MATCH
    return MtaProfile(
        tls_security_level=TlsLevel(settings["smtp_tls_security_level"]),
        requiretls_policy=None if word is None else (("*", _policy(word)),),
        mta_sts=mta_sts,
        insecure_mx_policy=TlsLevel(settings.get("smtp_tls_dane_insecure_mx_policy", "dane")),
        mydomain=MYDOMAIN,
        my_addresses=(addresses.FRONT,),
    )


def _policy(word: str) -> RequiretlsPolicy:
    known = {policy.value: policy for policy in RequiretlsPolicy}
    return known.get(word, RequiretlsPolicy.INVALID)


def evidence_of(scenario: Scenario, domain: Domain, world: ScenarioPlan) -> DomainEvidence:
    """What is there to be seen of one domain of *scenario*, which *world* has a place for."""
    name = scenario.domain_name(domain)
    hosts = [host for host in world.hosts_of(scenario) if host.domain == name]
    if domain.kind == "literal":
        nexthop = NextHop(HopKind.ADDRESS, hosts[0].address)
        host = HostEvidence(
            hosts[0].address, 0, _found(hosts[0].address), probes=(_probe(domain.mx[0], hosts[0]),)
        )
        return DomainEvidence(nexthop, MxEvidence(DnsOutcome.NODATA), hosts=(host,))
    pairs = [
        _host(world, scenario, domain, number, host) for number, host in enumerate(hosts, start=1)
    ]
    evidence = tuple(sorted(pairs, key=lambda item: item.preference))
    if domain.nexthop:
        return DomainEvidence(
            NextHop(HopKind.HOST, hosts[0].name), MxEvidence(DnsOutcome.NODATA), hosts=evidence
        )
    mx = _mx(scenario, domain, evidence)
    return DomainEvidence(
        NextHop(HopKind.MX, name),
        mx,
        mta_sts=_mta_sts(world, name),
        hosts=evidence if mx.outcome in (DnsOutcome.FOUND, DnsOutcome.NODATA) else (),
    )


def _mx(scenario: Scenario, domain: Domain, hosts: tuple[HostEvidence, ...]) -> MxEvidence:
    secure = domain.zone == "sig"
    if domain.zone in _BROKEN_ZONES:
        return MxEvidence(DnsOutcome.ERROR, error="SERVFAIL")
    match domain.kind:
        case "nullmx":
            return MxEvidence(DnsOutcome.FOUND, secure, null_mx=True)
        case "nxdomain":
            return MxEvidence(DnsOutcome.NXDOMAIN, secure)
        case "nodata":
            return MxEvidence(DnsOutcome.NODATA, secure)
        case "implicit":
            return MxEvidence(DnsOutcome.NODATA, secure)
        case _:
            name = scenario.domain_name(domain)
            records = tuple(MxRecord(host.preference, host.host) for host in hosts)
            owner = f"canonical.{name}" if domain.kind == "cname" else name
            return MxEvidence(DnsOutcome.FOUND, secure, records, canonical=owner)


def _mta_sts(world: ScenarioPlan, name: str) -> MtaStsEvidence:
    served = world.policies.get(f"mta-sts.{name}")
    if served is None:
        return MtaStsEvidence()
    lines = [line.split(": ", 1) for line in served["body"].splitlines()]
    values = dict(lines)
    patterns = tuple(value for key, value in lines if key == "mx")
    policy = MtaStsPolicy(MtaStsMode(values["mode"]), patterns, int(values["max_age"]), "1")
    return MtaStsEvidence(policy)


def _host(
    world: ScenarioPlan, scenario: Scenario, domain: Domain, number: int, host: Host
) -> HostEvidence:
    mx = domain.mx[number - 1]
    label = scenario.label(domain)
    name = host.name
    if mx.host == "literal":
        name = host.address
    elif mx.alias and domain.kind != "implicit":
        name = f"alias{number}.{label}.{mx.alias}.test"
    lookup = _addresses(mx, host, name)
    return HostEvidence(
        host=name,
        preference=0 if domain.kind == "implicit" else mx.pref,
        addresses=lookup,
        tlsa=_tlsa(world, mx, host, name, lookup),
        probes=(_probe(mx, host),) if lookup.outcome is DnsOutcome.FOUND else (),
    )


def _found(address: str) -> AddressLookup:
    return AddressLookup(DnsOutcome.FOUND, addresses=(address,), canonical=address)


def _addresses(mx: Mx, host: Host, name: str) -> AddressLookup:
    if mx.zone in _BROKEN_ZONES or mx.alias in _BROKEN_ZONES:
        return AddressLookup(DnsOutcome.ERROR, error="SERVFAIL")
    if mx.host == "literal":
        return _found(host.address)
    if mx.host == "nx":
        return AddressLookup(DnsOutcome.NXDOMAIN)
    if mx.host == "noaddr":
        return AddressLookup(DnsOutcome.NODATA)
    signed_alias = None if mx.alias is None else mx.alias == "sig"
    return AddressLookup(
        DnsOutcome.FOUND,
        secure=mx.zone == "sig" and signed_alias is not False,
        addresses=(host.address,),
        canonical=host.name,
        alias_secure=signed_alias if name != host.name else None,
    )


def _tlsa(
    world: ScenarioPlan, mx: Mx, host: Host, name: str, lookup: AddressLookup
) -> TlsaEvidence:
    """RFC 7672 section 2.2.3: the expanded name if secure, then the alias if that is."""
    bases = []
    if lookup.secure:
        bases.append(host.name)
    if name != host.name and (lookup.secure or lookup.alias_secure):
        bases.append(name)
    evidence = TlsaEvidence()
    for base in bases:
        evidence = _tlsa_at(world, mx, host, name, base)
        if evidence.outcome is not DnsOutcome.NODATA:
            break
    return evidence


def _tlsa_at(world: ScenarioPlan, mx: Mx, host: Host, name: str, base: str) -> TlsaEvidence:
    if base != (name if mx.tlsa_at == "qname" else host.name) or not mx.tlsa:
        return TlsaEvidence(queried=True, secure=True, base_domain=base)
    ways = {item.rpartition(":")[0] or item for item in mx.tlsa}
    if ways & {"cname-bogus", "deleg-lame", "deleg-dead"}:
        return TlsaEvidence(True, DnsOutcome.ERROR, base_domain=base, error="SERVFAIL")
    records = []
    for item in mx.tlsa:
        words = world.tlsa_record(item.rpartition(":")[2], host.certificate).split()
        usage, selector, matching = (int(word) for word in words[:3])
        records.append(TlsaRecord(usage, selector, matching, bytes.fromhex(words[3])))
    secure = "cname-uns" not in ways
    return TlsaEvidence(True, DnsOutcome.FOUND, secure, base, tuple(records))


# ---------------------------------------------------------------- what a probe sees


def _probe(mx: Mx, host: Host) -> ProbeEvidence:
    address = host.address
    if mx.addr == "refused" or mx.host == "self":
        return ProbeEvidence(address, ProbeStage.CONNECT, ProbeFailure.REFUSED)
    if mx.addr != "listen":
        return ProbeEvidence(address, ProbeStage.CONNECT, ProbeFailure.TIMEOUT)
    return _session(mx.server, host)


def _session(server: Server, host: Host) -> ProbeEvidence:
    address = host.address
    if server.banner != "220":
        return _stopped(address, ProbeStage.BANNER, server.banner)
    if server.ehlo != "ok" and not server.ehlo.startswith("500"):
        return _stopped(address, ProbeStage.EHLO, server.ehlo)
    if server.starttls == "none" or server.ehlo.startswith("500"):
        return ProbeEvidence(address, ProbeStage.DONE, starttls_offered=False)
    reply = server.starttls_reply
    if reply in ("close", "hang"):
        return replace(_stopped(address, ProbeStage.STARTTLS, reply), starttls_offered=True)
    if reply != "220":
        return ProbeEvidence(
            address, ProbeStage.DONE, starttls_offered=True, starttls_reply=_reply(reply)
        )
    if server.handshake in ("close", "garbage", "hang"):
        failure = ProbeFailure.TIMEOUT if server.handshake == "hang" else ProbeFailure.PROTOCOL
        return ProbeEvidence(address, ProbeStage.HANDSHAKE, failure, starttls_offered=True)
    assert host.certificate is not None
    return ProbeEvidence(
        address,
        ProbeStage.DONE,
        starttls_offered=True,
        tls_version="TLSv1.1" if server.handshake == "oldproto" else "TLSv1.3",
        chain=_chain(host),
        requiretls=server.requiretls in ("tls", "both", "tls-lower", "tls-param"),
    )


def _chain(host: Host) -> tuple[bytes, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    assert host.certificate is not None
    pem = host.certificate.path.read_bytes()
    certificates = pem[pem.index(b"-----BEGIN CERTIFICATE") :]
    return tuple(
        item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(certificates)
    )


def _stopped(address: str, stage: ProbeStage, how: str) -> ProbeEvidence:
    match how:
        case "close":
            return ProbeEvidence(address, stage, ProbeFailure.CLOSED)
        case "hang":
            return ProbeEvidence(address, stage, ProbeFailure.TIMEOUT)
        case _:
            return ProbeEvidence(address, stage, ProbeFailure.REPLY, _reply(how))


def _reply(line: str) -> Reply:
    code, _, text = line.partition(" ")
    found = _ENHANCED.match(text)
    return Reply(int(code), found.group() if found else "", text)
