"""``[dns]``: the resolver."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from requiretls_milter.config import fields
from requiretls_milter.config.fields import Seconds, as_list
from requiretls_milter.config.schema.section import Section


class Dns(Section):
    """The resolver, on which everything that is said of DNSSEC rests."""

    nameservers: Annotated[tuple[fields.NameserverField, ...], as_list] = Field(
        (),
        description=(
            'Resolvers, as "ADDRESS" or "ADDRESS:PORT". Empty: those of /etc/resolv.conf, which is '
            "read at start and at reload. They must validate DNSSEC, and the path to them must be "
            "trusted (best: they run on this host), because their AD bit is believed (RFC 7672 "
            "section 2.1.3)."
        ),
    )
    timeout: Seconds = Field(
        5,
        description="Seconds for one lookup with all its tries; as long as resolvers usually wait.",
    )
    selftest_secure: fields.OptionalDomain = Field(
        "",
        description=(
            "A signed name, whose answer must have the AD bit. At start and every five minutes the "
            "service tests whether the resolver validates. Until this name and one of the two "
            "below have shown that, nothing counts as secure. Empty: the root zone. Behind a "
            "resolver without the public DNS, name one of your own."
        ),
    )
    selftest_bogus: fields.OptionalDomain = Field(
        "",
        description=(
            "A name with broken signatures: the resolver must refuse it with SERVFAIL, and give it "
            "out to a query with CD. Empty: public names that are kept broken for such tests."
        ),
    )
    selftest_insecure: fields.OptionalDomain = Field(
        "",
        description=(
            "A name that exists and is not signed, whose answer must not have the AD bit. Empty: "
            "large public domains that are not signed. This one is the easiest to have on an "
            "isolated network."
        ),
    )
