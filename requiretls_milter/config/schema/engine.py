"""``[engine]``: the process that looks things up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from requiretls_milter.config import fields
from requiretls_milter.config.fields import Count
from requiretls_milter.config.schema.section import RESTART, Section


class Engine(Section):
    """The process that looks things up: DNS, MTA-STS, probes."""

    socket: fields.UnixPath = Field(
        "/run/requiretls-milter/engine.sock",
        description="Unix socket on which workers and the command line reach the engine.",
        json_schema_extra=RESTART,
    )
    stale_for: Annotated[Count, Field(ge=0, le=604_800)] = Field(
        86_400,
        description=(
            "Seconds for which a forecast is still the answer after its life is over, while a new "
            "one is made behind it (RFC 8767). It is used only where it can do no harm: if rules "
            "act, only for a delivery of which the MTA carries the requirement; never past the end "
            "of a certificate or of an MTA-STS policy; never after a failure or a downgrade of "
            "anything on which it rests. Until then no message waits for the network. 0: never. "
            "The default is a day: mail of yesterday's correspondents does not wait."
        ),
    )
