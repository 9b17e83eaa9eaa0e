"""Row ``store``: what writing and reading a record costs, in a file, in Redis and in Valkey.

Ours is the store as the engine uses it: written behind the engine's back in batches, read with a
digest that shows damage, with a stand-in in memory. The baseline is the library alone, asked for
the same in the same batches: sqlite3 of Python, redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from redis import asyncio as aioredis

from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.opening import open_store
from requiretls_milter.store.sqlite import MIGRATIONS
from requiretls_milter.store.steady import BATCH, SteadyStore
from requiretls_milter.syntax.endpoint import parse_store_url
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.bench.beside import Case, Found, table
from tests.bench.rows import Effort, Row
from tests.lab.errors import LabUnavailable
from tests.lab.roots import REDIS, ensure
from tests.support.redisserver import RedisServer
from tests.support.waiting import until

VALUE = bytes(range(256)) * 18
"""A record: as long as that of a session with a usual chain."""

LIFE = 3_600.0
"""Seconds for which a record is good."""

FLAVOURS = {"redis": "Redis", "valkey": "Valkey"}

Work = Callable[[Sequence[str]], Awaitable[None]]
"""Writes, or reads, a record for each of the keys."""

Opened = contextlib.AbstractAsyncContextManager[tuple[Work, Work]]
"""A store while it is open: how it is written, and how it is read."""


class MissingError(AssertionError):
    """A record that was written is not there."""


def store(effort: Effort) -> Row:
    """Measure all kinds; without Redis's packages, SQLite alone."""
    log.configure("logfmt", "error")
    keys = [f"10.0.{n >> 8}.{n & 255} 25 mx.domain-{n}.example" for n in range(effort.records)]
    cases: list[Case] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rtls-") as name:
        numbers = itertools.count()
        cases += _cases(
            "SQLite",
            lambda: _ours(f"sqlite://{name}/ours-{next(numbers)}.db"),
            lambda: _sqlite(Path(name, f"raw-{next(numbers)}.db")),
            ("ours", "sqlite3"),
            keys,
            effort.runs,
        )
    try:
        root = ensure(REDIS)
    except LabUnavailable as reason:
        notes.append(f"Redis and Valkey are not measured: {reason}")
    else:
        for flavour, title in FLAVOURS.items():
            with RedisServer(root, flavour) as server:
                cases += _cases(
                    title,
                    functools.partial(_ours, server.url),
                    functools.partial(_redis, server.url),
                    ("ours", "redis-py"),
                    keys,
                    effort.runs,
                )
    return table(
        "store",
        "records written and read",
        cases,
        f"{effort.records:,} records of {len(VALUE):,} octets in each run; processor time of the "
        f"client; written in batches of {BATCH}, read one after another",
        *notes,
    )


def _cases(
    title: str,
    ours: Callable[[], Opened],
    theirs: Callable[[], Opened],
    names: tuple[str, str],
    keys: Sequence[str],
    runs: int,
) -> Iterator[Case]:
    found: dict[str, list[tuple[Found, Found]]] = {name: [] for name in names}
    for _ in range(runs):
        for name, opened in zip(names, (ours, theirs), strict=True):
            found[name].append(asyncio.run(_measured(opened(), keys)))
    for which, what in enumerate(("write", "read")):
        yield Case.of(
            f"{title}, {what}",
            {name: [pair[which] for pair in pairs] for name, pairs in found.items()},
        )


async def _measured(opened: Opened, keys: Sequence[str]) -> tuple[Found, Found]:
    """Write all records, then read them."""
    async with opened as (write, read):
        return await _timed(write, keys), await _timed(read, keys)


async def _timed(work: Work, keys: Sequence[str]) -> Found:
    spent, began = time.process_time(), time.perf_counter()
    await work(keys)
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    return {"records/s": len(keys) / seconds, "CPU µs": 1e6 * spent / len(keys)}


@contextlib.asynccontextmanager
async def _ours(url: str) -> Any:
    opened = open_store(parse_store_url(url), Counters(), Gauges())
    assert isinstance(opened, SteadyStore)
    await opened.start()

    async def write(keys: Sequence[str]) -> None:
        now = time.time()
        for key in keys:
            await opened.put(StoreKind.PROBE, key, VALUE, now + LIFE, now)
            if opened.pending > 8 * BATCH:  # what waits to be written has a bound
                await until(lambda: opened.pending < BATCH)
        await until(lambda: not opened.pending)

    async def read(keys: Sequence[str]) -> None:
        now = time.time()
        for key in keys:
            if await opened.get(StoreKind.PROBE, key, now) is None:
                raise MissingError(key)

    try:
        yield write, read
    finally:
        await opened.close()


@contextlib.asynccontextmanager
async def _sqlite(path: Path) -> Any:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = NORMAL")
    for statement in itertools.chain(*MIGRATIONS):
        db.execute(statement)

    async def write(keys: Sequence[str]) -> None:
        now = time.time()
        for start in range(0, len(keys), BATCH):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT OR REPLACE INTO record VALUES ('probe', ?, ?, ?, ?, ?, ?, x'00')",
                [
                    (key, VALUE, now, now + LIFE, now, len(VALUE))
                    for key in keys[start : start + BATCH]
                ],
            )
            db.execute("COMMIT")

    async def read(keys: Sequence[str]) -> None:
        for key in keys:
            row = db.execute(
                "SELECT value, written, keep_until, digest, used FROM record "
                "WHERE kind = 'probe' AND key = ?",
                (key,),
            ).fetchone()
            if row is None:
                raise MissingError(key)

    try:
        yield write, read
    finally:
        db.close()


@contextlib.asynccontextmanager
async def _redis(url: str) -> Any:
    client = aioredis.Redis.from_url(url)

    async def write(keys: Sequence[str]) -> None:
        for start in range(0, len(keys), BATCH):
            pipeline = client.pipeline(transaction=False)
            for key in keys[start : start + BATCH]:
                pipeline.set(f"raw:{key}", VALUE, px=int(1000 * LIFE))
            await pipeline.execute()

    async def read(keys: Sequence[str]) -> None:
        for key in keys:
            if await client.get(f"raw:{key}") is None:
                raise MissingError(key)

    try:
        yield write, read
    finally:
        await client.aclose()
