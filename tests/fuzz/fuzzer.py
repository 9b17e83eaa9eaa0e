"""Runs targets below atheris, one after the other: ``python -m tests.fuzz.fuzzer <ORDERS``.

Orders are an object of JSON on standard input: ``instrument``, the packages besides the product
whose branches are counted, and ``runs``, each with its ``target``, libFuzzer's ``arguments``, the
``output`` file and the ``patience`` in seconds. For each run that has ended there is a line of JSON
with its ``target`` and its exit ``status``; None if it had to be killed.

Each run is in a process of its own, since libFuzzer ends the process that it runs in. It is forked
when all targets are there: atheris has to write the code of each module anew while it is imported,
which takes longer than a short run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from tests.fuzz.table import PRODUCT, TARGETS

PAUSE = 0.02
"""Seconds between two looks whether a run has ended."""


def main() -> None:
    """Do what the orders say."""
    import atheris

    orders = json.load(sys.stdin)
    with atheris.instrument_imports(include=[PRODUCT, *orders["instrument"]]):
        functions = {run["target"]: TARGETS[run["target"]].load() for run in orders["runs"]}
    for run in orders["runs"]:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _fuzz(functions[run["target"]], run["arguments"], run["output"])
        status = _ended(child, time.monotonic() + run["patience"])
        print(json.dumps({"target": run["target"], "status": status}), flush=True)


def _fuzz(function: Callable[[bytes], None], arguments: Sequence[str], output: str) -> NoReturn:
    """Fuzz until the arguments say that it is enough."""
    import atheris

    with open(output, "wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    atheris.Setup([sys.argv[0], *arguments], function)
    atheris.Fuzz()
    os._exit(0)


def _ended(child: int, deadline: float) -> int | None:
    """Wait for a run; its exit status, None if it does not end in time."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
