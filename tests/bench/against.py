"""``--against REV``: the rows of this tree and those of an earlier commit, measured in turn.

Each tree measures itself, with its own benchmark and its own package, in the same environment; so
an earlier commit needs nothing that it did not have. Of what both tell, the figures are compared:
medians over the rounds, and the middle half of the ratios of neighbouring rounds. If the benchmark
itself has changed between the two, compare with care: docs/benchmarks.md says what it measures.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.figures import figure, ratio
from tests.bench.rows import Row, number
from tests.support.paths import REPOSITORY

ROWS = ("plain", "asked", "assess")
"""The rows that are compared unless some are named: those of mail and of cold domains."""

FIGURES: Mapping[str, tuple[str, ...]] = {
    "messages/s": ("milters", "ours", "rate", "median"),
    "CPU µs": ("milters", "ours", "cpu_us", "median"),
    "p99 ms": ("milters", "ours", "p99_ms", "median"),
    "assessments/s": ("rate", "median"),
    "engine's CPU ms": ("engine_cpu_ms",),
    "one alone s": ("alone_seconds",),
}
"""Where each figure stands in the data of a row."""


class RevisionError(Exception):
    """There is no such commit, or its benchmark does not run."""


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The files of a commit, in a directory of their own."""
    done = subprocess.run(
        ["git", "archive", "--format=tar", revision],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise RevisionError(done.stderr.decode(errors="replace").strip())
    with tempfile.TemporaryDirectory(prefix="rtls-against-") as name:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Path(name)


def compared(revision: str, rows: Sequence[str], rounds: int, *, quick: bool) -> list[Row]:
    """Measure the rows in both trees, in turn; the earlier one second."""
    found: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in rows or ROWS}
    with tree_of(revision) as tree:
        for _ in range(rounds):
            for name, (now, before) in found.items():
                now.append(_measured(REPOSITORY, name, quick=quick))
                before.append(_measured(tree, name, quick=quick))
    return [_row(name, revision, now, before) for name, (now, before) in found.items()]


def _measured(tree: Path, row: str, *, quick: bool) -> list[dict[str, Any]]:
    """The data of one row, as the benchmark of a tree measures it."""
    command = [sys.executable, "-m", "tests.bench", "--json", *(["--quick"] if quick else []), row]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RevisionError(f"{row} in {tree}: {done.stderr[-2000:]}")
    (found,) = json.loads(done.stdout)["rows"]
    if found["skipped"]:
        raise RevisionError(f"{row}: not measured: {found['skipped']}")
    return list(found["data"])


def _row(name: str, revision: str, now: Sequence[Any], before: Sequence[Any]) -> Row:
    lines, data = [], []
    for label, ours in _figures(now):
        theirs = dict(_figures(before)).get(label)
        if theirs is None:
            continue
        one, other = figure(ours), figure(theirs)
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


def _figures(rounds: Sequence[Any]) -> list[tuple[str, list[float]]]:
    """Each figure that all rounds have, with what it is of."""
    found = []
    for position, entry in enumerate(rounds[0]):
        place = f"{entry['connections']} connections, " if "connections" in entry else ""
        for label, path in FIGURES.items():
            values = [_at(data[position], path) for data in rounds]
            if all(value is not None for value in values):
                found.append((place + label, [float(value) for value in values if value]))
    return found


def _at(entry: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(entry, dict) or key not in entry:
            return None
        entry = entry[key]
    return entry
