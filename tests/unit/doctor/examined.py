"""The findings of the checks of a Postfix, for tests of each."""

from __future__ import annotations

from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding
from requiretls_milter.doctor.run import examine_postfix
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror

QUEUE = "/var/spool/postfix"
SOCKET = f"unix:{QUEUE}/requiretls-milter/milter.sock"
NAME = "unix:requiretls-milter/milter.sock"


UID, GID, OTHER = 61125, 61126, 61127
"""Of the user postfix, of its group, and of another group that it is in."""


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate({"milter": {"socket": SOCKET}, **sections})


def matching(made: Postfix, **sections: dict[str, Any]) -> Config:
    """A configuration whose [mta] is what mta import writes."""
    return configured(mta=dict(mirror(made).mta), **sections)


def found(config: Config, made: Postfix, check: str) -> list[Finding]:
    return [one for one in examine_postfix(config, made, mirror(made)) if one.check == check]


def one(config: Config, made: Postfix, check: str) -> Finding:
    (finding,) = found(config, made, check)
    return finding


DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
