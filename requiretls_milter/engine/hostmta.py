"""What is known of the MTA of this host, and what the engine asks about configured domains."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.model import (
    Capability,
    Forecast,
    HopKind,
    NextHop,
    OnNoncompliant,
    Outcome,
    ProfileName,
    Question,
    Requirement,
)
from requiretls_milter.rules import RuleSet
from requiretls_milter.syntax.capability import capability, carried
from requiretls_milter.telemetry.labels import configured_domains


def assumed(profile: ProfileName) -> Capability:
    """What an MTA is taken to carry of which nothing is known.

    The defaults of ``[mta]`` are those of Postfix 3.11, which carries REQUIRETLS; no other MTA that
    is known does.
    """
    return Capability.REQUIRETLS if profile is ProfileName.POSTFIX else Capability.NOTHING


class HostMta:
    """The MTA that this service serves.

    Attributes:
        version: what it says that it is (macro ``v``), "" until it has sent any mail.
    """

    def __init__(self) -> None:
        self.version = ""

    def carries(self, config: Config) -> Capability:
        """The requirements on which it acts itself."""
        if config.mta.carries is Capability.AUTO and not self.version:
            return assumed(config.mta.profile)
        return capability(config.mta.carries, self.version)


class ConfiguredDomains:
    """What REQUIRETLS mail to the domains that have a rule of their own meets.

    Args:
        config: the configuration.
        mta: that of this host.
    """

    def __init__(self, config: Config, mta: HostMta) -> None:
        self._config = config
        self._mta = mta
        self._rules = RuleSet(config.rules)
        self._domains = frozenset(configured_domains(config))

    def question(self, domain: str) -> Question:
        """What to ask about a domain: mail with the requirement, as this MTA carries it.

        If a rule asks on behalf of the sender, most mail to the domain has a requirement of which
        the MTA does not know.
        """
        nexthop = NextHop(HopKind.MX, domain)
        required = self._rules.of_nexthop(nexthop).require
        able = Capability.NOTHING if required else self._mta.carries(self._config)
        return Question(
            str(nexthop),
            self._config.mta.usual_transport,
            Requirement.REQUIRETLS,
            carried(able, Requirement.REQUIRETLS),
        )

    def is_about_one(self, nexthop: NextHop, question: Question) -> bool:
        """Whether *question* is that of :meth:`question`, but for the size of a message."""
        if nexthop.kind is not HopKind.MX or nexthop.host not in self._domains:
            return False
        usual = self.question(nexthop.host)
        return (question.asked, question.carried) == (usual.asked, usual.carried)

    def is_ready(self, nexthop: NextHop, forecast: Forecast) -> bool:
        """Whether the mail would be delivered as RFC 8689 demands.

        Or in another way, if the rule of its domain says in so many words that it accepts that:
        what ``on_noncompliant = "auto"`` leaves to the MTA is no delivery to rely on.
        """
        if forecast.outcome is not Outcome.DELIVER:
            return False
        rule = self._rules.of_nexthop(nexthop)
        return forecast.compliant is not False or rule.on_noncompliant is OnNoncompliant.ACCEPT
