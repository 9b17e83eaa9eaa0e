"""The store in a file: real files, really damaged, full, locked and read-only."""

# Nothing else runs on the loops of these tests, which look at the files:
# ruff: noqa: ASYNC220, ASYNC221, ASYNC240, ASYNC251

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from requiretls_milter.store import sqlite as module
from requiretls_milter.store.base import (
    MAX_KEY,
    MAX_VALUE,
    SWEEP_INTERVAL,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
    size,
)
from requiretls_milter.store.sqlite import (
    APPLICATION_ID,
    MAX_ASKED,
    MAX_DAMAGED,
    MAX_QUEUED,
    MIGRATIONS,
    SWEEP_GRACE,
    USED_STEP,
    SqliteBackend,
)
from requiretls_milter.telemetry.counting import Counters
from tests.support.memory import measured
from tests.support.stores import OFFERED, POLICY, PROBE, Disk, counted, record, steady
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteBackend]:
    backend = SqliteBackend(str(path), options.pop("counters", Counters()), **options)
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as SQLite sees it, while no backend has it open."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


async def keys(backend: SqliteBackend, kind: Any = POLICY) -> set[str]:
    return {key for key, _ in await backend.listing(kind)}


# ---------------------------------------------------------------- what is kept


async def test_records_outlive_the_process(path: Path) -> None:
    kept = record(b"\x00policy\xff")
    async with opened(path) as backend:
        await backend.write([(POLICY, "a.example", kept), (PROBE, "a.example", record(b"probe"))])
    async with opened(path) as backend:
        assert await backend.get(POLICY, "a.example", kept.written) == kept
        assert await backend.get(OFFERED, "a.example", kept.written) is None
        await backend.write([(POLICY, "a.example", None), (POLICY, "never.example", None)])
        assert await backend.get(POLICY, "a.example", kept.written) is None
        assert await keys(backend, PROBE) == {"a.example"}


async def test_a_later_record_takes_the_place_of_an_earlier_one(path: Path) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record(b"1")), (POLICY, "a", record(b"2"))])
        await backend.write([(POLICY, "a", record(b"3"))])
        found = await backend.get(POLICY, "a", time.time())
        assert found is not None
        assert found.value == b"3"
        assert await keys(backend) == {"a"}


async def test_the_longest_record_fits(path: Path) -> None:
    longest = record(b"x" * MAX_VALUE)
    async with opened(path) as backend:
        await backend.write([(PROBE, "k" * 1024, longest)])
        assert await backend.get(PROBE, "k" * 1024, longest.written) == longest


async def test_the_file_is_readable_for_nobody_else(path: Path) -> None:
    before = os.umask(0o022)
    try:
        async with opened(path) as backend:
            await backend.write([(POLICY, "a", record())])
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        path.chmod(0o644)
        async with opened(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_it_is_one_file_with_a_write_ahead_log_and_our_mark(path: Path) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record())])
        assert {file.name for file in path.parent.iterdir()} == {"state.db", "state.db-wal"}
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]
    with looking(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


# ---------------------------------------------------------------- schema


async def test_of_a_file_without_digests_nothing_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    with looking(path) as db:
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("INSERT INTO record VALUES ('mta_sts_policy', 'a', x'78', 1, 9e9, 1, 130)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        assert await keys(backend) == set()
        await backend.write([(POLICY, "a", kept := record())])
        assert await backend.get(POLICY, "a", kept.written) == kept
    assert counted(counters, "store_damaged_total") == 0
    assert [entry["event"] for entry in logged] == ["store_migrated"]


async def test_an_older_schema_is_migrated_and_nothing_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record(b"old"))])
    more = ("ALTER TABLE record ADD COLUMN note TEXT", "CREATE TABLE extra (id INTEGER) STRICT")
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, more))
    async with opened(path) as backend:
        found = await backend.get(POLICY, "a", time.time())
        assert found is not None
        assert found.value == b"old"
    with looking(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert db.execute("SELECT note FROM record").fetchall() == [(None,)]
    assert [entry["event"] for entry in logged] == ["store_migrated"]


async def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record(b"old"))])
    more = ("ALTER TABLE record ADD COLUMN note TEXT", "CREATE TABLE record (id INTEGER)")
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", (*MIGRATIONS, more))
        with pytest.raises(StoreError, match="already exists"):
            async with opened(path):
                pass
    async with opened(path) as backend:
        assert await keys(backend) == {"a"}


