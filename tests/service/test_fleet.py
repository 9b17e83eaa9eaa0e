"""Many milters, one probe: engines that share a real Redis, and a server that counts sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from requiretls_milter.config import Config, Probe
from requiretls_milter.engine.cache import fleet as module
from requiretls_milter.engine.cache.policies import POLICY_REFRESH
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.evidence.probe import Prober
from requiretls_milter.model import (
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    ProbeEvidence,
    ProbeStage,
    ServerTarget,
)
from requiretls_milter.store.redis import RedisBackend
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.authority import Authority
from tests.support.fakesource import Clocks, FakeSource
from tests.support.redisserver import RedisServer
from tests.support.smtpserver import Close, SmtpServer
from tests.support.stores import PROBE, counted, steady
from tests.support.waiting import until

RULES = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.a.example",), 7 * 86400, "id1")


class Source(FakeSource):
    """Real sessions; DNS and policies are scripted, and policies take their time."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__(clocks)
        self.good()
        self._prober = Prober(
            AddressPolicy((ip_network("127.0.0.0/8"),)),
            Probe(helo="milter.example", command_timeout=5.0),
        )

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        return await self._prober.probe(server)

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        await asyncio.sleep(0.2)
        return await super().mta_sts(domain)


class Engine:
    """One milter's engine, as far as it knows of others."""

    def __init__(self, store: SteadyStore) -> None:
        self.clocks = Clocks()
        self.clocks.wall_time = time.time()
        self.store = store
        self.source = Source(self.clocks)
        self.counters = Counters()
        self.cache = CachedSource(
            self.source, store, Config(), self.counters, authorities="", clocks=self.clocks
        )

    def publish(self, policy: MtaStsPolicy) -> None:
        self.source.script["mta_sts"] = MtaStsEvidence(policy, expires=300)
        self.source.script["record"] = StsRecord(policy.id, expires=300)

    def flights(self, result: str) -> float:
        return counted(self.counters, "fleet_flights_total", result)


class Fleet:
    def __init__(self, engines: list[Engine]) -> None:
        self.engines = engines

    async def probe(self, server: SmtpServer) -> list[ProbeEvidence]:
        return await asyncio.gather(
            *(
                engine.cache.probe(ServerTarget("127.0.0.1", server.port, "mx.test"))
                for engine in self.engines
            )
        )

    async def policies(self, domain: str = "a.example") -> list[MtaStsEvidence]:
        return await asyncio.gather(*(engine.cache.mta_sts(domain) for engine in self.engines))

    def flights(self, result: str) -> float:
        return sum(engine.flights(result) for engine in self.engines)

    @property
    def fetches(self) -> int:
        return sum(
            number
            for engine in self.engines
            for call, number in engine.source.calls.items()
            if call.startswith("mta_sts ")
        )

    def pass_(self, seconds: float) -> None:
        for engine in self.engines:
            engine.clocks.pass_(seconds)


@asynccontextmanager
async def fleet(redis: RedisServer, size: int = 2) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        engines = []
        for _ in range(size):
            store, _, _ = steady(RedisBackend(redis.url, prefix="fleet:"))
            await store.start()
            stack.push_async_callback(store.close)
            await until(lambda: store.up)  # noqa: B023
            engines.append(Engine(store))
            stack.push_async_callback(engines[-1].cache.close)
        yield Fleet(engines)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., SmtpServer]:
    """Makes servers with REQUIRETLS and a certificate."""
    issued = Authority(tmp_path).issue("mx.test")
    return lambda **options: SmtpServer(tls=issued.server_context(), **options)


Serve = Callable[..., SmtpServer]


async def test_r60_two_engines_on_one_redis_make_one_probe(
    redis: RedisServer, serve: Serve
) -> None:
    async with fleet(redis) as two, serve(pause=0.3) as server:
        one, other = await two.probe(server)
        assert server.connections == 1
        assert one.stage is ProbeStage.DONE
        assert one.requiretls is True
        assert replace(one, expires=0) == replace(other, expires=0)
        assert (two.flights("ours"), two.flights("theirs")) == (1, 1)
        probes = [counted(e.counters, "probes_total", "completed") for e in two.engines]
        assert sorted(probes) == [0, 1]
        assert not any("claim" in key for key in tuple(redis.keys()))


@pytest.mark.alone  # 200 probes in this one process: on a busy machine claims run out
async def test_ten_engines_and_twenty_servers_make_twenty_probes(
    redis: RedisServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two hundred sessions in one process take all of a busy machine: Redis may answer late.
    monkeypatch.setattr("requiretls_milter.store.redis.ANSWER_WAIT", 10.0)
    monkeypatch.setattr(RedisBackend, "read_deadline", 10.0)
    monkeypatch.setattr(RedisBackend, "write_deadline", 10.0)
    async with fleet(redis, 10) as ten, AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(serve(pause=0.05, host="127.0.0.1")) for _ in range(20)
        ]
        for found in await asyncio.gather(*map(ten.probe, servers)):
            assert all(one.stage is ProbeStage.DONE for one in found)
        assert [server.connections for server in servers] == [1] * 20
        assert ten.flights("ours") == 20


async def test_an_engine_that_comes_later_calls_no_server(redis: RedisServer, serve: Serve) -> None:
    async with serve() as server:
        async with fleet(redis, 1) as first:
            await first.probe(server)
        async with fleet(redis, 3) as later:
            await later.probe(server)
            assert later.flights("ours") == later.flights("theirs") == 0
        assert server.connections == 1


