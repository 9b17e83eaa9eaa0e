"""A disk that is full, has no inodes left, or fails: what SQLite's file becomes then."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.typing import EventDict

from requiretls_milter.store.sqlite import SqliteBackend
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.stores import POLICY, Disk, steady
from tests.support.waiting import until


def stored(path: Path) -> tuple[SteadyStore, Counters]:
    store, counters, _ = steady(SqliteBackend(str(path), Counters()))
    return store, counters


async def put(store: SteadyStore, key: str, value: bytes = b"x") -> None:
    now = time.time()
    await store.put(POLICY, key, value, now + 1000, now)


async def kept(path: Path) -> set[str]:
    backend = SqliteBackend(str(path), Counters())
    await backend.open()
    try:
        return {key for key, _ in await backend.listing(POLICY)}
    finally:
        await backend.close()


@pytest.mark.parametrize("lacking", ["blocks", "inodes"])
async def test_a_disk_that_is_full_at_the_start_is_waited_for(
    disk: Disk, lacking: str, logged: list[EventDict]
) -> None:
    path = disk.path / "state.db"
    use_up, free = {
        "blocks": (disk.fill, disk.empty),
        "inodes": (disk.use_up_inodes, disk.free_inodes),
    }[lacking]
    use_up()
    store, _ = stored(path)
    await store.start()
    assert not store.up
    await put(store, "a")
    assert await store.get(POLICY, "a", time.time()) == b"x"
    free()
    await until(lambda: store.up and not store.pending, "written")
    await store.close()
    assert await kept(path) == {"a"}
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]


async def test_a_disk_without_inodes_for_the_write_ahead_log_is_waited_for(disk: Disk) -> None:
    path = disk.path / "state.db"
    store, _ = stored(path)
    await store.start()
    await put(store, "before")
    await until(lambda: not store.pending)
    await store.close()
    disk.use_up_inodes()
    again, _ = stored(path)
    await again.start()
    await put(again, "during")
    assert await again.get(POLICY, "during", time.time()) == b"x"
    disk.free_inodes()
    await until(lambda: again.up and not again.pending, "written")
    await again.close()
    assert await kept(path) == {"before", "during"}


@pytest.fixture
def failing(disk: Disk) -> Iterator[Path]:
    """A file system in a file on the disk: if that is full, each block that is written fails."""
    image, where = disk.path / "image", disk.path / "mounted"
    where.mkdir()
    subprocess.run(["mount", "-o", "remount,size=4m", disk.path], check=True)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True)
    if made.returncode or mounted.returncode:
        pytest.skip(f"no loop devices here: {made.stderr + mounted.stderr!r}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


async def test_a_disk_that_gives_errors_is_told_and_memory_stands_in(
    disk: Disk, failing: Path, logged: list[EventDict]
) -> None:
    """SQLite itself says nothing if its log cannot be put into the file."""
    path = failing / "state.db"
    store, counters = stored(path)
    await store.start()
    await put(store, "before", b"1")
    await until(lambda: not store.pending)
    disk.fill()
    written = {f"during{number}": b"%d " % number * 10_000 for number in range(200)}
    for key, value in written.items():
        await put(store, key, value)
        assert await store.get(POLICY, key, time.time()) == value
        await until(lambda: not store.pending or not store.up)
    await until(lambda: counters.totals().counters, "an error that is counted")
    assert await store.get(POLICY, "before", time.time()) == b"1"
    await put(store, "after", b"2")
    for key, value in {**written, "before": b"1", "after": b"2"}.items():
        assert await store.get(POLICY, key, time.time()) == value
    await store.close()
    assert "disk I/O error" in logged[0]["error"]
