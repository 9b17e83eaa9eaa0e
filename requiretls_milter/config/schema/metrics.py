"""``[metrics]``: the endpoint for Prometheus, probes and browsers."""

from __future__ import annotations

from pydantic import Field

from requiretls_milter.config import fields
from requiretls_milter.config.schema.section import RESTART, Section
from requiretls_milter.syntax import endpoint


class Metrics(Section):
    """Metrics for Prometheus."""

    listen: fields.OptionalEndpoint = Field(
        endpoint.parse_endpoint("127.0.0.1:9894"),
        description=(
            "ADDRESS:PORT of the endpoint /metrics, which also serves a status page (/) and "
            "answers probes (/healthz, /readyz). Empty: no endpoint. Its only access control is "
            "tls_client_ca, so that by default only this host can reach it."
        ),
        json_schema_extra=RESTART,
    )
    tls_certificate: fields.OptionalPath = Field(
        "",
        description=(
            "File with the certificate of the endpoint and its chain (PEM). With it the endpoint "
            "speaks only TLS, version 1.2 or later. Empty: HTTP without TLS. The file is read "
            "again at SIGHUP."
        ),
    )
    tls_key: fields.OptionalPath = Field(
        "",
        description=(
            "File with the key of that certificate (PEM, without a passphrase). It may be the same "
            "file. The user that the service runs as must be able to read it."
        ),
    )
    tls_client_ca: fields.OptionalPath = Field(
        "",
        description=(
            "File of CA certificates (PEM). Only a client with a certificate from one of them gets "
            "an answer. Empty: every client gets one."
        ),
    )
