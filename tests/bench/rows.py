"""What a row of the benchmark is, and how much of it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import REPOSITORY


@dataclass(frozen=True)
class Effort:
    """How long to measure, and what.

    Attributes:
        runs: of each kind, in turn.
        seconds: of each run of mail, after *warmup* seconds; for ``judge``, at most that long.
        warmup: seconds.
        domains: of ``cold`` in all, *window* of them at once.
        window: see *domains*.
        healthy: domains of ``tarpits``, beside each number of *slow* ones.
        slow: see *healthy*.
        questions: of a run of ``warm``, or look-ups of a run of ``peers``.
        kept: hosts, domains and forecasts of ``memory``.
        stored: domains of ``startup``.
        mails: messages of a run of ``postfix``.
        records: of a run of ``store``.
        quick: whether it only shows that all of it works.
        tree: that of the package whose processes are measured.
    """

    runs: int
    seconds: float
    warmup: float
    domains: int
    window: int
    healthy: int
    slow: tuple[int, ...]
    questions: int
    kept: int
    stored: int
    mails: int
    records: int
    quick: bool
    tree: Path = REPOSITORY


FULL = Effort(
    runs=7,
    seconds=1.0,
    warmup=0.3,
    domains=1000,
    window=200,
    healthy=150,
    slow=(3, 60, 240),
    questions=2000,
    kept=10_000,
    stored=100_000,
    mails=600,
    records=5000,
    quick=False,
)
"""Some twenty minutes in all."""

QUICK = Effort(
    runs=1,
    seconds=0.2,
    warmup=0.05,
    domains=20,
    window=5,
    healthy=5,
    slow=(3,),
    questions=20,
    kept=500,
    stored=500,
    mails=30,
    records=50,
    quick=True,
)
"""Seconds: shows that all of it works, and measures nothing."""


@dataclass(frozen=True)
class Row:
    """A measured row: a line for people for each thing that it says, and the data.

    ``skipped`` has the reason where it could not be measured.
    """

    name: str
    title: str
    lines: tuple[tuple[str, ...], ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    skipped: str = ""


def number(value: float) -> str:
    """A value with three digits that say something, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
