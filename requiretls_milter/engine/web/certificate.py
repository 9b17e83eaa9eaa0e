"""The certificate of the metrics server, and how it speaks TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from requiretls_milter.errors import RequiretlsMilterError

if TYPE_CHECKING:
    from requiretls_milter.config import Metrics


class CertificateError(RequiretlsMilterError):
    """The certificate of the metrics server cannot be used; the text names the key and why.

    The engine refuses this configuration, at its start or at a reload.
    """


def tls_context(metrics: Metrics) -> ssl.SSLContext | None:
    """Load the server's TLS settings from the files as they are now; None for HTTP in clear.

    Raises:
        CertificateError: a file cannot be read, is not what it should be, or
            the key is not that of the certificate.
    """
    if not metrics.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs us more than the client
    _readable("tls_certificate", metrics.tls_certificate)
    _readable("tls_key", metrics.tls_key)
    try:
        context.load_cert_chain(metrics.tls_certificate, metrics.tls_key, _no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CertificateError(
            f"metrics.tls_certificate {metrics.tls_certificate} and metrics.tls_key "
            f"{metrics.tls_key} are no certificate with its key: {_why(error)}"
        ) from error
    if metrics.tls_client_ca:
        _readable("tls_client_ca", metrics.tls_client_ca)
        try:
            context.load_verify_locations(cafile=metrics.tls_client_ca)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(
                f"metrics.tls_client_ca: {metrics.tls_client_ca} holds no certificates: "
                f"{_why(error)}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(key: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CertificateError(
            f"metrics.{key}: {path} cannot be read: {error.strerror or error}"
        ) from error


def _no_passphrase() -> str:
    """Refuse, instead of OpenSSL's question at a terminal that a service does not have."""
    raise ValueError("the key has a passphrase")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)
