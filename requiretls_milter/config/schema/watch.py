"""``[watch]``: our own domains, seen from outside."""

from __future__ import annotations

import shlex
from typing import Annotated

from pydantic import Field

from requiretls_milter.config import fields
from requiretls_milter.config.fields import as_list
from requiretls_milter.config.schema.section import Section
from requiretls_milter.syntax import endpoint


class Watch(Section):
    """Our own domains, watched as those see them that send mail to them."""

    domains: Annotated[tuple[fields.Domain, ...], as_list, Field(max_length=1_000)] = Field(
        (),
        description=(
            "The domains. Domains of partners are watched if their rule has watch = true. Each is "
            "looked at anew, within the budgets of [limits]: lookups, a session with each address, "
            "and at most every five minutes a fetch of the MTA-STS policy."
        ),
    )
    interval: Annotated[float, Field(strict=True, ge=5, le=86_400, allow_inf_nan=False)] = Field(
        300,
        description=(
            "Seconds between two looks at a domain: what breaks is told within them. With many "
            "domains a round takes longer."
        ),
    )
    notify: fields.OptionalCommand = Field(
        "",
        description=(
            "A command that is told of each change: an absolute path and arguments, split as a "
            "shell does, but run without one. It gets a JSON object on its standard input, has 30 "
            "seconds, and runs once at a time as the service's own user. Empty: none."
        ),
    )
    mail_to: Annotated[tuple[fields.MailAddress, ...], as_list, Field(max_length=20)] = Field(
        (),
        description=(
            "Addresses that get a mail about each change: what changes within ten seconds comes in "
            "one. A mail that cannot be handed over is tried again every five minutes, with what "
            "has changed since."
        ),
    )
    mail_from: fields.OptionalMailAddress = Field(
        "",
        description="The sender of these mails. Empty: requiretls-milter at the name of this host.",
    )
    mail_server: fields.EndpointField = Field(
        endpoint.parse_endpoint("127.0.0.1:25"),
        description=(
            "ADDRESS:PORT of the MTA to which these mails are handed over, by SMTP and without "
            "TLS: that of this host, which need not trust the network for it."
        ),
    )
    digest_at: fields.OptionalTimeOfDay = Field(
        "",
        description=(
            "HH:MM, local time, at which mail_to gets a digest each day: how all watched domains "
            "are, those with problems first. Empty: none."
        ),
    )

    @property
    def command(self) -> tuple[str, ...]:
        """``notify`` as program and arguments; () for none."""
        return tuple(shlex.split(self.notify))
