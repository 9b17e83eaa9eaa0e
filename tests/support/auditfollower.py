"""``audit --follow`` beside a test."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.support.processes import Process
from tests.support.service import WITH_LIMITS

RESULTS = ("equal", "different", "later", "unknown", "waiting")


class Follower:
    """The command beside a test, with what it logs and exports."""

    def __init__(self, directory: Path, *arguments: str | Path, **limits: float) -> None:
        self.textfile = directory / "audit.prom"
        self._log = directory / "stderr"
        program: list[str] = [sys.executable, "-m", "requiretls_milter"]
        if limits:  # waiting for the real ones proves nothing more
            named = {f"reports.{name.replace('__', '.')}": limit for name, limit in limits.items()}
            program = [sys.executable, "-c", WITH_LIMITS, json.dumps(named)]
        command = [*program, "audit", "--follow", *map(str, arguments)]
        self.process = Process([*command, f"--textfile={self.textfile}"], self._log)
        self.process.wait_until(lambda: self.events("audit_following"), "following")

    def events(self, event: str) -> list[str]:
        return re.findall(rf".* event={event} .*", self._log.read_text())

    def metrics(self) -> dict[str, float]:
        """Values in the file, by name and labels without the prefix."""
        return metrics(self.textfile.read_text())

    def results(self) -> Counter[str]:
        """The counts that are not 0, by result."""
        return results(self.metrics())

    def position(self, log: Path) -> int | None:
        """How far it has read a log; None if it does not have it open."""
        here = Path(f"/proc/{self.process.pid}")
        for entry in (here / "fd").iterdir():
            if entry.exists() and entry.samefile(log):
                text = (here / "fdinfo" / entry.name).read_text()
                return int(text.partition("\n")[0].removeprefix("pos:"))
        return None

    def has_read(self, log: Path) -> bool:
        return self.position(log) == log.stat().st_size

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def metrics(text: str) -> dict[str, float]:
    found = re.findall(r"^requiretls_milter_(\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def results(found: dict[str, float]) -> Counter[str]:
    values = {name: found[f'audit_deliveries_total{{result="{name}"}}'] for name in RESULTS}
    return Counter({name: int(value) for name, value in values.items() if value})
