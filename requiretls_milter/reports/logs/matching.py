"""Tell whether words of the milter's lines and of Postfix's mean the same. Pure."""

from __future__ import annotations

import re

from requiretls_milter.reports.logs.milter import LoggedForecast
from requiretls_milter.reports.logs.relay import SMTP_PORT, Relay
from requiretls_milter.telemetry.log import loggable

_LONG_QUEUE_ID = re.compile(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]{10,}z[0-9B-Zb-z]+")
"""Time in base 52, "z", inode number."""

_NEXTHOP = re.compile(r"\[?(?:ipv6:)?(?P<host>[^\]\[]*?)\]?(?::(?P<port>\w+))?", re.IGNORECASE)


def is_long_queue_id(queue_id: str) -> bool:
    """Whether a queue ID is never used again."""
    return _LONG_QUEUE_ID.fullmatch(queue_id) is not None


def is_content_filter(relay: str, forecast: LoggedForecast) -> bool:
    """Whether *relay*, of Postfix's log, is a filter on the way and not the server of a forecast.

    A filter is on this host, or listens at a port of its own. A server of the next hop may do so,
    too: then it is named by the forecast.
    """
    if has_port_of_its_own(relay, forecast):
        return True
    server = Relay.parse(relay)
    return server is not None and server.is_here and not _is_named(server, forecast)


def has_port_of_its_own(relay: str, forecast: LoggedForecast) -> bool:
    """Whether *relay* is a filter by its port or its unix-domain socket alone."""
    server = Relay.parse(relay)
    if server is None or _is_named(server, forecast):
        return False
    hop = _NEXTHOP.fullmatch(forecast.nexthop)
    return server.port is None or server.port not in (SMTP_PORT, hop["port"] if hop else "")


def _is_named(server: Relay, forecast: LoggedForecast) -> bool:
    hop = _NEXTHOP.fullmatch(forecast.nexthop)
    names = {forecast.mx.lower(), hop["host"].lower() if hop is not None else ""} - {""}
    return bool(names & {server.host.lower(), server.address.lower()})


_QUOTED_LOCAL_PART = re.compile(r'"((?:[^"\\]|\\.)*)"(@[^"]*)?')
_ROUTE = re.compile(r"@[^:]*:(?=.)")


def same_address(address: str) -> str:
    """One form for an address, however the client, the milter and Postfix write it.

    The milter logs what the client sent, in US-ASCII (:func:`.telemetry.log.loggable`); Postfix
    adds or takes away quotes and removes a route.
    """
    address = loggable(address.removeprefix("<").removesuffix(">"))
    address = _ROUTE.sub("", address, count=1) if address.startswith("@") else address
    quoted = _QUOTED_LOCAL_PART.fullmatch(address)
    if quoted is not None:
        address = re.sub(r"\\(.)", r"\1", quoted[1]) + (quoted[2] or "")
    return address.lower()
