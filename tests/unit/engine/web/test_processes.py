"""What each process takes, with a label for the process."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from requiretls_milter.engine.web import processes
from requiretls_milter.telemetry.catalogue import METRICS

NAMES = {
    name for name in METRICS if name.startswith("process_") and name != "process_restarts_total"
}


@pytest.fixture
def other() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def shown(**pids: int) -> dict[tuple[str, str], float]:
    return {(name, labels[0]): value for name, labels, value in processes.values(pids)}


def test_each_process_has_each_of_the_metrics(other: int) -> None:
    found = shown(engine=os.getpid(), **{"worker-1": other})
    assert set(found) == {(name, process) for name in NAMES for process in ("engine", "worker-1")}


def test_the_values_are_those_of_the_process(other: int) -> None:
    found = shown(engine=os.getpid(), **{"worker-1": other})
    assert found["process_open_fds", "engine"] >= 3
    assert (
        found["process_cpu_seconds_total", "engine"]
        > found["process_cpu_seconds_total", "worker-1"]
    )
    assert abs(found["process_start_time_seconds", "worker-1"] - time.time()) < 30
    megabyte = 1 << 20
    assert found["process_resident_memory_bytes", "engine"] > 10 * megabyte
    assert found["process_resident_memory_bytes", "worker-1"] < 10 * megabyte


def test_the_time_of_a_start_is_the_same_in_each_scrape() -> None:
    name = "process_start_time_seconds", "engine"
    assert shown(engine=os.getpid())[name] == shown(engine=os.getpid())[name]


def test_a_process_that_has_ended_shows_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert shown(engine=process.pid) == {}
