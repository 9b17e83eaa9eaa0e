"""One message, from MAIL to its end: what is asked, for which recipients, what is decided. Pure.

The adapter calls, in the order of SMTP::

    message = Transaction(settings, client, sender, parameters)   # MAIL
    recipient = message.add_recipient(address, mailer, host)      # RCPT, each
    message.parts(recipient), message.put_off(recipient)          #   if its route is another one
    message.settle(recipient)                                     #   what it becomes
    message.decide_at_rcpt(recipient, forecast, now)              #   if it can be decided there
    message.add_field(name, value)                                # each header field
    changed = message.end_of_header()                             # end of header
    late = message.outdated(now)                                  #   whose answers have ended
    message.decide(recipient, forecast, now)                      # end of message: the others
    decision = message.decide_message()
    tag = message.tag()

A recipient that the MTA will replace by others (``[mta] aliases``) has them as its
:attr:`Recipient.expansions`. Each of these has its own rule, question and decision; the
worst forecast and the hardest decision are the recipient's.

In between, :mod:`.waiting` fetches the forecasts: a recipient that needs one has a
``question``, and its ``pending`` is the answer, or the future that yields it. For
ordinary mail (nothing is asked, and no survey is configured) no rule is looked up and
no next hop is parsed.

Nothing that a client sends makes anything here raise: addresses and fields of any
bytes are taken as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from requiretls_milter import rules
from requiretls_milter.milter import envelope
from requiretls_milter.milter import tag as tags
from requiretls_milter.milter.needs import asks_smtputf8, declared_size
from requiretls_milter.milter.recipient import Recipient, kept_address
from requiretls_milter.milter.requirement import (
    NOTHING_ASKED,
    Asked,
    HeaderFindings,
    asks_requiretls,
    is_lost,
    resolve,
)
from requiretls_milter.milter.settings import REMEMBERED_LOOKUPS, Expander, Settings
from requiretls_milter.model import (
    NOTHING_NEEDED,
    Action,
    Capability,
    Decision,
    Forecast,
    Mode,
    Needs,
    ProfileName,
    Question,
    Requirement,
    SmtpReply,
    Source,
    Standing,
)
from requiretls_milter.syntax.expansion import Expansion, ExpansionError, same
from requiretls_milter.syntax.mailbox import to_external
from requiretls_milter.syntax.names import envelope_domain, is_null_sender
from requiretls_milter.telemetry.labels import Expanded

FORECAST_GRACE = 60.0
"""Seconds after its end for which a forecast of RCPT still counts at the end of the message: that
records live for a second is no reason to ask twice, and to wait again."""


@dataclass(frozen=True, slots=True)
class SmtpClient:
    """The SMTP client that sends a message, and the MTA that received it.

    Attributes:
        authenticated: by SASL.
        trusted: its address is in ``milter.trusted_networks``.
        capability: the requirements on which the MTA acts itself.
        postfix: whether the MTA says that it is Postfix.
    """

    authenticated: bool = False
    trusted: bool = False
    capability: Capability = Capability.NOTHING
    postfix: bool = False

    @property
    def standing(self) -> Standing:
        """The word by which ``enforce_for`` tells clients apart."""
        if self.authenticated:
            return Standing.AUTHENTICATED
        return Standing.TRUSTED if self.trusted else Standing.OTHER


@dataclass(slots=True, eq=False)
class Transaction:
    """The state of one message.

    Submission (RFC 6409) and relaying are treated alike: it depends on the client only
    whether a rule acts on its message (R16). A bounce is tagged and never refused (R7).

    Args:
        settings: of the configuration that was in force when its connection began.
        client: the SMTP client that sends it.
        sender: the reverse-path as the MTA hands it over, with or without ``<>``.
        parameters: the parameters of MAIL, in any number and length.
        resolved: the reverse-path as the MTA understands it; see :class:`Recipient`.
        by_smtp: whether it comes by SMTP. If it does not (sendmail(1)), no client hears a
            reply: no recipient can be refused by itself, and what is deferred is not sent
            again but stays with the MTA. Such mail is decided at its end only.
        waited: seconds that SMTP has waited for forecasts of this message so far.
    """

    settings: Settings
    client: SmtpClient
    sender: str
    parameters: Sequence[bytes] = ()
    resolved: str = ""
    by_smtp: bool = True
    waited: float = 0.0
    recipients: list[Recipient] = field(default_factory=list)
    findings: HeaderFindings = field(init=False)
    esmtp: bool = field(init=False)
    may_need_smtputf8: bool = field(init=False)
    null_sender: bool = field(init=False)
    _size: int | None = None
    _is_moved: bool = True

    def __post_init__(self) -> None:
        self.findings = HeaderFindings(self.settings.tag_name)
        self.esmtp = asks_requiretls(self.parameters)
        # Postfix asks for SMTPUTF8 itself for mail of sendmail(1) (smtputf8_autodetect_classes).
        self.may_need_smtputf8 = not self.by_smtp or asks_smtputf8(self.parameters)
        self.null_sender = is_null_sender(self.sender)

    # ------------------------------------------------------------ RCPT

    def add_recipient(self, address: str, mailer: str, host: str, resolved: str = "") -> Recipient:
        """Take a recipient; the arguments are explained at :class:`Recipient`."""
        recipient = Recipient(kept_address(address), mailer, host, kept_address(resolved))
        self.recipients.append(recipient)
        if self.esmtp or not self.settings.simple:
            self._update(recipient)
        return recipient

    def can_act(self, recipient: Recipient) -> bool:
        """Whether a forecast could lead to anything but acceptance of this recipient."""
        if recipient.expansions:
            return any(self.can_act(one) for one in recipient.expansions)
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

    def parts(self, recipient: Recipient) -> bool:
        """Whether the route of the newest recipient differs from that of those accepted before.

        Never so unless ``rules.on_mixed`` says that such a recipient is put off and the client
        would bring it again: a mail program, which authenticates, would not, and mail that does
        not come by SMTP cannot come again. A bounce is never put off (R7). What the header asks is
        not known at RCPT.
        """
        if not self.settings.splits or not self.by_smtp:
            return False
        if self.client.authenticated or self.null_sender:
            return False
        others = (one for one in self.recipients if one is not recipient and not one.gone)
        first = next(others, None)
        return first is not None and first.way != recipient.way

    def put_off(self, recipient: Recipient) -> SmtpReply:
        """Leave a recipient to another transaction, with this reply; it is not of this message."""
        recipient.decision = Decision(Action.DEFER, rules.Why.MIXED, rules.PUT_OFF)
        self.recipients.remove(recipient)
        return rules.PUT_OFF

    def decides_at_rcpt(self, recipient: Recipient) -> bool:
        """Whether this recipient is decided at RCPT."""
        return self.by_smtp and self.can_act(recipient)

    def decide_at_rcpt(
        self, recipient: Recipient, forecast: Forecast | None, now: float
    ) -> Decision:
        """Decide as :meth:`decide` does; a recipient that is not accepted leaves the message."""
        decision = self.decide(recipient, forecast, now)
        recipient.gone = decision.action is not Action.ACCEPT
        return decision

    @property
    def accepted(self) -> list[Recipient]:
        """The recipients that the message still has; not to be changed."""
        recipients = self.recipients
        if len(recipients) == 1 and not recipients[0].gone:
            return recipients
        return [recipient for recipient in self.recipients if not recipient.gone]

    def patience_at_rcpt(self, recipient: Recipient) -> float:
        """Seconds that RCPT may wait for the forecast of this recipient."""
        return min(self._decide_wait(recipient), self.patience_left)

    def _decide_wait(self, recipient: Recipient) -> float:
        """Seconds that a forecast may be waited for if it can lead to anything but acceptance."""
        return max(
            [
                one.rule.decide_wait
                for one in recipient.targets
                if one.rule is not None and self.can_act(one)
            ],
            default=0.0,
        )

    @property
    def patience_left(self) -> float:
        """Seconds that are left of ``limits.message_wait``, which bounds a message's waits in all.

        What a client waits for is the sum: each recipient, and the end of the message.
        """
        return max(0.0, self.settings.config.limits.message_wait - self.waited)

    # ------------------------------------------------------------ header

    def add_field(self, name: str, value: bytes) -> None:
        """Take a header field; ``name`` in lower case, without blanks before the colon."""
        self.findings.add(name, value)

    @property
    def lost(self) -> bool:
        """Whether a requirement was lost earlier on the message's path (R17)."""
        if self.esmtp:
            return False
        return is_lost(self.findings, esmtp=self.esmtp, esmtp_header=self.settings.esmtp_header)

    def end_of_header(self) -> list[Recipient]:
        """Take note that the header is complete, so that every requirement is known.

        Returns:
            The recipients whose requirement or question is not what it was at RCPT. The
            caller has to put their questions again; their earlier decisions are dropped.
        """
        changed = self._updated() if self._may_ask_otherwise else []
        if self._stays:
            self._is_moved = False
            changed = list(dict.fromkeys([*changed, *self._updated()]))
        return changed

    @property
    def _may_ask_otherwise(self) -> bool:
        """Whether the header may ask, or need, something else than was known at RCPT."""
        findings = self.findings
        if findings.unremarkable and not self.may_need_smtputf8:
            return False
        return bool(
            findings.require_tls_esmtp
            or findings.tls_required_no
            or self.lost
            or self._needs_have_changed
        )

    def _updated(self) -> list[Recipient]:
        return [recipient for recipient in self.accepted if self._update(recipient)]

    @property
    def _stays(self) -> bool:
        """Whether a recipe that moves REQUIRETLS mail does not move this message.

        It moves all recipients of a message or none (:class:`~requiretls_milter.milter.tag.Route`).
        Until the end of the header a recipient is taken to be moved.
        """
        if not self.settings.moves:
            return False
        targets = [one for recipient in self.accepted for one in recipient.targets]
        moved = [one.asked.requirement is Requirement.REQUIRETLS for one in targets]
        return any(moved) and not (all(moved) and not any(one.local for one in targets))

    def outdated(self, now: float) -> list[Recipient]:
        """Drop the answers that have ended while the message came in, with what rests on them.

        A client may take hours for a message. A forecast that ended meanwhile is asked for anew.

        Args:
            now: seconds since the epoch.

        Returns:
            The recipients whose questions the caller has to put again.
        """
        over = now - FORECAST_GRACE
        found = []
        for recipient in self.accepted:
            ended = [one for one in recipient.targets if _is_over(one.pending, over)]
            for one in ended:
                one.pending = None
            if ended:
                recipient.decision = None
                found.append(recipient)
        return found

    def _update(self, recipient: Recipient) -> bool:
        """Find rule, requirement and question of a recipient; return whether any has changed."""
        expander = self.settings.expander
        if expander is not None and self._is_to_be_expanded(recipient):
            self._expand(recipient, expander)
        rule = recipient.rule or self._find_rule(recipient)
        if recipient.expansions:
            changed = [one for one in recipient.expansions if self._update(one)]
            recipient.asked = max((one.asked for one in recipient.expansions), key=_demand)
            if changed:
                recipient.decision = None
            return bool(changed)
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
        if recipient.expansions:
            found = [self._find_rule(one) for one in recipient.expansions]
            recipient.domain = envelope_domain(recipient.resolved or recipient.address)
            recipient.rule = found[0]
            return found[0]
        known = self.settings.look_up(
            recipient.mailer,
            recipient.host,
            recipient.resolved or recipient.address,
            kept_address(self.resolved or self.sender),
            postfix=self.client.postfix,
            alias=recipient.alias,
        )
        recipient.domain = known.domain
        recipient.transport = known.transport
        recipient.nexthop = known.nexthop
        recipient.nexthop_text = known.nexthop_text
        recipient.nexthop_error = known.nexthop_error
        recipient.unusable = known.unusable
        recipient.rule = known.rule
        return known.rule

    # ------------------------------------------------------------ expansion

    @property
    def _asks(self) -> bool:
        """Whether something is, or may be, asked of a recipient, as far as is known."""
        findings = self.findings
        return (
            self.esmtp
            or self.settings.expands_ordinary_mail
            or bool(findings.require_tls_esmtp or findings.tls_required_no)
            or self.lost
        )

    def _is_to_be_expanded(self, recipient: Recipient) -> bool:
        """Whether it is to be found out now what the MTA makes of a recipient."""
        return (
            self.client.postfix
            and recipient.expanded is None
            and recipient.expanding is None
            and not recipient.alias
            and self._asks
        )

    def _expand(self, recipient: Recipient, expander: Expander) -> None:
        """Find out what the MTA makes of a recipient. In doubt it stays what it is."""
        try:
            found = expander(recipient.address)
        except ExpansionError as error:
            recipient.leave_unexpanded(str(error))
            return
        if isinstance(found, Future):
            recipient.expanding = found
        else:
            self._take_expansion(recipient, found)

    def settle(self, recipient: Recipient) -> None:
        """Take what a recipient has become by now; if that is not known, it stays what it is.

        The caller has to put its questions.
        """
        pending, recipient.expanding = recipient.expanding, None
        if pending is None:
            return
        if not pending.done():
            recipient.leave_unexpanded("not known in time")
            return
        try:
            found = pending.result()
        except ExpansionError as error:
            recipient.leave_unexpanded(str(error))
            return
        self._take_expansion(recipient, found)
        if recipient.expansions:
            self._update(recipient)

    def settles_at_rcpt(self, recipient: Recipient) -> bool:
        """Whether RCPT waits for what a recipient becomes."""
        return self.by_smtp and self._may_act_on_expansion(recipient)

    def _may_act_on_expansion(self, recipient: Recipient) -> bool:
        """Whether what a recipient becomes could lead to anything but acceptance."""
        return (
            recipient.expanding is not None
            and not self.null_sender
            and self.client.standing in self.settings.acts_on
        )

    def patience_for_expansion(self) -> float:
        """Seconds that RCPT may wait for what a recipient becomes."""
        return min(self.settings.config.rules.longest_decide_wait, self.patience_left)

    def foreseen(self, recipient: Recipient, found: Expansion) -> Sequence[Question]:
        """The questions that a recipient will have, as far as is known; nothing changes."""
        targets = self._targets(recipient, found)[: self.settings.config.limits.expansions]
        for one in targets:
            self._update(one)
        return [one.question for one in targets if one.question is not None]

    def _take_expansion(self, recipient: Recipient, found: Expansion) -> None:
        """Put what the MTA makes of a recipient in its place."""
        if found.unchanged:
            recipient.expanded = Expanded.UNCHANGED
            return
        so_far = sum(len(one.expansions) for one in self.recipients)
        if so_far + len(found.addresses) > self.settings.config.limits.expansions:
            recipient.expanded = Expanded.TOO_MANY
            recipient.not_expanded = "limits.expansions is reached"
            return
        recipient.expanded = Expanded.ALIAS
        recipient.expansions = self._targets(recipient, found)
        # What was found for the recipient as it was given holds no more.
        recipient.rule = recipient.question = recipient.pending = recipient.nexthop = None
        recipient.asked, recipient.decision = NOTHING_ASKED, None
        recipient.transport = recipient.nexthop_text = recipient.nexthop_error = ""
        recipient.unusable = False

    @staticmethod
    def _targets(recipient: Recipient, found: Expansion) -> list[Recipient]:
        alias = envelope_domain(recipient.resolved or recipient.address) or recipient.address
        return [
            Recipient(
                kept_address(to_external(address)),
                *((recipient.mailer, recipient.host) if same(address, found.given) else ("", "")),
                alias=alias,
            )
            for address in found.addresses
        ]

    # ------------------------------------------------------------ the question

    def _question(self, recipient: Recipient, rule: rules.Rule, asked: Asked) -> Question | None:
        """The question for the engine; None if no forecast is needed or the answer is known."""
        if rule.mode is Mode.OFF or recipient.nexthop is None or recipient.local:
            return None
        if asked.requirement is Requirement.NONE and not self.settings.surveys:
            return None
        target = recipient.nexthop_text
        if self.null_sender and self.settings.profile is ProfileName.RFC8689:
            # RFC 8689 sections 4.2.1 and 5: the requirement of a bounce stops no delivery (R7)
            return Question(target, recipient.transport, Requirement.NONE, Requirement.NONE)
        transport = recipient.transport
        if self._is_moved:
            transport = self.settings.config.mta.carrier(transport, asked.requirement)
        return _question(target, transport, asked.requirement, asked.carried, self._needs(asked))

    def _needs(self, asked: Asked) -> Needs:
        """What the message needs beside its requirement, as far as it is known.

        If the milter alone enforces the requirement, that alone decides: a client that says that
        its message is too large for the server could have it pass, and then be delivered in clear.
        "TLS-Required: No" is never enforced: an MTA that does not know it has the same needs.
        """
        if asked.requirement is Requirement.REQUIRETLS and asked.carried is not asked.requirement:
            return NOTHING_NEEDED
        if self._size is None:
            self._size = declared_size(self.parameters)
        return _needs(self._needs_smtputf8, self._size)

    @property
    def _needs_have_changed(self) -> bool:
        """Whether a question does not say what is known by now of SMTPUTF8."""
        return self.may_need_smtputf8 and any(
            one.question is not None and one.question.needs != self._needs(one.asked)
            for recipient in self.accepted
            for one in recipient.targets
        )

    @property
    def _needs_smtputf8(self) -> bool:
        """Whether SMTPUTF8 is asked for and used: by one recipient for all, as in Postfix."""
        return self.may_need_smtputf8 and (
            self.findings.non_ascii
            or not self.sender.isascii()
            or not all(recipient.address.isascii() for recipient in self.accepted)
        )

    # ------------------------------------------------------------ decisions

    @property
    def ordinary(self) -> bool:
        """Whether it passes unchanged: nothing is asked, and nothing is to be removed or logged.

        To be read when the header is complete. No rule was looked up for such a message.
        """
        settings = self.settings
        return (
            settings.simple and not self.esmtp and not settings.debug and self.findings.unremarkable
        )

    def refuse_if_flooded(self) -> Decision | None:
        """Refuse a message with more copies of the tag's field than are removed.

        Returns:
            The decision; None if there are not too many. Known when the header is complete.
        """
        if not self.findings.tags:
            return None
        settings = self.settings
        limit = settings.config.limits.tags
        if self.findings.tags <= limit:
            return None
        decision = rules.refuse_too_many_tags(settings.header_name, limit)
        for recipient in self.accepted:
            recipient.decision = decision
        return decision

    def undecided(self) -> list[Recipient]:
        """The recipients that are still to be decided at the end of the message."""
        return [
            recipient
            for recipient in self.accepted
            if recipient.assessed and recipient.decision is None
        ]

    def patience(self) -> float:
        """Seconds that the end of the message may wait in all, for all undecided recipients."""
        waits = [self._decide_wait(recipient) for recipient in self.undecided()]
        if any(self._may_act_on_expansion(recipient) for recipient in self.accepted):
            waits.append(self.settings.config.rules.longest_decide_wait)
        return min(max([self.settings.config.rules.tag_wait, *waits]), self.patience_left)

    def decide(self, recipient: Recipient, forecast: Forecast | None, now: float) -> Decision:
        """Take a recipient's forecast and decide what is done with the recipient.

        Args:
            recipient: one that is :attr:`Recipient.assessed`.
            forecast: the answer to its question; None if it has no question. If it is expanded,
                its :attr:`Recipient.expansions` have theirs.
            now: seconds since the epoch.
        """
        if recipient.expansions:
            return self._decide_expanded(recipient, now)
        rule = recipient.rule or self._find_rule(recipient)
        if forecast is None:
            forecast = recipient.forecast_without_question()
        recipient.forecast = forecast
        since = forecast.downgraded_at
        recipient.downgraded = max(1.0, now - since) if since else 0.0
        # The sender does not learn where an alias leads.
        shown = replace(forecast, mx="") if recipient.alias and forecast.mx else forecast
        decision = rules.decide(
            rule,
            shown,
            asked=recipient.asked.requirement,
            carried=recipient.asked.carried,
            standing=self.client.standing,
            null_sender=self.null_sender,
            domain=recipient.alias or recipient.domain or recipient.address,
            now=now,
            by_rule=recipient.asked.source is Source.RULE,
        )
        if not self.by_smtp:
            decision = rules.never_deferred(decision, recipient.asked.carried)
        recipient.decision = decision
        return decision

    def _decide_expanded(self, recipient: Recipient, now: float) -> Decision:
        """Decide on each of the recipients that the MTA makes of one; the hardest decision counts.

        The client can only be told about the recipient that it gave.
        """
        assessed = [one for one in recipient.expansions if one.assessed]
        decisions = [self.decide(one, one.forecast, now) for one in assessed]
        worst = max(assessed, key=Recipient.badness)
        recipient.rule = worst.rule
        recipient.transport, recipient.nexthop = worst.transport, worst.nexthop
        recipient.nexthop_text, recipient.nexthop_error = worst.nexthop_text, worst.nexthop_error
        recipient.forecast, recipient.downgraded = worst.forecast, worst.downgraded
        recipient.decision = max(decisions, key=lambda one: _HARDNESS.index(one.action))
        return recipient.decision

    def decide_message(self) -> Decision:
        """Decide at the end of the message what is done with all recipients that it still has.

        A milter cannot refuse some of them here, so :func:`rules.decide_message` makes one
        decision for all. If the message passes although a recipient alone would have been
        refused or deferred, the MTA queues or bounces what it cannot deliver.

        Mail that does not come by SMTP is refused for one recipient's sake too, if the MTA
        would not bounce it: no reply at RCPT could keep that promise.
        """
        accepted = self.accepted
        if len(accepted) == 1:
            alone = accepted[0].decision
            if alone is not None and alone.action is Action.ACCEPT:
                return alone
        decided = [recipient for recipient in accepted if recipient.decision is not None]
        decisions = [recipient.decision for recipient in decided if recipient.decision is not None]
        passes = Decision(Action.ACCEPT, rules.Why.MODE)
        decision = rules.decide_message(
            decisions if len(decided) == len(accepted) else [passes, *decisions]
        )
        if not self.by_smtp:
            decision = next(self._refusals_of_ours(), decision)
        for recipient in decided:
            own = recipient.decision
            if own is None or decision.action is not Action.ACCEPT:
                recipient.decision = decision
            elif own.action is not Action.ACCEPT:
                # Alone it would have been refused or deferred. Now it is left to the MTA.
                recipient.decision = Decision(Action.ACCEPT, own.why)
        return decision

    def _refusals_of_ours(self) -> Iterator[Decision]:
        """The refusals of recipients whose requirement the milter alone keeps."""
        for recipient in self.accepted:
            decision = recipient.decision
            if decision is not None and decision.action is Action.REJECT:
                refused = (
                    one
                    for one in recipient.targets
                    if one.decision is not None and one.decision.action is Action.REJECT
                )
                if any(one.asked.carried is not Requirement.REQUIRETLS for one in refused):
                    yield decision

    def action_in_doubt(self) -> Action:
        """What rules demand of this message when it cannot be judged."""
        doubtful = [
            one
            for recipient in self.accepted
            for one in recipient.targets
            if one.rule is not None
            and self.can_act(one)
            and rules.defers_unknown(one.rule, one.asked.carried)
        ]
        if self.by_smtp:
            return Action.DEFER if doubtful else Action.ACCEPT
        ours = any(one.asked.carried is not Requirement.REQUIRETLS for one in doubtful)
        return Action.REJECT if ours else Action.ACCEPT

    # ------------------------------------------------------------ tag, log and metrics

    @property
    def requirement(self) -> Requirement:
        """The message's requirement: the strongest one of any recipient."""
        if len(self.recipients) == 1:
            return self.recipients[0].asked.requirement
        return tags.strongest([recipient.asked.requirement for recipient in self.recipients])

    @property
    def source(self) -> Source:
        """Where :attr:`requirement` was found."""
        if len(self.recipients) == 1:
            return self.recipients[0].asked.source
        return tags.winning(
            [
                (recipient.asked.requirement, recipient.asked.source)
                for recipient in self.recipients
            ],
            self.requirement,
        )

    @property
    def counts(self) -> bool:
        """Whether the message is counted: not if the rules of all recipients are ``off``."""
        for recipient in self.recipients:  # any() would take three times as long
            rule = recipient.rule
            if self.settings.counts_plain if rule is None else rule.mode is not Mode.OFF:
                return True
        return False

    @property
    def all_refused(self) -> bool:
        """Whether the message ended at RCPT: every recipient was refused or deferred there."""
        return bool(self.recipients) and all(recipient.gone for recipient in self.recipients)

    def new_parameters(self) -> str:
        """The sender's new ESMTP parameters, once all is decided; "" for no change (R14).

        A null reverse-path is never changed (RFC 8689 section 5, R7).
        """
        options = self.settings.config.milter
        if self.null_sender or not (options.envid_mark or options.headers_only_bounces):
            return ""
        tag = self.tag()
        if tag is None or tag.requirement is not Requirement.REQUIRETLS:
            return ""
        # A mark holds for all recipients of a message, as a route does.
        mark = options.envid_mark if tag.route is tags.Route.REQUIRETLS else ""
        headers_only = options.headers_only_bounces and not envelope.is_headers_only(
            self.parameters
        )
        if not (mark or headers_only):
            return ""
        return envelope.new_parameters(self.parameters, mark=mark, keeps=self.client.postfix)

    @property
    def leaves(self) -> bool:
        """Whether the message has a recipient to which the MTA delivers by SMTP."""
        return any(not recipient.local for recipient in self.accepted)

    def written_tag(self) -> tags.Tag | None:
        """The tag that is written: none with ``tag_leaving = false`` if the message leaves."""
        tag = self.tag()
        return tag if self.settings.config.milter.tag_leaving or not self.leaves else None

    def tag(self) -> tags.Tag | None:
        """The tag, once all is decided, whether it is written or not; None if there is none."""
        accepted = self.accepted
        if len(accepted) == 1 and not accepted[0].expansions and accepted[0].assessed:
            one = accepted[0]
            if one.asked.requirement is Requirement.NONE and not self.settings.surveys:
                return None
            return tags.of_one(one.asked.requirement, one.asked.source, one.local, one.forecast)
        if not any(recipient.counts for recipient in accepted):
            return None
        if not self.settings.surveys and all(
            recipient.asked.requirement is Requirement.NONE for recipient in accepted
        ):
            return None
        return tags.aggregate(
            [
                tags.Tagged(
                    requirement=one.asked.requirement,
                    source=one.asked.source,
                    nexthop=one.nexthop_text,
                    local=one.local,
                    forecast=one.forecast,
                )
                for recipient in accepted
                for one in recipient.targets
            ]
        )


_question = functools.lru_cache(maxsize=REMEMBERED_LOOKUPS)(Question)
_needs = functools.lru_cache(maxsize=REMEMBERED_LOOKUPS)(Needs)


def _is_over(answer: Forecast | Future[Forecast] | None, over: float) -> bool:
    """Whether there is an answer that ended before. One without an end (0) never ends."""
    if isinstance(answer, Future):
        if not answer.done() or answer.cancelled() or answer.exception():
            return False
        answer = answer.result()
    return answer is not None and 0 < answer.valid_until <= over


_HARDNESS = (Action.ACCEPT, Action.DEFER, Action.REJECT)


def _demand(asked: Asked) -> tuple[int, bool]:
    """Rank by strength; of two alike, the one that the milter alone keeps is stronger."""
    return tags.STRENGTH.index(asked.requirement), asked.carried is not asked.requirement
