"""What the tests of stores share."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requiretls_milter.store.base import Backend, Record, StoreKind
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters, Gauges

POLICY = StoreKind.MTA_STS_POLICY
PROBE = StoreKind.PROBE
OFFERED = StoreKind.OFFERED


def record(value: bytes = b"x", life: float = 1000.0, written: float | None = None) -> Record:
    written = time.time() if written is None else written
    return Record(value, written, written + life)


def counted(counters: Counters, metric: str, *labels: str) -> float:
    found = {(name, ls): value for name, ls, value in counters.totals().counters}
    return found.get((metric, labels), 0.0)


def saturated(counters: Counters) -> dict[str, float]:
    """How often each bound was met."""
    return {
        labels[0]: value
        for metric, labels, value in counters.totals().counters
        if metric == "saturated_total"
    }


def steady(backend: Backend, **options: Any) -> tuple[SteadyStore, Counters, Gauges]:
    """A store that is quick to come back."""
    counters, gauges = Counters(), Gauges()
    options = {"first_pause": 0.05, "last_pause": 0.1, **options}
    return SteadyStore(backend, counters, gauges, **options), counters, gauges


@dataclass
class Disk:
    """A mounted file system."""

    path: Path

    def fill(self) -> None:
        """Leave not one block free."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                while True:
                    try:
                        filler.write(b"\0" * size)
                    except OSError:
                        break

    def empty(self) -> None:
        os.unlink(self.path / "filler")

    def use_up_inodes(self) -> None:
        """Leave no room for another file or socket."""
        used = os.statvfs(self.path)
        self._remount(f"nr_inodes={used.f_files - used.f_ffree}")

    def free_inodes(self) -> None:
        self._remount("nr_inodes=1000")

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)

    def read_only(self, yes: bool) -> None:
        self._remount("ro" if yes else "rw")
