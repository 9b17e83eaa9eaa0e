"""What an operation on a shared store costs: a real Redis or Valkey, and a milter's side of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from requiretls_milter.engine.records import encode_probe
from requiretls_milter.store import redis
from requiretls_milter.store.base import Record, StoreKind
from requiretls_milter.store.redis import RedisBackend
from tests.support import build
from tests.support.redisserver import RedisServer

BATCH = 20
"""Records in one write: what a busy engine writes at once."""

CHAIN = 3_000
"""Octets of the certificates of a usual chain beside the test's own."""

AT_ONCE = 16
"""Operations under way: as many as a milter has connections."""


PATIENCE = 30.0
"""Seconds for one answer: what is measured is processor time, also on a machine that is busy."""


@dataclass(frozen=True)
class Cost:
    """Microseconds of processor time for one operation: the server's, and the milter's."""

    server: float
    client: float


def measured(root: Path, flavour: str, number: int) -> dict[str, Cost]:
    """Do each operation so often; what it costs, by its name."""
    with RedisServer(root, flavour) as server, patch.object(redis, "ANSWER_WAIT", PATIENCE):
        return asyncio.run(_measure(server, number))


async def _measure(server: RedisServer, number: int) -> dict[str, Cost]:
    backend = RedisBackend(server.url, prefix="scale:")
    await backend.open()
    now = time.time()
    session = build.probe(presented=build.certificate())
    value = encode_probe(session) + b" " * CHAIN
    record = Record(value, now, now + 3_600)
    kind = StoreKind.PROBE

    def keys() -> Iterator[str]:
        return (f"11.{n >> 8}.{n & 255}.1 25 mx{n}.example" for n in range(number))

    tokens: dict[str, str] = {}

    async def write(key: str) -> None:
        await backend.write([(kind, f"{key} {n}", record) for n in range(BATCH)])

    async def read(key: str) -> None:
        if await backend.get(kind, f"{key} 1", now) is None:
            raise RuntimeError(f"{key} was written")

    async def miss(key: str) -> None:
        if await backend.get(kind, f"{key} none", now) is not None:
            raise RuntimeError(f"{key} was not written")

    async def claim(key: str) -> None:
        token = await backend.claim(kind, key, 600)
        if token is None:
            raise RuntimeError(f"{key} is claimed already")
        tokens[key] = token

    async def release(key: str) -> None:
        await backend.release(kind, key, tokens[key])

    async def listing() -> None:
        if len(await backend.listing(kind)) < number:
            raise RuntimeError("some are not listed")

    costs = {}
    for name, work, by in (
        ("write", write, BATCH),
        ("read", read, 1),
        ("read, none there", miss, 1),
        ("claim", claim, 1),
        ("release", release, 1),
    ):
        costs[name] = await _cost(server, [partial(work, key) for key in keys()], number * by)
    costs["list one record"] = await _cost(server, [listing], number * BATCH)
    await backend.close()
    return costs


async def _cost(
    server: RedisServer, works: list[Callable[[], Awaitable[None]]], operations: int
) -> Cost:
    ours, theirs = time.process_time(), _server_seconds(server)
    waiting = iter(works)

    async def some() -> None:
        for work in waiting:
            await work()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    spent = time.process_time() - ours, _server_seconds(server) - theirs
    return Cost(server=spent[1] / operations * 1e6, client=spent[0] / operations * 1e6)


def _server_seconds(server: RedisServer) -> float:
    """Processor time that the server says that it has taken."""
    told = dict(
        line.split(":", 1) for line in server.command("INFO", "cpu").splitlines() if ":" in line
    )
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