async def test_where_the_one_that_looked_failed_the_next_looks_at_once(
    redis: RedisServer, serve: Serve
) -> None:
    async with fleet(redis, 3) as three, serve(banner=Close, pause=0.1) as server:
        before = time.monotonic()
        found = await three.probe(server)
        assert time.monotonic() - before < module.FLEET_WAIT / 2
        assert {one.stage for one in found} == {ProbeStage.BANNER}
        assert server.connections == 3
        assert server.most_at_once == 1


async def test_where_the_one_that_looked_was_killed_the_others_do_not_wait_for_ever(
    redis: RedisServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLEET_WAIT", 0.5)
    async with fleet(redis) as two, serve() as server:
        dead = RedisBackend(redis.url, prefix="fleet:")
        assert await dead.claim(PROBE, f"127.0.0.1 {server.port} mx.test", 60)
        await dead.close()
        before = time.monotonic()
        found = await two.probe(server)
        assert 0.4 < time.monotonic() - before < 3
        assert all(one.stage is ProbeStage.DONE for one in found)
        assert two.flights("ours_after_waiting") == 2


async def test_a_redis_that_hangs_while_the_fleet_waits_delays_no_question_for_long(
    redis: RedisServer, serve: Serve
) -> None:
    async with fleet(redis) as two, serve(pause=0.5) as server:
        waiting = asyncio.create_task(two.probe(server))
        await until(lambda: server.connections == 1)
        redis.hang()
        found = await asyncio.wait_for(waiting, 5)
        assert all(one.stage is ProbeStage.DONE for one in found)
        assert server.connections == 2
        redis.go_on()
        await until(lambda: all(engine.store.up for engine in two.engines))


async def test_without_redis_each_engine_looks_by_itself(redis: RedisServer, serve: Serve) -> None:
    async with fleet(redis) as two, serve() as server:
        redis.stop()
        found = await two.probe(server)
        assert all(one.stage is ProbeStage.DONE for one in found)
        assert server.connections == 2


async def test_a_fresh_look_asks_nobody_and_tells_everybody(
    redis: RedisServer, serve: Serve
) -> None:
    async with fleet(redis) as two, serve() as server:
        await two.probe(server)
        one, other = two.engines
        two.pass_(1)
        await one.cache.probe(
            ServerTarget("127.0.0.1", server.port, "mx.test"), since=one.clocks.monotonic()
        )
        assert server.connections == 2
        async with fleet(redis, 1) as later:
            (found,) = await later.probe(server)
        assert found.probed_at > other.clocks.wall() - 1
        assert server.connections == 2


# ---------------------------------------------------------------- policies


async def test_r60_a_policy_is_fetched_once_for_a_fleet(redis: RedisServer) -> None:
    async with fleet(redis, 5) as five:
        for engine in five.engines:
            engine.publish(RULES)
        assert {found.policy for found in await five.policies()} == {RULES}
        assert five.fetches == 1
        assert (five.flights("ours"), five.flights("theirs")) == (1, 4)
        new = replace(RULES, id="id2", mx=("other.a.example",))
        for engine in five.engines:
            engine.publish(new)
        five.pass_(301)  # the record has ended
        assert {found.policy for found in await five.policies()} == {new}
        assert five.fetches == 2


async def test_r52_a_policy_that_one_has_fetched_applies_for_all_until_max_age(
    redis: RedisServer,
) -> None:
    async with fleet(redis) as two:
        one, other = two.engines
        one.publish(RULES)
        await one.cache.mta_sts("a.example")
        await until(lambda: not one.store.pending)
        other.source.script["record"] = StsRecord(error="SERVFAIL", expires=60)
        other.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL", expires=60)
        found = await other.cache.mta_sts("a.example")
        assert found.policy == RULES
        assert found.error == "SERVFAIL"


async def test_a_domain_without_a_policy_is_nothing_to_agree_upon(redis: RedisServer) -> None:
    async with fleet(redis) as two:
        for engine in two.engines:
            engine.source.script["record"] = StsRecord(expires=300)
        assert {found.policy for found in await two.policies()} == {None}
        assert two.flights("ours") == two.flights("theirs") == 0


async def test_r53_a_fleet_fetches_each_policy_anew_once_a_day(redis: RedisServer) -> None:
    domains = [f"d{number}.example" for number in range(10)]
    async with fleet(redis, 3) as three:
        for engine in three.engines:
            engine.publish(RULES)
        await asyncio.gather(*map(three.policies, domains))
        assert three.fetches == 10
        three.pass_(POLICY_REFRESH)
        # Redis' own time has not passed: what is written now lives as long as it should.
        await asyncio.gather(*(engine.cache.refresh_policies() for engine in three.engines))
        assert three.fetches == 20
        await asyncio.gather(*(engine.cache.refresh_policies() for engine in three.engines))
        assert three.fetches == 20


async def test_one_engine_of_a_fleet_looks_through_what_is_stored_until_it_ends(
    redis: RedisServer,
) -> None:
    async with fleet(redis, 3) as three:
        for engine in three.engines:
            engine.publish(RULES)
        await three.policies()
        for _ in range(3):
            three.pass_(POLICY_REFRESH)
            for engine in three.engines:  # each at a time of its own
                await engine.cache.refresh_policies()
        renewed = [
            counted(engine.counters, "mta_sts_refreshes_total", "renewed")
            for engine in three.engines
        ]
        assert sorted(renewed) == [0, 0, 3]
        # It ends, and so does its claim, after a while.
        claims = {key for key in redis.keys() if ":mta_sts_policy:*" in key}  # noqa: SIM118
        assert len(claims) == 1
        redis.run([["DEL", *claims]])
        others = [engine for engine, n in zip(three.engines, renewed, strict=True) if not n]
        three.pass_(POLICY_REFRESH)
        await asyncio.gather(*(engine.cache.refresh_policies() for engine in others))
        assert three.fetches == 5
