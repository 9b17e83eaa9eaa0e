"""Evidence of all kinds, for hypothesis: what gathering can bring, and what nothing should."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from hypothesis import strategies as st

from requiretls_milter.model import (
    AddressLookup,
    AddressPreference,
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
    Needs,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    ProfileName,
    Reading,
    Reply,
    Requirement,
    RequiretlsPolicy,
    TlsaEvidence,
    TlsaRecord,
    TlsLevel,
)
from tests.support import build
from tests.support.pki import KINDS

DOMAIN = "example.org"
HOSTS = ("mx1.example.org", "mx2.example.org", "mx.example.net")
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "192.0.2.9")
OWN_ADDRESS = "192.0.2.9"
OWN_NAME = "mta.sender.example"
TIMES = (0.0, build.NOW - 10, build.NOW + 60, build.NOW + 3600)


@functools.cache
def presented() -> dict[tuple[bytes, ...], tuple[str, str]]:
    """The chains that servers present: each with the name and the kind that it was made for."""
    chains = {
        build.certificate(name, kind, chain=with_issuer).chain: (name, kind)
        for name in HOSTS
        for kind in KINDS
        for with_issuer in (True, False)
    }
    return {**chains, (): ("", "none"), (b"0\x03\x02\x01\x05",): ("", "garbage")}


UNUSABLE = (
    TlsaRecord(1, 1, 1, bytes(32)),
    TlsaRecord(4, 1, 1, bytes(32)),
    TlsaRecord(3, 1, 1, b"short"),
    TlsaRecord(3, 1, 99, bytes(32)),
    TlsaRecord(3, 9, 1, bytes(32)),
    TlsaRecord(3, 1, 255, bytes(32)),
    TlsaRecord(3, 0, 0, b"garbage"),
    TlsaRecord(2, 1, 1, b""),
)


@functools.cache
def tlsa_records() -> tuple[TlsaRecord, ...]:
    """Records that match something, that match nothing, and that nobody can use."""
    matching = [
        build.certificate(name, kind).tlsa(usage, selector, matching)
        for name in HOSTS[:2]
        for kind in ("match", "selfsigned", "expired", "wrongname")
        for usage in (2, 3)
        for selector, matching in ((1, 1), (0, 1), (1, 2), (0, 0), (1, 0))
    ]
    return (*matching, build.BAD, *UNUSABLE)


outcomes = st.sampled_from(DnsOutcome)
times = st.sampled_from(TIMES)
texts = st.sampled_from(("", "timed out", "no route to host"))
replies = st.builds(
    Reply,
    st.sampled_from((220, 250, 421, 450, 454, 500, 502, 554, 7, 999)),
    st.sampled_from(("", "4.7.0", "5.7.1", "5.5.1", "2.0.0")),
    texts,
)


# hypothesis examines each strategy when it is first drawn from: one that each example makes anew
# costs more than what is drawn from it. So each is made once.
once = functools.lru_cache(maxsize=None, typed=True)


@once
def among(*values: Any) -> st.SearchStrategy[Any]:
    """One of *values*."""
    return st.sampled_from(values)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """*usual*, and now and then something else."""
    return among(*(usual,) * 12, *others)


chains = st.deferred(lambda: st.sampled_from(list(presented())))
maybe = st.none() | st.booleans()
now_and_then = st.integers(0, 9)
"""0 in one of ten."""
refusals = replies.filter(lambda reply: reply.code // 100 in (4, 5))
records_alone = st.deferred(lambda: st.sampled_from(tlsa_records()))
address_lists = st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True)
good_address_lists = st.lists(st.sampled_from(ADDRESSES[:4]), min_size=1, max_size=2, unique=True)
host_lists = st.lists(st.sampled_from(HOSTS), max_size=3, unique=True)
good_host_lists = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True)
usages = st.tuples(st.sampled_from((3, 2)), st.sampled_from((1, 0)), st.sampled_from((1, 2, 0)))


@once
@st.composite
def sessions(draw: st.DrawFn, address: str) -> ProbeEvidence:
    """A session as a probe tells it."""
    stage = draw(among(*ProbeStage, ProbeStage.DONE, ProbeStage.DONE))
    seen: dict[str, Any] = {"address": address, "stage": stage, "expires": draw(times)}
    order = list(ProbeStage)
    if stage not in (ProbeStage.NOT_PROBED, ProbeStage.DONE):
        seen["failure"] = draw(among(*ProbeFailure))
        if seen["failure"] is ProbeFailure.REPLY:
            seen["reply"] = draw(replies)
    if order.index(stage) > order.index(ProbeStage.EHLO):
        seen["starttls_offered"] = stage is not ProbeStage.DONE or draw(st.booleans())
        seen["ehlo_name"] = draw(mostly("mx1.example.org", OWN_NAME.upper()))
        seen["smtputf8_in_clear"] = draw(st.booleans())
        seen["size_limit"] = draw(among(0, 1000, 10_000_000))
    if stage is ProbeStage.DONE and seen["starttls_offered"] and draw(st.integers(0, 4)) == 0:
        seen["starttls_reply"] = draw(refusals)
    elif seen.get("starttls_offered") and stage in (ProbeStage.DONE, ProbeStage.EHLO_TLS):
        seen["tls_version"] = draw(among("TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1"))
        seen["chain"] = draw(chains)
        suite = mostly("ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-SHA", "AES128-SHA", "RC4-MD5")
        seen["cipher"] = draw(suite)
        if seen["cipher"].startswith("DHE-"):
            seen["small_group"] = draw(among("", "dh key too small"))
        if stage is ProbeStage.DONE:
            seen["requiretls"] = draw(among(True, True, False))
            seen["smtputf8"] = draw(st.booleans())
    return ProbeEvidence(**seen)


@once
def chaotic_sessions(address: str) -> st.SearchStrategy[ProbeEvidence]:
    """A session that no probe tells so: all that the type allows."""
    return st.builds(
        ProbeEvidence,
        address=st.just(address),
        stage=st.sampled_from(ProbeStage),
        failure=st.none() | st.sampled_from(ProbeFailure),
        reply=st.none() | replies,
        starttls_offered=maybe,
        starttls_reply=st.none() | replies,
        tls_version=st.sampled_from(("", "TLSv1.3", "TLSv1.1", "SSLv3")),
        chain=chains,
        requiretls=maybe,
        error=texts,
        expires=times,
    )


record_sets = st.lists(records_alone, max_size=3).map(tuple)


@once
@st.composite
def hosts(draw: st.DrawFn, chaotic: bool, name: str) -> HostEvidence:
    """A host, with the sessions at its addresses, of which some may be missing."""
    found = tuple(draw(address_lists))
    outcome = draw(outcomes) if chaotic or not found else DnsOutcome.FOUND
    if not chaotic and not found and outcome is DnsOutcome.FOUND:
        outcome = DnsOutcome.NODATA
    lookup = AddressLookup(
        outcome,
        secure=draw(st.booleans()),
        addresses=found,
        canonical=draw(among(name, "canonical.example.org")),
        alias_secure=draw(maybe),
        alias_error=draw(st.integers(0, 5)) == 0,
        error=draw(texts),
        expires=draw(times),
    )
    records = draw(record_sets)
    looked_up = draw(outcomes) if chaotic or not records else DnsOutcome.FOUND
    if not chaotic and not records and looked_up is DnsOutcome.FOUND:
        looked_up = DnsOutcome.NODATA
    tlsa = TlsaEvidence(
        queried=draw(st.booleans()) if chaotic else lookup.secure,
        outcome=looked_up,
        secure=draw(st.booleans()),
        base_domain=draw(among(name, lookup.canonical)),
        records=records,
        expires=draw(times),
    )
    kind = chaotic_sessions if chaotic else sessions
    probed = tuple(draw(kind(address)) for address in found if draw(st.integers(0, 5)))
    return HostEvidence(name, draw(among(0, 10, 20)), lookup, tlsa, probed)


policies = st.builds(
    MtaStsPolicy,
    st.sampled_from(MtaStsMode),
    st.sampled_from(((), HOSTS[:1], ("*.example.org",), ("*.example.net", "mx2.example.org"))),
    st.just(86400),
    st.just("1"),
)


some_policies = st.none() | policies


@st.composite
def domains(draw: st.DrawFn, chaotic: bool = False) -> DomainEvidence:
    """All that is known of a next hop."""
    kind = draw(
        st.sampled_from((HopKind.MX, HopKind.MX, HopKind.MX, HopKind.HOST, HopKind.ADDRESS))
    )
    names = {HopKind.MX: DOMAIN, HopKind.HOST: HOSTS[0], HopKind.ADDRESS: "192.0.2.1"}
    port = draw(among(25, 25, 587))
    several = kind is HopKind.MX or chaotic
    listed = draw(host_lists) if several else []
    if kind is not HopKind.MX and not chaotic:
        listed = [names[kind]]
    found = sorted(
        (draw(hosts(chaotic, name)) for name in listed), key=lambda host: host.preference
    )
    mx = MxEvidence(
        draw(outcomes) if chaotic or not found else DnsOutcome.FOUND,
        secure=draw(st.booleans()),
        records=tuple(MxRecord(host.preference, host.host) for host in found),
        null_mx=chaotic and draw(st.booleans()),
        null_among=draw(now_and_then) == 0,
        canonical=draw(among(names[kind], "canonical.example.org")),
        error=draw(texts),
        expires=draw(times),
    )
    policy = draw(some_policies)
    sts = MtaStsEvidence(policy, error=draw(texts), expires=draw(times))
    if kind is not HopKind.MX and not chaotic:
        mx = MxEvidence(DnsOutcome.NODATA, canonical=names[kind])
        sts = MtaStsEvidence()
    hop = NextHop(HopKind.LOCAL if chaotic and draw(now_and_then) == 0 else kind, names[kind], port)
    return DomainEvidence(hop, mx, sts, tuple(found), build.NOW)


@once
@st.composite
def nearly_good_hosts(draw: st.DrawFn, name: str) -> HostEvidence:
    """A host with which nothing is wrong, or little."""
    named = draw(mostly(name, *HOSTS))
    shown = build.certificate(named, draw(mostly("match", *KINDS)), chain=draw(mostly(True, False)))
    about = build.certificate(named, "match")
    records = tuple(
        draw(mostly(shown, about)).tlsa(*draw(usages)) for _ in range(draw(mostly(1, 0, 2)))
    )
    match draw(mostly("as they are", "one more", "none usable", "none usable")):
        case "one more":
            records = (*records, draw(records_alone))
        case "none usable":
            records = (draw(among(*UNUSABLE)),)
    secure = draw(mostly(True, False))
    found = tuple(draw(good_address_lists))
    tlsa = TlsaEvidence(
        queried=secure,
        outcome=draw(mostly(DnsOutcome.FOUND if records else DnsOutcome.NODATA, DnsOutcome.ERROR)),
        secure=draw(mostly(True, False)),
        base_domain=name,
        records=records,
    )
    probed = tuple(
        ProbeEvidence(
            address,
            ProbeStage.DONE,
            starttls_offered=True,
            tls_version=draw(mostly("TLSv1.3", "TLSv1.2", "TLSv1.1")),
            chain=shown.chain,
            requiretls=draw(mostly(True, False, False, False)),
        )
        for address in found
    )
    unknown = not draw(now_and_then)
    lookup = AddressLookup(DnsOutcome.FOUND, secure, found, canonical=name, alias_error=unknown)
    return HostEvidence(name, draw(among(10, 20)), lookup, tlsa, probed)


@st.composite
def nearly_good(draw: st.DrawFn) -> DomainEvidence:
    """A domain with which nothing is wrong, or little."""
    names = draw(good_host_lists)
    found = sorted(
        (draw(nearly_good_hosts(name)) for name in names), key=lambda host: host.preference
    )
    records = tuple(MxRecord(host.preference, host.host) for host in found)
    secure = draw(st.booleans())
    return DomainEvidence(
        NextHop(HopKind.MX, DOMAIN),
        MxEvidence(DnsOutcome.FOUND, secure, records, canonical=DOMAIN),
        MtaStsEvidence(draw(some_policies)),
        tuple(found),
        build.NOW,
    )


requiretls_policies = st.none() | st.sampled_from(RequiretlsPolicy).map(lambda word: (("*", word),))
readings = st.builds(Reading, *(st.booleans() for _ in dataclasses.fields(Reading)))
mta_profiles = st.builds(
    MtaProfile,
    name=st.sampled_from(ProfileName),
    tls_security_level=mostly(TlsLevel.DANE, *TlsLevel),
    requiretls_policy=requiretls_policies,
    mta_sts=mostly(MtaSts.OFF, *MtaSts),
    insecure_mx_policy=st.sampled_from((TlsLevel.DANE, TlsLevel.ENCRYPT, TlsLevel.MAY)),
    mydomain=st.sampled_from(("", "example.org", "sender.example")),
    mx_address_limit=mostly(5, 0, 1, 2),
    inet_protocols=mostly(("ipv4", "ipv6"), ("ipv4",), ("ipv6",)),
    address_preference=mostly(*AddressPreference),
    myhostname=mostly("", OWN_NAME),
    my_addresses=mostly((), (OWN_ADDRESS,)),
    reading=st.just(Reading()) | readings,
)
requirements = st.sampled_from(Requirement)
needs = st.builds(Needs, smtputf8=st.booleans(), size=st.sampled_from((0, 500, 5000)))
