"""What became of a message, in metrics and log lines.

The log lines have keys that stay as they are. ``queue_id`` is the MTA's; if the
message has none yet, ``session`` takes its place.

``event=recipient``
    For each recipient of a message for which something is asked, at the
    message's end or when the recipient is refused. The keys in their order, of
    which one without a value is left out: ``queue_id``/``session``, ``action``,
    ``to``, ``forecast``, ``reason``, ``why`` (of the action), ``requirement``,
    ``nexthop``, ``tls``, ``mx``, ``compliant`` (``true`` or ``false``),
    ``sender``, ``client`` (``authenticated``, ``trusted`` or ``other``),
    ``source``, ``carried``, ``transport``, ``tls_version`` (of the incoming
    session; if it is not there, that does not prove that there was no TLS),
    ``waited`` (seconds), ``downgraded`` (seconds since the next hop stopped
    offering something, if it did), ``expansions`` (how many recipients the MTA
    makes of it, if it does: what is logged is the worst of them),
    ``not_expanded`` (why that is not known, if it is to be known), ``reply`` (if
    the recipient is not accepted), ``text``.
``event=expansion``
    For each of these recipients: the same keys to ``waited``, and ``text``. ``to`` is
    what the client gave, and behind it stands ``expansion``, what the MTA makes of it.
``event=put_off``
    For each recipient that is left to another transaction, since its route is another one
    than that of its message (``rules.on_mixed``): ``queue_id``/``session``, ``to``,
    ``requirement``, ``nexthop``, ``transport``, ``sender``, ``reply``.
``event=client_does_not_split``
    At level warning, for each recipient that was to be left to another transaction but came
    again and again in the same: ``queue_id``/``session``, ``to``, ``sender``,
    ``client_address``. The message goes with route=mixed.
``event=message``
    For a message that had tags of this milter's name (``tags_removed``; they are as
    many as came, also if they were too many and the message was refused),
    malformed or several TLS-Required fields (``tls_required_malformed``,
    ``tls_required_fields``) or the trace of a lost requirement (``lost``);
    for any other message at level debug. ``action``, ``requirement``, ``source``,
    ``route``, ``recipients``, ``sender``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.transaction import Transaction
from requiretls_milter.model import Action, Decision, Forecast, Requirement, SmtpReply, Source
from requiretls_milter.telemetry.labels import Bound, Expanded
from requiretls_milter.telemetry.log import (
    LineLogger,
    following,
    get_logger,
    words,
    write_lines,
)

if TYPE_CHECKING:
    from requiretls_milter.telemetry.counting import Count, Counters

MAX_LOGGED_RECIPIENTS = 1000
"""Log lines for one message: Postfix's smtpd_recipient_limit."""

MAX_LOGGED_EXPANSIONS = 1000
"""Log lines for what the recipients of one message become: virtual_alias_expansion_limit."""

MAX_SHARED = 512
"""Pieces of lines that are remembered, since the lines of many messages share them."""

MAX_SHARED_TEXT = 600
"""Characters of such a piece that strangers can choose, beyond which it is not remembered."""

_log = get_logger("milter.account")
_recipients = LineLogger("milter.account", "recipient")

_ORDINARY = (Requirement.NONE, Action.ACCEPT)
_NO_SOURCE = (Source.NONE,)


def count_ordinary(counters: Counters, message: Transaction) -> None:
    """Count a message that asks nothing, all recipients at once."""
    if message.settings.counts_plain and message.recipients:
        counters.count(_ORDINARY_MESSAGE, ("recipients_total", _ORDINARY), len(message.recipients))


_ORDINARY_MESSAGE: tuple[Count, ...] = (
    ("messages_total", _ORDINARY),
    ("requirement_sources_total", _NO_SOURCE),
)


def count_message(counters: Counters, message: Transaction, action: Action) -> None:
    """Count a message that has ended, by what was done with it (lost requirements: R17)."""
    counters.count(_counts_of_message(message, action))


def _counts_of_message(message: Transaction, action: Action) -> tuple[Count, ...]:
    if not message.counts:
        return ()
    counts = _message_counts(message.requirement, message.source, action)
    return (*counts, ("requirement_lost_total", ())) if message.lost else counts


@functools.lru_cache
def _message_counts(asked: Requirement, source: Source, action: Action) -> tuple[Count, ...]:
    return (("messages_total", (asked, action)), ("requirement_sources_total", (source,)))


def count_recipient(counters: Counters, message: Transaction, recipient: Recipient) -> None:
    """Count a recipient whose decision is final."""
    counters.count(_counts_of_recipient(message, recipient))


