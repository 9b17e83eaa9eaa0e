"""What a row of the benchmark is, and how much of it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    ``runs`` of each kind in turn, ``seconds`` each after ``warmup`` seconds; for
    ``judge``, at most that long; for ``assess``, ``domains`` in all, ``window`` of
    them at once; for ``tarpits``, ``healthy`` domains beside each number of ``slow`` ones.
    """

    runs: int
    seconds: float
    warmup: float
    domains: int
    window: int
    healthy: int
    slow: tuple[int, ...]
    quick: bool


FULL = Effort(
    runs=7,
    seconds=1.5,
    warmup=0.3,
    domains=1000,
    window=200,
    healthy=150,
    slow=(3, 60, 240),
    quick=False,
)
"""Some seven minutes in all."""

QUICK = Effort(
    runs=1, seconds=0.2, warmup=0.05, domains=20, window=5, healthy=5, slow=(3,), quick=True
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
