"""The command that is told of changes: real commands, and what they do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from requiretls_milter.engine.watched import notifying
from requiretls_milter.engine.watched.notifying import MAX_WAITING, Notifier
from requiretls_milter.telemetry.counting import Counters
from tests.support.processes import alive
from tests.support.waiting import until

CHANGE = {"event": "watched_domain_changed", "domain": "example.org"}


class Kit:
    def __init__(self, command: Sequence[str], timeout: float = 10.0) -> None:
        self.command = tuple(command)
        self.counters = Counters()
        self.now = 0.0
        self.notifier = Notifier(
            lambda: self.command, self.counters, timeout=timeout, wall=lambda: self.now
        )

    def counted(self) -> dict[str, float]:
        return {labels[0]: value for _, labels, value in self.counters.totals().counters}

    async def tell(self) -> dict[str, float]:
        """Have one change told, to the end."""
        before = sum(self.counted().values())
        async with self.running():
            self.notifier.tell(CHANGE)
            await until(lambda: sum(self.counted().values()) > before)
        return self.counted()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.notifier.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_change_is_json_on_standard_input(tmp_path: Path) -> None:
    told = tmp_path / "told"
    kit = Kit(("/bin/sh", "-c", 'cat > "$0"', str(told)))
    assert await kit.tell() == {"told": 1}
    assert json.loads(told.read_text()) == CHANGE


async def test_a_command_that_reads_nothing_is_told_all_the_same() -> None:
    assert await Kit(("/bin/true",)).tell() == {"told": 1}


async def test_a_command_has_the_usual_signals_and_no_environment_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    told = tmp_path / "told"
    kit = Kit(("/bin/sh", "-c", 'env > "$0"; grep SigIgn /proc/self/status >> "$0"', str(told)))
    assert await kit.tell() == {"told": 1}
    assert "A_SECRET" not in told.read_text()
    ignored = int(told.read_text().rpartition("SigIgn:")[2], 16)
    assert not ignored & (1 << 14 | 1 << 1 | 1 << 0)  # SIGTERM, SIGINT, SIGHUP


async def test_a_command_that_fails_is_counted_and_told_with_its_last_line() -> None:
    kit = Kit(("/bin/sh", "-c", "echo one >&2; echo no route >&2; exit 3"))
    with capture_logs() as lines:
        assert await kit.tell() == {"failed": 1}
    assert [line["error"] for line in lines] == ["status 3: no route"]


async def test_a_failure_is_remembered_until_a_run_succeeds() -> None:
    kit = Kit(("/bin/false",))
    for now in (5.0, 6.0):
        kit.now = now
        await kit.tell()
    failing = kit.notifier.failing
    assert failing is not None
    assert (failing.since, failing.error) == (5.0, "status 1: nothing on standard error")
    kit.command = ("/bin/true",)
    await kit.tell()
    assert kit.notifier.failing is None


async def test_a_command_that_is_not_there_is_counted() -> None:
    assert await Kit(("/nonexistent/command",)).tell() == {"failed": 1}


async def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"
    script = 'sleep 600 & echo $! > "$0"; wait'
    kit = Kit(("/bin/sh", "-c", script, str(pid)), timeout=1.0)
    assert await kit.tell() == {"timed_out": 1}
    await until(lambda: not alive(int(pid.read_text())))


async def test_a_command_that_says_much_does_not_get_stuck() -> None:
    kit = Kit(("/bin/sh", "-c", "head -c 3000000 /dev/zero >&2; exit 1"))
    assert await kit.tell() == {"failed": 1}


async def test_a_command_ends_with_the_service(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    kit = Kit(("/bin/sh", "-c", 'echo $$ > "$0"; exec sleep 600', str(pid)))
    async with kit.running():
        kit.notifier.tell(CHANGE)
        await until(lambda: pid.exists() and bool(pid.read_text()))
    assert not alive(int(pid.read_text()))


async def test_no_command_is_told_nothing() -> None:
    kit = Kit(())
    kit.notifier.tell(CHANGE)
    assert kit.counted() == {}


async def test_changes_that_come_too_fast_are_dropped_and_counted() -> None:
    kit = Kit(("/bin/true",))
    for _ in range(MAX_WAITING + 2):
        kit.notifier.tell(CHANGE)
    assert kit.counted() == {"dropped": 2}


def test_a_run_is_bounded() -> None:
    assert notifying.RUN_TIMEOUT <= 60
