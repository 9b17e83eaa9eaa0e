"""What ``simulate`` says for people: a line for each part of the message's way. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from requiretls_milter.config.places import KeyPath, Place
from requiretls_milter.config.text import value_text
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.model import HopKind, Source
from requiretls_milter.reports.check import NextHopReport
from requiretls_milter.reports.check_text import to_text as evidence_text
from requiretls_milter.reports.explain import place_of, place_text, table_text
from requiretls_milter.reports.printing import on_terminal
from requiretls_milter.reports.simulate import Message, RoutedBy, Simulated, unkept

_SOURCES = {
    Source.ESMTP: "by the MAIL parameter",
    Source.REQUIRE_TLS_ESMTP: "by the header field Require-TLS-ESMTP",
    Source.RULE: "by the rule, and not by the message",
    Source.TLS_REQUIRED: "by the header field TLS-Required",
}

_ROUTED = {
    RoutedBy.OPTION: "as --nexthop says",
    RoutedBy.POSTFIX: "as Postfix itself says",
    RoutedBy.CONFIGURATION: "as the routing in [mta] says: no Postfix was asked",
}


def as_text(
    found: Simulated,
    report: NextHopReport | None,
    places: Mapping[KeyPath, Place],
    notes: Sequence[str],
) -> str:
    """What would happen, for people; arguments as of :func:`.simulate.as_json`."""
    message, recipient = found.message, found.recipient
    asked = recipient.asked
    what = "nothing"
    if asked.source is not Source.NONE:
        acts = "acts on it" if asked.carried is asked.requirement else "does not act on it"
        what = f"{asked.requirement}, {_SOURCES[asked.source]}; the MTA {acts}"
    mta = found.mta.version or "An MTA that was not found"
    told = found.told
    transport = found.transport
    to = "delivered on this host" if _is_local(found) else f"next hop {_hop_text(found)}"
    moved = f"; its route moves it to {found.carrier}" if found.carrier != transport else ""
    rows = [
        ("Message", f"from {message.sender or '<>'} to {message.recipient}, {_client(message)}"),
        ("Asked", what),
        ("MTA", f"{mta} carries {found.mta.capability} ({found.mta.told_by})"),
        ("Rule", _rule_text(found, places)),
        (
            "Way",
            f"{to}{f' by transport {transport}' if transport else ''}, {_ROUTED[told.by]}{moved}",
        ),
        *(("Becomes", _expansion_text(one)) for one in recipient.expansions),
        *(("Note", note) for note in notes),
    ]
    text = [_row(name, value) for name, value in rows]
    if report is not None:
        text += ["", evidence_text([report]), ""]
    if not found.assessed and found.forecast is not None:
        text.append("Note     the milter itself does not assess such mail")
    leaves = " (milter.tag_leaving is false)" if found.tag is not None else ""
    text += [
        _row("Reply", _reply_text(found)),
        _row("Tag", found.written_tag or f"none{leaves}"),
        _row("Route", found.tag.route if found.tag is not None else "none"),
        *([_row("Sender", f"gets {found.parameters}")] if found.parameters else []),
    ]
    text += [_row("Note", note) for note in (unkept(found),) if note]
    return "\n".join(text)


def _client(message: Message) -> str:
    return str(message.standing) if message.by_smtp else "by sendmail(1)"


def _row(name: str, value: str) -> str:
    return on_terminal(f"{name:8} {value}", hang=9)


def _expansion_text(one: Recipient) -> str:
    forecast = "not assessed" if one.forecast is None else one.forecast.status
    return f"{one.address}, next hop {one.nexthop_text} by transport {one.transport}: {forecast}"


def _is_local(found: Simulated) -> bool:
    return found.nexthop is not None and found.nexthop.kind is HopKind.LOCAL


def _hop_text(found: Simulated) -> str:
    if found.nexthop is not None:
        return str(found.nexthop)
    return f"that cannot be used: {found.nexthop_error}"


def _rule_text(found: Simulated, places: Mapping[KeyPath, Place]) -> str:
    """The values that are not defaults, each with its table and line."""
    told = []
    for key, origin in found.origins.items():
        place = place_of(origin, key, places)
        if place is None and origin.table == "rules" and not origin.key and key != "mode":
            continue
        where = table_text(origin) + (f" {place_text(place, places)}" if place is not None else "")
        why = f" {origin.key}" if origin.key else ""
        told.append(f"{key} = {value_text(origin.value)} ({where}{why})")
    return ", ".join(told)


def _reply_text(found: Simulated) -> str:
    decision = found.decision
    if decision.reply is None:
        return f"accepted ({decision.why})"
    stage = "RCPT" if found.stage == "rcpt" else "the end of the message"
    return f"{decision.reply}  (at {stage}; {decision.why})"
