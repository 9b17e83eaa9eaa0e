"""What the figures were measured on, and what processes took."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Cores, processor, Python, kernel, and how busy the machine is already."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that living processes have taken so far, threads that ended included."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """The clock of a process, as clock_getcpuclockid(3) makes it; its 2 is the kernel's scheduler.

    Precise: the times in /proc are counted in ticks of 10 ms.
    """
    return (~pid << 3) | 2


def family(pid: int) -> list[int]:
    """A process and all that it and its children have started."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for word in words for below in family(int(word)))]
