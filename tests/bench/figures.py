"""Figures of interleaved runs: medians, ratios, and how far both are to be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One quantity over all runs: the median, the middle half, and each run's value."""

    median: float
    low: float
    high: float
    runs: tuple[float, ...]


def figure(values: Iterable[float]) -> Figure:
    """The figure of one value a run."""
    runs = tuple(values)
    low, high = _quartiles(runs)
    return Figure(statistics.median(runs), low, high, runs)


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians, and the middle half of the ratios of neighbouring runs.

    A machine that is busy with other things makes both of two neighbouring runs
    slow: their ratio varies less than either of them.
    """

    ratio: float
    low: float
    high: float


def ratio(ours: Figure, theirs: Figure) -> Ratio:
    """How *ours* compares to *theirs*; the runs were made in turn."""
    pairs = [a / b for a, b in zip(ours.runs, theirs.runs, strict=True) if b]
    low, high = _quartiles(pairs)
    return Ratio(ours.median / theirs.median if theirs.median else 0.0, low, high)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third
