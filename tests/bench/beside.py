"""Ours beside baselines: measured in turn, with ratios of neighbouring runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.figures import Figure, figure, ratio
from tests.bench.rows import Row, number

Found = Mapping[str, float]
"""What one run measured: by quantity with its unit, such as ``CPU µs``."""


@dataclass(frozen=True)
class Contender:
    """What is measured beside others: its name, and one run of it."""

    name: str
    run: Callable[[], Found]


@dataclass(frozen=True)
class Case:
    """What was measured of all contenders, ours first: figures by contender and quantity."""

    title: str
    figures: Mapping[str, Mapping[str, Figure]]

    @classmethod
    def of(cls, title: str, found: Mapping[str, Sequence[Found]]) -> Case:
        """What so many runs of each contender found."""
        return cls(
            title,
            {
                name: {what: figure(one[what] for one in measured) for what in measured[0]}
                for name, measured in found.items()
            },
        )

    @property
    def ours(self) -> Mapping[str, Figure]:
        """Figures of the first contender."""
        return next(iter(self.figures.values()))

    def data(self) -> dict[str, Any]:
        """All figures, and the ratios of ours to each other one's."""
        name, *others = self.figures
        return {
            "case": self.title,
            "figures": {
                each: {what: asdict(one) for what, one in some.items()}
                for each, some in self.figures.items()
            },
            "ratios": {
                each: {
                    what: asdict(ratio(one, self.figures[each][what]))
                    for what, one in self.figures[name].items()
                    if what in self.figures[each] and self.figures[each][what].median
                }
                for each in others
            },
        }


def in_turn(title: str, contenders: Sequence[Contender], runs: int) -> Case:
    """Run all of them, so many times in turn."""
    found: dict[str, list[Found]] = {each.name: [] for each in contenders}
    for _ in range(runs):
        for each in contenders:
            found[each.name].append(each.run())
    return Case.of(title, found)


def table(name: str, title: str, cases: Sequence[Case], *notes: str, first: str = "case") -> Row:
    """A row with a line for each contender of each case, and one for each ratio."""
    quantities = list(dict.fromkeys(what for case in cases for what in case.ours))
    lines, data = [], []
    for case in cases:
        told = case.data()
        data.append(told)
        for each, some in case.figures.items():
            values = (_told(some[what]) if what in some else "" for what in quantities)
            lines.append((case.title, each, *values))
        ours = next(iter(case.figures))
        for each, ratios in told["ratios"].items():
            values = (_ratio(ratios[what]) if what in ratios else "" for what in quantities)
            lines.append((case.title, f"{ours} : {each}", *values))
    runs = len(next(iter(cases[0].ours.values())).runs)
    spread = (
        f"medians of {runs} runs in turn; in parentheses the middle half, of a ratio that of "
        "neighbouring runs"
    )
    return Row(name, title, tuple(lines), (first, "of", *quantities), (spread, *notes), tuple(data))


def _told(one: Figure) -> str:
    return f"{number(one.median)} ({number(one.low)}-{number(one.high)})"


def _ratio(found: Mapping[str, float]) -> str:
    return f"{found['ratio']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
