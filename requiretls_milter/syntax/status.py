"""Enhanced status codes (RFC 3463, RFC 5248) as the forecast uses them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from requiretls_milter.model import UNKNOWN_STATUS, Outcome

SUCCESS = "2.0.0"
NULL_MX = "5.1.0"  # a domain that accepts no mail, in Postfix (RFC 7505 says 5.1.10)
NO_ADDRESS = "5.4.4"  # no such domain, or no server with an address
NO_ADDRESS_FOR_NOW = "4.4.4"
MAIL_LOOP = "5.4.6"
MAIL_LOOP_FOR_NOW = "4.4.6"  # at a server that is not the best one
DNS_FAILURE = "4.4.3"
CONNECT_FAILURE = "4.4.1"
LOST_CONNECTION = "4.4.2"
NO_SERVER_LEFT = "4.3.0"  # no server was tried, and nothing else gave a reason
MTA_MISCONFIGURED = "4.3.5"  # a failure for good at relayhost, taken for a mistake of its setting
PROTOCOL_ERROR = "5.5.0"  # a reply that is not an SMTP reply
ENCRYPTION_NEEDED = "5.7.10"  # RFC 8689 section 4.2.1
REQUIRETLS_NEEDED = "5.7.30"  # RFC 8689 section 4.2.1 (R12)
SMTPUTF8_NEEDED = "5.6.7"  # RFC 6531 section 4.3
MESSAGE_TOO_LARGE = "5.3.4"  # RFC 1870 section 6.3
REFUSED = "5.7.1"  # by a policy of this system (RFC 3463 section 3.8)
TOO_MANY_RECIPIENTS = "4.5.3"  # RFC 3463 section 3.6
POLICY_TEMPORARY = "4.7.0"
TLS_NOT_OFFERED = "4.7.4"
TLS_NOT_ESTABLISHED = "4.7.5"
MTA_POLICY_INVALID = "4.7.10"  # smtp_requiretls_policy has a word that Postfix does not know

FORECAST_STATUSES = (
    SUCCESS,
    NO_SERVER_LEFT,
    MTA_MISCONFIGURED,
    CONNECT_FAILURE,
    LOST_CONNECTION,
    DNS_FAILURE,
    NO_ADDRESS_FOR_NOW,
    MAIL_LOOP_FOR_NOW,
    POLICY_TEMPORARY,
    TLS_NOT_OFFERED,
    TLS_NOT_ESTABLISHED,
    MTA_POLICY_INVALID,
    NULL_MX,
    NO_ADDRESS,
    MAIL_LOOP,
    ENCRYPTION_NEEDED,
    REQUIRETLS_NEEDED,
    SMTPUTF8_NEEDED,
    MESSAGE_TOO_LARGE,
)
"""Statuses that an MTA gives by itself; any other one was chosen by the server it talked to."""

_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")


def is_enhanced(text: str) -> bool:
    """Whether *text* is an enhanced status code of class 2, 4 or 5 (RFC 3463 section 2)."""
    return _ENHANCED.fullmatch(text) is not None


def outcome_of(status: str) -> Outcome:
    """What an MTA does with a message if its delivery ends with *status*."""
    match status[:1]:
        case "2":
            return Outcome.DELIVER
        case "4":
            return Outcome.DEFER
        case "5":
            return Outcome.BOUNCE
        case _:
            return Outcome.UNKNOWN


def as_temporary(status: str) -> str:
    """The temporary status with the same detail: 4.7.30 for 5.7.30 (RFC 3463 section 2)."""
    return f"4.{status.partition('.')[2]}"


def as_permanent(status: str) -> str:
    """The permanent status with the same detail: 5.7.30 for 4.7.30 (RFC 3463 section 2)."""
    return f"5.{status.partition('.')[2]}"


def severity(status: str) -> int:
    """Rank for the worst of several: 5.7.x > other 5 > 4.7.x > other 4 > unknown > 2.0.0."""
    if status == UNKNOWN_STATUS:
        return 1
    security = status[2:4] == "7."
    match status[:1]:
        case "5":
            return 5 if security else 4
        case "4":
            return 3 if security else 2
        case _:
            return 0


def worst_of(statuses: Iterable[str]) -> str:
    """The worst of several statuses; of equally bad ones the first."""
    return max(statuses, key=severity)
