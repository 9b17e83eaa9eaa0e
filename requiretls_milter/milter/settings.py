"""The configuration, in the form that each message needs: made once, not for each message."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from requiretls_milter import rules
from requiretls_milter.config import LogLevel, PlainMail
from requiretls_milter.milter import hop
from requiretls_milter.milter.recipient import MAX_ADDRESS
from requiretls_milter.milter.requirement import FIELDS
from requiretls_milter.model import Mode, NextHop, OnMixed, ProfileName, Standing
from requiretls_milter.syntax import nexthop
from requiretls_milter.syntax.expansion import Expansion
from requiretls_milter.syntax.names import domain_of, envelope_domain

if TYPE_CHECKING:
    from requiretls_milter.config import Config

REMEMBERED_LOOKUPS = 2048
"""Lookups that are remembered for each configuration; one is cheap to make again."""

REMEMBERED_CLIENTS = 1024
"""Addresses of clients of which it is remembered whether they are trusted: to find out takes as
long as all else that is done when a connection begins."""

MAX_LOOKUP_TEXT = 512
"""Characters of what a lookup is remembered by: two domain names, with room. Longer is foul."""


@dataclass(frozen=True, slots=True)
class ResolvedRecipient:
    """What follows from a recipient's domain, and from where the MTA will send its mail.

    The attributes are those of :class:`Recipient`.
    """

    rule: rules.Rule
    domain: str
    transport: str = ""
    nexthop: NextHop | None = None
    nexthop_text: str = ""
    nexthop_error: str = ""
    unusable: bool = False


Expander = Callable[[str], Expansion | Future[Expansion]]
"""Says what the MTA makes of a recipient, now or later; :class:`ExpansionError` if it does not
know."""


class Settings:
    """The configuration, in the form that each message needs.

    Args:
        config: the configuration.
        expander: None if recipients are not expanded.
    """

    def __init__(self, config: Config, expander: Expander | None = None) -> None:
        self.config = config
        self.expander = expander if config.mta.profile is ProfileName.POSTFIX else None
        self.rules = rules.RuleSet(config.rules)
        self.header_name = config.milter.header_name
        self.tag_name = config.milter.header_name.lower()
        self.fields = FIELDS | {self.tag_name}
        """Names of the header fields that matter, in lower case."""
        self.initials = frozenset(name[0] for name in self.fields) | frozenset(
            name[0].upper() for name in self.fields
        )
        """First characters of these names, in both cases: most fields begin with another one."""
        self.moves = bool(config.mta.route_transport)
        """Whether a recipe moves mail for which REQUIRETLS is asked to another transport."""
        self.esmtp_header = config.mta.requiretls_esmtp_header
        self.profile = config.mta.profile
        self.surveys = config.probe.plain_mail is not PlainMail.OFF
        base = config.rules
        self.simple = not (self.rules.by_domain or base.require or base.honour_lost or self.surveys)
        """Whether no rule is looked up for mail that asks nothing: one rule holds for all of it."""
        self.expands_ordinary_mail = (
            self.surveys
            or base.require
            or any(table.require is True for _, _, table in base.tables())
        )
        """Whether it matters what recipients become for whom the sender asks nothing."""
        enforced = {base.enforce_for, *(table.enforce_for for _, _, table in base.tables())}
        self.acts_on = frozenset(
            standing
            for standing in Standing
            if base.acts and any(rules.binds(one, standing) for one in enforced if one is not None)
        )
        """Clients whose mail any rule could refuse or defer."""
        self.counts_plain = base.mode is not Mode.OFF
        """Whether mail is counted for which no rule was looked up."""
        self.debug = config.log.level is LogLevel.DEBUG
        self.splits = config.rules.on_mixed is OnMixed.SPLIT and not config.rules.suspended
        self._known = functools.lru_cache(maxsize=REMEMBERED_LOOKUPS)(self._look_up)
        self.trusts = functools.lru_cache(maxsize=REMEMBERED_CLIENTS)(self._trusts)
        """Whether a client's address, a text of any kind, is in ``milter.trusted_networks``."""

    def look_up(
        self,
        mailer: str,
        host: str,
        recipient: str,
        sender: str,
        *,
        postfix: bool,
        alias: str = "",
    ) -> ResolvedRecipient:
        """Rule and next hop of a recipient; the arguments are those of :func:`.hop.from_macros`.

        What the MTA names does not depend on the local parts, unless a transport hands its mail
        over, so that it is remembered by the domains. If the MTA makes the recipient of another
        one, *alias* is the domain of that.
        """
        by_domain = self.rules.by_domain
        sender_domain = envelope_domain(sender) if by_domain else ""
        if (mailer or host) and not self.config.mta.hand_over:
            domain = domain_of(recipient)
            if len(mailer) + len(host) + len(domain) + len(sender_domain) <= MAX_LOOKUP_TEXT:
                at_domain = f"@{domain}" if domain else ""
                return self._known(mailer, host, at_domain, "", sender_domain, postfix, alias)
        return self._look_up(mailer, host, recipient, sender, sender_domain, postfix, alias)

    def _look_up(
        self,
        mailer: str,
        host: str,
        recipient: str,
        sender: str,
        sender_domain: str,
        postfix: bool,
        alias: str,
    ) -> ResolvedRecipient:
        domain = envelope_domain(recipient)
        try:
            way = hop.from_macros(mailer, host, recipient, sender, self.config.mta, postfix=postfix)
        except nexthop.NextHopError as error:
            return ResolvedRecipient(
                self.rules.find(sender_domain, domain, "", alias),
                domain,
                nexthop_text=(host or domain)[:MAX_ADDRESS],
                nexthop_error=str(error),
                unusable=postfix and isinstance(error, nexthop.UnusableNextHopError),
            )
        rule = self.rules.find(sender_domain, domain, way.nexthop.host, alias)
        return ResolvedRecipient(rule, domain, way.transport, way.nexthop, str(way.nexthop))

    def _trusts(self, address: str) -> bool:
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(client, ipaddress.IPv6Address) and client.ipv4_mapped is not None:
            client = client.ipv4_mapped
        return any(client in network for network in self.config.milter.trusted_networks)
