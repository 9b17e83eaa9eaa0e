"""DANE for SMTP: which TLSA records are usable, and whether a chain matches them.

A TLSA record (RFC 6698 section 2.1) says which certificate or key a server
presents. Its *usage* says what of the chain it is about: DANE-EE(3) the server's
own certificate, DANE-TA(2) an authority above it. Its *selector* says what is
compared, the certificate or its public key (SPKI), and its *matching type* how:
in full or by a digest. The other usages, PKIX-TA(0) and PKIX-EE(1), do not apply
to SMTP (RFC 7672 section 3.1.3).

The records must come from a signed zone: that is the caller's to see to
(:func:`requiretls_milter.forecast.servers.secure_tlsa`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from OpenSSL import crypto

from requiretls_milter.forecast import certificate, path
from requiretls_milter.forecast.certificate import Check
from requiretls_milter.forecast.der import (
    MalformedCertificateError,
    is_one_value,
    public_key_info,
)
from requiretls_milter.forecast.memo import cached_if_small
from requiretls_milter.forecast.path import CertificatePath
from requiretls_milter.model import TlsaRecord

DANE_TA = 2
DANE_EE = 3
CERTIFICATE = 0  # selector Cert(0)
SPKI = 1  # selector SPKI(1)
FULL = 0  # matching type Full(0)
PRIVATE = 255  # matching type PrivMatch; Postfix keeps it for fingerprints

_DIGEST_LENGTHS = {1: 32, 2: 64}
_STRENGTH = {1: 1, 2: 2}  # SHA-512 before SHA-256, as in Postfix's tls_dane_digests

CACHED_MATCHES = 12 << 20
"""Octets of memory for how chains relate to records: some 2,000 of them."""

CACHED_RECORDS = 2 << 20
"""Octets of memory for records that are usable: some 3,000 sets."""


@cached_if_small(CACHED_RECORDS)
def postfix_accepts(records: tuple[TlsaRecord, ...]) -> tuple[TlsaRecord, ...]:
    """List the records that pass Postfix's own parser, before OpenSSL sees them.

    Certificate usages 0 and 1 do not apply to SMTP (RFC 7672 section 3.1.3, R35).
    """
    return tuple(
        record
        for record in records
        if record.usage in (DANE_TA, DANE_EE) and record.matching_type != PRIVATE and record.data
    )


@cached_if_small(CACHED_RECORDS)
def usable(records: tuple[TlsaRecord, ...]) -> tuple[TlsaRecord, ...]:
    """List the records that can match at all (RFC 7672 section 2.2, RFC 6698 section 2.1, R36)."""
    return tuple(record for record in postfix_accepts(records) if _is_usable(record))


def _is_usable(record: TlsaRecord) -> bool:
    if record.selector not in (CERTIFICATE, SPKI):
        return False
    if record.matching_type != FULL:
        return _DIGEST_LENGTHS.get(record.matching_type) == len(record.data)
    # Full(0): OpenSSL must be able to read what the selector names (dane_tlsa_add()).
    if not is_one_value(record.data):
        return False
    try:
        if record.selector == CERTIFICATE:
            certificate.load(record.data).get_pubkey()
        else:
            crypto.load_publickey(crypto.FILETYPE_ASN1, record.data)
    except (crypto.Error, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class ChainMatch:
    """How a chain relates to a TLSA RRset, dates and names aside.

    Attributes:
        end_entity: a DANE-EE(3) record matches the leaf.
        weak_key: the leaf that it matches has a key that no MTA takes which verifies.
        small_key: that key has less than 112 bits of security (R64).
        anchored: the path to the certificate that a DANE-TA(2) record matches;
            None if no such record matches.
    """

    end_entity: bool
    anchored: CertificatePath | None
    weak_key: bool = False
    small_key: bool = False


@cached_if_small(CACHED_MATCHES)
def match(chain: tuple[bytes, ...], records: tuple[TlsaRecord, ...]) -> ChainMatch:
    """Compare *chain* (DER, leaf first) with *records*, all of them usable.

    Records of both usages are alternatives, in any order (R40).
    """
    compared = _strongest(records)
    end_entity = any(record.usage == DANE_EE and _selects(record, chain[0]) for record in compared)
    authorities = [record for record in compared if record.usage == DANE_TA]
    anchors = dict.fromkeys(
        der
        for record in authorities
        for der in _anchor_candidates(record, chain)
        if _selects(record, der)
    )
    paths = [_path_to(anchor, chain, anchor_has_dates=False) for anchor in anchors]
    keys = [r.data for r in authorities if (r.selector, r.matching_type) == (SPKI, FULL)]
    if keys and not anchors:
        # "2 1 0" holds a key alone: it anchors the chain if it has signed the topmost
        # certificate that was sent.
        top = path.top_of_chain(chain)
        if any(path.signs(key, top) for key in keys):
            paths = [_path_to(top, chain, anchor_has_dates=True)]
    # The nearest anchor decides: OpenSSL looks no further up once a record matches.
    anchored = min(paths, key=_valid_and_short, default=None)
    weak, small = (
        end_entity and certificate.has_weak_key(chain[0], shortest)
        for shortest in (certificate.MTA_KEYS, certificate.RFC9325_KEYS)
    )
    return ChainMatch(end_entity, anchored, weak, small)


def _strongest(records: tuple[TlsaRecord, ...]) -> list[TlsaRecord]:
    """Keep, of each usage and selector, only the strongest digest (RFC 7671 section 9, R41)."""
    best: dict[tuple[int, int], int] = {}
    for record in records:
        key = (record.usage, record.selector)
        best[key] = max(best.get(key, 0), _STRENGTH.get(record.matching_type, 0))
    return [
        record
        for record in records
        if record.matching_type == FULL
        or _STRENGTH[record.matching_type] == best[record.usage, record.selector]
    ]


def _selects(record: TlsaRecord, der: bytes) -> bool:
    try:
        selected = der if record.selector == CERTIFICATE else public_key_info(der)
    except MalformedCertificateError:
        return False
    return digest(selected, record.matching_type) == record.data


def digest(data: bytes, matching_type: int) -> bytes:
    """Apply a TLSA matching type (RFC 6698 section 2.1.3): 0 full, 1 SHA-256, 2 SHA-512."""
    match matching_type:
        case 0:
            return data
        case 1:
            return hashlib.sha256(data).digest()
        case 2:
            return hashlib.sha512(data).digest()
        case _:
            raise ValueError(f"unknown TLSA matching type {matching_type}")


def _anchor_candidates(record: TlsaRecord, chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """List the certificates that a DANE-TA(2) record may be about (RFC 7672 section 3.1.2).

    They are the issuers that the server sent, and the certificate that a record
    ``2 0 0`` holds itself. The server's own certificate is never one of them,
    self-signed or not: OpenSSL compares it with DANE-EE(3) records alone.
    """
    issuers = [der for der in chain[1:] if der != chain[0]]
    if record.selector == CERTIFICATE and record.matching_type == FULL and record.data != chain[0]:
        issuers.append(record.data)
    return tuple(issuers)


def _path_to(anchor: bytes, chain: tuple[bytes, ...], *, anchor_has_dates: bool) -> CertificatePath:
    store = path.store_anchored_by((anchor,))
    return path.build_path(chain, store, anchor_has_dates=anchor_has_dates)


def _valid_and_short(candidate: CertificatePath) -> tuple[bool, int]:
    return candidate.flaw is not None, candidate.length


def check(
    chain: tuple[bytes, ...],
    records: tuple[TlsaRecord, ...],
    references: tuple[str, ...],
    now: float,
) -> Check:
    """Say whether *chain* matches the TLSA *records*.

    Args:
        chain: DER certificates as presented, leaf first.
        records: the usable ones of the RRset.
        references: the names that DANE-TA(2) accepts in the leaf (section 3.2.2).
        now: the time of the check, seconds since the epoch.
    """
    if not chain:
        return Check("no certificate presented")
    found = match(path.without_superseded_issuers(chain, now), records)
    if found.end_entity:
        # RFC 7672 section 3.1.1: neither name nor dates nor chain (R37). OpenSSL's key check stays.
        weak = certificate.WEAK_KEY if found.weak_key else None
        return Check(weak, small_key=found.small_key)
    until = certificate.next_validity_change(chain, now)
    if found.anchored is None:
        return Check("no TLSA record matches the certificate", until)
    # Section 3.1.2: dates and name both count (R38). The anchor may be in the record alone.
    until = min(until, found.anchored.next_change(now))
    flaw = found.anchored.flaw_at(now)
    mismatch = flaw or certificate.name_mismatch(chain[0], references)
    return Check(mismatch, until, small_key=not found.anchored.strong)
