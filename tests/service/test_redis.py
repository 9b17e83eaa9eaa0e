"""The store of a fleet: a real Redis and a real Valkey, hung, killed, full, wrong and locked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.typing import EventDict

from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.reportdays import ReportDays
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.store import redis as redismodule
from requiretls_milter.store.base import (
    DIGEST,
    MAX_VALUE,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
    digest,
)
from requiretls_milter.store.redis import RedisBackend
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.authority import Authority
from tests.support.paths import REPOSITORY
from tests.support.readinesses import days
from tests.support.redisserver import RedisServer
from tests.support.stores import OFFERED, POLICY, PROBE, counted, record, steady
from tests.support.waiting import until

PREFIX = "test:"


@asynccontextmanager
async def connected(url: str, prefix: str = PREFIX) -> AsyncIterator[RedisBackend]:
    backend = RedisBackend(url, prefix=prefix)
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def started(server: RedisServer) -> AsyncIterator[tuple[SteadyStore, Counters]]:
    store, counters, _ = steady(RedisBackend(server.url, prefix=PREFIX))
    await store.start()
    try:
        yield store, counters
    finally:
        await store.close()


async def settled(store: SteadyStore) -> None:
    await until(lambda: store.up and not store.pending, "settled")


async def put(store: SteadyStore, key: str, value: bytes = b"x", life: float = 1000) -> None:
    now = time.time()
    await store.put(POLICY, key, value, now + life, now)


async def get(store: SteadyStore, key: str) -> bytes | None:
    return await store.get(POLICY, key, time.time())


def wire(key: str, times: str, value: bytes = b"x") -> bytes:
    """A policy as it is in Redis; *times* are two, in seconds."""
    written, until = map(float, times.split())
    fits = digest(POLICY, key, Record(value, written, until)).hex()
    return f"RTLS2 {times} {fits}\n".encode() + value


# ---------------------------------------------------------------- what is kept


async def test_what_one_writes_another_reads(redis: RedisServer) -> None:
    written = round(time.time(), 3)
    kept = Record(b"\x00policy\r\n\xff", written, written + 1000)
    async with connected(redis.url) as one, connected(redis.url) as other:
        await one.write([(POLICY, "a.example", kept), (PROBE, "a.example", record(b"probe"))])
        assert await other.get(POLICY, "a.example", written) == kept
        assert await other.get(OFFERED, "a.example", written) is None
        await other.write([(POLICY, "a.example", None), (POLICY, "never.example", None)])
        assert await one.get(POLICY, "a.example", written) is None
    assert redis.keys() == {"test:probe:a.example"}


async def test_redis_forgets_by_itself_what_is_over(redis: RedisServer) -> None:
    async with connected(redis.url) as backend:
        await backend.write(
            [
                (POLICY, "soon", record(life=0.05)),
                (POLICY, "later", record(life=500)),
                (POLICY, "over", record(life=-1)),
            ]
        )
        assert 499_000 < int(redis.command("PTTL", "test:mta_sts_policy:later")) <= 500_000
        await until(lambda: redis.keys() == {"test:mta_sts_policy:later"})


async def test_the_longest_record_fits(redis: RedisServer) -> None:
    async with connected(redis.url) as backend:
        await backend.write([(PROBE, "k" * 1024, record(b"x" * MAX_VALUE))])
        found = await backend.get(PROBE, "k" * 1024, 0)
        assert found is not None
        assert len(found.value) == MAX_VALUE


async def test_keys_of_one_kind_and_prefix_are_listed(redis: RedisServer) -> None:
    async with (
        connected(redis.url, "te*t[a]?:") as backend,
        connected(redis.url, "teXta?:") as other,
    ):
        kept = [(POLICY, f"d{n}.example", record(life=1000 + n)) for n in range(2500)]
        await backend.write([*kept, (PROBE, "probe", record())])
        await other.write([(POLICY, "other", record())])
        redis.command("SET", "te*t[a]?:mta_sts_policy:garbage", "garbage")
        redis.command("LPUSH", "te*t[a]?:mta_sts_policy:list", "x")
        listed = dict(await backend.listing(POLICY))
        assert set(listed) == {key for _, key, _ in kept}
        assert abs(listed["d7.example"].written - time.time()) < 60
        assert [key for key, _ in await other.listing(POLICY)] == ["other"]


async def test_more_keys_than_there_is_time_for_are_listed_a_part_at_a_time(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redismodule, "LISTING_TIME", 0.0)
    async with connected(redis.url) as backend:
        keys = {f"d{n}.example" for n in range(5_000)}
        await backend.write([(POLICY, key, record(life=1000)) for key in keys])
        parts = [{key for key, _ in await backend.listing(POLICY)} for _ in range(20)]
        assert all(len(part) < 2_500 for part in parts)
        assert set().union(*parts) == keys
        monkeypatch.setattr(redismodule, "LISTING_TIME", 60.0)
        await backend.listing(POLICY)  # what was left
        assert {key for key, _ in await backend.listing(POLICY)} == keys


async def test_the_history_of_reports_is_kept_for_each_host_by_itself(redis: RedisServer) -> None:
    for day in days(2):
        async with started(redis) as (store, counters):
            await ReportDays(RecordStore(store, counters), "mx1").keep(MailSource.LOG, day)
            await settled(store)
    async with started(redis) as (store, counters):
        records = RecordStore(store, counters)
        assert await ReportDays(records, "mx1").read(MailSource.LOG) == days(2)
        assert await ReportDays(records, "mx2").read(MailSource.LOG) == ()
    assert redis.keys() == {"test:report:log@mx1"}


# ---------------------------------------------------------------- claims


async def test_a_claim_is_held_by_one_of_the_fleet_and_ends_by_itself(redis: RedisServer) -> None:
    async with connected(redis.url) as one, connected(redis.url) as other:
        token = await one.claim(PROBE, "a", 30)
        assert token
        assert await other.claim(PROBE, "a", 30) is None
        assert await other.claim(PROBE, "b", 30)
        await other.release(PROBE, "a", "another token")
        assert await other.claim(PROBE, "a", 30) is None
        await one.release(PROBE, "a", token)
        assert await other.claim(PROBE, "a", 0.05)
        await asyncio.sleep(0.1)  # whoever held it was killed
        assert await one.claim(PROBE, "a", 30)


# ---------------------------------------------------------------- hanging, gone


async def test_a_redis_that_hangs_holds_up_one_reader_for_half_a_second_and_comes_back(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    async with started(redis) as (store, counters):
        await put(store, "a", b"1")
        await settled(store)
        redis.hang()
        longest, begun = 0.0, time.monotonic()
        for number in range(50):
            before = time.monotonic()
            assert await get(store, "a") == b"1"
            await put(store, f"during{number}")
            assert await store.claim(PROBE, "a", 30) == ""
            longest = max(longest, time.monotonic() - before)
        assert longest < 2
        assert time.monotonic() - begun < 4  # and not 50 times half a second
        assert not store.up
        redis.go_on()
        await settled(store)
        assert len(redis.keys()) == 51
        assert counted(counters, "store_errors_total", "read") >= 1
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]
    assert "within 0.5 s" in logged[0]["error"] or "Timeout" in logged[0]["error"]


async def test_a_redis_that_is_slow_never_gives_one_record_for_another(
    redis: RedisServer,
) -> None:
    """A read that is given up must not leave its answer to the next who uses the connection."""
    async with connected(redis.url) as backend:
        await backend.write([(POLICY, f"{n}", record(b"value %d" % n)) for n in range(50)])
        for _ in range(5):
            redis.hang()
            waiting = [asyncio.create_task(backend.get(POLICY, f"{n}", 0)) for n in range(8)]
            await asyncio.sleep(0.02)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            redis.go_on()
            found = await asyncio.gather(*(backend.get(POLICY, f"{n}", 0) for n in range(50)))
            assert [one.value for one in found if one] == [b"value %d" % n for n in range(50)]


async def test_a_redis_that_is_gone_comes_back_empty_and_gets_what_came_meanwhile(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    async with started(redis) as (store, counters):
        await put(store, "before", b"0")
        await settled(store)
        redis.stop()
        await put(store, "during", b"1")
        assert await get(store, "before") == b"0"
        assert await get(store, "during") == b"1"
        await until(lambda: counted(counters, "store_errors_total", "open") >= 1)
        redis.start()
        await settled(store)
        assert redis.keys() == {"test:mta_sts_policy:during"}
        # The other one is in memory still, and as good as its time says.
        assert await get(store, "before") == b"0"
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]


async def test_connections_that_redis_closes_are_opened_anew(redis: RedisServer) -> None:
    async with started(redis) as (store, counters):
        await put(store, "a", b"1")
        await settled(store)
        for _ in range(10):
            redis.command("CLIENT", "KILL", "TYPE", "normal")
            assert await get(store, "a") == b"1"
            await put(store, "a", b"1")
            await settled(store)
        assert counted(counters, "store_errors_total", "read") <= 10


async def test_a_redis_that_is_not_there_at_the_start_is_waited_for(redis: RedisServer) -> None:
    redis.stop()
    async with started(redis) as (store, _):
        assert not store.up
        await put(store, "a")
        redis.start()
        await settled(store)
        assert redis.keys() == {"test:mta_sts_policy:a"}


# ---------------------------------------------------------------- full, read-only, evicting


async def test_a_full_redis_is_read_all_the_same_and_written_when_there_is_room(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    async with started(redis) as (store, counters):
        await put(store, "before", b"0")
        await settled(store)
        redis.command("CONFIG", "SET", "maxmemory", "1")
        await put(store, "during", b"1")
        await until(lambda: counted(counters, "store_errors_total", "write") >= 2)
        assert not store.up
        assert await get(store, "before") == b"0"
        assert await get(store, "during") == b"1"
        assert await store.claim(PROBE, "a", 30) == ""
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await settled(store)
        assert len(redis.keys()) == 2
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]
    assert "maxmemory" in logged[0]["error"]


async def test_a_replica_is_read_and_not_written(redis: RedisServer) -> None:
    async with connected(redis.url) as backend:
        await backend.write([(POLICY, "a", record(b"1"))])
        redis.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
        redis.command("REPLICAOF", "127.0.0.1", "1")
        found = await backend.get(POLICY, "a", 0)
        assert found is not None
        with pytest.raises(StoreUnwritableError):
            await backend.write([(POLICY, "b", record())])
        with pytest.raises(StoreUnwritableError):
            await backend.claim(PROBE, "a", 30)
        redis.command("REPLICAOF", "NO", "ONE")
        await backend.write([(POLICY, "b", record())])


async def test_a_redis_that_evicts_costs_nothing_but_what_it_evicts(redis: RedisServer) -> None:
    used = int(
        next(
            line.partition(":")[2]
            for line in redis.command("INFO", "memory").splitlines()
            if line.startswith("used_memory:")
        )
    )
    redis.run(
        [
            ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
            ("CONFIG", "SET", "maxmemory", str(used + 1_500_000)),
        ]
    )
    async with started(redis) as (store, counters):
        for number in range(500):
            await put(store, f"{number}", b"x" * 10_000)
        await settled(store)
        assert len(redis.keys()) < 400
        for number in range(0, 500, 50):
            assert await get(store, f"{number}") in (None, b"x" * 10_000)
        assert store.up
        assert not counters.totals().counters


# ---------------------------------------------------------------- wrong data


async def test_a_key_of_another_type_is_no_record_and_is_replaced(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    redis.command("LPUSH", "test:mta_sts_policy:a", "x")
    async with started(redis) as (store, counters):
        assert await get(store, "a") is None
        assert counted(counters, "store_errors_total", "decode") == 1
        assert store.up
        await put(store, "a", b"1")
        await settled(store)
        assert await get(store, "a") == b"1"
    assert [entry["event"] for entry in logged] == ["store_record_bad"]


@pytest.mark.parametrize(
    "octets",
    [
        b"garbage",
        b"\xff\xfe\x00\x01",
        b'{"policy": {}}',
        b"RTLS2 1 2",
        b"RTLS2 1 2\nx",
        wire("a", "1 2")[: -len("\nx")],
        wire("a", "-1 2"),
        wire("a", "nan inf"),
        wire("a", "1e99 1e99"),
        wire("a", "1 2", b"x" * (MAX_VALUE + 1)),
    ],
)
async def test_what_we_never_wrote_is_no_record(redis: RedisServer, octets: bytes) -> None:
    redis.command("SET", "test:mta_sts_policy:a", octets)
    async with connected(redis.url) as backend:
        with pytest.raises(StoreDataError):
            await backend.get(POLICY, "a", 0)


@pytest.mark.parametrize("times", ["1 2", "999999999999.999999 999999999999.999999"])
async def test_the_form_of_a_record_is_known(redis: RedisServer, times: str) -> None:
    """Others of the fleet wrote it, maybe with another version."""
    longest = wire("a", times, b"x" * MAX_VALUE)
    redis.command("SET", "test:mta_sts_policy:a", longest)
    written, until = map(float, times.split())
    async with connected(redis.url) as backend:
        found = await backend.get(POLICY, "a", 0)
        assert found == Record(b"x" * MAX_VALUE, written, until)
        assert await backend.listing(POLICY) == [("a", Record(b"", written, until))]


async def test_whichever_octet_of_a_record_is_damaged_it_is_none(redis: RedisServer) -> None:
    async with connected(redis.url) as backend:
        await backend.write([(POLICY, "a", record(b'{"mx":["mx.a.example"]}'))])
        clean = redis.command("GET", "test:mta_sts_policy:a").encode("latin-1")
        assert len(clean) > 2 * DIGEST
        for at in range(len(clean)):
            damaged = bytearray(clean)
            damaged[at] ^= 1 << at % 8
            redis.command("SET", "test:mta_sts_policy:a", bytes(damaged))
            with pytest.raises(StoreDataError):
                await backend.get(POLICY, "a", 0)


@pytest.mark.parametrize("name", ["test:mta_sts_policy:e", "test:probe:a"])
async def test_a_record_under_the_name_of_another_is_none(redis: RedisServer, name: str) -> None:
    async with connected(redis.url) as backend:
        await backend.write([(POLICY, "a", record())])
        redis.command("RENAME", "test:mta_sts_policy:a", name)
        _, kind, key = name.split(":")
        with pytest.raises(StoreDataError, match="is damaged"):
            await backend.get(StoreKind(kind), key, 0)


async def test_a_damaged_record_is_counted_told_and_removed(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    now = time.time()
    redis.command("SET", "test:mta_sts_policy:a", wire("e", f"{now:.3f} {now + 100:.3f}"))
    async with started(redis) as (store, counters):
        assert await get(store, "a") is None
        await settled(store)
        assert redis.keys() == set()
        assert counted(counters, "store_errors_total", "decode") == 1
    assert [entry["event"] for entry in logged] == ["store_record_bad"]


@pytest.mark.parametrize("form", ["RTLS1", "RTLS3", "RTLS10"])
async def test_records_of_another_version_are_none_and_no_damage_either(
    redis: RedisServer, logged: list[EventDict], form: str
) -> None:
    now = time.time()
    other = f"{form} {now:.3f} {now + 1000:.3f}\nx"
    redis.command("SET", "test:mta_sts_policy:a", other)
    async with started(redis) as (store, counters):
        assert await get(store, "a") is None
        assert await store.listing(POLICY, now) == []
        assert not counters.totals().counters
        assert redis.command("GET", "test:mta_sts_policy:a") == other  # others may read it
        await put(store, "a", b"1")
        await settled(store)
        assert await get(store, "a") == b"1"
    assert logged == []


async def test_of_a_huge_value_no_more_is_read_than_we_would_have_written(
    redis: RedisServer,
) -> None:
    redis.command("SETRANGE", "test:mta_sts_policy:a", str(300 << 20), "x")
    async with connected(redis.url) as backend:
        with pytest.raises(StoreDataError):
            await backend.get(POLICY, "a", 0)
    lines = redis.command("INFO", "stats").splitlines()
    (sent,) = [line for line in lines if line.startswith("total_net_output_bytes:")]
    assert int(sent.partition(":")[2]) < 1_000_000


async def test_r61_a_record_from_the_future_or_of_a_wrong_redis_clock_is_not_good(
    redis: RedisServer,
) -> None:
    now = time.time()
    for key, times in {
        "future": f"{now + 3600:.0f} {now + 7200:.0f}",
        "over": f"{now - 3600:.0f} {now - 60:.0f}",
        "ancient": f"1 {now + 60:.0f}",
    }.items():
        redis.command("SET", f"test:mta_sts_policy:{key}", wire(key, times))
    async with started(redis) as (store, _):
        for key in ("future", "over", "ancient"):
            assert await get(store, key) is None
        assert await store.listing(POLICY, now) == []


# ---------------------------------------------------------------- who may


async def test_a_password_is_given_and_told_to_nobody(
    redis: RedisServer, logged: list[EventDict]
) -> None:
    redis.command("CONFIG", "SET", "requirepass", "s3cret")
    right = f"redis://:s3cret@127.0.0.1:{redis.port}/0"
    async with connected(right) as backend:
        await backend.write([(POLICY, "a", record())])
        assert backend.name == f"redis://127.0.0.1:{redis.port}/0"
    wrong = RedisBackend(f"redis://user:wr0ng@127.0.0.1:{redis.port}/0", prefix=PREFIX)
    store, counters, _ = steady(wrong)
    await store.start()
    assert not store.up
    assert counted(counters, "store_errors_total", "open") >= 1
    await store.close()
    assert "wr0ng" not in str(logged)


async def test_no_more_is_needed_than_the_documented_access_list(redis: RedisServer) -> None:
    page = (REPOSITORY / "docs/state.md").read_text()
    (rule,) = (
        line.strip() for line in page.splitlines() if line.strip().startswith("ACL SETUSER ")
    )
    redis.command(*rule.replace("SECRET", "s3cret").split())
    url = f"redis://milter:s3cret@127.0.0.1:{redis.port}/0"
    async with connected(url, "requiretls-milter:") as backend:
        await backend.write([(POLICY, "a", record(b"1")), (POLICY, "b", None)])
        assert [key for key, _ in await backend.listing(POLICY)] == ["a"]
        token = await backend.claim(PROBE, "a", 30)
        assert token
        await backend.release(PROBE, "a", token)
        assert await backend.claim(PROBE, "a", 30)
    with pytest.raises(StoreError, match="No permissions"):
        async with connected(url, "other:"):
            pass


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(("name", "good"), [("localhost", True), ("other.example", False)])
async def test_over_tls_authority_and_name_are_verified(
    redis_root: Path, authority: Authority, name: str, good: bool
) -> None:
    issued = authority.issue(name)
    with RedisServer(redis_root, "redis", certificate=issued.path) as server:
        url = f"rediss://localhost:{server.tls_port}/0"
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            async with connected(url):
                pass
        trusting = f"{url}?ssl_ca_certs={authority.path}"
        if good:
            async with connected(trusting) as backend:
                await backend.write([(POLICY, "a", record())])
            assert server.keys() == {"test:mta_sts_policy:a"}
        else:
            with pytest.raises(StoreError, match=r"(?i)hostname|certificate"):
                async with connected(trusting):
                    pass


@pytest.mark.parametrize(
    "url", ["redis://host:port/0", "redis://[::1/0", "redis://host:6379/x?db=y&db"]
)
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(StoreError, match=r"^store\.url: "):
        RedisBackend(url, prefix=PREFIX)


# ---------------------------------------------------------------- no Redis at all

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 20)


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(os.urandom(65536))
    await writer.drain()


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


async def _nested(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"*1\r\n" * 20000)
    await writer.drain()


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"$100\r\nhalf")
    await writer.drain()


@pytest.mark.parametrize("answer", [_closes, _http, _silent, _garbage, _endless, _nested, _half])
async def test_what_is_no_redis_is_no_store_and_does_no_harm(answer: Answer) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = RedisBackend(f"redis://127.0.0.1:{port}/0", prefix=PREFIX)
    backend.open_deadline = 1.0
    store, counters, _ = steady(backend)
    try:
        await store.start()
        assert not store.up
        await put(store, "a", b"1")
        assert await get(store, "a") == b"1"
        assert counted(counters, "store_errors_total", "open") >= 1
    finally:
        await store.close()
        server.close()
