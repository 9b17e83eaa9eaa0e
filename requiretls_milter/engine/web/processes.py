"""What each process of the service takes: processor time, memory, descriptors, from /proc.

prometheus-client reads it, for one process and without labels; here it gets the label ``process``.
It takes a system call or two for each descriptor of a process: not on the loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping

from prometheus_client.process_collector import ProcessCollector

from requiretls_milter.telemetry.catalogue import METRICS
from requiretls_milter.telemetry.counting import CounterTotal


class _Collector(ProcessCollector):
    """The library's, which takes the time of the boot from a file that may not be there.

    The systemd unit shows the service nothing of /proc but processes (``ProcSubset=pid``).
    """

    def _boot_time(self) -> float:
        """Whole seconds since the epoch, as in /proc/stat."""
        return _BOOTED


_BOOTED = float(round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)))
"""Determined once: a start time that changes with each scrape would look like a new process."""


def values(processes: Mapping[str, int]) -> Iterator[CounterTotal]:
    """Yield (metric, label values, value) for each process that is there.

    Args:
        processes: process ids by name.
    """
    for name, pid in processes.items():
        for family in _Collector(pid=functools.partial(int, pid), registry=None).collect():
            for sample in family.samples:
                if sample.name in METRICS:
                    yield sample.name, (name,), sample.value