def _counts_of_recipient(message: Transaction, recipient: Recipient) -> tuple[Count, ...]:
    counts = _counts_of_decision(message, recipient)
    return counts if recipient.expanded is None else (*counts, *_EXPANDED[recipient.expanded])


_EXPANDED: Mapping[Expanded, tuple[Count, ...]] = {
    result: (
        ("alias_lookups_total", (result,)),
        *((("saturated_total", (Bound.EXPANSIONS,)),) if result is Expanded.TOO_MANY else ()),
    )
    for result in Expanded
}


def _counts_of_decision(message: Transaction, recipient: Recipient) -> tuple[Count, ...]:
    action = recipient.decision.action if recipient.decision is not None else Action.ACCEPT
    if recipient.rule is None:
        if message.settings.counts_plain:
            return (("recipients_total", (Requirement.NONE, action)),)
        return ()
    if not recipient.counts:
        return ()
    asked = recipient.asked.requirement
    forecast = recipient.forecast
    if forecast is None or not recipient.assessed:
        return (("recipients_total", (asked, action)),)
    return _recipient_counts(
        asked,
        action,
        recipient.rule.domain,
        forecast.status,
        forecast.reason,
        forecast.compliant is False and action is Action.ACCEPT,
    )


@functools.lru_cache(maxsize=MAX_SHARED)
def _recipient_counts(
    asked: Requirement,
    action: Action,
    domain: str,
    status: str,
    reason: str,
    noncompliant: bool,
) -> tuple[Count, ...]:
    counts: tuple[Count, ...] = (
        ("recipients_total", (asked, action)),
        ("forecasts_total", (asked, status, reason)),
        ("domain_forecasts_total", (domain, status)),
    )
    return (*counts, ("noncompliant_deliveries_total", (reason,))) if noncompliant else counts


def count_ended(counters: Counters, message: Transaction, action: Action) -> None:
    """Count a message that has come to its end, with the recipients that it still has."""
    counts = _counts_of_message(message, action)
    for recipient in message.accepted:
        counts += _counts_of_recipient(message, recipient)
    counters.count(counts)


_COMPLIANT = {True: "true", False: "false", None: ""}


def log_recipients(
    identity: Mapping[str, str],
    tls_version: str,
    message: Transaction,
    recipients: Sequence[Recipient],
) -> None:
    """Log recipients whose decisions are final.

    Args:
        identity: the message's ``queue_id``, or ``session`` if it has none yet.
        tls_version: of the session in which the message came; "" if the MTA did not tell it.
        message: to which the recipients belong.
        recipients: one that has no forecast or decision has no line.
    """
    lines = []
    for recipient in recipients:
        forecast, decision = recipient.forecast, recipient.decision
        if forecast is None or decision is None:
            continue
        # A survey wants to know this, but it is not worth a line for each message.
        level = "debug" if recipient.asked.requirement is Requirement.NONE else "info"
        takes = _recipients.takes(level)
        if takes is None:
            values = _recipient_values(message, recipient, forecast, decision, tls_version)
            getattr(_log, level)("recipient", **identity, **values)
        elif takes:
            pieces = _recipient_words(identity, message, recipient, forecast, decision, tls_version)
            lines.append(_recipients.line(level, pieces))
    write_lines(lines)


def log_expansions(
    identity: Mapping[str, str],
    tls_version: str,
    message: Transaction,
    recipients: Sequence[Recipient],
) -> None:
    """Log what recipients are expanded to; arguments as of :func:`log_recipients`."""
    expanded = ((recipient, one) for recipient in recipients for one in recipient.expansions)
    for recipient, one in itertools.islice(expanded, MAX_LOGGED_EXPANSIONS):
        if one.forecast is None or one.decision is None:
            continue
        level = _log.debug if one.asked.requirement is Requirement.NONE else _log.info
        outcome, details = _shared(message, one, one.forecast, one.decision, tls_version)
        level(
            "expansion",
            **identity,
            action=one.decision.action.value,
            to=recipient.address,
            expansion=one.address,
            **_named(OUTCOME, outcome),
            sender=message.sender,
            **_named(DETAILS, details),
            waited=round(one.waited, 3),
            text=one.forecast.text,
        )


