"""``config explain``: the rule in force for a message, and the table that sets each value. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from requiretls_milter.config import Config
from requiretls_milter.config.places import KeyPath, Place, heading_path
from requiretls_milter.config.text import value_text
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.model import (
    EnforceFor,
    HopKind,
    Mode,
    NextHop,
    OnNoncompliant,
    OnUnreachable,
)
from requiretls_milter.rules import RuleSet, ValueOrigin
from requiretls_milter.syntax.names import DomainNameError, domain_of, to_alabel
from requiretls_milter.syntax.nexthop import parse


@dataclass(frozen=True, slots=True)
class Explanation:
    """The rule for one sender, recipient and next hop, value by value.

    Domains are A-labels; ``sender`` is "" for the null reverse-path.
    ``matching`` has each table that matches, with the keys that it sets, the
    strongest table first; ``[rules]``, the weakest, is left out.
    """

    sender: str
    recipient: str
    nexthop: NextHop
    values: Mapping[str, ValueOrigin]
    matching: Sequence[Mapping[str, ValueOrigin]]


def explain(config: Config, sender: str, recipient: str, nexthop: str | None) -> Explanation:
    """Find the rule and the table that each value comes from.

    Args:
        config: the configuration with the rules.
        sender: an address or a domain; "" or "<>" is the null reverse-path.
        recipient: an address or a domain.
        nexthop: in Postfix's syntax; None stands for that of mail of sendmail(1).

    Raises:
        DomainNameError: an address or a domain is malformed.
        NextHopError: the next hop is malformed.
    """
    sender_domain = _domain(sender)
    recipient_domain = _domain(recipient)
    if not recipient_domain:
        raise DomainNameError("the recipient is empty")
    hop = parse(nexthop) if nexthop else _way(recipient, sender, config)
    host = "" if hop.kind is HopKind.LOCAL else hop.host
    ruleset = RuleSet(config.rules)
    values = ruleset.explain(sender_domain, recipient_domain, host)
    *matching, _ = ruleset.matching(sender_domain, recipient_domain, host)
    return Explanation(
        sender_domain, recipient_domain, hop, values, [table for table in matching if table]
    )


def _way(recipient: str, sender: str, config: Config) -> NextHop:
    """The next hop of mail whose next hop the MTA does not name."""
    address = recipient if "@" in recipient else f"postmaster@{recipient}"
    return from_macros("", "", address, sender, config.mta).nexthop


def _domain(text: str) -> str:
    bare = text.strip().removeprefix("<").removesuffix(">")
    return to_alabel(domain_of(bare) if "@" in bare else bare) if bare else ""


def to_text(
    explanation: Explanation, places: Mapping[KeyPath, Place], *, width: int | None = None
) -> str:
    """Word the explanation for people.

    Args:
        explanation: the rule and the tables that match.
        places: where each key of the configuration stands.
        width: columns of the output; None is the terminal's width.
    """
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("from", overflow="fold")
    for key, origin in explanation.values.items():
        own = origin.table != "rules"
        style = "bold" if own else ""
        where = _where(origin, key, places)
        table.add_row(key, Text(value_text(origin.value), style), Text(where, style))
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(
            Group(Text(_subject(explanation)), "", table, "", Text(_meaning(explanation)))
        )
        for line in _precedence(explanation, places):
            console.print(line, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def place_of(origin: ValueOrigin, key: str, places: Mapping[KeyPath, Place]) -> Place | None:
    """Where a value of a rule stands; None for a default."""
    return places.get((*heading_path(f"[{origin.table}]"), origin.key or key))


def place_text(place: Place, places: Mapping[KeyPath, Place]) -> str:
    """A place, with its file if the configuration has several."""
    files = {other.file for other in places.values()} | {place.file}
    if len(files) == 1:
        return f"line {place.line}"
    above = os.path.commonpath([file.parent for file in files])
    return f"{os.path.relpath(place.file, above)} line {place.line}"


def table_text(origin: ValueOrigin) -> str:
    """A table, and the entry of its list if it is that of a list."""
    return f"[{origin.table}]" + (f" for {origin.listed}" if origin.listed else "")


def _where(origin: ValueOrigin, key: str, places: Mapping[KeyPath, Place]) -> str:
    table = table_text(origin)
    if origin.key:
        table = f"{table} {origin.key}"
    place = place_of(origin, key, places)
    if place is not None:
        return f"{table}, {place_text(place, places)}"
    return f"{table}, default" if origin.table == "rules" else table


def _precedence(explanation: Explanation, places: Mapping[KeyPath, Place]) -> Iterator[str]:
    """List the tables that match, with those of their values that a stronger table overrides."""
    yield ""
    if not explanation.matching:
        yield "No table by domain matches: [rules] applies."
        return
    yield "These tables match; each overrides those below it, the last one overrides [rules]:"
    for table in explanation.matching:
        line = f"  {table_text(next(iter(table.values())))}"
        overridden = [
            f"{key} = {value_text(origin.value)}{_at(place_of(origin, key, places), places)}"
            for key, origin in table.items()
            if origin.value != explanation.values[key].value
        ]
        yield line + (f", overridden: {', '.join(overridden)}" if overridden else "")


def _at(place: Place | None, places: Mapping[KeyPath, Place]) -> str:
    return f" ({place_text(place, places)})" if place is not None else ""


def _subject(explanation: Explanation) -> str:
    sender = explanation.sender or "the null sender"
    via = (
        "delivered locally"
        if explanation.nexthop.kind is HopKind.LOCAL
        else (f"next hop {explanation.nexthop}")
    )
    return f"from {sender} to {explanation.recipient}, {via}"


def _while_away(on_unreachable: OnUnreachable) -> str:
    """Say what becomes of a requirement of which the MTA does not know."""
    if on_unreachable is OnUnreachable.DEFER:
        return "; while no server can be reached, the answer is 451"
    return (
        "; while no server can be reached, the message is accepted, and the MTA delivers it later "
        "by its own settings"
    )


def _meaning(explanation: Explanation) -> str:
    """Say in a sentence or two what the rule does to the message."""
    values = {key: origin.value for key, origin in explanation.values.items()}
    mode: Mode = values["mode"]
    required = (
        "REQUIRETLS is required for every message"
        if values["require"]
        else "REQUIRETLS is required only if the sender requires it"
    )
    if explanation.nexthop.kind is HopKind.LOCAL:  # (R19)
        return "Local delivery: nothing is assessed and nothing refused."
    if not explanation.sender and mode.acts:  # (R7)
        return f"{required}; mail of the null sender is tagged and counted, but never refused."
    effect = {
        Mode.OFF: "no tag is written and nothing is counted",
        Mode.MONITOR: "the message is tagged and counted, and always accepted",
        Mode.DEFER: "a delivery that would fail is answered with 451",
        Mode.REJECT: "a delivery that would fail permanently is answered with 550",
    }[mode]
    clients = {
        EnforceFor.ALL: "from anyone",
        EnforceFor.TRUSTED: "from authenticated clients and trusted networks",
        EnforceFor.AUTHENTICATED: "from authenticated clients",
    }[values["enforce_for"]]
    acts = f", {clients}" if mode.acts else ""
    if values["require"] and mode.acts:
        if values["on_noncompliant"] is not OnNoncompliant.ACCEPT:
            acts += "; so is one that would be made, but not as RFC 8689 requires it"
        acts += _while_away(values["on_unreachable"])
    warning = (
        " The MTA does not know what a rule requires: in this mode the requirement is not kept."
        if values["require"] and not mode.acts
        else ""
    )
    return f"{required}; {effect}{acts}.{warning}"
