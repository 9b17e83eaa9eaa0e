"""``--against REV``: this tree's package and that of an earlier commit, measured in turn.

This tree's benchmark measures both. Of most rows it starts the processes of either package; a row
that measures code in its own process runs in one that imports the earlier package, which works as
far back as the parts that it calls are the same. Of what both tell, the figures are compared:
medians over the rounds, and the middle half of the ratios of neighbouring rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.figures import figure, ratio
from tests.bench.known import ROWS
from tests.bench.rows import Row, number
from tests.bench.trees import RevisionError, environment, tree_of
from tests.support.paths import REPOSITORY

USUAL = ("plain", "asked", "warm", "cold")
"""The rows that are compared unless some are named: those of mail and of the engine."""

FIGURES: Mapping[str, tuple[str, ...]] = {
    "messages/s": ("milters", "ours", "rate", "median"),
    "CPU µs": ("milters", "ours", "cpu_us", "median"),
    "p99 ms": ("milters", "ours", "p99_ms", "median"),
    "median": ("median",),
    "ms in a thread": ("thread_seconds",),
    "p99": ("p99",),
    "assessments/s": ("rate", "median"),
    "engine's CPU ms": ("engine_cpu_ms",),
    "one alone s": ("alone_seconds", "median"),
}
"""Where each figure stands in the data of a row that is no table of cases."""


def compared(revision: str, rows: Sequence[str], rounds: int, *, quick: bool) -> list[Row]:
    """Measure the rows in both trees, in turn; the earlier one second."""
    found: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in rows or USUAL}
    with tree_of(revision) as tree:
        for _ in range(rounds):
            for name, (now, before) in found.items():
                now.append(_measured(REPOSITORY, name, quick=quick))
                before.append(_measured(tree, name, quick=quick))
    return [_row(name, revision, now, before) for name, (now, before) in found.items()]


def _measured(tree: Path, row: str, *, quick: bool) -> list[dict[str, Any]]:
    """The data of one row, of the package of a tree."""
    inside = ROWS[row].inside
    command = [sys.executable, "-m", "tests.bench", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(
        [*command, row] if inside else [*command, "--tree", str(tree), row],
        cwd=tree if inside else REPOSITORY,
        env=environment(tree if inside else REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RevisionError(f"{row} of {tree}: {done.stderr[-2000:]}")
    (found,) = json.loads(done.stdout)["rows"]
    if found["skipped"]:
        raise RevisionError(f"{row}: not measured: {found['skipped']}")
    return list(found["data"])


def _row(name: str, revision: str, now: Sequence[Any], before: Sequence[Any]) -> Row:
    lines, data = [], []
    theirs = dict(_figures(before))
    for label, ours in _figures(now):
        if label not in theirs:
            continue
        one, other = figure(ours), figure(theirs[label])
        both = ratio(one, other)
        spread = f"{both.ratio:.2f} ({both.low:.2f}-{both.high:.2f})"
        lines.append((label, number(one.median), number(other.median), spread))
        data.append({"what": label, "now": asdict(one), "before": asdict(other), **asdict(both)})
    return Row(
        name,
        f"this tree beside {revision}",
        tuple(lines),
        ("what", "now", revision, "now : before"),
        (f"medians of {len(now)} rounds, in turn",),
        tuple(data),
    )


def _figures(rounds: Sequence[Any]) -> Iterator[tuple[str, list[float]]]:
    """Each figure that all rounds have, with what it is of."""
    of_each = [dict(_of_round(one)) for one in rounds]
    for label in of_each[0]:
        if all(label in found for found in of_each):
            yield label, [found[label] for found in of_each]


def _of_round(entries: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for entry in entries:
        title = _title(entry)
        if "figures" in entry:
            ours = next(iter(entry["figures"].values()))
            yield from ((f"{title}{what}", one["median"]) for what, one in ours.items())
            continue
        for label, path in FIGURES.items():
            value = _at(entry, path)
            if value is not None:
                yield title + label, float(value)


def _title(entry: Mapping[str, Any]) -> str:
    if "connections" in entry:
        return f"{entry['connections']} connections, "
    if "kind" in entry:
        return f"{entry['slow']} {entry['kind']}, "
    return f"{entry['case']}, " if "case" in entry else ""


def _at(entry: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(entry, dict) or key not in entry:
            return None
        entry = entry[key]
    return entry
