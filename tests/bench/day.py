"""Row ``day``: a simulated day, and which of its messages wait for the network.

A small internet in which all is well, so that what is seen is the service's own doing
(:mod:`tests.bench.simulation`, :mod:`tests.bench.world`). Three days go before the one that is
counted, so that it begins with what an engine has then.
"""

from __future__ import annotations

from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.model import Requirement
from tests.bench.rows import Effort, Row
from tests.bench.simulation import BEFORE, Setup, simulate
from tests.bench.world import WELL, Kind, World

GOAL_WAITING, GOAL_PROBES = 0.01, 1.05

WORLD = World(
    domains=20_000,
    kinds={Kind.LARGE: 0.3, Kind.TENANTS: 0.25, Kind.HOSTER: 0.2, Kind.OWN: 0.25},
    pool=65_536,
    hosters=40,
    skew=0.0,
    policies=dict.fromkeys(Kind, 0.05),
    signed=1.0,
    offers=1.0,
    tenant_ttl=0,
    health=WELL,
)


@dataclass(frozen=True)
class Case:
    """How the service is set up."""

    title: str
    setup: Setup


BEFORE_IT = Case("stale_for = 0", Setup(stale_for=0))
AS_INSTALLED = Case("as installed", Setup(stale_for=Config().engine.stale_for))
BY_US_ALONE = Case("MTA carries nothing", Setup(carried=Requirement.NONE))

CASES = {2_000: (BEFORE_IT, AS_INSTALLED, BY_US_ALONE), 20_000: (BEFORE_IT, AS_INSTALLED)}
QUICK_CASES = {100: (BEFORE_IT, AS_INSTALLED)}
"""By the number of messages a day."""


def day(effort: Effort) -> Row:
    """Simulate a day with each number of messages, and each case."""
    lines, data, notes = [], [], []
    for messages, cases in (QUICK_CASES if effort.quick else CASES).items():
        sessions = 0
        for case in cases:
            counted = simulate(WORLD, case.setup, messages, BEFORE + 1)
            calls = counted.calls.total
            sessions = sessions or calls["sessions"]
            probes = calls["sessions"] / max(1, sessions)
            lines.append(
                (
                    case.title,
                    f"{messages:,}",
                    f"{counted.seen:,}",
                    f"{counted.waiting:.1%}",
                    f"{counted.stale:,}",
                    f"{counted.oldest / 3_600:.0f}",
                    f"{calls['sessions']:,}",
                    f"{probes:.2f}",
                    f"{calls['lookups']:,}",
                )
            )
            data.append(
                {
                    "case": case.title,
                    "messages": messages,
                    "seen": counted.seen,
                    "waited": counted.seen_waited,
                    "stale": counted.stale,
                    "oldest": counted.oldest,
                    "probes_ratio": probes,
                    **calls,
                }
            )
            if case is AS_INSTALLED:
                met = counted.waiting <= GOAL_WAITING and probes <= GOAL_PROBES
                notes.append(
                    f"{messages:,} messages: goal, at most {GOAL_WAITING:.0%} wait with at "
                    f"most {GOAL_PROBES} times the probes: {'met' if met else 'not met'}"
                )
    return Row(
        "day",
        "the fourth of four days, simulated: which messages for domains seen lately wait",
        lines=tuple(lines),
        columns=(
            "case",
            "messages",
            "seen",
            "wait",
            "stale",
            "hours",
            "probes",
            "ratio",
            "lookups",
        ),
        notes=tuple(notes),
        data=tuple(data),
    )
