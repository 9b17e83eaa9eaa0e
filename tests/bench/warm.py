"""Row ``warm``: a question that the engine answers from its memory, over its socket.

A worker asks so when the forecast that it kept has ended, or when it never had one. The baseline
is a process that answers each question with the same octets, without reading it: what the socket
and asyncio cost.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.asking import Asker
from tests.bench.beside import Contender, Found, in_turn, table
from tests.bench.load import listens
from tests.bench.machine import cpu_seconds
from tests.bench.mail import BENCH_DOMAIN, next_hop, service
from tests.bench.rows import Effort, Row
from tests.support.paths import REPOSITORY
from tests.support.processes import Process

WINDOWS = (1, 16)
"""Questions at once: a single message, and a busy worker."""


def warm(effort: Effort) -> Row:
    """Measure the engine of a whole service, after its first answer."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtls-")))
        config = stack.enter_context(next_hop(directory))
        milter = stack.enter_context(service(config, effort.tree))
        engine = stack.enter_context(contextlib.closing(Asker(str(milter.engine_path))))
        (directory / "answer").write_bytes(engine.agree(BENCH_DOMAIN))
        echo = _echo(directory)
        stack.callback(echo.wait)
        stack.callback(echo.kill)
        socket = stack.enter_context(contextlib.closing(Asker(str(directory / "echo.sock"))))

        def run(asker: Asker, pid: int, window: int) -> Callable[[], Found]:
            return lambda: _run(asker, pid, effort.questions, window)

        cases = [
            in_turn(
                f"{window} at once",
                (
                    Contender("ours", run(engine, milter.children["engine"], window)),
                    Contender("a socket", run(socket, echo.pid, window)),
                ),
                effort.runs,
            )
            for window in WINDOWS
        ]
    return table(
        "warm",
        "a question answered from the engine's memory",
        cases,
        f"{effort.questions} questions in each run; processor time of the engine",
        first="questions",
    )


def _run(asker: Asker, pid: int, questions: int, window: int) -> Found:
    before = cpu_seconds([pid])
    seconds, ends = asker.ask([BENCH_DOMAIN] * questions, window)
    spent = cpu_seconds([pid]) - before
    return {"CPU µs": 1e6 * spent / len(ends), "answers/s": len(ends) / seconds}


def _echo(directory: Path) -> Process:
    process = Process(
        [
            *(sys.executable, "-m", "tests.bench.echo"),
            *(directory / "echo.sock", directory / "answer"),
        ],
        directory / "echo.log",
        cwd=REPOSITORY,
    )
    process.wait_until(lambda: listens(directory / "echo.sock"), "listening")
    return process
