"""Names of cipher suites, as OpenSSL writes them (ciphers(1)), up to TLS 1.2.

The suites of TLS 1.3 (``TLS_AES_128_GCM_SHA256``) do not name their key exchange: it is always
ephemeral.
"""

from __future__ import annotations

_ELLIPTIC = "ECDHE-"
_FINITE_FIELD = "DHE-"
_TLS_1_3 = "TLS_"


def is_ephemeral(cipher: str) -> bool:
    """Say whether a suite has forward secrecy: each session has keys of its own."""
    return cipher.startswith((_ELLIPTIC, _FINITE_FIELD, _TLS_1_3))


def is_in_finite_field(cipher: str) -> bool:
    """Say whether the key exchange is in a finite field, whose size the server chooses."""
    return cipher.startswith(_FINITE_FIELD)


def is_broken(cipher: str) -> bool:
    """Say whether a suite encrypts by RC4 or by single DES (RFC 9325 section 4.1)."""
    words = cipher.split("-")
    return "RC4" in words or ("DES" in words and "CBC3" not in words)
