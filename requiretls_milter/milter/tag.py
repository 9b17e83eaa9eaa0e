"""The tag: the header field with a message's requirement, its forecast and its route.

``X-RequireTLS: requirement=requiretls; source=esmtp; forecast=5.7.30;
reason=requiretls_not_offered; route=requiretls; by=mail.example.net``, with
the keys in this order and on one line. Fields of that name in an incoming message
are forged, or come from an earlier pass: all are removed before the new one is put
at the top (as RFC 8601 section 5 asks for Authentication-Results; R63).

A message has one header for all its recipients. If their next hops differ, a
recipient could infer from the forecast that there is another one, which a Bcc was
to hide: then the forecast is withheld.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from requiretls_milter.model import (
    UNKNOWN_STATUS,
    Forecast,
    Reason,
    Requirement,
    Source,
)
from requiretls_milter.syntax.status import severity

MAX_BY = 255
"""Characters of ``by=``: a domain name and a bit (RFC 1035 section 2.3.4)."""

WITHHELD = "withheld"

_NOT_IN_VALUE = re.compile(r"[^A-Za-z0-9._:\[\]-]", re.ASCII)


class Route(enum.StrEnum):
    """How the message may leave: the word on which tables of the MTA match."""

    REQUIRETLS = "requiretls"  # only over verified TLS
    TLS_OPTIONAL = "tls-optional"
    DEFAULT = "default"  # nothing is asked
    MIXED = "mixed"  # no table may match: FILTER moves all recipients of a message


@dataclass(frozen=True, slots=True)
class Tagged:
    """One accepted recipient, as far as the tag is concerned.

    Attributes:
        requirement: what is asked for it.
        source: where that was found.
        nexthop: canonical; "local" if the MTA delivers itself.
        local: whether the MTA delivers itself.
        forecast: None if none was made.
    """

    requirement: Requirement
    source: Source
    nexthop: str
    local: bool
    forecast: Forecast | None


@dataclass(frozen=True, slots=True)
class Tag:
    """The content of the field, but for ``by=``; it replaces every copy that came in (R63)."""

    requirement: Requirement
    source: Source
    forecast: str
    reason: Reason
    route: Route

    def value(self, by: str) -> str:
        """The field's value: printable ASCII on one line, of bounded length (R62)."""
        return _value(self, by)


@functools.lru_cache
def _value(tag: Tag, by: str) -> str:
    return (
        f"requirement={tag.requirement}; source={tag.source}; "
        f"forecast={_token(tag.forecast)}; reason={tag.reason}; route={tag.route}; "
        f"by={_token(by)}"
    )


def _token(text: str) -> str:
    return _NOT_IN_VALUE.sub("_", text[:MAX_BY]) or "unknown"


STRENGTH = (Requirement.NONE, Requirement.TLS_REQUIRED_NO, Requirement.REQUIRETLS)
"""The requirements, from the weakest to the strongest."""

_PRECEDENCE = (
    Source.NONE,
    Source.TLS_REQUIRED,
    Source.RULE,
    Source.REQUIRE_TLS_ESMTP,
    Source.ESMTP,
)


def strongest(requirements: Sequence[Requirement]) -> Requirement:
    """The requirement of a message, from those of its recipients."""
    return max(requirements, key=STRENGTH.index, default=Requirement.NONE)


def winning(source_of: Iterable[tuple[Requirement, Source]], requirement: Requirement) -> Source:
    """Where ``requirement`` was found; of several sources, the one with precedence."""
    return max(
        (source for asked, source in source_of if asked is requirement),
        key=_PRECEDENCE.index,
        default=Source.NONE,
    )


def aggregate(recipients: Sequence[Tagged]) -> Tag:
    """The tag of a message with these accepted recipients, of which there is at least one."""
    requirement = strongest([recipient.requirement for recipient in recipients])
    source = winning([(r.requirement, r.source) for r in recipients], requirement)
    asked = {recipient.requirement for recipient in recipients}
    route = _route(asked, local=any(recipient.local for recipient in recipients))
    if len({recipient.nexthop for recipient in recipients}) > 1:
        return Tag(requirement, source, WITHHELD, Reason.WITHHELD, route)
    forecasts = [recipient.forecast for recipient in recipients if recipient.forecast is not None]
    if not forecasts:
        return Tag(requirement, source, UNKNOWN_STATUS, Reason.UNKNOWN, route)
    worst = max(forecasts, key=badness)
    return Tag(requirement, source, worst.status, worst.reason, route)


def of_one(requirement: Requirement, source: Source, local: bool, forecast: Forecast | None) -> Tag:
    """The tag of a message with one recipient, as most have; arguments as in :class:`Tagged`."""
    if forecast is None:
        return _of_one(requirement, source, local, UNKNOWN_STATUS, Reason.UNKNOWN)
    return _of_one(requirement, source, local, forecast.status, forecast.reason)


@functools.lru_cache
def _of_one(
    requirement: Requirement, source: Source, local: bool, status: str, reason: Reason
) -> Tag:
    return Tag(requirement, source, status, reason, _route({requirement}, local=local))


def badness(forecast: Forecast) -> tuple[int, bool]:
    """Rank by severity; of two deliveries, one that violates RFC 8689 is worse."""
    return severity(forecast.status), forecast.compliant is False


def _route(asked: Set[Requirement], *, local: bool) -> Route:
    """The route; other than mixed only if it is right for every recipient.

    Args:
        asked: what is asked for any of them.
        local: whether any of them is local.
    """
    if asked == {Requirement.NONE}:
        return Route.DEFAULT
    if len(asked) > 1 or local:
        return Route.MIXED
    return Route.REQUIRETLS if asked == {Requirement.REQUIRETLS} else Route.TLS_OPTIONAL
