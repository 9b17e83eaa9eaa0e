"""Row ``startup``: from the start of the service until systemd is told READY.

With a store that holds many domains, beside an empty one and Python alone. READY means that the
engine and all workers answer.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.beside import Contender, Found, in_turn, table
from tests.bench.machine import cpu_seconds
from tests.bench.mail import NO_RESOLVER
from tests.bench.rows import Effort, Row
from tests.bench.trees import environment
from tests.support.service import Service

RECORDS = """
url = "sqlite://{path}"
max_records = 10000000
max_bytes = 1099511627776
"""

MEBIBYTE = 1 << 20

PATIENCE = 120.0
"""Seconds for a start: on a busy machine it takes as long as it takes."""


def startup(effort: Effort) -> Row:
    """Measure each kind of start in turn; each run has a file of its own."""
    with tempfile.TemporaryDirectory(prefix="rtls-") as name:
        directory = Path(name)
        full = directory / "full.db"
        subprocess.run(
            [sys.executable, "-m", "tests.bench.stored", full, str(effort.stored)],
            env=environment(effort.tree),
            cwd=effort.tree,
            check=True,
        )
        case = in_turn(
            f"{effort.stored:,} domains",
            (
                Contender("stored", _start(effort.tree, full)),
                Contender("an empty store", _start(effort.tree, None)),
                Contender("python -c pass", python),
            ),
            effort.runs,
        )
        size = full.stat().st_size / MEBIBYTE
    return table(
        "startup",
        "from the start to READY",
        [case],
        f"the file with {effort.stored:,} domains has {size:.0f} MiB",
    )


def _start(tree: Path, filled: Path | None) -> Callable[[], Found]:
    def run() -> Found:
        service = Service(NO_RESOLVER, workers=0, log_format="logfmt", tree=tree)
        with contextlib.ExitStack() as stack:
            stack.callback(service.destroy)
            path = service.directory / "state.db"
            if filled is not None:
                shutil.copyfile(filled, path)
                path.chmod(0o600)
            text = service.config_path.read_text()
            stored = text.replace('url = "memory:"', RECORDS.format(path=path))
            service.config_path.write_text(stored)
            began = time.perf_counter()
            service.start(patience=PATIENCE)
            seconds = time.perf_counter() - began
            spent = cpu_seconds([service.pid, *service.family])
        return {"ms": 1000 * seconds, "CPU ms": 1000 * spent}

    return run


def python() -> Found:
    """Start the interpreter, and end it."""
    return command([sys.executable, "-c", "pass"], None)


def command(words: list[str], tree: Path | None) -> Found:
    """Run a command to its end, which must be a good one."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        words,
        cwd=tree,
        env=None if tree is None else environment(tree),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ms": 1000 * seconds, "CPU ms": 1000 * spent}
