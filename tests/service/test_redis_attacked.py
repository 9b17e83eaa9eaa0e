"""A Redis under attack: another writer, a man in the middle, a failover, replies that never end."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.typing import EventDict

from requiretls_milter.engine.cache import fleet as module
from requiretls_milter.engine.records import encode_probe
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import ProbeStage, ServerTarget
from requiretls_milter.store.base import LONGEST, Record, StoreKind
from requiretls_milter.store.redis import RedisBackend
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.cachekit import CacheKit
from tests.support.fakesource import Clocks
from tests.support.redisproxy import Answer, RedisProxy
from tests.support.redisserver import RedisServer
from tests.support.stores import POLICY, PROBE, counted, steady
from tests.support.waiting import until

PREFIX = "test:"


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[RedisProxy]:
    with RedisProxy(redis.port) as one:
        yield one


@asynccontextmanager
async def started(url: str, secret: bytes = b"") -> AsyncIterator[tuple[SteadyStore, Counters]]:
    store, counters, _ = steady(RedisBackend(url, prefix=PREFIX, secret=secret))
    await store.start()
    try:
        yield store, counters
    finally:
        await store.close()


async def put(store: SteadyStore, key: str, value: bytes, kind: StoreKind = POLICY) -> None:
    now = time.time()
    await store.put(kind, key, value, now + 1000, now)


async def get(store: SteadyStore, key: str, kind: StoreKind = POLICY) -> bytes | None:
    return await store.get(kind, key, time.time())


async def settled(store: SteadyStore) -> None:
    await until(lambda: store.up and not store.pending, "settled")


def kit_of(store: SteadyStore) -> CacheKit:
    """An engine's cache over a store, with the time of this host."""
    clocks = Clocks()
    clocks.wall_time = time.time()
    return CacheKit(store, clocks=clocks)


# ---------------------------------------------------------------- failover


async def test_after_a_failover_the_new_primary_is_written(
    redis_root: Path, redis: RedisServer, proxy: RedisProxy, logged: list[EventDict]
) -> None:
    """The name leads to another server; what is connected to the old one would stay there."""
    with RedisServer(redis_root, "redis") as other:
        async with started(proxy.url) as (store, _):
            await put(store, "before", b"1")
            await settled(store)
            proxy.behind = other.port
            redis.command("REPLICAOF", "127.0.0.1", str(other.port))
            await put(store, "after", b"2")
            await settled(store)
            assert other.keys() == {"test:mta_sts_policy:after"}
            assert await get(store, "before") == b"1"
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]
    assert "read only replica" in logged[0]["error"]


async def test_what_a_lagging_replica_still_has_does_not_take_the_place_of_what_is_newer(
    redis: RedisServer,
) -> None:
    """Nor does what an attacker plays back."""
    async with started(redis.url) as (store, _):
        await put(store, "a", b"old")
        await settled(store)
        old = redis.command("GET", "test:mta_sts_policy:a").encode("latin-1")
        await asyncio.sleep(0.002)
        await put(store, "a", b"new")
        await settled(store)
        redis.command("SET", "test:mta_sts_policy:a", old)
        assert await get(store, "a") == b"new"


# ---------------------------------------------------------------- replies


def _says(text: str) -> Answer:
    return lambda words, reply: [text.encode()]


