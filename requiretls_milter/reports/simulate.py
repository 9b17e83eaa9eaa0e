"""``simulate``: what would happen to one message, by the code that handles real ones.

The message goes through :class:`~requiretls_milter.milter.transaction.Transaction`, call by call as
the adapter makes them, so that there is no second logic that could say something else. Only where
its forecasts come from is the caller's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from requiretls_milter.config import Config
from requiretls_milter.config.places import KeyPath, Place
from requiretls_milter.milter import hop
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.requirement import FIELDS, TLS_REQUIRED, is_tls_required_no
from requiretls_milter.milter.settings import Expander, Settings
from requiretls_milter.milter.tag import Tag
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import (
    Action,
    Decision,
    Forecast,
    HopKind,
    NextHop,
    Outcome,
    Question,
    Requirement,
    Source,
    Standing,
)
from requiretls_milter.reports.carrying import Asking, HostMta, ToldBy
from requiretls_milter.reports.check import NextHopReport, forecast_report
from requiretls_milter.reports.explain import place_of
from requiretls_milter.rules import Rule, ValueOrigin, Why
from requiretls_milter.syntax.names import envelope_domain
from requiretls_milter.syntax.nexthop import NextHopError

Ask = Callable[[Question], Forecast]
"""Answers a question as the engine does."""


class RoutedBy(enum.StrEnum):
    """Who says where the mail goes; ``nexthop.by`` of JSON."""

    OPTION = "option"
    POSTFIX = "postfix"  # its resolve service
    CONFIGURATION = "configuration"  # the mirror of its routing in [mta]


@dataclass(frozen=True, slots=True)
class Message:
    """The message to simulate.

    Attributes:
        sender: the reverse-path without ``<>``; "" for a bounce.
        recipient: one address without ``<>``.
        parameters: of MAIL.
        fields: of the header: name and value.
        standing: of its client.
        own_name: of this host, for ``by=`` of the tag.
        by_smtp: whether it comes by SMTP; mail of sendmail(1) does not.
    """

    sender: str
    recipient: str
    parameters: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    standing: Standing = Standing.AUTHENTICATED
    own_name: str = ""
    by_smtp: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """What the MTA tells a milter about the recipient, and who says so.

    ``mailer``, ``host`` and ``address`` are its macros {rcpt_mailer}, {rcpt_host} and {rcpt_addr};
    all are "" if the configuration decides. ``sender`` is {mail_addr}.
    """

    by: RoutedBy
    mailer: str = ""
    host: str = ""
    address: str = ""
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What would happen.

    Attributes:
        message: that was simulated.
        told: where the MTA sends it.
        mta: of this host.
        recipient: as the milter has it in the end.
        transport: by which the MTA would deliver, did no recipe move the mail; "" if the MTA names
            none.
        nexthop: None if the MTA names one that cannot be used.
        nexthop_error: why it cannot be used; "" if it can.
        rule: the rule in force.
        origins: each value of the rule in force, with its table.
        forecast: None for local mail, and for a next hop that cannot be used.
        assessed: whether the milter itself makes that forecast: not of ordinary mail.
        at_rcpt: the decision at RCPT; None if the recipient is accepted there without one.
        at_end: the decision at the end of the message; None if it does not come that far.
        tag: with the route; None if the message has none.
        written: the tag, if it is written into the message.
        parameters: the ESMTP parameters that the sender gets; "" if they stay as they are.
        carrier: the transport by which it goes in the end; "" if the MTA names none and no recipe
            moves the mail.
    """

    message: Message
    told: Told
    mta: HostMta
    recipient: Recipient
    transport: str
    nexthop: NextHop | None
    nexthop_error: str
    rule: Rule
    origins: Mapping[str, ValueOrigin]
    forecast: Forecast | None
    assessed: bool
    at_rcpt: Decision | None
    at_end: Decision | None
    tag: Tag | None
    written: Tag | None
    parameters: str
    carrier: str

    @property
    def decision(self) -> Decision:
        """What the client is answered in the end."""
        for decision in (self.at_rcpt, self.at_end):
            if decision is not None and decision.action is not Action.ACCEPT:
                return decision
        return self.at_end or self.at_rcpt or Decision(Action.ACCEPT, "not_asked")

    @property
    def stage(self) -> str | None:
        """Where the client hears of a refusal: ``rcpt`` or ``end``; None if nothing is refused."""
        if self.decision.action is Action.ACCEPT:
            return None
        return "rcpt" if self.decision is self.at_rcpt else "end"

    @property
    def written_tag(self) -> str | None:
        """The value of the tag that is written; None if none is."""
        return self.written.value(self.message.own_name) if self.written is not None else None

    @property
    def asking(self) -> Asking:
        """The question, for a report on its next hop."""
        asked = self.recipient.asked
        told_by = ToldBy.RULE if asked.source is Source.RULE else self.mta.told_by
        return Asking(asked.requirement, asked.carried, told_by, self.mta.version, self.rule)


