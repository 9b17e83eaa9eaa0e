"""What the MTA of this host carries of a requirement, and who says so. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.engine.domains.servedmta import assumed
from requiretls_milter.model import Capability, ProfileName, Requirement
from requiretls_milter.rules import Rule
from requiretls_milter.syntax import capability as capabilities


class ToldBy(enum.StrEnum):
    """Who says what the MTA carries; ``carried_by`` of JSON."""

    OPTION = "option"  # --carried
    RULE = "rule"  # a rule requires: the MTA does not know of it
    CONFIGURATION = "configuration"  # mta.carries
    SERVICE = "service"  # the MTA told the running service
    POSTCONF = "postconf"
    ASSUMED = "assumed"  # nobody


@dataclass(frozen=True, slots=True)
class HostMta:
    """The MTA of this host.

    Attributes:
        capability: the requirements on which it acts itself.
        told_by: who says so.
        version: such as ``Postfix 3.11.7``; "" if nobody was asked, or nobody knows.
    """

    capability: Capability
    told_by: ToldBy
    version: str = ""

    def is_postfix(self, config: Config) -> bool:
        """Whether it is Postfix; as ``[mta]`` says if its version is not known."""
        if self.version:
            return capabilities.is_postfix(self.version)
        return config.mta.profile is ProfileName.POSTFIX


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked for a message, and how it meets the MTA and the rules of this host.

    Attributes:
        requirement: what is asked.
        carried: what the MTA acts on.
        told_by: who says so.
        mta: what the MTA is, "" if nothing is known.
        rule: what is done with a forecast.
    """

    requirement: Requirement
    carried: Requirement
    told_by: ToldBy
    mta: str
    rule: Rule


def host_mta(config: Config, *, service: str, postconf: str) -> HostMta:
    """Find out what the MTA of this host carries.

    Args:
        config: says it, or leaves it to the version.
        service: the version that the MTA told the running service; "" if there is none.
        postconf: the version by postconf; "" if there is none.
    """
    carries = config.mta.carries
    if carries is not Capability.AUTO:
        return HostMta(carries, ToldBy.CONFIGURATION, service or postconf)
    for version, told_by in ((service, ToldBy.SERVICE), (postconf, ToldBy.POSTCONF)):
        if version:
            return HostMta(capabilities.capability(carries, version), told_by, version)
    return HostMta(assumed(config.mta.profile), ToldBy.ASSUMED)


def asking(
    requirement: Requirement, rule: Rule, mta: HostMta, carried: Requirement | None
) -> Asking:
    """What a message that asks for *requirement* meets.

    Args:
        requirement: what it asks for. If the rule asks for REQUIRETLS as well, most mail has that
            requirement from the rule, and the MTA does not know of it.
        rule: the rule in force.
        mta: the MTA of this host.
        carried: what the MTA is to act on, whatever it is; None if it is that of this host.
    """
    if carried is not None:
        return Asking(requirement, carried, ToldBy.OPTION, mta.version, rule)
    if rule.require and requirement is Requirement.REQUIRETLS:
        return Asking(requirement, Requirement.NONE, ToldBy.RULE, mta.version, rule)
    acts_on = capabilities.carried(mta.capability, requirement)
    return Asking(requirement, acts_on, mta.told_by, mta.version, rule)
