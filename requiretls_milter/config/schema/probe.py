"""``[probe]``: sessions with the servers of a next hop."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import BeforeValidator, Field

from requiretls_milter import model
from requiretls_milter.config import fields
from requiretls_milter.config.fields import Count, Flag, Seconds, as_list
from requiretls_milter.config.schema.section import Section
from requiretls_milter.config.values import word
from requiretls_milter.syntax import endpoint


class PlainMail(enum.StrEnum):
    """How much is found out about the next hops of mail for which nothing is asked."""

    OFF = "off"
    DNS = "dns"
    FULL = "full"


class Probe(Section):
    """SMTP sessions with the servers of a next hop, up to the EHLO inside TLS; no mail is sent."""

    enabled: Flag = Field(
        True,
        description=(
            "Whether servers are contacted at all. Without probes only DNS and MTA-STS are known, "
            "and most forecasts are unknown."
        ),
    )
    plain_mail: Annotated[PlainMail, BeforeValidator(word(PlainMail))] = Field(
        PlainMail.OFF,
        description=(
            'Whether forecasts are made for ordinary mail too, as a survey: "off", "dns" (from DNS '
            'and MTA-STS only) or "full" (with probes). With "off" such mail gets no tag.'
        ),
    )
    port: Annotated[Count, Field(ge=1, le=endpoint.MAX_PORT)] = Field(
        model.SMTP_PORT, description="Port of a next hop that names none."
    )
    helo: fields.OptionalDomain = Field(
        "",
        description=(
            "Name that a probe gives in EHLO. Empty: the name of the host. It should resolve to "
            "the address that the probe comes from: many servers check this."
        ),
    )
    ca_file: fields.OptionalPath = Field(
        "",
        description=(
            "File of trusted CA certificates (PEM) for probes and MTA-STS. Empty: the store of the "
            "system. It should hold what the MTA trusts (smtp_tls_CAfile). The file, or the store, "
            "is read again at SIGHUP; if other certificates are in it then, MTA-STS policies that "
            "were kept do not count any more."
        ),
    )
    allow_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (),
        description=(
            "Networks outside the public internet that probes and MTA-STS may contact, for example "
            "that of your own relay. None by default: strangers write the DNS records that lead to "
            "a server, and must not lead probes into an internal network."
        ),
    )
    connect_timeout: Seconds = Field(
        10, description="Seconds for a TCP connection. smtp_connect_timeout of Postfix is 30."
    )
    command_timeout: Seconds = Field(
        15,
        description=(
            "Seconds for the greeting, for each reply and for the handshake. More than the 6 s for "
            "which postscreen lets its clients wait."
        ),
    )
    retry_after: Seconds = Field(
        60,
        description=(
            "Seconds until a server with a temporary failure is tried again. The time doubles with "
            "each failure, up to 15 minutes."
        ),
    )