async def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with looking(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"later version .*schema 99"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


async def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with looking(path) as db:
        db.execute("CREATE TABLE mailbox (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        async with opened(path):
            pass
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


# ---------------------------------------------------------------- damage


async def fill(path: Path, records: int = 300) -> None:
    async with opened(path) as backend:
        await backend.write(
            [(POLICY, f"d{number}.example", record(b"p" * 500)) for number in range(records)]
        )


def zero_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


def other_content(path: Path) -> None:
    path.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 500)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def garbage_in_the_middle(path: Path) -> None:
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(3, pages - 1, 3):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def schema_dropped(path: Path) -> None:
    with looking(path) as db:
        db.execute("DROP TABLE record")


def column_dropped(path: Path) -> None:
    with looking(path) as db:
        db.execute("ALTER TABLE record DROP COLUMN octets")


DAMAGES = [
    zero_header,
    other_content,
    truncated,
    garbage_in_the_middle,
    schema_dropped,
    column_dropped,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_the_service_begins_with_an_empty_one(
    path: Path, damage: Callable[[Path], None], logged: list[EventDict]
) -> None:
    await fill(path)
    damage(path)
    before = path.read_bytes()
    counters = Counters()
    wall = 1_767_225_600.0  # 2026-01-01
    async with opened(path, counters=counters, wall=lambda: wall) as backend:
        if damage is garbage_in_the_middle:  # nobody waits until all of the file is read
            with pytest.raises(StoreError, match="was damaged"):
                await backend.check()
            await backend.open()
        assert await keys(backend) == set()
        await backend.write([(POLICY, "new.example", record())])
        assert await keys(backend) == {"new.example"}
    aside = path.with_name("state.db.damaged-20260101T000000Z")
    assert aside.read_bytes() == before
    assert counted(counters, "store_damaged_total") == 1
    (told,) = [entry for entry in logged if entry["event"] == "store_damaged"]
    assert told["log_level"] == "error"
    assert told["set_aside"] == str(aside)
    assert told["why"]


async def test_damage_that_shows_while_the_service_runs_costs_what_was_kept_and_no_more(
    path: Path, logged: list[EventDict]
) -> None:
    await fill(path, 3000)
    backend = SqliteBackend(str(path), counters := Counters())
    store, steady_counters, _ = steady(backend)
    await store.start()
    await store.put(POLICY, "mine.example", b"mine", time.time() + 100, time.time())
    await until(lambda: store.up and not store.pending)
    garbage_in_the_middle(path)
    for number in range(3000):
        await store.get(POLICY, f"d{number}.example", time.time())
        if counted(counters, "store_damaged_total"):
            break
    assert counted(counters, "store_damaged_total") == 1
    # The check in the background may meet it at the same moment.
    assert counted(steady_counters, "store_errors_total", "read") in (1, 2)
    await until(lambda: store.up, "a new file")
    # What this process had in its hands is still known, and what comes is kept.
    assert await store.get(POLICY, "mine.example", time.time()) == b"mine"
    await store.put(POLICY, "new.example", b"new", time.time() + 100, time.time())
    await store.close()
    async with opened(path) as again:
        assert await keys(again) == {"new.example"}
    assert [entry["event"] for entry in logged if entry["log_level"] != "debug"] == [
        "store_damaged",
        "store_lost",
        "store_back",
    ]


RFC8689 = 4
"""The bit between "a" and "e"."""


def flip(octets: bytes, at: int, bits: int = RFC8689) -> bytes:
    """The same with one octet changed."""
    return octets[:at] + bytes([octets[at] ^ bits]) + octets[at + 1 :]


def flip_bits(path: Path, at: int, bits: int = RFC8689) -> None:
    """As a bad disk would do it."""
    path.write_bytes(flip(path.read_bytes(), at, bits))


def assert_sqlite_sees_nothing(path: Path) -> None:
    with looking(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


CLEAN = Record(b'{"mode":"enforce","mx":["mx.a.example"]}', 1_000_000.0, 4_000_000_000.0)


@pytest.mark.parametrize("column", ["value", "written", "keep_until", "digest"])
async def test_a_flipped_bit_that_sqlite_does_not_see_makes_a_record_none(
    path: Path, column: str
) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a.example", CLEAN), (POLICY, "other.example", CLEAN)])
    with looking(path) as db:
        select = f"SELECT {column} FROM record WHERE key = 'a.example'"  # noqa: S608 - a column
        (kept,) = db.execute(select).fetchone()
        damaged: object
        if isinstance(kept, float):
            (damaged,) = struct.unpack("<d", flip(struct.pack("<d", kept), 5))
        elif column == "value":
            damaged = flip(kept, kept.index(b"a.example"))
            assert b"mx.e.example" in damaged
        else:
            damaged = flip(kept, 7)
        update = f"UPDATE record SET {column} = ? WHERE key = 'a.example'"  # noqa: S608
        db.execute(update, (damaged,))
    assert_sqlite_sees_nothing(path)
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        with pytest.raises(StoreDataError, match=r"^mta_sts_policy:a\.example is damaged"):
            await backend.get(POLICY, "a.example", CLEAN.written)
        assert await backend.get(POLICY, "other.example", CLEAN.written) == CLEAN
    assert counted(counters, "store_damaged_total") == 0  # it is one record, and not the file


@pytest.mark.parametrize(
    ("change", "kind", "key"),
    [
        ("UPDATE record SET key = 'e.example'", POLICY, "e.example"),
        ("UPDATE record SET kind = 'probe'", PROBE, "a.example"),
    ],
)
async def test_a_record_under_the_name_of_another_is_none(
    path: Path, change: str, kind: StoreKind, key: str
) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a.example", CLEAN)])
    with looking(path) as db:
        db.execute(change)
    assert_sqlite_sees_nothing(path)
    async with opened(path) as backend:
        assert await backend.get(POLICY, "a.example", CLEAN.written) is None
        with pytest.raises(StoreDataError):
            await backend.get(kind, key, CLEAN.written)


@pytest.mark.parametrize("where", [b"first", b"in the middle", b"last"])
async def test_a_flipped_bit_on_any_page_of_a_long_record_is_found(
    path: Path, where: bytes
) -> None:
    long = Record(b"first" + bytes(50_000) + b"in the middle" + bytes(50_000) + b"last", 1.0, 9e9)
    async with opened(path) as backend:
        await backend.write([(PROBE, "a.example", long)])
    flip_bits(path, path.read_bytes().index(where))
    assert_sqlite_sees_nothing(path)
    async with opened(path) as backend:
        with pytest.raises(StoreDataError):
            await backend.get(PROBE, "a.example", 1.0)


async def test_whichever_bit_of_the_file_flips_what_is_read_is_what_was_written_or_nothing(
    path: Path,
) -> None:
    written = {(POLICY, f"{name}.example"): record(name.encode() * 300) for name in "abcdefg"}
    written[PROBE, "long.example"] = record(os.urandom(9000))
    changes = [(kind, key, kept) for (kind, key), kept in written.items()]
    async with opened(path) as backend:
        await backend.write(changes)
    clean = path.read_bytes()
    chance = random.Random(8689)  # noqa: S311 - the same ones each time
    used = [at for at, octet in enumerate(clean) if octet]  # most of the rest is not in use
    found = {"as written": 0, "nothing": 0}
    for _ in range(200):
        path.write_bytes(clean)
        flip_bits(path, at := chance.choice(used), bits := 1 << chance.randrange(8))
        with contextlib.suppress(StoreError):
            async with opened(path) as backend:
                for (kind, key), kept in written.items():
                    read = None
                    with contextlib.suppress(StoreError):
                        read = await backend.get(kind, key, kept.written)
                    assert read in (kept, None), (at, bits)
                    found["nothing" if read is None else "as written"] += 1
                with contextlib.suppress(StoreError):  # where the damage shows now
                    await backend.write(changes)
                await backend.open()
                await backend.write(changes)  # and nothing of it is left in the way
    assert min(found.values()) > 100


async def test_damage_that_quotes_itself_in_octets_that_are_no_text_is_damage(path: Path) -> None:
    await fill(path, 1)
    content = path.read_bytes()
    flip_bits(path, content.index(b"CREATE INDEX record_keep_until") + len(b"CREATE IN"), 0x80)
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        assert await keys(backend) == set()
    assert counted(counters, "store_damaged_total") == 1


async def test_a_damaged_key_is_no_reason_to_list_nothing(path: Path) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a.example", CLEAN), (POLICY, "other.example", CLEAN)])
    with looking(path) as db:
        db.execute("UPDATE record SET key = CAST(x'e12e' AS TEXT) WHERE key = 'a.example'")
    async with opened(path) as backend:
        assert await keys(backend) == {"\ufffd.", "other.example"}


async def test_an_index_that_is_out_of_order_is_damage(path: Path) -> None:
    """Nothing is wrong with the file when it is opened, but it could never be written to again."""
    changes = [(POLICY, f"d{number}.example", record()) for number in range(6)]
    async with opened(path) as backend:
        await backend.write([*changes, (PROBE, "d.example", record())])
    fourth = path.read_bytes().index(b"mta_sts_policyd3.example\x04")  # and its row
    flip_bits(path, fourth + len("mta_s"), 8)
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        with pytest.raises(StoreError, match="UNIQUE"):
            await backend.write(changes)
        assert counted(counters, "store_damaged_total") == 1
        await backend.open()
        await backend.write(changes)
        assert await keys(backend) == {key for _, key, _ in changes}


async def test_a_damaged_log_costs_at_most_what_was_in_it(path: Path) -> None:
    script = f"""
import asyncio, os, signal
from requiretls_milter.telemetry.counting import (Counters)
from requiretls_milter.store.base import Record, StoreKind
from requiretls_milter.store.sqlite import SqliteBackend
async def main():
    backend = SqliteBackend({str(path)!r}, Counters())
    await backend.open()
    for number in range(20):
        await backend.write([(StoreKind.OFFERED, str(number), Record(b"x" * 200, 0.0, 9e9))])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script])
    log = path.with_name("state.db-wal")
    octets = bytearray(log.read_bytes())
    octets[len(octets) // 2 :] = os.urandom(len(octets) - len(octets) // 2)
    log.write_bytes(octets)
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        found = await keys(backend, OFFERED)
    assert found == {str(number) for number in range(len(found))}  # the first ones, in order
    assert 0 < len(found) < 20
    assert counted(counters, "store_damaged_total") == 0


async def test_few_damaged_files_are_kept_and_the_oldest_goes_first(path: Path) -> None:
    now = 1_767_225_600.0
    for day in range(MAX_DAMAGED + 2):
        other_content(path)
        path.with_name("state.db-wal").write_bytes(b"leftover")
        async with opened(path, wall=lambda: now + day * 86400):  # noqa: B023
            pass
    names = sorted(file.name for file in path.parent.glob("*.damaged-*"))
    days = [f"state.db.damaged-202601{day:02d}T000000Z" for day in (3, 4, 5)]
    assert [name for name in names if not name.endswith("-wal")] == days
    assert not path.with_name("state.db-wal").exists()


async def test_two_damaged_files_of_one_second_do_not_overwrite_each_other(path: Path) -> None:
    for content in (b"first " * 100, b"second " * 100):
        path.write_bytes(content)
        async with opened(path, wall=lambda: 1_767_225_600.0):
            pass
    name = "state.db.damaged-20260101T000000Z"
    assert path.with_name(name).read_bytes().startswith(b"first")
    assert path.with_name(f"{name}-2").read_bytes().startswith(b"second")


async def test_an_empty_file_is_no_damage(path: Path) -> None:
    path.touch()
    counters = Counters()
    async with opened(path, counters=counters) as backend:
        await backend.write([(POLICY, "a", record())])
    assert counted(counters, "store_damaged_total") == 0


# ---------------------------------------------------------------- what cannot be opened


async def test_a_missing_directory_is_waited_for(tmp_path: Path, logged: list[EventDict]) -> None:
    path = tmp_path / "later" / "state.db"
    store, counters, _ = steady(SqliteBackend(str(path), Counters()))
    await store.start()
    assert not store.up
    await store.put(POLICY, "a", b"1", time.time() + 100, time.time())
    assert await store.get(POLICY, "a", time.time()) == b"1"
    assert counted(counters, "store_errors_total", "open") >= 1
    path.parent.mkdir()
    await until(lambda: store.up and not store.pending, "the store is back")
    await store.close()
    async with opened(path) as backend:
        assert await keys(backend) == {"a"}
    events = [entry["event"] for entry in logged]
    assert events == ["store_lost", "store_back"]
    assert "No such file or directory" in logged[0]["error"]


@pytest.mark.parametrize("what", ["directory", "fifo", "socket", "device"])
async def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.db"
    with contextlib.ExitStack() as stack:
        if what == "directory":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        else:
            path = Path("/dev/full")
        with pytest.raises(StoreError):
            async with asyncio.timeout(PATIENCE), opened(path):  # a FIFO would block for ever
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="chown takes root")
async def test_the_file_of_another_user_is_neither_believed_nor_changed(path: Path) -> None:
    await fill(path, 1)
    os.chown(path, 65534, -1)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="belongs to uid 65534"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


async def test_a_file_that_is_locked_is_waited_for(path: Path) -> None:
    await fill(path, 1)
    with looking(path) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM record WHERE key = 'nobody'")
        store, counters, _ = steady(SqliteBackend(str(path), Counters()))
        await store.start()
        assert not store.up
        assert counted(counters, "store_errors_total", "open") >= 1
        db.execute("ROLLBACK")
    await until(lambda: store.up)
    assert await store.get(POLICY, "d0.example", time.time()) is not None
    await store.close()


async def test_two_engines_do_not_write_to_one_file(path: Path) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record())])
        with pytest.raises(StoreError, match="locked"):
            async with opened(path):
                pass


async def test_a_file_system_that_is_read_only_at_first_is_waited_for(disk: Disk) -> None:
    disk.read_only(True)
    path = disk.path / "state.db"
    store, _, _ = steady(SqliteBackend(str(path), Counters()))
    await store.start()
    assert not store.up
    await store.put(POLICY, "a", b"1", time.time() + 100, time.time())
    disk.read_only(False)
    await until(lambda: store.up and not store.pending)
    await store.close()
    async with opened(path) as backend:
        assert await keys(backend) == {"a"}


# ---------------------------------------------------------------- what cannot be written


async def test_on_a_full_disk_what_was_kept_is_read_and_what_comes_waits_in_memory(
    disk: Disk, logged: list[EventDict]
) -> None:
    path = disk.path / "state.db"
    store, counters, _ = steady(SqliteBackend(str(path), Counters()))
    await store.start()
    now = time.time()
    await store.put(POLICY, "before", b"1", now + 1000, now)
    await until(lambda: not store.pending)
    disk.fill()
    for number in range(50):
        await store.put(POLICY, f"during{number}", b"x" * 5000, now + 1000, now)
    await until(lambda: counted(counters, "store_errors_total", "write") >= 2)
    assert not store.up
    assert await store.get(POLICY, "before", now) == b"1"
    assert await store.get(POLICY, "during49", now) == b"x" * 5000
    disk.empty()
    await until(lambda: store.up and not store.pending, "written")
    await store.close()
    async with opened(path) as backend:
        assert len(await keys(backend)) == 51
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]
    assert "full" in logged[0]["error"]


async def test_a_limit_on_the_size_of_files_is_as_a_full_disk(path: Path) -> None:
    """Where no file system can be mounted, this is what shows it; and ulimit -f does exist."""
    script = f"""
import asyncio, resource, time
from requiretls_milter.telemetry.counting import (Counters, Gauges)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.sqlite import SqliteBackend
from requiretls_milter.store.steady import SteadyStore
KIND = StoreKind.MTA_STS_POLICY
async def main():
    counters = Counters()
    store = SteadyStore(SqliteBackend({str(path)!r}, counters), counters, Gauges(),
                        first_pause=0.05, last_pause=0.1)
    await store.start()
    now = time.time()
    await store.put(KIND, "before", b"1", now + 1000, now)
    while store.pending:
        await asyncio.sleep(0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for number in range(100):
        await store.put(KIND, str(number), b"x" * 5000, now + 1000, now)
    while not any(name == "store_errors_total" for name, _, _ in counters.totals().counters):
        await asyncio.sleep(0.01)
    assert await store.get(KIND, "99", now) == b"x" * 5000
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    while store.pending or not store.up:
        await asyncio.sleep(0.01)
    assert await store.get(KIND, "before", now) == b"1"
    await store.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    async with opened(path) as backend:
        assert len(await keys(backend)) == 101


async def test_a_full_store_says_that_it_can_still_be_read(disk: Disk) -> None:
    async with opened(disk.path / "state.db") as backend:
        await backend.write([(POLICY, "a", record(b"1"))])
        disk.fill()
        with pytest.raises(StoreUnwritableError):
            await backend.write([(POLICY, str(n), record(b"x" * 9000)) for n in range(50)])
        found = await backend.get(POLICY, "a", time.time())
        assert found is not None
        assert await keys(backend) == {"a"}
        disk.empty()
        await backend.write([(POLICY, "b", record())])
        assert await keys(backend) == {"a", "b"}


async def test_a_file_that_was_removed_is_made_anew(path: Path) -> None:
    async with opened(path) as backend:
        await backend.write([(POLICY, "a", record())])
        path.unlink()
        await backend.write([(POLICY, "b", record())])
        assert path.exists()
    async with opened(path) as backend:
        assert await keys(backend) == {"b"}


class Counting(ThreadPoolExecutor):
    given = 0

    def submit(self, *arguments: Any, **more: Any) -> Future[Any]:
        self.given += 1
        return super().submit(*arguments, **more)


async def test_a_slow_disk_holds_up_no_assessment(path: Path) -> None:
    thread = ThreadPoolExecutor(1)
    backend = SqliteBackend(str(path), Counters(), thread=thread)
    backend.read_deadline = backend.write_deadline = 0.1
    store, counters, _ = steady(backend)
    await store.start()
    await until(lambda: store.up)
    gate = threading.Event()
    stuck = thread.submit(gate.wait)
    started = time.monotonic()
    longest = 0.0
    for number in range(100):
        before = time.monotonic()
        await store.put(POLICY, str(number), b"x", time.time() + 100, time.time())
        assert await store.get(POLICY, str(number), time.time()) == b"x"
        await store.get(POLICY, f"other{number}", time.time())
        longest = max(longest, time.monotonic() - before)
    assert longest < 1
    assert time.monotonic() - started < 3  # and not 100 times the deadline
    assert counted(counters, "store_errors_total", "read") <= 2
    gate.set()
    await asyncio.wrap_future(stuck)
    await until(lambda: store.up and not store.pending)
    await store.close()


async def test_only_so_many_operations_wait_for_the_disk(path: Path) -> None:
    thread = ThreadPoolExecutor(1)
    async with opened(path, thread=thread) as backend:
        gate = threading.Event()
        thread.submit(gate.wait)
        listings = [asyncio.create_task(backend.listing(POLICY)) for _ in range(MAX_QUEUED)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="does not answer"):
            await backend.listing(POLICY)
        gate.set()
        assert await asyncio.gather(*listings) == [[]] * MAX_QUEUED
        assert await backend.listing(POLICY) == []


async def test_only_so_many_records_are_waited_for(path: Path) -> None:
    thread = ThreadPoolExecutor(1)
    async with opened(path, thread=thread) as backend:
        await backend.write([(POLICY, "a", record())])
        gate = threading.Event()
        thread.submit(gate.wait)
        first = asyncio.create_task(backend.get(POLICY, "a", 0))
        await until(lambda: backend._is_reading and not backend._asked)
        reads = [asyncio.create_task(backend.get(POLICY, "none", 0)) for _ in range(MAX_ASKED)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="does not answer"):
            await backend.get(POLICY, "a", 0)
        gate.set()
        assert await first
        assert await asyncio.gather(*reads) == [None] * MAX_ASKED
        assert await backend.get(POLICY, "a", 0)


async def test_records_that_are_wanted_at_once_are_read_in_one_go(path: Path) -> None:
    thread = Counting(1)
    async with opened(path, thread=thread) as backend:
        await backend.write([(POLICY, name, record()) for name in "abc"])
        before = thread.given
        found = await asyncio.gather(*(backend.get(POLICY, name, 0) for name in "abcd"))
        assert thread.given == before + 1
        assert [one is not None for one in found] == [True, True, True, False]


# ---------------------------------------------------------------- bounds


async def test_records_are_bounded_and_the_least_used_go_first(path: Path) -> None:
    counters = Counters()
    async with opened(path, counters=counters, max_records=100) as backend:
        now = time.time()
        for number in range(100):
            written = now - 10_000 + number
            await backend.write([(POLICY, f"{number:03d}", record(life=1e6, written=written))])
        await backend.get(POLICY, "000", now + USED_STEP)  # the oldest, but in use
        await backend.write([(POLICY, "new", record())])
        found = await keys(backend)
        evicted = counted(counters, "store_evicted_total")
        assert len(found) == 101 - evicted
        assert {"000", "new", "099"} <= found
        assert "001" not in found
        assert 1 <= evicted <= module.EVICTED


async def test_uses_that_are_noted_take_no_more_memory_than_is_promised(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is written, whatever is read."""
    promised = 1 << 20
    monkeypatch.setattr(module, "NOTED_BYTES", promised)
    now = time.time()
    async with opened(path) as backend:
        names = [f"{number:0{MAX_KEY}}" for number in range(2_000)]
        await backend.write([(PROBE, name, record(life=1e6, written=now)) for name in names])
        del names
        await backend.get(PROBE, "none", now)
        with measured() as taken:
            for number in range(2_000):
                await backend.get(PROBE, f"{number:0{MAX_KEY}}", now + 2 * USED_STEP)
            assert 0.6 * promised < taken() <= promised + 65_536


async def test_what_is_written_and_deleted_while_records_are_counted_counts_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The totals are those of the file, whatever happened between the pieces of the count."""
    monkeypatch.setattr(module, "CHECKED", 10)
    monkeypatch.setattr(module, "CHECK_PAUSE", 0.0)
    async with opened(path) as backend:
        await backend.write([(PROBE, f"{n:03d}", record()) for n in range(100)])
    async with opened(path) as backend:
        checking = asyncio.create_task(backend.check())
        for number in range(0, 100, 3):
            await backend.write([(PROBE, f"{99 - number:03d}", None)])
            await backend.write([(PROBE, f"{number:03d}", record(b"longer"))])
            await backend.write([(POLICY, f"{number:03d}", record())])
        await checking
        totals = {kind: (one.records, one.octets) for kind, one in backend._file._totals.items()}
    with looking(path) as db:
        found = db.execute("SELECT kind, count(*), sum(octets) FROM record GROUP BY kind")
        assert totals == {kind: (records, octets) for kind, records, octets in found}


async def test_a_service_begins_before_all_of_the_file_is_read_and_then_finds_the_damage(
    path: Path, logged: list[EventDict]
) -> None:
    await fill(path, 3000)
    garbage_in_the_middle(path)
    store, _, _ = steady(SqliteBackend(str(path), counters := Counters()))
    await store.start()
    assert store.up
    await until(lambda: counted(counters, "store_damaged_total") == 1)
    await until(lambda: store.up, "a new file")
    await store.put(POLICY, "new.example", b"new", time.time() + 100, time.time())
    await store.close()
    assert "store_damaged" in [entry["event"] for entry in logged]
    async with opened(path) as again:
        assert await keys(again) == {"new.example"}


async def test_octets_are_bounded(path: Path) -> None:
    each = size("00", b"x" * 1000)
    async with opened(path, max_bytes=20 * each) as backend:
        for number in range(60):
            await backend.write([(PROBE, f"{number:02d}", record(b"x" * 1000))])
        found = await keys(backend, PROBE)
        assert 10 < len(found) <= 20
        assert "59" in found
    async with opened(path, max_bytes=20 * each) as backend:  # what is there counts after a start
        await backend.check()
        await backend.write([(PROBE, "99", record(b"x" * 5000))])
        assert await keys(backend, PROBE) < {*found, "99"}
    async with opened(path, max_bytes=5 * each) as backend:  # a bound that was lowered
        await backend.check()
        await backend.write([(PROBE, "00", record(b"x" * 1000))])
        assert 0 < len(await keys(backend, PROBE)) <= 5


async def test_a_flood_of_one_kind_costs_the_others_nothing(path: Path) -> None:
    async with opened(path, max_records=100) as backend:
        await backend.write([(OFFERED, str(n), record(written=1.0, life=9e9)) for n in range(40)])
        for number in range(50):
            await backend.write([(POLICY, f"{number}-{n}", record()) for n in range(10)])
        assert len(await keys(backend, OFFERED)) == 40
        assert 40 < len(await keys(backend, POLICY)) <= 60


async def test_what_is_over_goes_before_what_is_good(path: Path) -> None:
    counters = Counters()
    now = time.time()
    async with opened(path, counters=counters, max_records=100) as backend:
        over = record(written=now, life=-1)
        await backend.write([(POLICY, f"over{n}", over) for n in range(50)])
        old = record(written=now - 1e6, life=2e6)
        await backend.write([(POLICY, f"good{n}", old) for n in range(50)])
        await backend.write([(POLICY, "new", record())])
        assert len(await keys(backend)) == 51
    assert counted(counters, "store_evicted_total") == 0


async def test_what_is_over_is_swept_but_not_by_a_clock_that_runs_ahead_for_an_hour(
    path: Path,
) -> None:
    clock = [1_000_000.0]
    async with opened(path, wall=lambda: clock[0]) as backend:
        await backend.write([(POLICY, "a", record(written=clock[0], life=600))])
        clock[0] += 3600
        await backend.write([(POLICY, "b", record(written=clock[0], life=1e7))])
        assert await keys(backend) == {"a", "b"}
        clock[0] += SWEEP_GRACE
        await backend.write([(POLICY, "b", record(written=clock[0], life=1e7))])
        assert await keys(backend) == {"b"}
        # A clock that was set back does not end the sweeping.
        clock[0] -= 500_000
        await backend.write([(POLICY, "c", record(written=clock[0], life=1))])
        clock[0] += SWEEP_GRACE + SWEEP_INTERVAL
        await backend.write([(POLICY, "b", None)])
        assert await keys(backend) == set()


async def test_the_file_and_its_log_do_not_grow_without_end(path: Path) -> None:
    bound = 512 * 1024
    async with opened(path, max_bytes=bound) as backend:
        for number in range(300):
            changes = [(PROBE, f"{number}-{n}", record(b"x" * 2000)) for n in range(10)]
            await backend.write(changes)
        assert path.stat().st_size < 3 * bound
        assert path.with_name("state.db-wal").stat().st_size < module.WAL_LIMIT + 3 * bound


# ---------------------------------------------------------------- crashes

WRITER = """
import asyncio, sys, time
from requiretls_milter.telemetry.counting import (Counters)
from requiretls_milter.store.base import Record, StoreKind
from requiretls_milter.store.sqlite import SqliteBackend
async def main(path, first):
    backend = SqliteBackend(path, Counters(), max_bytes=4 << 20)
    await backend.open()
    for number in range(first, 1 << 60):
        value = str(number).encode() * 50
        record = Record(value, time.time(), time.time() + 1e6)
        await backend.write([(StoreKind.PROBE, f"{number % 500}-{side}", record) for side in "ab"])
        print(number, flush=True)
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_the_file_is_sound_after_each_of_many_kills_and_what_was_written_is_there(
    path: Path,
) -> None:
    last = 0
    for kill in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(last + 1)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        with writer, writer.stdout as told:
            for number, line in enumerate(told):
                last = int(line)
                if number == kill * 20:  # at another point of the checkpoint's cycle each time
                    break
            time.sleep(0.003 * kill)
            writer.send_signal(signal.SIGKILL)
            last = max([last, *map(int, told.read().split())])
        with looking(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for side in "ab":
                (value,) = db.execute(
                    "SELECT value FROM record WHERE key = ?", (f"{last % 500}-{side}",)
                ).fetchone()
                # It may have written one more than it could tell.
                assert value in (str(last).encode() * 50, str(last + 500).encode() * 50)
    async with opened(path) as backend:
        assert len(await keys(backend, PROBE)) <= 1000
