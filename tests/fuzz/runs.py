"""Runs of a fuzzer process: what it is told, and what it says in the end."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from tests.fuzz.table import Target
from tests.support.paths import REPOSITORY
from tests.support.processes import LAST_WORDS

WORK = REPOSITORY / ".fuzz"
"""Of a run: the inputs that reached new code, and what crashed."""

UNIT_TIMEOUT = 10
"""Seconds for one input: a parser that takes longer is a finding."""

MEMORY = 1024
"""MiB for a fuzzer: a parser that needs more is a finding."""

GRACE = 120
"""Seconds beyond its time that a run may need to replay its corpus, on a busy machine."""

WORTH_A_START = 8
"""Targets for which a further fuzzer is started: it takes about as long as that many short runs."""

_DONE = re.compile(r"^Done (\d+) runs in", re.MULTILINE)
_STATE = re.compile(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``crashes``: the inputs that made it fail, as files."""

    target: str
    executions: int
    branches: int
    inputs: int
    crashes: tuple[Path, ...]
    failed: bool
    output: str


def available() -> str:
    """Why there can be no fuzzing here; empty where there can."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris is not installed: it has no wheel for this Python, system or machine"
    return ""


def fuzz(
    targets: Iterable[Target], seconds: float, options: Sequence[str] = (), *, jobs: int
) -> Iterator[Outcome]:
    """Fuzz each of *targets* for *seconds*, *jobs* of them at once.

    Each run begins with the seeds and with what former runs have found.

    Args:
        targets: What is fuzzed.
        seconds: For each target.
        options: Further ones, for libFuzzer.
        jobs: Processes.

    Returns:
        The outcomes, as they come.
    """
    outcomes: Queue[Outcome] = Queue()
    parts = _parts(list(targets), jobs)
    with ThreadPoolExecutor(jobs) as pool:
        work = [pool.submit(_fuzz, part, seconds, options, outcomes.put) for part in parts]
        for _ in range(sum(map(len, parts))):
            yield outcomes.get()
        for one in work:
            one.result()


def _parts(targets: Sequence[Target], jobs: int) -> list[list[Target]]:
    """Divide *targets* among fuzzers: those of one count the branches of the same packages."""
    parts = []
    for instrument in dict.fromkeys(target.instrument for target in targets):
        alike = [target for target in targets if target.instrument == instrument]
        some = max(1, min(jobs, len(alike) // WORTH_A_START))
        parts += [alike[number::some] for number in range(some)]
    return sorted(parts, key=len, reverse=True)


def _fuzz(
    targets: Sequence[Target],
    seconds: float,
    options: Sequence[str],
    tell: Callable[[Outcome], object],
) -> None:
    """Fuzz one target after the other in one fuzzer, and *tell* each outcome."""
    with tempfile.TemporaryDirectory() as name:
        runs = {target.name: _Run(target, Path(name)) for target in targets}
        orders = {
            "instrument": targets[0].instrument,
            "runs": [run.order(seconds, options) for run in runs.values()],
        }
        said = Path(name) / "fuzzer.log"
        with (
            said.open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.fuzzer"],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as fuzzer,
        ):
            assert fuzzer.stdin is not None
            assert fuzzer.stdout is not None
            with contextlib.suppress(BrokenPipeError), fuzzer.stdin as stream:
                json.dump(orders, stream)
            for line in fuzzer.stdout:
                ended = json.loads(line)
                tell(runs.pop(ended["target"]).outcome(ended["status"]))
        for run in runs.values():
            tell(run.lost(said.read_text(errors="replace")))


class _Run:
    """One target's run: what it is told, and what becomes of it."""

    def __init__(self, target: Target, directory: Path) -> None:
        self._target = target
        self._found = WORK / "corpus" / target.name
        self._crashes = WORK / "crashes" / target.name
        for place in (self._found, self._crashes):
            place.mkdir(parents=True, exist_ok=True)
        self._known = set(self._crashes.iterdir())
        self._output = directory / f"{target.name}.log"
        self._dictionary = directory / f"{target.name}.dict"
        words = ("".join(f"\\x{octet:02x}" for octet in word) for word in target.words)
        self._dictionary.write_text("".join(f'"{word}"\n' for word in words))

    def order(self, seconds: float, options: Sequence[str]) -> Mapping[str, Any]:
        """What the fuzzer is told."""
        return {
            "target": self._target.name,
            "output": str(self._output),
            "patience": seconds + GRACE,
            "arguments": [
                f"-max_total_time={max(1, round(seconds))}",
                f"-max_len={self._target.longest}",
                f"-timeout={UNIT_TIMEOUT}",
                f"-rss_limit_mb={MEMORY}",
                f"-artifact_prefix={self._crashes}/",
                "-print_final_stats=0",
                *([f"-dict={self._dictionary}"] if self._target.words else []),
                *options,
                str(self._found),
                str(self._target.corpus),
            ],
        }

    def outcome(self, status: int | None) -> Outcome:
        """How it ended: with its exit *status*, None if it had to be killed."""
        output = self._output.read_text(errors="replace")
        if status is None:
            output += "\nthe fuzzer did not end"
        return self._outcome(output, failed=status != 0)

    def lost(self, said: str) -> Outcome:
        """It did not begin, or its end was not told: the fuzzer has ended, and *said* why."""
        return self._outcome(f"the fuzzer has ended: {said[-LAST_WORDS:]}", failed=True)

    def _outcome(self, output: str, *, failed: bool) -> Outcome:
        states, done = _STATE.findall(output), _DONE.search(output)
        branches, _, inputs = (int(number) for number in states[-1]) if states else (0, 0, 0)
        return Outcome(
            target=self._target.name,
            executions=int(done[1]) if done else 0,
            branches=branches,
            inputs=inputs,
            crashes=tuple(sorted(set(self._crashes.iterdir()) - self._known)),
            failed=failed,
            output=output,
        )
