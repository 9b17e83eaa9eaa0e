"""DANE for SMTP: which TLSA records are usable, and whether a chain matches them (RFC 7672)."""

from __future__ import annotations

from dataclasses import dataclass

from OpenSSL import crypto

from requiretls_milter.forecast import certificate
from requiretls_milter.forecast.certificate import MalformedCertificateError, Path, remembered
from requiretls_milter.model import TlsaRecord

DANE_TA = 2
DANE_EE = 3
CERTIFICATE = 0  # selector Cert(0)
SPKI = 1  # selector SPKI(1)
FULL = 0  # matching type Full(0)
PRIVATE = 255  # matching type PrivMatch; Postfix keeps it for fingerprints

_DIGEST_LENGTHS = {1: 32, 2: 64}
_STRENGTH = {1: 1, 2: 2}  # SHA-512 before SHA-256, as in Postfix's tls_dane_digests

CACHED_MATCHES = 8192


@remembered(CACHED_MATCHES)
def postfix_accepts(records: tuple[TlsaRecord, ...]) -> tuple[TlsaRecord, ...]:
    """The records that pass Postfix's own parser, before OpenSSL sees them.

    Certificate usages 0 and 1 do not apply to SMTP (RFC 7672 section 3.1.3).
    """
    return tuple(
        record
        for record in records
        if record.usage in (DANE_TA, DANE_EE) and record.matching_type != PRIVATE and record.data
    )


@remembered(CACHED_MATCHES)
def usable(records: tuple[TlsaRecord, ...]) -> tuple[TlsaRecord, ...]:
    """The records that can match anything at all (RFC 7672 section 2.2, RFC 6698 section 2.1)."""
    return tuple(record for record in postfix_accepts(records) if _is_usable(record))


def _is_usable(record: TlsaRecord) -> bool:
    if record.selector not in (CERTIFICATE, SPKI):
        return False
    if record.matching_type != FULL:
        return _DIGEST_LENGTHS.get(record.matching_type) == len(record.data)
    # Full(0): the data itself must be what the selector names, to OpenSSL (dane_tlsa_add()).
    if not certificate.is_one_value(record.data):
        return False
    try:
        if record.selector == CERTIFICATE:
            crypto.load_certificate(crypto.FILETYPE_ASN1, record.data).get_pubkey()
        else:
            crypto.load_publickey(crypto.FILETYPE_ASN1, record.data)
    except (crypto.Error, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Match:
    """How a chain relates to a TLSA RRset, dates and names aside.

    ``end_entity``: a DANE-EE(3) record matches the leaf. ``anchored``: the path
    to a certificate that a DANE-TA(2) record matches; None where there is none.
    """

    end_entity: bool
    anchored: Path | None


@remembered(CACHED_MATCHES)
def match(chain: tuple[bytes, ...], records: tuple[TlsaRecord, ...]) -> Match:
    """Compare *chain* (DER, leaf first) with the *usable* records."""
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
    if not anchors:
        # A key alone may be the anchor, which has issued the last certificate of those sent.
        last = certificate.last_sent(chain)
        keys = (r.data for r in authorities if (r.selector, r.matching_type) == (SPKI, FULL))
        if any(certificate.signs(key, last) for key in keys):
            paths = [_path_to(last, chain, anchor_has_dates=True)]
    # The nearest anchor decides: OpenSSL looks no further up once a record matches.
    return Match(end_entity, min(paths, key=_preferred, default=None))


def _strongest(records: tuple[TlsaRecord, ...]) -> list[TlsaRecord]:
    """Digest agility: per usage and selector only the strongest digest (RFC 7671 section 9)."""
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
        selected = der if record.selector == CERTIFICATE else certificate.public_key_info(der)
    except MalformedCertificateError:
        return False
    return certificate.digest(selected, record.matching_type) == record.data


def _anchor_candidates(record: TlsaRecord, chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The issuers that the server sent; ``2 0 0`` brings the certificate itself (section 3.1.2).

    The server's own certificate is never one, self-signed or not: OpenSSL compares
    it with DANE-EE(3) records alone.
    """
    issuers = [der for der in chain[1:] if der != chain[0]]
    if record.selector == CERTIFICATE and record.matching_type == FULL and record.data != chain[0]:
        issuers.append(record.data)
    return tuple(issuers)


def _path_to(anchor: bytes, chain: tuple[bytes, ...], *, anchor_has_dates: bool) -> Path:
    store = certificate.anchored_store((anchor,))
    return certificate.build_path(chain, store, anchor_has_dates=anchor_has_dates)


def _preferred(path: Path) -> tuple[bool, int]:
    return bool(path.error), path.length


def verify(
    chain: tuple[bytes, ...],
    records: tuple[TlsaRecord, ...],
    references: tuple[str, ...],
    now: float,
) -> str:
    """Say why *chain* does not match the usable TLSA *records*; the empty string where it does.

    DANE-EE(3) and DANE-TA(2) are alternatives. DANE-EE checks neither name nor
    dates (RFC 7672 section 3.1.1); DANE-TA both, with *references* the TLSA base
    domain and the next-hop domain (section 3.2.2).
    """
    if not chain:
        return "no certificate presented"
    found = match(certificate.without_former(chain, now), records)
    if found.end_entity:
        return certificate.WEAK_KEY if certificate.has_weak_key(chain[0]) else ""
    if found.anchored is None:
        return "no TLSA record matches the certificate"
    error = found.anchored.error_at(now)
    return error or certificate.name_error(chain[0], references)
