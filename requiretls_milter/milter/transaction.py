"""One message, from MAIL to its end: what is asked, of whom, and what is decided. Pure.

The adapter calls, in the order of SMTP::

    message = Transaction(settings, client, sender, parameters)   # MAIL
    recipient = message.add_recipient(address, mailer, host)      # RCPT, each
    message.decide_at_rcpt(recipient, forecast, now)              #   where it falls there
    message.add_field(name, value)                                # each header field
    changed = message.end_of_header()                             # end of header
    message.decide(recipient, forecast, now)                      # end of message: the others
    decision = message.decide_message()
    tag = message.tag()

and fetches the forecasts in between: a recipient that needs one has a
``question``, and keeps what the adapter holds of the answer in ``pending``.
Ordinary mail, for which nothing is asked and nobody wants a survey, passes
through without a rule looked up or a next hop parsed.

Nothing here raises for what a client sent: addresses and fields of any bytes
are taken as they are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from requiretls_milter import rules
from requiretls_milter.milter import envelope, hop
from requiretls_milter.milter import tag as tags
from requiretls_milter.milter.requirement import (
    FIELDS,
    NOTHING_ASKED,
    Asked,
    HeaderFindings,
    asks_requiretls,
    is_lost,
    resolve,
)
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Action,
    Capability,
    Decision,
    Forecast,
    HopKind,
    Mode,
    NextHop,
    ProfileName,
    Question,
    Requirement,
    Source,
    Standing,
    unknown_forecast,
)
from requiretls_milter.syntax import nexthop
from requiretls_milter.syntax.names import envelope_domain, is_null_sender

if TYPE_CHECKING:
    from requiretls_milter.config import Config

MAX_ADDRESS = 1000
"""Characters of an envelope address that are kept; RFC 5321 section 4.5.3.1 allows 320."""


class Settings:
    """The configuration, in the form that each message needs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = rules.RuleSet(config.rules)
        self.header_name = config.milter.header_name
        self.tag_name = config.milter.header_name.lower()
        self.fields = FIELDS | {self.tag_name}
        """Names of the header fields that a message wants to see, in lower case."""
        self.initials = frozenset(name[0] for name in self.fields) | frozenset(
            name[0].upper() for name in self.fields
        )
        """First characters of these names: most fields need not be looked at any further."""
        self.esmtp_header = config.mta.requiretls_esmtp_header
        self.profile = config.mta.profile
        self.surveys = config.probe.plain_mail != "off"
        base = config.rules
        self.simple = not (self.rules.by_domain or base.require or base.honour_lost or self.surveys)
        """Whether mail that asks nothing needs no rule, since one holds for all of it."""
        self.counts_plain = base.mode is not Mode.OFF
        self.debug = config.log.level == "debug"

    def trusts(self, address: str) -> bool:
        """Whether a client's address is in ``milter.trusted_networks``."""
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(client, ipaddress.IPv6Address) and client.ipv4_mapped is not None:
            client = client.ipv4_mapped
        return any(client in network for network in self.config.milter.trusted_networks)


@dataclass(frozen=True, slots=True)
class Client:
    """Who hands us mail, and what the MTA that does acts on.

    ``authenticated`` by SASL, ``trusted`` by its address. ``postfix``: it says
    that it is one.
    """

    authenticated: bool = False
    trusted: bool = False
    capability: Capability = Capability.NOTHING
    postfix: bool = False

    @property
    def standing(self) -> Standing:
        """What ``enforce_for`` tells apart."""
        if self.authenticated:
            return Standing.AUTHENTICATED
        return Standing.TRUSTED if self.trusted else Standing.OTHER


