"""Servers of equal preference, which Postfix tries in random order: worked examples.

A server is written as a letter and its address family: ``+4`` takes the message, ``-6`` fails for
now, ``!4`` ends the delivery with a permanent reply, ``~6`` is passed over by MTA-STS without a
word.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.forecast.attempt import DeliveryAttempt
from requiretls_milter.model import (
    HostEvidence,
    MtaProfile,
    MtaSts,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Reply,
    Requirement,
    TlsLevel,
)
from tests.support.build import certificate, domain, forecast, host, probe

PASSING_OVER = MtaProfile(tls_security_level=TlsLevel.MAY, mta_sts=MtaSts.MX_PATTERNS)


def server(number: int, word: str, preference: int) -> HostEvidence:
    kind, family = word[0], word[1]
    address = f"192.0.2.{number}" if family == "4" else f"2001:db8::{number}"
    name = f"{'other' if kind == '~' else 'mx'}{number}.example.org"
    seen = probe(address, certificate(name))
    if kind == "-":
        seen = ProbeEvidence(address, ProbeStage.CONNECT, ProbeFailure.REFUSED)
    elif kind == "!":
        seen = ProbeEvidence(
            address, ProbeStage.EHLO, ProbeFailure.REPLY, reply=Reply(550, "5.1.8", "no")
        )
    return host(name=name, preference=preference, seen=seen)


def ends(groups: str, limit: int) -> tuple[str, bool]:
    """The status of ordinary mail for *groups*, best first, and whether chance has a say."""
    hosts: list[HostEvidence] = []
    for preference, group in enumerate(groups.split("|")):
        for word in group.split():
            hosts.append(server(len(hosts) + 1, word, preference))
    names = tuple(f"mx{number}.example.org" for number in range(1, len(hosts) + 1))
    result = forecast(
        domain(*hosts, sts=names), replace(PASSING_OVER, mx_address_limit=limit), Requirement.NONE
    )
    return result.status, "random order" in result.text


@pytest.mark.parametrize(
    ("groups", "limit", "status", "by_chance"),
    [
        # One end, whatever the order.
        ("+4 +4", 0, "2.0.0", False),
        ("-4 +4", 0, "2.0.0", False),
        ("-4 -4", 0, "4.4.1", False),
        ("-4 -4|+4", 0, "2.0.0", False),
        ("-4|+4 +4", 0, "2.0.0", False),
        ("~4 +4", 0, "2.0.0", False),
        ("~4 -4", 0, "4.4.1", False),
        ("~4 ~4", 0, "4.3.0", False),
        ("-4|~4 ~4", 0, "4.4.1", False),
        ("~4 ~4|-4", 0, "4.4.1", False),
        # What is tried first decides.
        ("!4 +4", 0, "5.1.8", True),
        ("!4 -4", 0, "5.1.8", False),
        ("-4|!4 +4", 0, "5.1.8", True),
        ("!4 +4|-4", 0, "5.1.8", True),
        ("+4|!4 +4", 0, "2.0.0", False),
        # The limit leaves some out: which, decides.
        ("-4 +4", 1, "4.4.1", True),
        ("-4 -4 +4", 2, "4.4.1", True),
        ("-4 +4 +4", 2, "2.0.0", False),
        ("-4 +4 +4", 1, "4.4.1", True),
        ("-4 -4 +4", 3, "2.0.0", False),
        ("-4 -4|+4", 2, "4.4.1", False),
        ("-4 -4|+4", 3, "2.0.0", False),
        ("-4|-4 +4", 2, "4.4.1", True),
        ("~4 +4", 1, "4.3.0", True),
        ("~4 -4", 1, "4.3.0", True),
        ("~4 ~4 -4", 2, "4.3.0", True),
        ("-4|~4 -4", 2, "4.4.1", False),
        ("!4 -4", 1, "5.1.8", True),
        ("!4 -4 -4", 2, "5.1.8", True),
        ("!4 !4 -4", 2, "5.1.8", False),
        # Two families share a limit, and the first server has the odd one.
        ("-4 +6", 1, "4.4.1", True),
        ("-4 +6", 2, "2.0.0", False),
        ("-4 -4 +6", 2, "2.0.0", False),
        ("+4 -6 -6", 2, "2.0.0", False),
        ("-4 +4 -6 -6", 2, "4.4.1", True),
        ("-4 +4 -6 -6", 3, "4.4.1", True),
        ("+4 +4 -6 -6", 3, "2.0.0", False),
        ("-4 -4|-6 +6", 3, "4.4.1", True),
        ("-4 -4|+6 +6", 3, "2.0.0", False),
        ("-6|-4 +4|-6 -6", 3, "4.4.1", True),
        ("-4|-4 +4|-6 -6", 3, "4.4.1", True),
        ("-4|+4|-6 -6", 3, "2.0.0", False),
        ("!4 !4 +6 +6", 3, "5.1.8", True),
        ("-4 !4 +6 -6", 3, "5.1.8", True),
    ],
)
def test_of_equals_the_worst_is_forecast_and_whether_chance_decides_is_told(
    groups: str, limit: int, status: str, by_chance: bool
) -> None:
    assert ends(groups, limit) == (status, by_chance)


def test_what_ends_before_any_server_is_tried_is_of_no_family() -> None:
    ended = DeliveryAttempt(None, "5.4.4", Reason.NO_SUCH_DOMAIN)
    assert ended.families == frozenset()
    assert (ended.text, ended.tls) == ("", None)
    told = (ended.delivered, ended.ends, ended.verified, ended.requiretls_sent)
    assert told == (False, False, False, False)