def _recipient_values(
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> Mapping[str, object]:
    """The line of a recipient, by key."""
    outcome, details = _shared(message, recipient, forecast, decision, tls_version)
    return {
        "action": decision.action.value,
        "to": recipient.address,
        **_named(OUTCOME, outcome),
        "sender": message.sender,
        **_named(DETAILS, details),
        "waited": round(recipient.waited, 3),
        **_seldom(recipient, decision),
        "text": forecast.text,
    }


def _recipient_words(
    identity: Mapping[str, str],
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> str:
    """The same, with the message's identity before it, as it stands in a line of logfmt."""
    chosen = len(recipient.nexthop_text) + len(recipient.mailer) + len(forecast.text)
    render = _known_words if chosen + len(forecast.mx) <= MAX_SHARED_TEXT else _shared_words
    outcome, details, text = render(
        forecast.text, *_shared(message, recipient, forecast, decision, tls_version)
    )
    named = words(identity)
    line = (
        f"{named}{' ' if named else ''}action={decision.action.value}"
        f"{following('to', recipient.address)} {outcome}{following('sender', message.sender)} "
        f"{details} waited={round(recipient.waited, 3)}"
    )
    seldom = _seldom(recipient, decision)
    return f"{line} {words(seldom)}{text}" if seldom else line + text


Shared = tuple[Any, ...]
"""Values that the lines of many messages have in common."""


def _shared(
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> tuple[Shared, Shared]:
    """The values of :data:`OUTCOME` and of :data:`DETAILS`."""
    asked = recipient.asked
    outcome = (
        forecast.status,
        forecast.reason,
        decision.why,
        asked.requirement,
        recipient.nexthop_text,
        forecast.tls,
        forecast.mx,
        _COMPLIANT[forecast.compliant],
    )
    details = (
        message.client.standing,
        asked.source,
        asked.carried,
        recipient.transport if recipient.expansions or recipient.alias else recipient.mailer,
        tls_version,
    )
    return outcome, details


OUTCOME = ("forecast", "reason", "why", "requirement", "nexthop", "tls", "mx", "compliant")

DETAILS = ("client", "source", "carried", "transport", "tls_version")


def _named(keys: Sequence[str], values: Shared) -> Mapping[str, object]:
    texts = (value if value is None else str(value) for value in values)
    return dict(zip(keys, texts, strict=True))


def _shared_words(text: str, outcome: Shared, details: Shared) -> tuple[str, str, str]:
    return (
        words(_named(OUTCOME, outcome)),
        words(_named(DETAILS, details)),
        following("text", text),
    )


_known_words = functools.lru_cache(maxsize=MAX_SHARED)(_shared_words)


def _seldom(recipient: Recipient, decision: Decision) -> Mapping[str, object]:
    """What the lines of few recipients have."""
    values: dict[str, object] = {}
    if recipient.downgraded:
        values["downgraded"] = round(recipient.downgraded)
    if recipient.forecast is not None and recipient.forecast.stale:
        values["stale"] = round(recipient.forecast.stale)
    if recipient.expansions:
        values["expansions"] = len(recipient.expansions)
    if recipient.not_expanded:
        values["not_expanded"] = recipient.not_expanded
    if decision.reply is not None:
        values["reply"] = str(decision.reply)
    return values


def log_put_off(
    identity: Mapping[str, str], message: Transaction, recipient: Recipient, reply: SmtpReply
) -> None:
    """Log a recipient that is left to another transaction."""
    _log.info(
        "put_off",
        **identity,
        to=recipient.address,
        requirement=recipient.asked.requirement.value,
        nexthop=recipient.nexthop_text,
        transport=recipient.mailer,
        sender=message.sender,
        reply=str(reply),
    )


def log_not_split(
    identity: Mapping[str, str], client_address: str, message: Transaction, recipient: Recipient
) -> None:
    """Log a recipient that goes with the others, since its client never brings it apart."""
    _log.warning(
        "client_does_not_split",
        **identity,
        to=recipient.address,
        sender=message.sender,
        client_address=client_address,
    )


def log_message(identity: Mapping[str, str], message: Transaction, action: Action) -> None:
    """Log a message that has ended, at level debug unless it is remarkable."""
    findings = message.findings
    if findings.unremarkable and not message.settings.debug:
        return
    several = findings.tls_required_no + findings.tls_required_malformed
    remarkable = findings.tags or findings.tls_required_malformed or several > 1 or message.lost
    if not remarkable and not message.settings.debug:
        return
    level = _log.info if remarkable else _log.debug
    tag = message.tag()
    level(
        "message",
        **identity,
        action=action.value,
        # What makes it remarkable, if anything does.
        tags_removed=findings.tags or None,
        tls_required_malformed=findings.tls_required_malformed or None,
        tls_required_fields=several or None,
        lost=message.lost or None,
        requirement=message.requirement.value,
        source=message.source.value,
        route=tag.route.value if tag is not None else None,
        recipients=len(message.recipients),
        sender=message.sender,
    )