def _cut(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    yield reply[: len(reply) // 2]


def _drips(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    for octet in reply:
        yield bytes([octet])
        time.sleep(0.05)


ERRORS = {
    "loading": _says("-LOADING Redis is loading the dataset in memory\r\n"),
    "moved": _says("-MOVED 3999 127.0.0.1:6381\r\n"),
    "asked elsewhere": _says("-ASK 3999 127.0.0.1:6381\r\n"),
    "cluster down": _says("-CLUSTERDOWN The cluster is down\r\n"),
    "primary down": _says("-MASTERDOWN Link with MASTER is down\r\n"),
    "unheard of": _says("-WHATEVER it is\r\n"),
    "a number": _says(":7\r\n"),
    "a list": _says("*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    "nested": _says("*1\r\n" * 5_000),
    "negative": _says("$-7\r\n"),
    "no length": _says("$seven\r\n"),
    "endless length": _says("$99999999999999999999\r\n"),
    "no type": _says("what?\r\n"),
    "cut": _cut,
    "drips": _drips,
}


@pytest.mark.parametrize("command", ["GETRANGE", "SET"])
@pytest.mark.parametrize("answer", ERRORS.values(), ids=list(ERRORS))
async def test_whatever_is_answered_memory_stands_in_until_it_makes_sense(
    redis: RedisServer,
    proxy: RedisProxy,
    answer: Answer,
    command: str,
    logged: list[EventDict],
) -> None:
    async with started(proxy.url) as (store, _):
        await put(store, "a", b"1")
        await settled(store)
        proxy.answers[command] = answer
        began = time.monotonic()
        for number in range(20):
            await put(store, f"during{number}", b"2")
            assert await get(store, "a") == b"1"
            assert await get(store, f"during{number}") == b"2"
        assert time.monotonic() - began < 3
        proxy.answers.clear()
        await settled(store)
        assert await get(store, "a") == b"1"
    assert "store_failed" not in {entry["event"] for entry in logged}, "no internal error"


def _endless_string(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    return itertools.chain([b"$4000000000\r\n"], itertools.repeat(b"x" * 1_000_000))


def _endless_list(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    return itertools.chain([b"*100000000\r\n"], itertools.repeat(b"$1\r\nx\r\n" * 100_000))


def _endless_scan(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    return itertools.chain([b"*2\r\n$1\r\n0\r\n"], _endless_list(words, reply))


def _long_lines(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    return itertools.chain([b"*20000\r\n"], itertools.repeat(b"+" + b"x" * 65_000 + b"\r\n"))


def _long_answers(words: list[bytes], reply: bytes) -> list[bytes]:
    """Each command of a pipeline gets as much as one may."""
    return [b"$4000000\r\n", *[b"x" * 1_000_000] * 4, b"\r\n"]


def _endless_line(words: list[bytes], reply: bytes) -> Iterator[bytes]:
    return itertools.repeat(b"x" * 1_000_000)


def peak() -> int:
    """The most memory of this process since :func:`forget_peak`, in KiB."""
    found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize(
    "answer",
    [_endless_string, _endless_list, _endless_scan, _endless_line, _long_lines, _long_answers],
)
async def test_a_reply_without_end_takes_no_memory(proxy: RedisProxy, answer: Answer) -> None:
    async with started(proxy.url) as (store, _):
        await put(store, "a", b"1")
        await settled(store)
        proxy.answers.update(dict.fromkeys(("GETRANGE", "SCAN", "SET"), answer))
        forget_peak()
        before = peak()
        for number in range(5):
            for key in range(50):
                await put(store, f"during{number}.{key}", b"2")
            await asyncio.gather(*(get(store, "a") for _ in range(8)))
            await store.listing(POLICY, time.time())
            await asyncio.sleep(0.12)
        assert peak() - before < 80 << 10


async def test_a_redis_that_answers_just_in_time_delays_no_forecast_for_long(
    proxy: RedisProxy, logged: list[EventDict]
) -> None:
    """A forecast that is not known yet takes a dozen answers."""
    async with started(proxy.url) as (store, _):
        await put(store, "a", b"1")
        await settled(store)
        proxy.delay = 0.4
        began = time.monotonic()
        for _ in range(4):
            assert await get(store, "a") == b"1"
            assert await get(store, "never") is None
            await store.release(PROBE, "a", await store.claim(PROBE, "a", 30) or "")
        assert time.monotonic() - began < 3
        proxy.delay = 0.0
        await settled(store)
    assert logged[0]["event"] == "store_lost"
    assert logged[0]["error"].startswith("slow: 0.")


# ---------------------------------------------------------------- another writer


async def test_claims_that_are_never_given_up_delay_few_sessions(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLEET_WAIT", 0.3)
    addresses = [f"192.0.2.{number}" for number in range(1, 21)]
    for address in addresses:
        redis.command("SET", f"test:claim:probe:{address} 25 mx.a.example", "for ever")
    async with started(redis.url) as (store, _):
        kit = kit_of(store)
        began = time.monotonic()
        for address in addresses:
            found = await kit.cache.probe(ServerTarget(address, 25, "mx.a.example"))
            assert found.stage is ProbeStage.DONE
        assert time.monotonic() - began < 3 * 0.3 + 2
        assert kit.count("fleet_flights_total", "ours_after_waiting") == len(addresses)


async def test_a_forged_session_is_believed_for_no_longer_than_a_session_is_fresh(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    """It has a good digest. Beyond that, times and scope bound what is believed."""
    now = time.time()
    template = await CacheKit().cache.probe(ServerTarget("192.0.2.1", 25, "mx.a.example"))

    async def forge(address: str, scope: str = "", written: float = now) -> None:
        session = replace(template, address=address, probed_at=written, expires=now + LONGEST)
        record = Record(encode_probe(session), written, now + LONGEST)
        await attacker.write([(PROBE, f"{address} 25 mx.a.example{scope}", record)])

    attacker = RedisBackend(redis.url, prefix=PREFIX)
    await forge("192.0.2.1")
    await forge("192.0.2.2", scope="#0123456789abcdef")
    await forge("192.0.2.3", written=now + 3600)
    await forge("192.0.2.4", written=now - FRESH - 1)
    await attacker.close()
    async with started(redis.url) as (store, _):
        kit = kit_of(store)
        found = [
            await kit.cache.probe(ServerTarget(f"192.0.2.{n}", 25, "mx.a.example"))
            for n in range(1, 5)
        ]
        assert kit.sessions == 3, "the first alone is believed"
        assert found[0].expires <= now + FRESH
        kit.clocks.pass_(FRESH)
        await kit.cache.probe(ServerTarget("192.0.2.1", 25, "mx.a.example"))
        assert kit.sessions == 4


async def test_with_a_secret_nothing_that_another_writer_forges_is_believed(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    """Neither under a secret of its own, nor without one, nor by moving what the fleet wrote."""
    ours, now = b"s" * 32, time.time()
    forged = Record(b"forged", now, now + 1000)
    for number, secret in enumerate((b"", b"x" * 32)):
        attacker = RedisBackend(redis.url, prefix=PREFIX, secret=secret)
        await attacker.write([(POLICY, f"forged{number}", forged)])
        await attacker.close()
    async with started(redis.url, ours) as (store, _), started(redis.url, ours) as (other, _):
        await put(store, "a", b"ours")
        await settled(store)
        assert await get(other, "a") == b"ours"
        for name in ("test:mta_sts_policy:moved", "test:probe:a"):
            redis.command("SET", name, redis.command("GET", "test:mta_sts_policy:a"))
        assert await get(other, "a", PROBE) is None
        for key in ("forged0", "forged1", "moved"):
            assert await get(other, key) is None
        assert "forged0" not in {one.key for one in await other.listing(POLICY, now)}
    async with started(redis.url) as (stranger, _):
        assert await get(stranger, "a") is None
    assert {entry["event"] for entry in logged} == {"store_record_bad"}


async def test_flushall_all_the_time_costs_no_answer(redis: RedisServer) -> None:
    async with started(redis.url) as (one, counters), started(redis.url) as (other, _):
        kits = kit_of(one), kit_of(other)
        end = False

        async def flush() -> None:
            while not end:
                await asyncio.to_thread(redis.command, "FLUSHALL")

        flushing = asyncio.create_task(flush())
        for number in range(1, 101):
            found = await asyncio.gather(
                *(
                    kit.cache.probe(ServerTarget(f"192.0.2.{number}", 25, "mx.a.example"))
                    for kit in kits
                )
            )
            assert all(session.stage is ProbeStage.DONE for session in found)
        end = True
        await flushing
        assert one.up
        assert counted(counters, "store_errors_total", "read") == 0