@dataclass(slots=True, eq=False)
class Recipient:
    """One recipient that the MTA accepted, and what became of it.

    ``rule`` is None until somebody wants to know (see :class:`Settings`), as
    are the fields that follow it. ``resolved`` is the address as the MTA
    understands it ("" where it does not say): ``example.org!bob`` is
    ``bob@example.org`` to Postfix, and rules are by domain. ``nexthop`` is None
    too where the MTA named one that cannot be understood: ``nexthop_text`` has
    its text, and ``nexthop_error`` says why. ``gone``: refused at RCPT. ``waited``: seconds
    that SMTP waited for its forecast. ``downgraded``: seconds since its next hop
    ceased to offer something; 0.0 where it did not.
    """

    address: str
    mailer: str
    host: str
    resolved: str = ""
    rule: rules.Rule | None = None
    domain: str = ""
    nexthop: NextHop | None = None
    nexthop_text: str = ""
    nexthop_error: str = ""
    asked: Asked = NOTHING_ASKED
    question: Question | None = None
    pending: Future[Forecast] | None = None
    forecast: Forecast | None = None
    decision: Decision | None = None
    gone: bool = False
    waited: float = 0.0
    downgraded: float = 0.0

    @property
    def local(self) -> bool:
        """Whether the MTA delivers without SMTP."""
        return self.nexthop is not None and self.nexthop.kind is HopKind.LOCAL

    @property
    def counts(self) -> bool:
        """Whether it is tagged and counted: its rule is known and not ``off``."""
        return self.rule is not None and self.rule.mode is not Mode.OFF

    @property
    def assessed(self) -> bool:
        """Whether it has a forecast to come: something is asked, or a survey wants it."""
        return self.counts and (
            self.asked.requirement is not Requirement.NONE or self.question is not None
        )


