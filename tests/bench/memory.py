"""Row ``memory``: what is kept takes so much, and what a service takes that has just started.

Hosts, domains and forecasts are kept by the engine's and the workers' own code, in a process of
its own for each run; the baseline is the sum of their octets, each text and certificate once. What
several processes share counts once (PSS).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.beside import Case, Contender, Found, in_turn, table
from tests.bench.mail import NO_RESOLVER, baseline
from tests.bench.rows import Effort, Row
from tests.bench.trees import environment
from tests.support.memory import shared_out
from tests.support.service import Service

KINDS = {
    "an MX host": "hosts",
    "a domain": "domains",
    "a forecast in a worker": "forecasts",
    "a forecast in the engine": "answers",
}

WORKERS = (2, 4)

MEBIBYTE = 1 << 20


def memory(effort: Effort) -> Row:
    """Measure both."""
    runs = max(1, effort.runs // 2)  # memory varies little
    cases = [_kept(title, kind, effort, runs) for title, kind in KINDS.items()]
    with tempfile.TemporaryDirectory(prefix="rtls-") as name, baseline(Path(name)) as plain:
        for workers in WORKERS:
            ours = Contender("ours", _idle(effort.tree, workers))
            theirs = Contender("pymilter", lambda: {"MiB": shared_out(plain.pids()) / MEBIBYTE})
            cases.append(in_turn(f"{workers} workers, idle", (ours, theirs), runs))
    return table(
        "memory",
        "octets of what is kept, and of a service that has just started",
        cases,
        f"octets of one: {effort.kept:,} of each kind are kept",
        first="what",
    )


def _kept(title: str, kind: str, effort: Effort, runs: int) -> Case:
    grown: list[Found] = []
    alone: list[Found] = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.keeping", kind, str(effort.kept)],
            env=environment(effort.tree),
            cwd=effort.tree,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        octets, least = map(int, done.stdout.split())
        grown.append({"octets": octets / effort.kept})
        alone.append({"octets": least / effort.kept})
    return Case.of(title, {"ours": grown, "data": alone})


def _idle(tree: Path, workers: int) -> Callable[[], Found]:
    def run() -> Found:
        service = Service(NO_RESOLVER, workers=workers, log_format="logfmt", tree=tree)
        with contextlib.ExitStack() as stack:
            stack.callback(service.destroy)
            service.start()
            return {"MiB": shared_out([service.pid, *service.family]) / MEBIBYTE}

    return run
