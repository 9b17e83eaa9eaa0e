"""What became of a message, in metrics and log lines.

The log lines have keys that stay as they are. ``queue_id`` is the MTA's; if the
message has none yet, ``session`` takes its place.

``event=recipient``
    For each recipient of a message for which something is asked, at the
    message's end or when the recipient is refused: ``queue_id``/``session``,
    ``sender``, ``to``, ``client`` (``authenticated``, ``trusted`` or ``other``),
    ``requirement``, ``source``, ``carried``, ``nexthop``, ``transport``,
    ``tls_version`` (of the incoming session; empty if the MTA did not tell it, which
    does not prove that there was no TLS), ``forecast``, ``reason``,
    ``compliant`` (``true``, ``false`` or empty), ``tls``, ``mx``, ``action``,
    ``why``, ``reply`` (if the recipient is not accepted), ``waited`` (seconds),
    ``text``, ``downgraded`` (seconds since the next hop stopped offering
    something, if it did).
``event=put_off``
    For each recipient that is left to another transaction, since its route is another one
    than that of its message (``rules.on_mixed``): ``queue_id``/``session``, ``sender``, ``to``,
    ``requirement``, ``nexthop``, ``transport``, ``reply``.
``event=client_does_not_split``
    At level warning, for each recipient that was to be left to another transaction but came
    again and again in the same: ``queue_id``/``session``, ``client_address``, ``sender``,
    ``to``. The message goes with route=mixed.
``event=message``
    For a message that had tags of this milter's name (``tags_removed``; they are as
    many as came, also if they were too many and the message was refused),
    malformed or several TLS-Required fields (``tls_required_malformed``,
    ``tls_required_fields``) or the trace of a lost requirement (``lost``);
    for any other message at level debug. ``requirement``, ``source``,
    ``action``, ``recipients``, ``route``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from requiretls_milter.milter.transaction import Recipient, Transaction
from requiretls_milter.model import Action, Decision, Forecast, Requirement, SmtpReply, Source
from requiretls_milter.telemetry.log import LineLogger, get_logger, word, words, write_lines

if TYPE_CHECKING:
    from requiretls_milter.telemetry.counting import Count, Counters

MAX_LOGGED_RECIPIENTS = 1000
"""Log lines for one message: Postfix's smtpd_recipient_limit."""

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
            pieces = _recipient_words(message, recipient, forecast, decision, tls_version)
            lines.append(_recipients.line(level, f"{words(identity)} {pieces}"))
    write_lines(lines)


def _recipient_values(
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> Mapping[str, object]:
    """The line of a recipient, by key."""
    return {
        "sender": message.sender,
        "to": recipient.address,
        **_shared_values(*_shared(message, recipient, forecast, decision, tls_version)),
        "waited": round(recipient.waited, 3),
        "text": forecast.text,
        **_seldom(recipient, decision),
    }


def _recipient_words(
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> str:
    """The same as it stands in a line of logfmt."""
    chosen = len(recipient.nexthop_text) + len(recipient.mailer) + len(forecast.text)
    render = _known_words if chosen + len(forecast.mx) <= MAX_SHARED_TEXT else _shared_words
    shared, text = render(
        forecast.text, *_shared(message, recipient, forecast, decision, tls_version)
    )
    sender, to = word("sender", message.sender), word("to", recipient.address)
    line = f"{sender} {to} {shared} waited={round(recipient.waited, 3)} {text}"
    seldom = _seldom(recipient, decision)
    return f"{line} {words(seldom)}" if seldom else line


def _shared(
    message: Transaction,
    recipient: Recipient,
    forecast: Forecast,
    decision: Decision,
    tls_version: str,
) -> tuple[Any, ...]:
    """The values that the lines of many messages have in common."""
    asked = recipient.asked
    return (
        message.client.standing,
        asked.requirement,
        asked.source,
        asked.carried,
        recipient.nexthop_text,
        recipient.mailer,
        tls_version,
        forecast.status,
        forecast.reason,
        _COMPLIANT[forecast.compliant],
        forecast.tls,
        forecast.mx,
        decision.action,
        decision.why,
    )


_SHARED_KEYS = (
    "client",
    "requirement",
    "source",
    "carried",
    "nexthop",
    "transport",
    "tls_version",
    "forecast",
    "reason",
    "compliant",
    "tls",
    "mx",
    "action",
    "why",
)


def _shared_values(*values: Any) -> Mapping[str, object]:
    texts = (value if value is None else str(value) for value in values)
    return dict(zip(_SHARED_KEYS, texts, strict=True))


def _shared_words(text: str, *values: Any) -> tuple[str, str]:
    return words(_shared_values(*values)), word("text", text)


_known_words = functools.lru_cache(maxsize=MAX_SHARED)(_shared_words)


def _seldom(recipient: Recipient, decision: Decision) -> Mapping[str, object]:
    """What stands at the end of the lines of few recipients."""
    values: dict[str, object] = {}
    if recipient.downgraded:
        values["downgraded"] = round(recipient.downgraded)
    if decision.reply is not None:
        values["reply"] = f"{decision.reply.code} {decision.reply.enhanced} {decision.reply.text}"
    return values


def log_put_off(
    identity: Mapping[str, str], message: Transaction, recipient: Recipient, reply: SmtpReply
) -> None:
    """Log a recipient that is left to another transaction."""
    _log.info(
        "put_off",
        **identity,
        sender=message.sender,
        to=recipient.address,
        requirement=recipient.asked.requirement.value,
        nexthop=recipient.nexthop_text,
        transport=recipient.mailer,
        reply=f"{reply.code} {reply.enhanced} {reply.text}",
    )


def log_not_split(
    identity: Mapping[str, str], client_address: str, message: Transaction, recipient: Recipient
) -> None:
    """Log a recipient that goes with the others, since its client never brings it apart."""
    _log.warning(
        "client_does_not_split",
        **identity,
        client_address=client_address,
        sender=message.sender,
        to=recipient.address,
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
        sender=message.sender,
        requirement=message.requirement.value,
        source=message.source.value,
        action=action.value,
        recipients=len(message.recipients),
        route=tag.route.value if tag is not None else None,
        tags_removed=findings.tags,
        tls_required_fields=several,
        tls_required_malformed=findings.tls_required_malformed,
        lost=message.lost,
    )
