"""Row ``judge``: forecasts a second on one core, from evidence that is there.

Two MX hosts, DANE or MTA-STS, and what the judge keeps of certificates is kept:
no chain is verified anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from requiretls_milter.forecast.judge import judge
from requiretls_milter.model import (
    DomainEvidence,
    Forecast,
    HostEvidence,
    MtaProfile,
    MtaSts,
    Requirement,
    TlsLevel,
)
from tests.bench.figures import figure
from tests.bench.rows import Effort, Row, number
from tests.support import build

GOAL = 20_000.0
"""Forecasts a second."""

_NAMES = ("mx1.example.org", "mx2.example.org")

Case = tuple[str, DomainEvidence, MtaProfile, str]
"""What it is, the evidence, the profile, and the status that must come out."""


def cases() -> Iterator[Case]:
    """Where the first server decides, where the second does, and by either authentication."""
    dane = build.DANE
    sts = MtaProfile(tls_security_level=TlsLevel.MAY, mta_sts=MtaSts.MX_PATTERNS)
    good, bad = _hosts(requiretls=True, tlsa=True), _hosts(requiretls=False, tlsa=True)
    unsigned = _hosts(requiretls=True, tlsa=False)
    yield "DANE, the first server takes it", build.domain(*good), dane, "2.0.0"
    yield "DANE, no server offers REQUIRETLS", build.domain(*bad), dane, "5.7.30"
    yield (
        "MTA-STS and PKIX, the first server takes it",
        build.domain(*unsigned, secure=False, sts=_NAMES),
        sts,
        "2.0.0",
    )
    yield "by the letter of RFC 8689, DANE", build.domain(*good), build.RFC8689, "2.0.0"


def _hosts(*, requiretls: bool, tlsa: bool) -> list[HostEvidence]:
    hosts = []
    for number_of_host, name in enumerate(_NAMES, start=1):
        presented = build.certificate(name)
        hosts.append(
            build.host(
                *([presented.tlsa()] if tlsa else []),
                name=name,
                preference=10 * number_of_host,
                seen=build.probe(f"192.0.2.{number_of_host}", presented, requiretls=requiretls),
                secure=tlsa,
            )
        )
    return hosts


def rate(one: Callable[[], Forecast], seconds: float) -> float:
    """How often a second *one* can be called, in a run of about so many seconds."""
    calls, batch = 0, 50
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(batch):
            one()
        calls += batch
    return calls / spent


def judged(effort: Effort) -> Row:
    """Measure all cases in turn."""
    trust = build.trust()
    found: dict[str, list[float]] = {}
    for _ in range(effort.runs):
        for title, evidence, profile, status in cases():

            def one(evidence: DomainEvidence = evidence, profile: MtaProfile = profile) -> Forecast:
                return judge(
                    evidence,
                    asked=Requirement.REQUIRETLS,
                    carried=Requirement.REQUIRETLS,
                    profile=profile,
                    trust=trust,
                    now=build.NOW,
                )

            forecast = one()
            if forecast.status != status:
                raise AssertionError(f"{title}: {forecast}")
            found.setdefault(title, []).append(rate(one, min(effort.seconds, 0.4)))
    figures = {title: figure(rates) for title, rates in found.items()}
    return Row(
        "judge",
        "forecasts a second on one core, from evidence of a domain with two MX hosts",
        tuple(
            (title, number(each.median), f"{number(each.low)} to {number(each.high)}")
            for title, each in figures.items()
        ),
        ("evidence", "forecasts/s", "middle half of the runs"),
        (f"medians of {effort.runs} runs in turn; goal: more than {number(GOAL)}",),
        tuple({"case": title, **asdict(each)} for title, each in figures.items()),
    )
