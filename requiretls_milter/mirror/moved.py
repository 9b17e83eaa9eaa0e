"""Where a recipe of Postfix moves mail with the tag's ``route=requiretls``. Pure.

Postfix looks up each header field that a milter adds in ``milter_header_checks``; an answer
``FILTER transport:nexthop`` moves the message, with all its recipients, to that transport
(header_checks(5)). :mod:`.postconf` asks Postfix's own postmap(1) about the tag that
:func:`tag_field` writes; here its answer is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.config import Destination
from requiretls_milter.milter.tag import Route, Tag
from requiretls_milter.mirror.postconf import Parameters, Postfix
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import Reason, Requirement, Source

_TAG = Tag(Requirement.REQUIRETLS, Source.RULE, "2.0.0", Reason.OK, Route.REQUIRETLS)

_ACTION = "filter"


@dataclass(frozen=True, slots=True)
class Moved:
    """Where such mail goes: ``transport`` is one of smtp(8), or "" if none can be mirrored."""

    transport: str = ""
    warnings: tuple[str, ...] = ()


def tag_field(name: str) -> str:
    """A tag with ``route=requiretls``, as a header field of that *name*."""
    return f"{name}: {_TAG.value('mail.example.net')}"


def filter_of(action: str) -> Destination | None:
    """The destination of an action FILTER; None if the action is another one."""
    word, _, rest = action.strip().partition(" ")
    transport = rest.strip().partition(":")[0]
    if word.lower() != _ACTION or not transport:
        return None
    return Destination.parse(rest.strip())


def moved(postfix: Postfix) -> Moved:
    """Read where this Postfix moves mail with ``route=requiretls``."""
    to = filter_of(postfix.tag_action)
    if to is None:
        return Moved()
    known = {one.name for one in postfix.running("smtp") if one.type == "unix"}
    if to.transport not in known:
        return Moved(
            "",
            (
                f"milter_header_checks: FILTER {shown(to.transport)} moves mail with "
                "route=requiretls, but that is no transport of smtp(8) in master.cf; forecast as "
                "if the mail were not moved",
            ),
        )
    return Moved(to.transport, tuple(_other_ways(to, postfix.settings)))


def _other_ways(to: Destination, main: Parameters) -> Iterator[str]:
    """Warn if the mail goes to another next hop than Postfix names to the milter."""
    if to.nexthop:
        yield (
            f"milter_header_checks: FILTER {shown(to.transport)}:{shown(to.nexthop)} moves mail "
            "with route=requiretls to that next hop; the forecast is for the recipient's own"
        )
        return
    relayhost = main.get("relayhost", "")
    default = main.get("default_filter_nexthop", "")
    if default != relayhost:
        yield (
            f"milter_header_checks: FILTER {shown(to.transport)}: goes to default_filter_nexthop "
            f"({shown(default) or 'empty'}), not to relayhost ({shown(relayhost) or 'empty'}), for "
            "which the forecast is; set default_filter_nexthop = $relayhost"
        )
    if main.get("transport_maps", ""):
        yield (
            f"milter_header_checks: FILTER {shown(to.transport)}: goes past transport_maps; the "
            "forecast is for the next hop that they name"
        )
