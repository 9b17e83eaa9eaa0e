"""How much memory something takes, as Python's allocator or the kernel counts it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

STARTED = 160 << 20
"""Octets of memory that the processes of a service take together, before anything is kept."""

ALLOCATOR = 0.2
"""Part that the allocator takes beside what is kept: rounding, and gaps that others left."""


@contextmanager
def measured() -> Iterator[Callable[[], int]]:
    """Yield a function that tells the octets allocated since now, and not freed."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    def taken() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    try:
        yield taken
    finally:
        tracemalloc.stop()


def long_name(number: int, other: int = 0) -> str:
    """A domain name of the largest size: 253 octets, each a text of its own."""
    return f"{number:06}-{other:06}." + ".".join(["x" * 63] * 3 + ["x" * 47])


def resident(pid: int | str) -> int:
    """The resident memory of a process, in octets; of this one: ``self``."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024


def shared_out(pids: Iterable[int]) -> int:
    """The proportional set size of processes together, in octets: what they share counts once."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
        total += 1024 * int(kilobytes)
    return total
