"""Runs of a fuzzer process: what it is told, and what it says in the end."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.table import Target
from tests.support.paths import REPOSITORY

WORK = REPOSITORY / ".fuzz"
"""Of a run: the inputs that reached new code, and what crashed."""

UNIT_TIMEOUT = 10
"""Seconds for one input: a parser that takes longer is a finding."""

MEMORY = 1024
"""MiB for a fuzzer: a parser that needs more is a finding."""

GRACE = 120
"""Seconds beyond its time that a fuzzer may need to start, and to replay its corpus."""

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


def fuzz(target: Target, seconds: float, options: Sequence[str] = ()) -> Outcome:
    """Fuzz *target* for *seconds*; what libFuzzer is told besides stands in *options*.

    The run begins with the seeds and with what former runs have found.
    """
    found, crashes = WORK / "corpus" / target.name, WORK / "crashes" / target.name
    for directory in (found, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    known = set(crashes.iterdir())
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary:
        for word in target.words:
            dictionary.write('"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n')
        dictionary.flush()
        command = [
            *(sys.executable, "-m", "tests.fuzz.fuzzer", target.name),
            f"-max_total_time={max(1, round(seconds))}",
            f"-max_len={target.longest}",
            f"-timeout={UNIT_TIMEOUT}",
            f"-rss_limit_mb={MEMORY}",
            f"-artifact_prefix={crashes}/",
            "-print_final_stats=0",
            *([f"-dict={dictionary.name}"] if target.words else []),
            *options,
            str(found),
            str(target.corpus),
        ]
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds + GRACE,
            )
        except subprocess.TimeoutExpired as error:
            text = (error.stdout or b"").decode(errors="replace")
            return _outcome(target, text + "\nthe fuzzer did not end", True, crashes, known)
    text = done.stdout.decode(errors="replace")
    return _outcome(target, text, done.returncode != 0, crashes, known)


def _outcome(target: Target, output: str, failed: bool, crashes: Path, known: set[Path]) -> Outcome:
    states, done = _STATE.findall(output), _DONE.search(output)
    branches, _, inputs = (int(number) for number in states[-1]) if states else (0, 0, 0)
    return Outcome(
        target=target.name,
        executions=int(done[1]) if done else 0,
        branches=branches,
        inputs=inputs,
        crashes=tuple(sorted(set(crashes.iterdir()) - known)),
        failed=failed,
        output=output,
    )
