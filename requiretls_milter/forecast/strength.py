"""Whether TLS is as strong as RFC 9325 demands, to which RFC 8689 section 4.2.1 refers.

RFC 8689 names RFC 7525 "or its successor", which is RFC 9325: no TLS before 1.2, no cipher suite
and no key of less than 112 bits of security, and forward secrecy. Postfix takes less: it verifies
a server from 80 bits on (OpenSSL's security level 1) and takes RSA key transport. What Postfix does
is forecast as it is; whether that satisfies RFC 8689 is decided here.
"""

from __future__ import annotations

from requiretls_milter.model import ProbeEvidence
from requiretls_milter.syntax.ciphers import is_broken, is_ephemeral

SMALL_KEY = "a key of the certificate or its issuers has less than 112 bits of security (RFC 9325)"


def session_weakness(probe: ProbeEvidence) -> str | None:
    """Say what RFC 9325 forbids of the session with a server; None if it is as it should be (R64).

    TLS before 1.2 is :func:`~requiretls_milter.forecast.attempt.tls_weakness`.
    """
    if not probe.tls_version or probe.tls_version == "TLSv1.3":
        return None
    if is_broken(probe.cipher):
        return f"the cipher suite {probe.cipher} is broken (RFC 9325 section 4.1)"
    if not is_ephemeral(probe.cipher):
        suite = probe.cipher or "unknown"
        return f"no forward secrecy: the cipher suite is {suite} (RFC 9325 section 4.1)"
    if probe.small_group:
        return f"its key exchange is too weak (RFC 9325 section 4.5): {probe.small_group}"
    return None


def weakness(probe: ProbeEvidence, *, small_key: bool) -> str | None:
    """Say what RFC 9325 forbids of session and keys; None if both are as they should be (R64).

    Args:
        probe: what the session with the server was like.
        small_key: a key by which the server was verified has less than 112 bits of security:
            its own for DANE-EE(3), and else one of the path to the anchor.
    """
    return SMALL_KEY if small_key else session_weakness(probe)
