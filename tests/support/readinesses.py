"""Reports on readiness for tests: a few next hops, and thousands of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness, ServerState
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.model import Feature, InboundProblem, Reason
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.readiness.values import (
    Accuracy,
    Downgrade,
    HopReadiness,
    HopState,
    Policy,
    Readiness,
    Step,
)
from requiretls_milter.syntax.moments import day

NOW = 1_795_953_600.0
"""2026-11-29, noon."""

DAY = 86_400.0


def ready(nexthop: str = "ready.example", mail: int = 10) -> HopReadiness:
    """A next hop that has all it needs."""
    return HopReadiness(
        nexthop,
        mail,
        HopState.READY,
        "2.0.0",
        Reason.OK,
        mx=f"mx.{nexthop}",
        level="dane",
        tls_version="TLSv1.3",
        policy=Policy.DANE,
        missing=(),
    )


def below(nexthop: str = "below.example", mail: int = 5) -> HopReadiness:
    """A next hop that lacks REQUIRETLS alone."""
    return replace(
        ready(nexthop, mail),
        state=HopState.BOUNCE,
        status="5.7.30",
        reason=Reason.REQUIRETLS_NOT_OFFERED,
        text=f"mx.{nexthop}[192.0.2.1] does not offer REQUIRETLS",
        missing=(Step.REQUIRETLS,),
    )


def clear(nexthop: str = "clear.example", mail: int = 2) -> HopReadiness:
    """A next hop without STARTTLS."""
    return HopReadiness(
        nexthop,
        mail,
        HopState.BOUNCE,
        "5.7.30",
        Reason.STARTTLS_NOT_OFFERED,
        text=f"mx.{nexthop}[192.0.2.1] does not offer STARTTLS",
        mx=f"mx.{nexthop}",
        level="may",
        policy=Policy.NEITHER,
        missing=(Step.MX_NAME, Step.STARTTLS, Step.CERTIFICATE, Step.REQUIRETLS),
    )


def unknown(nexthop: str = "unknown.example", mail: int = 1) -> HopReadiness:
    """A next hop of which nothing could be found out."""
    return HopReadiness(
        nexthop, mail, HopState.UNKNOWN, "unknown", Reason.UNKNOWN, "no answer in time"
    )


def report(*found: HopReadiness, source: MailSource = MailSource.LOG, **more: Any) -> Readiness:
    """A report on these next hops."""
    made = Readiness(NOW, source, "Postfix 3.11.7, which acts on REQUIRETLS itself", found)
    return replace(made, **more)


def listed(one: HopReadiness) -> HopReadiness:
    """The same of a list, which does not tell how much mail there is."""
    return replace(one, mail=0)


def days(count: int) -> tuple[Day, ...]:
    """A history that gets better."""
    return tuple(_days(count))


def _days(count: int) -> Iterator[Day]:
    for number in range(count):
        share = 40 + 40 * number // max(count - 1, 1)
        yield Day(
            day=day(NOW - (count - 1 - number) * DAY),
            mail=10_000,
            mail_ready=100 * share + (37 * number) % 90,
            domains=5_000,
            domains_ready=40 * share,
        )


def own() -> tuple[InboundReport, ...]:
    """Two of our own domains, one of which breaks soon."""
    end = NOW + 9 * DAY
    return (
        InboundReport(
            "example.org",
            (
                Problem(
                    InboundProblem.CERTIFICATE_EXPIRES,
                    Urgency.ENDS,
                    "mx1.example.org",
                    "the certificate ends on 2026-12-08",
                    end,
                ),
            ),
            (ServerState("mx1.example.org", ServerReadiness.READY, end),),
            None,
            frozenset(),
            NOW,
        ),
        InboundReport(
            "example.net",
            (),
            (ServerState("mx1.example.net", ServerReadiness.READY, NOW + 80 * DAY),),
            None,
            frozenset(),
            NOW,
        ),
    )


def large(count: int = 5_000) -> Readiness:
    """A report on so many next hops, with everything that there can be."""
    kinds = (ready, below, ready, clear, ready, unknown, below)
    found = []
    for number in range(count):
        mail = 1 + 40_000 // (1 + 7919 * number % count)  # a few next hops get most mail
        one = kinds[number % len(kinds)](f"d{number}.example", mail)
        if one.state is HopState.READY and number % 5 < 2:
            one = replace(one, policy=Policy.MTA_STS, level="secure")
        if one.state is HopState.BOUNCE and number % 5 == 0:
            one = replace(one, state=HopState.NONCOMPLIANT, reason=Reason.NONCOMPLIANT_MX_INSECURE)
        if number % 31 == 0:
            one = replace(one, state=HopState.DEFER, reason=Reason.UNREACHABLE, missing=None)
        found.append(one)
    return report(
        *found,
        since=NOW - 7 * DAY,
        until=NOW,
        days=days(120),
        is_kept=True,
        downgrades=(
            Downgrade("mx.d7.example", Feature.STARTTLS, NOW - 3 * DAY, NOW - 2 * DAY),
            Downgrade("d9.example", Feature.MTA_STS, NOW - DAY),
        ),
        own=own(),
        accuracy=Accuracy(equal=1187, later=11, unknown=4, different=2, waiting=3),
    )
