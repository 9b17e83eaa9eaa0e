"""``[store]``: where state is kept that outlives a restart."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from requiretls_milter.config import fields
from requiretls_milter.config.fields import Count
from requiretls_milter.config.schema.section import RESTART, Section
from requiretls_milter.syntax import endpoint


class Store(Section):
    """What has to outlive a restart: MTA-STS policies, evidence, what was last known good."""

    url: fields.StoreUrlField = Field(
        endpoint.parse_store_url("sqlite:///var/lib/requiretls-milter/state.db"),
        description=(
            'Where state is kept: "sqlite:///PATH" (a file of this host, which the service '
            'creates, in a directory that exists), "redis://HOST:PORT/DB" or "rediss://..." (for '
            'a fleet; Redis or Valkey, extra "redis"), or "memory:" (nothing is kept). While the '
            "store fails memory stands in for it."
        ),
        json_schema_extra=RESTART,
    )
    secret_file: fields.OptionalPath = Field(
        "",
        description=(
            "File with a secret that the milters on one Redis share, of 32 to 1,024 octets. "
            "They believe only records that were written with it, so that no other client of that "
            "Redis and nobody on the way to it can make a server or a policy seem what it is not. "
            "Empty: each record of that Redis is believed. Other stores need none."
        ),
        json_schema_extra=RESTART,
    )
    max_records: Annotated[Count, Field(ge=1_000, le=10_000_000)] = Field(
        100_000,
        description=(
            "Records in memory or in the file. Beyond this limit the least used records go first, "
            "those of the most frequent kind. The default is about the number of domains and "
            "servers to which a large site sends mail in a month. Redis has a limit of its own "
            "(maxmemory)."
        ),
        json_schema_extra=RESTART,
    )
    max_bytes: Annotated[Count, Field(ge=1 << 20, le=1 << 40)] = Field(
        67_108_864,
        description=(
            "Octets of these records; beyond this limit records go in the same order. The file may "
            "take two to three times as much. 64 MiB hold about 10,000 certificate chains."
        ),
        json_schema_extra=RESTART,
    )
    key_prefix: fields.KeyPrefix = Field(
        "requiretls-milter:",
        description=(
            "What each key in Redis begins with. Milters that share what they know have the same "
            "prefix. An access list of Redis need allow only keys with this prefix."
        ),
        json_schema_extra=RESTART,
    )
