"""Row ``cli``: how long commands take that people, scripts and probes run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.asking import Asker
from tests.bench.beside import Contender, Found, in_turn, table
from tests.bench.mail import BENCH_DOMAIN, next_hop, service
from tests.bench.rows import Effort, Row
from tests.bench.startup import command, python
from tests.bench.trees import environment

COMMANDS = {
    "--help": ("--help",),
    "check of one name": ("check", BENCH_DOMAIN, "--config", "{config}"),
    "status": ("status", "--config", "{config}"),
}
"""``check`` and ``status`` ask the engine of a service that runs and knows the domain."""


def cli(effort: Effort) -> Row:
    """Measure each command in turn with Python alone."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtls-")))
        config = stack.enter_context(next_hop(directory))
        milter = stack.enter_context(service(config, effort.tree))
        asker = stack.enter_context(contextlib.closing(Asker(str(milter.engine_path))))
        asker.agree(BENCH_DOMAIN)
        cases, notes = [], []
        for title, words in COMMANDS.items():
            told = [word.format(config=milter.config_path) for word in words]
            try:
                ours = Contender("ours", _run(told, effort.tree))
            except subprocess.CalledProcessError as error:
                notes.append(f"{title}: exit status {error.returncode}: there was none")
                continue
            baseline = Contender("python -c pass", _with_modules(python, ["-c", "pass"], None))
            cases.append(in_turn(title, (ours, baseline), 2 * effort.runs))
    return table(
        "cli",
        "commands",
        cases,
        "check and status ask a running service",
        *notes,
        first="command",
    )


def _run(words: Sequence[str], tree: Path) -> Callable[[], Found]:
    told = ["-m", "requiretls_milter", *words]
    return _with_modules(lambda: command([sys.executable, *told], tree), told, tree)


def _with_modules(
    run: Callable[[], Found], words: Sequence[str], tree: Path | None
) -> Callable[[], Found]:
    """Tell also how many modules are imported, which is counted once.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=tree,
        env=None if tree is None else environment(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    modules = sum(line.startswith("import time:") for line in done.stderr.splitlines()) - 1
    return lambda: {**run(), "modules": float(modules)}
