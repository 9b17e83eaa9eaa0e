"""How much of the host's processors this process may use, and how many workers fit that.

An affinity (taskset(1), ``CPUAffinity=``) and a quota of a control group (``CPUQuota=``, the limit
of a container) both make it less than the host has. A quota of an outer group holds too.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
"""cgroups(7): which groups this process is in."""

WORKERS_FOR_EACH_CORE = 2
"""libmilter's threads in a worker spend most of a message in system calls, and only one of them
runs Python at a time: a second worker uses the core meanwhile (docs/benchmarks.md)."""

FEWEST, MOST = 2, 8
"""Workers unless ``milter.workers`` says otherwise. If one dies another one serves; beyond eight
the MTA is what limits the rate, while each takes memory."""


def usual_workers(cores: float) -> int:
    """The number of workers for so many cores."""
    return min(MOST, max(FEWEST, math.ceil(WORKERS_FOR_EACH_CORE * cores)))


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """The cores that this process may use; with a quota it need not be a whole number."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(cgroups, own)])


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of all groups that this process is in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            for group in _with_outer(cgroups, path):
                with contextlib.suppress(OSError, ValueError):
                    quota, period = (group / "cpu.max").read_text().split()
                    yield int(quota) / int(period)  # "max": no number, no quota
        elif "cpu" in controllers.split(","):
            for group in _with_outer(cgroups / controllers, path):
                with contextlib.suppress(OSError, ValueError):
                    quota = (group / "cpu.cfs_quota_us").read_text()
                    if int(quota) > 0:  # -1: no quota
                        yield int(quota) / int((group / "cpu.cfs_period_us").read_text())


def _with_outer(root: Path, path: str) -> Iterator[Path]:
    """A group's directory and those of the groups around it."""
    relative = PurePosixPath(path).relative_to("/")
    for group in (relative, *relative.parents):
        yield root / group
