"""Cut values out of DER without decoding them (X.690).

TLSA records are about octets as they were sent. A key that a library has read
and written again need not be the same octets (RSASSA-PSS), and a library need
not know the key's algorithm; so the octets are found by their lengths alone.
"""

from __future__ import annotations

from requiretls_milter.errors import RequiretlsMilterError

_LONG_FORM = 0x80  # X.690 section 8.1.3.5
_VERSION = 0xA0  # the first field of a TBSCertificate, left out for version 1
_FIELDS_BEFORE_KEY = 5  # serial number, signature, issuer, validity, subject (RFC 5280 section 4.1)


class MalformedCertificateError(RequiretlsMilterError, ValueError):
    """Octets that are no certificate, or one that cannot be evaluated.

    The catcher concludes that the certificate proves nothing. The text is
    printable and bounded (R62).
    """


def public_key_info(der: bytes) -> bytes:
    """Cut the SubjectPublicKeyInfo out of a certificate, octet by octet as it stands there.

    This is what TLSA selector SPKI(1) is about (RFC 6698 section 2.1.2).

    Raises:
        MalformedCertificateError: it is not where it should be.
    """
    certificate, _ = _contents(der, 0)
    position, _ = _contents(der, certificate)
    fields = _FIELDS_BEFORE_KEY + (der[position : position + 1] == bytes([_VERSION]))
    for _ in range(fields):
        _, position = _contents(der, position)
    _, end = _contents(der, position)
    return der[position:end]


def is_one_value(der: bytes) -> bool:
    """Say whether *der* is one value with nothing behind it, as far as its outer length says."""
    try:
        return _contents(der, 0)[1] == len(der)
    except MalformedCertificateError:
        return False


def _contents(der: bytes, start: int) -> tuple[int, int]:
    """Find where the contents of the value at *start* begin and end (X.690 section 8.1)."""
    length = der[start + 1] if start + 1 < len(der) else _LONG_FORM
    begin = start + 2
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        begin += octets
        length = int.from_bytes(der[start + 2 : begin], "big") if octets else len(der)
    if begin + length > len(der):
        raise MalformedCertificateError("unreadable certificate: cut short")
    return begin, begin + length
