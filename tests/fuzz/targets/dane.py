"""TLSA records and certificates, of which anybody may publish or present any."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import dns.rdata
import dns.rdataclass
import dns.rdatatype

from requiretls_milter.evidence import tlsa
from requiretls_milter.forecast import certificate as certificates
from requiretls_milter.forecast import dane, der, pkix
from requiretls_milter.model import TlsaRecord
from tests.fuzz import expect, inputs
from tests.fuzz.identity import NAME, identity

MAX_ERROR = 300
"""Characters of what is said of a certificate."""

_NOW = 1.8e9
_DIGEST_LENGTHS = {1: 32, 2: 64}


def tlsa_rdata(data: bytes) -> None:
    """The rdata of a TLSA record (RFC 6698 section 2.1), of any length."""
    rdata = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.TLSA, data, 0, len(data))
    assert type(rdata) is tlsa.TlsaAsPublished, "dnspython judges TLSA records again"
    assert rdata.cert == data[3:]
    if len(data) >= 3:
        assert rdata.to_wire() == data
    else:
        assert 255 in (rdata.usage, rdata.selector, rdata.mtype)
    record = TlsaRecord(rdata.usage, rdata.selector, rdata.mtype, bytes(rdata.cert))
    _check_usable((record,))


def _check_usable(records: tuple[TlsaRecord, ...]) -> tuple[TlsaRecord, ...]:
    usable = dane.usable(records)
    accepted = dane.postfix_accepts(records)
    assert set(usable) <= set(accepted) <= set(records)
    for record in usable:
        assert record.usage in (2, 3), "RFC 7672 section 3.1.3"
        assert record.selector in (0, 1)
        assert record.matching_type in (0, 1, 2)
        assert _DIGEST_LENGTHS.get(record.matching_type, len(record.data)) == len(record.data)
    return usable


def tlsa_match(data: bytes) -> None:
    """Records, each behind two octets of length, held against a good chain."""
    records = tuple(
        TlsaRecord(part[0], part[1], part[2], _association(part))
        for part in inputs.parts(data)
        if len(part) >= 3
    )
    usable = _check_usable(records)
    chain = identity().chain
    mismatch = dane.check(chain, usable, (NAME,), _NOW).mismatch
    expect.one_line(mismatch or "", MAX_ERROR)
    assert dane.check(chain, usable[::-1], (NAME,), _NOW).mismatch == mismatch, "the order matters"
    if not usable:
        assert mismatch
    for record in usable:
        # What matches by itself matches beside others of its usage, selector and type.
        alike = [
            other
            for other in usable
            if (other.usage, other.selector, other.matching_type)
            == (record.usage, record.selector, record.matching_type)
        ]
        if dane.check(chain, (record,), (NAME,), _NOW).mismatch is None:
            assert dane.check(chain, tuple(alike), (NAME,), _NOW).mismatch is None


def _association(part: bytes) -> bytes:
    """An octet after the three stands for something of the chain; else what follows counts."""
    rest = part[3:]
    if len(rest) == 1 and rest[0] < 4:
        presented = identity().chain[rest[0] & 1]
        selected = der.public_key_info(presented) if part[1] == 1 else presented
        with contextlib.suppress(ValueError):
            return dane.digest(selected, part[2])
    return rest


# ---------------------------------------------------------------- certificates


def certificate(data: bytes) -> None:
    """A certificate, DER."""
    try:
        found = certificates.parse(data)
    except der.MalformedCertificateError as error:
        expect.one_line(str(error), MAX_ERROR)
    else:
        _check_names(found)
        expect.one_line(certificates.name_mismatch(data, ()) or "", MAX_ERROR)
    _check_usable((TlsaRecord(3, 0, 0, data), TlsaRecord(2, 0, 0, data), TlsaRecord(3, 1, 0, data)))
    _check_chain((data,))


def _check_names(found: certificates.Certificate) -> None:
    assert not certificates.name_matches(found, "")
    for name in found.names:
        assert name == name.lower()
        alone = replace(found, dns_ids=(name,), cn_ids=())
        parent = name.removeprefix("*.")
        if not parent or parent.startswith(".") or parent.endswith("."):
            continue  # no name, and to a reference a dot in front says something else
        if parent == name:
            assert certificates.name_matches(alone, name)
            continue
        assert not certificates.name_matches(alone, parent)
        assert not certificates.name_matches(alone, "a.mx." + parent)
        assert certificates.name_matches(alone, "mx." + parent) == ("." in parent)


def certificate_chain(data: bytes) -> None:
    """A chain: certificates as DER, each behind two octets of length."""
    _check_chain(tuple(inputs.parts(data)))


def _check_chain(chain: tuple[bytes, ...]) -> None:
    mismatch = pkix.check(chain, (NAME,), identity().trust, _NOW).mismatch
    expect.one_line(mismatch or "", MAX_ERROR)
    records = tuple(
        TlsaRecord(usage, selector, 1, dane.digest(sent, 1))
        for sent in chain
        for usage, selector in ((2, 0), (3, 0), (2, 1))
    )
    expect.one_line(dane.check(chain, records, (NAME,), _NOW).mismatch or "", MAX_ERROR)
    if chain:
        leaf = (TlsaRecord(3, 0, 1, dane.digest(chain[0], 1)),)
        # DANE-EE looks at nothing but the digest (RFC 7672 section 3.1.1), OpenSSL at the key.
        weak = (
            certificates.WEAK_KEY
            if certificates.has_weak_key(chain[0], certificates.MTA_KEYS)
            else None
        )
        assert dane.check(chain, leaf, (), _NOW).mismatch == weak
    if mismatch is None:
        assert chain[0] in identity().chain, "somebody else's certificate was verified"