def simulate(
    message: Message,
    told: Told,
    config: Config,
    mta: HostMta,
    ask: Ask,
    now: float,
    expander: Expander | None = None,
) -> Simulated:
    """Send the message through the milter's own code.

    Args:
        message: one message to one recipient.
        told: where it goes.
        config: with the rules.
        mta: that receives it.
        ask: answers the questions of the milter.
        now: seconds since the epoch.
        expander: of the milter; None if it expands no recipients.
    """
    settings = Settings(config, expander)
    settings.expands_ordinary_mail = True
    client = SmtpClient(
        authenticated=message.standing is Standing.AUTHENTICATED,
        trusted=message.standing is Standing.TRUSTED,
        capability=mta.capability,
        postfix=mta.is_postfix(config),
    )
    resolves = not settings.simple and client.postfix
    transaction = Transaction(
        settings,
        client,
        f"<{message.sender}>",
        [parameter.encode() for parameter in message.parameters],
        told.sender if resolves else "",
        message.by_smtp,
    )
    recipient = transaction.add_recipient(
        f"<{message.recipient}>", told.mailer, told.host, told.address if resolves else ""
    )
    at_rcpt = at_end = tag = written = None
    parameters = ""
    if transaction.decides_at_rcpt(recipient):
        at_rcpt = transaction.decide_at_rcpt(recipient, _answer(recipient, ask), now)
    if not recipient.gone:
        at_end = _rest(transaction, message, ask, now)
        if at_end.action is Action.ACCEPT:
            tag, written = transaction.tag(), transaction.written_tag()
            parameters = transaction.new_parameters()
    transport, nexthop, nexthop_error = _way(message, told, config, client, recipient)
    forecast, assessed = recipient.forecast, recipient.forecast is not None
    if forecast is None and nexthop is not None and nexthop.kind is not HopKind.LOCAL:
        forecast = ask(_as_the_mta_does(recipient, transport, nexthop, config))
    ruleset = settings.rules
    domains: tuple[str, ...] = (
        envelope_domain(told.sender or message.sender),
        envelope_domain(told.address or message.recipient),
        "" if nexthop is None else nexthop.host,
    )
    if recipient.expansions:
        worst = next(one for one in recipient.expansions if one.rule is recipient.rule)
        domains = (domains[0], worst.domain, domains[2], domains[1])
    # If nothing is asked, the milter does not even look the rule up.
    rule = recipient.rule if recipient.rule is not None else ruleset.find(*domains)
    return Simulated(
        message,
        told,
        mta,
        recipient,
        transport,
        nexthop,
        nexthop_error,
        rule,
        ruleset.explain(*domains),
        forecast,
        assessed,
        at_rcpt,
        at_end,
        tag,
        written,
        parameters,
        _carrier(config, recipient, transport),
    )


def unread(message: Message) -> list[str]:
    """Say what looks as if it asked for something, and does not."""
    told = [
        f"{one} is not REQUIRETLS, which takes no value: an MTA that knows it refuses that command"
        for one in message.parameters
        if one.upper().startswith("REQUIRETLS=")
    ]
    told += [
        f"{name}: {value} asks for nothing: only No does"
        for name, value in message.fields
        if name.lower().rstrip() == TLS_REQUIRED and not is_tls_required_no(value.encode())
    ]
    return told


_KEEPS = {
    Why.LEFT_TO_MTA: "on_unreachable",
    Why.TEMPORARY: "on_temporary",
    Why.UNKNOWN: "on_unknown",
}
"""The key by which a rule defers what it accepts for such a reason."""


def unkept(found: Simulated) -> str:
    """Say that the MTA delivers an accepted message later without a requirement; "" if not."""
    asked, decision = found.recipient.asked, found.decision
    key = next((key for why, key in _KEEPS.items() if decision.why == why), "")
    is_lost = (
        key
        and decision.action is Action.ACCEPT
        and asked.requirement is Requirement.REQUIRETLS
        and asked.carried is not asked.requirement
        and found.carrier == found.transport
        and found.forecast is not None
        and found.forecast.outcome in (Outcome.DEFER, Outcome.UNKNOWN)
    )
    if not is_lost:
        return ""
    return (
        "the MTA does not know of the requirement: it delivers this message later by its own "
        f'settings, in clear if they allow that; {key} = "defer" prevents it'
    )


def _carrier(config: Config, recipient: Recipient, transport: str) -> str:
    """The transport in the end: what is asked of local mail moves it nowhere."""
    if recipient.local:
        return transport
    return config.mta.carrier(transport, recipient.asked.requirement)


