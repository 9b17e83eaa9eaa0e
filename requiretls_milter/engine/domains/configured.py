"""What the engine asks about configured domains, and what of it is an answer about them.

Mail to a domain goes where the routing of ``[mta]`` sends it, which stands for what the MTA tells
of real mail: to the domain's own servers, to a gateway, or nowhere by SMTP. Domains of one next hop
are asked about once, and what is found out about it is said of all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from requiretls_milter.config import Config
from requiretls_milter.config.routes import Way
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.model import (
    Capability,
    Forecast,
    HopKind,
    Mode,
    NextHop,
    OnNoncompliant,
    Outcome,
    ProfileName,
    Question,
    Requirement,
    Standing,
)
from requiretls_milter.rules import RuleSet, decide
from requiretls_milter.syntax.capability import carried
from requiretls_milter.syntax.nexthop import NextHopError
from requiretls_milter.telemetry.labels import named_domains

ByHop = Mapping[str, Mapping[bool, Sequence[str]]]
"""Domains by the next hop of their mail, and by whether a rule requires REQUIRETLS for them."""


def ways(config: Config) -> Iterator[tuple[str, Way]]:
    """Yield each domain that has a rule of its own with the way that mail to it leaves by.

    Those are left out whose mail this host delivers, and those whose routing names no next hop. A
    rule by next hop is about that next hop, whatever the routing says of recipients.
    """
    mta = config.mta
    is_postfix = mta.profile is ProfileName.POSTFIX
    by_hop = {name for section, name, _ in config.rules.by_domain() if section == "nexthop"}
    for name in named_domains(config):
        with contextlib.suppress(NextHopError):
            if name in by_hop:
                hop = mta.nexthop_of(name, mta.usual_transport, postfix=False)
                yield name, Way(mta.usual_transport, hop)
                continue
            way = mta.way(f"postmaster@{name}", "", postfix=is_postfix)
            if way.nexthop.kind is not HopKind.LOCAL:
                yield name, way


class ConfiguredDomains:
    """What REQUIRETLS mail to the domains that have a rule of their own meets.

    Args:
        config: the configuration.
        mta: that of this host.
    """

    def __init__(self, config: Config, mta: ServedMta) -> None:
        self._config = config
        self._mta = mta
        self._rules = RuleSet(config.rules)
        self._domains = dict.fromkeys(named_domains(config))
        self._ways: dict[str, Way] | None = None
        """Where mail to each domain leaves to; None if that is always the domain itself."""
        self._by_hop: ByHop = {}
        if config.mta.routes_anything:
            self._ways = dict(ways(config))
            self._by_hop = self._grouped(self._ways)

    def _grouped(self, ways: Mapping[str, Way]) -> ByHop:
        by_hop: dict[str, dict[bool, list[str]]] = {}
        for domain, way in ways.items():
            groups = by_hop.setdefault(str(way.nexthop), {})
            groups.setdefault(self._rules.requires(domain, way.nexthop.host), []).append(domain)
        return by_hop

    def asked(self) -> Sequence[str]:
        """The domains to ask about: one for all those of one next hop that have one question."""
        if self._ways is None:
            return tuple(self._domains)
        return tuple(group[0] for groups in self._by_hop.values() for group in groups.values())

    def question(self, domain: str) -> Question:
        """What to ask about one of :meth:`asked`: mail with the requirement, as the MTA carries it.

        If a rule asks on behalf of the sender, most mail to the domain has a requirement of which
        the MTA does not know.
        """
        way = self._way(domain)
        requires = self._rules.requires(domain, way.nexthop.host)
        asked = Requirement.REQUIRETLS
        transport = self._config.mta.carrier(way.transport, asked)
        return Question(str(way.nexthop), transport, asked, self._carried(requires))

    def _way(self, domain: str) -> Way:
        # After a reload the watch may still ask about a domain that is configured no more.
        way = None if self._ways is None else self._ways.get(domain)
        return way or Way(self._config.mta.usual_transport, NextHop(HopKind.MX, domain))

    def _carried(self, requires: bool) -> Requirement:
        able = Capability.NOTHING if requires else self._mta.carries(self._config)
        return carried(able, Requirement.REQUIRETLS)

    def about(self, nexthop: NextHop, question: Question) -> Sequence[str]:
        """The domains about which *question* is, whatever the size of its message."""
        if question.asked is not Requirement.REQUIRETLS:
            return ()
        moved_to = self._config.mta.route_transport
        if moved_to and question.transport != moved_to:
            return ()  # of a message whose other recipients keep it from being moved
        if self._ways is not None:
            groups = self._by_hop.get(str(nexthop), {})
        elif nexthop.kind is HopKind.MX and nexthop.host in self._domains:
            groups = {self._rules.requires(nexthop.host, nexthop.host): (nexthop.host,)}
        else:
            return ()
        return [
            domain
            for requires, group in groups.items()
            if question.carried is self._carried(requires)
            for domain in group
        ]

    def answer(
        self, domain: str, nexthop: NextHop, forecast: Forecast, now: float
    ) -> tuple[Mode, str]:
        """The mode of a domain's rule, and the codes that a client gets which authenticates.

        Returns:
            The codes such as ``550 5.7.30``; "" if the recipient is accepted.
        """
        rule = self._rules.find("", domain, nexthop.host)
        decision = decide(
            rule,
            forecast,
            asked=Requirement.REQUIRETLS,
            carried=self._carried(rule.require),
            standing=Standing.AUTHENTICATED,
            null_sender=False,
            domain=domain,
            now=now,
            by_rule=rule.require,
        )
        reply = decision.reply
        return rule.mode, "" if reply is None else f"{reply.code} {reply.enhanced}"

    def is_ready(self, domain: str, nexthop: NextHop, forecast: Forecast) -> bool:
        """Whether mail to a domain would be delivered to its next hop as RFC 8689 demands.

        Or in another way, if the rule of the domain says in so many words that it accepts that:
        what ``on_noncompliant = "auto"`` leaves to the MTA is no delivery to rely on.
        """
        if forecast.outcome is not Outcome.DELIVER:
            return False
        if forecast.compliant is not False:
            return True
        rule = self._rules.find("", domain, nexthop.host)
        return rule.on_noncompliant is OnNoncompliant.ACCEPT
