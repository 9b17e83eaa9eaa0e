"""What a message asks, and the MTA that it meets, for reports."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.model import Capability, HopKind, NextHop, Requirement
from requiretls_milter.reports.carrying import Asking, HostMta, ToldBy, asking
from requiretls_milter.rules import RuleSet

NEW_MTA = HostMta(Capability.REQUIRETLS, ToldBy.SERVICE, "Postfix 3.11.7")
"""It carries REQUIRETLS."""

OLD_MTA = HostMta(Capability.NOTHING, ToldBy.POSTCONF, "Postfix 3.7.11")
"""It knows of no requirement."""


def asks(mta: HostMta = NEW_MTA, carried: Requirement | None = None, **rules: object) -> Asking:
    """REQUIRETLS mail to example.org, with *rules* in force."""
    config = Config.model_validate({"rules": rules})
    rule = RuleSet(config.rules).of_nexthop(NextHop(HopKind.MX, "example.org"))
    return asking(Requirement.REQUIRETLS, rule, mta, carried)