def _rest(transaction: Transaction, message: Message, ask: Ask, now: float) -> Decision:
    """The header and the end of the message."""
    for name, value in message.fields:
        key = name.lower().rstrip()
        if key in FIELDS or key in transaction.settings.fields:
            transaction.add_field(key, value.encode())
        if not value.isascii():
            transaction.findings.non_ascii = True
    flooded = transaction.refuse_if_flooded()
    if flooded is not None:
        return flooded
    transaction.end_of_header()
    for recipient in transaction.undecided():
        transaction.decide(recipient, _answer(recipient, ask), now)
    return transaction.decide_message()


def _answer(recipient: Recipient, ask: Ask) -> Forecast | None:
    for one in recipient.expansions:
        one.forecast = _answer(one, ask)
    return None if recipient.question is None else ask(recipient.question)


class _Way(NamedTuple):
    """Where the mail goes, as :class:`Simulated` has it."""

    transport: str
    nexthop: NextHop | None
    error: str = ""


def _way(
    message: Message, told: Told, config: Config, client: SmtpClient, recipient: Recipient
) -> _Way:
    if recipient.expansions:
        shown = recipient  # its way is that of the worst of them
        if recipient.forecast is None:  # nothing is decided: show the way of one that leaves
            leaves = (one for one in recipient.expansions if not one.local)
            shown = next(leaves, recipient.expansions[0])
        return _Way(shown.transport or told.mailer, shown.nexthop, shown.nexthop_error)
    transport = recipient.transport or told.mailer
    try:
        nexthop = hop.from_macros(
            told.mailer,
            told.host,
            told.address or message.recipient,
            told.sender or message.sender,
            config.mta,
            postfix=client.postfix,
        ).nexthop
    except NextHopError as error:
        return _Way(transport, None, str(error))
    return _Way(transport, nexthop)


def _as_the_mta_does(
    recipient: Recipient, transport: str, nexthop: NextHop, config: Config
) -> Question:
    """The question about mail that the milter does not assess: what the MTA does with it."""
    asked = recipient.asked
    carrier = config.mta.carrier(transport or config.mta.usual_transport, asked.requirement)
    return Question(str(nexthop), carrier, asked.requirement, asked.carried)


def exit_status(found: Simulated) -> int:
    """As of ``check``: 1 (refused, or fails for good) over 75 (deferred, or unknown) over 0."""
    action = found.decision.action
    outcome = found.forecast.outcome if found.forecast is not None else Outcome.DELIVER
    if found.nexthop is None:
        outcome = Outcome.UNKNOWN
    if action is Action.REJECT or outcome is Outcome.BOUNCE:
        return 1
    return 75 if action is Action.DEFER or outcome is not Outcome.DELIVER else 0


# ---------------------------------------------------------------- JSON


def as_json(
    found: Simulated,
    report: NextHopReport | None,
    places: Mapping[KeyPath, Place],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What would happen, as one object.

    Args:
        found: what would happen.
        report: the evidence; None if there is none.
        places: where each key of the configuration stands.
        notes: what else the reader has to know.
    """
    recipient, decision = found.recipient, found.decision
    return {
        "sender": found.message.sender,
        "recipient": found.message.recipient,
        "client": found.message.standing.value,
        "by_smtp": found.message.by_smtp,
        "requirement": recipient.asked.requirement.value,
        "source": recipient.asked.source.value,
        "carried": recipient.asked.carried.value,
        "mta": {
            "version": found.mta.version or None,
            "carries": found.mta.capability.value,
            "told_by": found.mta.told_by.value,
        },
        "rule": {
            key: {
                "value": str(origin.value) if isinstance(origin.value, str) else origin.value,
                "table": origin.table,
                **_place(origin, key, places),
            }
            for key, origin in found.origins.items()
        },
        "nexthop": {
            "transport": found.transport or None,
            "carrier": found.carrier or None,
            "nexthop": str(found.nexthop) if found.nexthop is not None else None,
            "error": found.nexthop_error or None,
            "by": found.told.by.value,
        },
        "expansions": [
            {
                "address": one.address,
                "transport": one.transport or None,
                "nexthop": one.nexthop_text or None,
                "forecast": forecast_report(one.forecast) if one.forecast is not None else None,
            }
            for one in recipient.expansions
        ],
        "assessed": found.assessed,
        "forecast": forecast_report(found.forecast) if found.forecast is not None else None,
        "evidence": report,
        "action": decision.action.value,
        "why": str(decision.why),
        "reply": str(decision.reply) if decision.reply is not None else None,
        "stage": found.stage,
        "tag": found.written_tag,
        "parameters": found.parameters or None,
        "route": found.tag.route.value if found.tag is not None else None,
        "notes": [*notes, *(note for note in (unkept(found),) if note)],
    }


def _place(origin: ValueOrigin, key: str, places: Mapping[KeyPath, Place]) -> dict[str, Any]:
    place = place_of(origin, key, places)
    return {
        "file": None if place is None else str(place.file),
        "line": None if place is None else place.line,
        "listed": origin.listed or None,
    }