@dataclass(slots=True, eq=False)
class Transaction:
    """The state of one message.

    Args:
        settings: the configuration that holds for it.
        client: who sends it.
        sender: the reverse-path as the MTA hands it over, with or without ``<>``.
        parameters: of MAIL, in any number and length.
        resolved: the reverse-path as the MTA understands it; see :class:`Recipient`.
    """

    settings: Settings
    client: Client
    sender: str
    parameters: Sequence[bytes] = ()
    resolved: str = ""
    recipients: list[Recipient] = field(default_factory=list)
    findings: HeaderFindings = field(init=False)
    esmtp: bool = field(init=False)
    null_sender: bool = field(init=False)
    sender_domain: str = field(init=False)

    def __post_init__(self) -> None:
        self.findings = HeaderFindings(self.settings.tag_name)
        self.esmtp = asks_requiretls(self.parameters)
        self.null_sender = is_null_sender(self.sender)
        sender = _kept(self.resolved or self.sender)
        self.sender_domain = envelope_domain(sender) if self.settings.rules.by_domain else ""

    # ------------------------------------------------------------ RCPT

    def add_recipient(self, address: str, mailer: str, host: str, resolved: str = "") -> Recipient:
        """A recipient. ``mailer`` and ``host`` are macros ``{rcpt_mailer}``, ``{rcpt_host}``."""
        recipient = Recipient(_kept(address), mailer, host, _kept(resolved))
        self.recipients.append(recipient)
        if self.esmtp or not self.settings.simple:
            self._look_at(recipient)
        return recipient

    def can_act(self, recipient: Recipient) -> bool:
        """Whether a forecast could lead to anything but acceptance of this recipient."""
        rule = recipient.rule
        if rule is None:
            return False
        exempt = rules.exemption(
            rule,
            asked=recipient.asked.requirement,
            standing=self.client.standing,
            null_sender=self.null_sender,
            local=recipient.local,
        )
        return exempt is None

    def decide_at_rcpt(
        self, recipient: Recipient, forecast: Forecast | None, now: float
    ) -> Decision:
        """As :meth:`decide`; a recipient that is not accepted is gone from the message."""
        decision = self.decide(recipient, forecast, now)
        recipient.gone = decision.action is not Action.ACCEPT
        return decision

    @property
    def accepted(self) -> list[Recipient]:
        """The recipients that the message still has."""
        return [recipient for recipient in self.recipients if not recipient.gone]

    # ------------------------------------------------------------ header

    def add_field(self, name: str, value: bytes) -> None:
        """A header field. ``name`` in lower case, without the blanks before the colon."""
        self.findings.add(name, value)

    @property
    def lost(self) -> bool:
        """Whether a requirement got lost earlier on the path (R17)."""
        return is_lost(self.findings, esmtp=self.esmtp, esmtp_header=self.settings.esmtp_header)

    def end_of_header(self) -> list[Recipient]:
        """All is known now that the message asks.

        Returns the recipients for whom it is something else than was known at
        RCPT; what had been decided for them no longer stands.
        """
        findings = self.findings
        if not (findings.require_tls_esmtp or findings.tls_required_no or self.lost):
            return []
        return [recipient for recipient in self.accepted if self._look_at(recipient)]

    def _look_at(self, recipient: Recipient) -> bool:
        """Find rule, what is asked and question; whether anything of it is new."""
        rule = recipient.rule or self._find_rule(recipient)
        asked = resolve(
            self.findings,
            esmtp=self.esmtp,
            rule_requires=rule.require or (rule.honour_lost and self.lost),
            capability=self.client.capability,
            esmtp_header=self.settings.esmtp_header,
            profile=self.settings.profile,
        )
        question = self._question(recipient, rule, asked)
        before = (recipient.asked.requirement, recipient.asked.carried, recipient.question)
        recipient.asked = asked
        if (asked.requirement, asked.carried, question) == before:
            return False
        recipient.question = question
        recipient.pending = None
        recipient.decision = None
        return True

    def _find_rule(self, recipient: Recipient) -> rules.Rule:
        recipient.domain = envelope_domain(recipient.resolved or recipient.address)
        try:
            recipient.nexthop = hop.from_macros(
                recipient.mailer, recipient.host, recipient.domain, self.settings.config.mta
            )
            recipient.nexthop_text = str(recipient.nexthop)
        except nexthop.NextHopError as error:
            recipient.nexthop_text = (recipient.host or recipient.domain)[:MAX_ADDRESS]
            recipient.nexthop_error = str(error)
        host = recipient.nexthop.host if recipient.nexthop is not None else ""
        recipient.rule = self.settings.rules.find(self.sender_domain, recipient.domain, host)
        return recipient.rule

    def _question(self, recipient: Recipient, rule: rules.Rule, asked: Asked) -> Question | None:
        """What the source is asked; None where nobody wants to know, or it is known."""
        if rule.mode is Mode.OFF or recipient.nexthop is None or recipient.local:
            return None
        if asked.requirement is Requirement.NONE and not self.settings.surveys:
            return None
        target = str(recipient.nexthop)
        if self.null_sender and self.settings.profile is ProfileName.RFC8689:
            # RFC 8689 sections 4.2.1 and 5: what is asked of a bounce stops no delivery (R7)
            return Question(target, recipient.mailer, Requirement.NONE, Requirement.NONE)
        return Question(target, recipient.mailer, asked.requirement, asked.carried)

    # ------------------------------------------------------------ decisions

    @property
    def ordinary(self) -> bool:
        """Whether it passes as it came: nothing is asked, and there is nothing to remove or tell.

        Known when its header is. No rule has been looked up for such a message.
        """
        settings = self.settings
        return (
            settings.simple and not self.esmtp and not settings.debug and self.findings.unremarkable
        )

    def undecided(self) -> list[Recipient]:
        """The recipients on whom the end of the message still has to decide."""
        return [
            recipient
            for recipient in self.accepted
            if recipient.assessed and recipient.decision is None
        ]

    def patience(self) -> float:
        """Seconds that the end of the message may wait in all, for what is undecided."""
        waits = [
            recipient.rule.decide_wait
            for recipient in self.undecided()
            if recipient.rule is not None and self.can_act(recipient)
        ]
        return max([self.settings.config.rules.tag_wait, *waits])

    def decide(self, recipient: Recipient, forecast: Forecast | None, now: float) -> Decision:
        """Take a recipient's forecast, and decide.

        Args:
            recipient: one that is :attr:`Recipient.assessed`.
            forecast: the answer to its question, None where it has none.
            now: seconds since the epoch.
        """
        rule = recipient.rule or self._find_rule(recipient)
        if forecast is None:
            forecast = (
                LOCAL_FORECAST if recipient.local else unknown_forecast(recipient.nexthop_error)
            )
        recipient.forecast = forecast
        lost_at = forecast.downgraded_at
        recipient.downgraded = max(1.0, now - lost_at) if lost_at else 0.0
        recipient.decision = rules.decide(
            rule,
            forecast,
            asked=recipient.asked.requirement,
            carried=recipient.asked.carried,
            standing=self.client.standing,
            null_sender=self.null_sender,
            domain=recipient.domain or recipient.address,
            now=now,
        )
        return recipient.decision

    def decide_message(self) -> Decision:
        """The end of the message: what is done with all whom it still has, alike."""
        accepted = self.accepted
        decided = [recipient for recipient in accepted if recipient.decision is not None]
        decisions = [recipient.decision for recipient in decided if recipient.decision is not None]
        passes = Decision(Action.ACCEPT, rules.Why.MODE)
        decision = rules.decide_message(
            decisions if len(decided) == len(accepted) else [passes, *decisions]
        )
        for recipient in decided:
            own = recipient.decision
            if own is None or decision.action is not Action.ACCEPT:
                recipient.decision = decision
            elif own.action is not Action.ACCEPT:
                # by itself it would have been refused: the MTA bounces it
                recipient.decision = Decision(Action.ACCEPT, own.why)
        return decision

    def doubt_defers(self) -> bool:
        """Whether a rule wants this message deferred where we cannot judge it."""
        return any(
            recipient.rule is not None
            and self.can_act(recipient)
            and rules.defers_unknown(recipient.rule, recipient.asked.carried)
            for recipient in self.accepted
        )

    # ------------------------------------------------------------ what is told

    @property
    def requirement(self) -> Requirement:
        """What is asked for the message: the most that is asked for any recipient."""
        return tags.strongest([recipient.asked.requirement for recipient in self.recipients])

    @property
    def source(self) -> Source:
        """Where :attr:`requirement` was found."""
        return tags.winning(
            [
                (recipient.asked.requirement, recipient.asked.source)
                for recipient in self.recipients
            ],
            self.requirement,
        )

    @property
    def counts(self) -> bool:
        """Whether the message is counted: not if all its recipients' rules are ``off``."""
        return any(
            recipient.counts if recipient.rule is not None else self.settings.counts_plain
            for recipient in self.recipients
        )

    @property
    def all_refused(self) -> bool:
        """Whether it came to its end at RCPT: it had recipients, and all are gone."""
        return bool(self.recipients) and all(recipient.gone for recipient in self.recipients)

    def new_parameters(self) -> str:
        """ESMTP parameters for the sender in place of its own, once all is decided; "": none.

        A null reverse-path is never changed (RFC 8689 section 5).
        """
        options = self.settings.config.milter
        if self.null_sender or not (options.envid_mark or options.headers_only_bounces):
            return ""
        tag = self.tag()
        if tag is None or tag.requirement is not Requirement.REQUIRETLS:
            return ""
        # A mark binds all recipients of a message, as a route does.
        mark = options.envid_mark if tag.route is tags.Route.REQUIRETLS else ""
        headers_only = options.headers_only_bounces and not envelope.is_headers_only(
            self.parameters
        )
        if not (mark or headers_only):
            return ""
        return envelope.new_parameters(self.parameters, mark=mark, keeps=self.client.postfix)

    @property
    def leaves(self) -> bool:
        """Whether it has a recipient to whom the MTA does not deliver itself."""
        return any(not recipient.local for recipient in self.accepted)

    def tag(self) -> tags.Tag | None:
        """The tag, once all is decided; None where the message gets none."""
        accepted = self.accepted
        if not any(recipient.counts for recipient in accepted):
            return None
        if not self.settings.surveys and all(
            recipient.asked.requirement is Requirement.NONE for recipient in accepted
        ):
            return None
        return tags.aggregate(
            [
                tags.Tagged(
                    requirement=recipient.asked.requirement,
                    source=recipient.asked.source,
                    nexthop=recipient.nexthop_text,
                    local=recipient.local,
                    forecast=recipient.forecast,
                )
                for recipient in accepted
            ]
        )


def _kept(address: str) -> str:
    """What is kept of an address; of one beyond all reason the domain too: rules are by it."""
    if len(address) <= MAX_ADDRESS:
        return address
    local, at, domain = address.rpartition("@")
    return local[: MAX_ADDRESS // 2] + at + domain[: MAX_ADDRESS // 2 - 1]
