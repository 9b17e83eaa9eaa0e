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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from requiretls_milter.milter.transaction import Recipient, Transaction
from requiretls_milter.model import Action, Requirement, SmtpReply, Source
from requiretls_milter.telemetry.log import get_logger

if TYPE_CHECKING:
    from requiretls_milter.telemetry.counting import Counters

MAX_LOGGED_RECIPIENTS = 1000
"""Log lines for one message: Postfix's smtpd_recipient_limit."""

_log = get_logger("milter.account")

_ORDINARY = (Requirement.NONE, Action.ACCEPT)
_NO_SOURCE = (Source.NONE,)


def count_ordinary(counters: Counters, message: Transaction) -> None:
    """Count a message that asks nothing, all recipients at once."""
    if message.settings.counts_plain and message.recipients:
        counters.inc("messages_total", _ORDINARY)
        counters.inc("requirement_sources_total", _NO_SOURCE)
        counters.inc("recipients_total", _ORDINARY, len(message.recipients))


def count_message(counters: Counters, message: Transaction, action: Action) -> None:
    """Count a message that has ended, by what was done with it (lost requirements: R17)."""
    if not message.counts:
        return
    counters.inc("messages_total", (message.requirement, action))
    counters.inc("requirement_sources_total", (message.source,))
    if message.lost:
        counters.inc("requirement_lost_total")


def count_recipient(counters: Counters, message: Transaction, recipient: Recipient) -> None:
    """Count a recipient whose decision is final."""
    action = recipient.decision.action if recipient.decision is not None else Action.ACCEPT
    if recipient.rule is None:
        if message.settings.counts_plain:
            counters.inc("recipients_total", (Requirement.NONE, action))
        return
    if not recipient.counts:
        return
    asked = recipient.asked.requirement
    counters.inc("recipients_total", (asked, action))
    forecast = recipient.forecast
    if forecast is None or not recipient.assessed:
        return
    counters.inc("forecasts_total", (asked, forecast.status, forecast.reason))
    counters.inc("domain_forecasts_total", (recipient.rule.domain, forecast.status))
    if forecast.compliant is False and action is Action.ACCEPT:
        counters.inc("noncompliant_deliveries_total", (forecast.reason,))


_COMPLIANT = {True: "true", False: "false", None: ""}


def log_recipient(
    identity: Mapping[str, str], tls_version: str, message: Transaction, recipient: Recipient
) -> None:
    """Log a recipient whose decision is final.

    Args:
        identity: the message's ``queue_id``, or ``session`` if it has none yet.
        tls_version: of the session in which the message came; "" if the MTA did not tell it.
        message: to which the recipient belongs.
        recipient: without effect if it has no forecast or decision.
    """
    forecast, decision = recipient.forecast, recipient.decision
    if forecast is None or decision is None:
        return
    line: dict[str, Any] = {
        **identity,
        "sender": message.sender,
        "to": recipient.address,
        "client": message.client.standing,
        "requirement": recipient.asked.requirement.value,
        "source": recipient.asked.source.value,
        "carried": recipient.asked.carried.value,
        "nexthop": recipient.nexthop_text,
        "transport": recipient.mailer,
        "tls_version": tls_version,
        "forecast": forecast.status,
        "reason": forecast.reason.value,
        "compliant": _COMPLIANT[forecast.compliant],
        "tls": forecast.tls,
        "mx": forecast.mx,
        "action": decision.action.value,
        "why": str(decision.why),
        "waited": round(recipient.waited, 3),
        "text": forecast.text,
    }
    if recipient.downgraded:
        line["downgraded"] = round(recipient.downgraded)
    if decision.reply is not None:
        line["reply"] = f"{decision.reply.code} {decision.reply.enhanced} {decision.reply.text}"
    # A survey wants to know this, but it is not worth a line for each message.
    level = _log.debug if recipient.asked.requirement is Requirement.NONE else _log.info
    level("recipient", **line)


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
