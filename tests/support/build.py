"""Evidence in a line or two, for tests that vary one thing."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    NOTHING_NEEDED,
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    Needs,
    NextHop,
    ProbeEvidence,
    ProbeStage,
    ProfileName,
    Requirement,
    TlsaEvidence,
    TlsaRecord,
    TlsLevel,
)
from tests.support.pki import Pki, spki

DOMAIN = "example.org"
NOW = 1_800_000_000.0
"""Seconds since the epoch at which all of this is judged: in January 2027."""
DANE = MtaProfile(tls_security_level=TlsLevel.DANE)
RFC8689 = MtaProfile(name=ProfileName.RFC8689)


@functools.cache
def pki() -> Pki:
    """One authority for all tests of a run."""
    return Pki(Path(tempfile.mkdtemp(prefix="requiretls-test-")) / "pki", NOW)


@functools.cache
def trust() -> TrustStore:
    """The store that trusts it."""
    return load_trust_store(str(pki().ca_file))


@functools.cache
def system_trust() -> TrustStore:
    """The store of this machine, which is read once: it has more than a hundred certificates."""
    return load_trust_store()


@dataclass(frozen=True)
class Presented:
    """A certificate as presented, with what TLSA records say of it."""

    chain: tuple[bytes, ...]
    key: bytes
    ca: bytes
    ca_key: bytes

    def tlsa(self, usage: int = 3, selector: int = 1, matching: int = 1) -> TlsaRecord:
        """The TLSA record that matches: the leaf for usage 1 and 3, the CA for 0 and 2."""
        leaf = usage in (1, 3)
        data = (self.chain[0], self.key) if leaf else (self.ca, self.ca_key)
        digests = {1: hashlib.sha256, 2: hashlib.sha512}
        chosen = data[selector] if selector in (0, 1) else data[0]
        if matching in digests:
            chosen = digests[matching](chosen).digest()
        return TlsaRecord(usage, selector, matching, chosen)


@functools.cache
def certificate(
    name: str = "mx1.example.org", kind: str = "match", *, chain: bool = True
) -> Presented:
    """Issue a certificate of one of the lab's kinds."""
    issued = pki().issue(name, kind, chain=chain)
    pem = issued.path.read_bytes()
    found = x509.load_pem_x509_certificates(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    authority = pki().authority
    return Presented(
        tuple(item.public_bytes(Encoding.DER) for item in found),
        issued.spki,
        authority.certificate.public_bytes(Encoding.DER),
        spki(authority.key.public_key()),
    )


BAD = TlsaRecord(3, 1, 1, bytes(32))


def probe(
    address: str = "192.0.2.1",
    presented: Presented | None = None,
    *,
    requiretls: bool | None = True,
) -> ProbeEvidence:
    """A good session: STARTTLS, a certificate, REQUIRETLS inside TLS."""
    return ProbeEvidence(
        address,
        ProbeStage.DONE,
        starttls_offered=True,
        tls_version="TLSv1.3",
        chain=(presented or certificate()).chain,
        requiretls=requiretls,
    )


def clear(address: str = "192.0.2.1") -> ProbeEvidence:
    """A session with a server that has no STARTTLS."""
    return ProbeEvidence(address, ProbeStage.DONE, starttls_offered=False)


def host(
    *records: TlsaRecord,
    name: str = "mx1.example.org",
    preference: int = 10,
    seen: ProbeEvidence | None = None,
    secure: bool = True,
    tlsa_secure: bool = True,
    tlsa_outcome: DnsOutcome | None = None,
) -> HostEvidence:
    """A host with one address."""
    seen = seen or probe()
    outcome = tlsa_outcome or (DnsOutcome.FOUND if records else DnsOutcome.NODATA)
    return HostEvidence(
        name,
        preference,
        AddressLookup(DnsOutcome.FOUND, secure, (seen.address,), canonical=name),
        TlsaEvidence(secure, outcome, secure and tlsa_secure, name, records),
        (seen,),
    )


def domain(
    *hosts: HostEvidence,
    secure: bool = True,
    sts: tuple[str, ...] | None = None,
    mode: MtaStsMode = MtaStsMode.ENFORCE,
) -> DomainEvidence:
    """``example.org`` with these MX hosts."""
    records = tuple(MxRecord(item.preference, item.host) for item in hosts)
    policy = None if sts is None else MtaStsPolicy(mode, sts, 86400, "1")
    return DomainEvidence(
        NextHop(HopKind.MX, DOMAIN),
        MxEvidence(DnsOutcome.FOUND, secure, records, canonical=DOMAIN),
        MtaStsEvidence(policy),
        hosts,
    )


def forecast(
    evidence: DomainEvidence,
    profile: MtaProfile = DANE,
    requirement: Requirement = Requirement.REQUIRETLS,
    *,
    carried: Requirement | None = None,
    now: float = NOW,
    needs: Needs = NOTHING_NEEDED,
) -> Forecast:
    """Judge, with what is asked carried if not said otherwise."""
    return judge(
        evidence,
        asked=requirement,
        carried=requirement if carried is None else carried,
        profile=profile,
        trust=trust(),
        now=now,
        needs=needs,
    )


def answers(result: Forecast) -> tuple[str, str]:
    """Status and reason: what most tests are about."""
    return result.status, result.reason.value


__all__ = [
    "BAD",
    "DANE",
    "DOMAIN",
    "NOW",
    "RFC8689",
    "answers",
    "certificate",
    "clear",
    "domain",
    "forecast",
    "host",
    "probe",
    "replace",
]
