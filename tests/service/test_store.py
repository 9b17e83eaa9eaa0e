"""The store in the whole service: processes that end and come back, files that are damaged."""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import pytest

from requiretls_milter.ipc import query
from requiretls_milter.store.base import Record, StoreKind
from requiretls_milter.store.rediswire import RecordCodec
from tests.support.faultmatrix import ROWS
from tests.support.internet import Internet, loopback_internet
from tests.support.redisproxy import Answer, RedisProxy
from tests.support.redisserver import RedisServer
from tests.support.service import Service
from tests.support.stores import Disk
from tests.support.waiting import eventually

Make = Callable[..., Service]


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


@pytest.fixture
def make(internet: Internet) -> Iterator[Make]:
    """Makes services with a store, and ends whatever is left of them."""
    made: list[Service] = []

    def one(url: str, more: str = "") -> Service:
        service = Service(internet.config + more, workers=1)
        made.append(service)
        text = service.config_path.read_text()
        assert text.count('url = "memory:"') == 1
        service.config_path.write_text(text.replace('url = "memory:"', f'url = "{url}"'))
        return service

    yield one
    for service in made:
        service.destroy()


def kept(service: Service, path: Path) -> None:
    """Wait until the session with the server is in the file, which is locked while it is used."""
    eventually(lambda: b'"found":' in path.read_bytes() + wal(path), what="the session is kept")


def wal(path: Path) -> bytes:
    log = path.with_name(path.name + "-wal")
    return log.read_bytes() if log.exists() else b""


def assert_good(service: Service) -> None:
    (tag,) = service.send("<bob@good.test>")
    assert "forecast=2.0.0; reason=ok; " in tag


def test_a_killed_engine_gives_no_server_a_new_budget(
    make: Make, internet: Internet, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    service = make(f"sqlite://{path}", "[limits]\naddress_per_hour = 8\n").start()
    engine = str(service.engine_path)

    def refreshed() -> str:
        found = asyncio.run(query.evidence(engine, "lacking.test", refresh=True))
        return found.hosts[0].probes[0].error

    before = internet.lacking.connections
    assert [refreshed() for _ in range(2)] == ["", ""]
    assert refreshed().startswith("over budget: limits.address_per_hour")
    eventually(lambda: b'"debts":' in path.read_bytes() + wal(path), what="it is kept")
    service.replaced("engine", service.kill("engine"))
    assert refreshed().startswith("over budget: limits.address_per_hour")
    assert internet.lacking.connections == before + 2
    assert service.metric('saturated_total{bound="address_per_hour"}') >= 1
    assert service.events("budget_spent")


def test_neither_a_restart_nor_a_killed_engine_has_a_server_called_again(
    make: Make, internet: Internet, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    service = make(f"sqlite://{path}").start()
    before = internet.good.connections
    assert_good(service)
    assert internet.good.connections == before + 1
    kept(service, path)
    for process in ("engine", "worker-1"):  # which has the forecast
        service.replaced(process, service.kill(process))
    assert_good(service)
    assert service.metric('cache_requests_total{layer="host",result="stored"}') == 1
    assert service.stop() == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kinds = {kind for (kind,) in db.execute("SELECT kind FROM record")}
        assert kinds == {"probe", "offered"}
    again = make(f"sqlite://{path}").start()
    assert_good(again)
    assert internet.good.connections == before + 1
    assert again.metric("store_up") == 1


def test_two_services_on_one_redis_call_a_server_once(
    make: Make, internet: Internet, redis: RedisServer
) -> None:
    services = [make(redis.url).start(), make(redis.url).start()]
    before = internet.good.connections
    threads = [threading.Thread(target=assert_good, args=(one,)) for one in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert internet.good.connections == before + 1
    flights = [
        sum(one.metric(f'fleet_flights_total{{result="{result}"}}') for one in services)
        + sum(
            one.metric('cache_requests_total{layer="host",result="stored"}')
            for one in services
            if result == "theirs"
        )
        for result in ("ours", "theirs", "ours_after_waiting")
    ]
    assert flights == [1, 1, 0]


def test_services_with_one_secret_share_what_no_other_reads(
    make: Make, internet: Internet, redis: RedisServer, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    with_secret = f'{redis.url}"\nsecret_file = "{secret}'
    before = internet.good.connections
    assert_good(make(with_secret).start())
    eventually(redis.keys, what="what the first one keeps")
    assert_good(make(with_secret).start())
    assert internet.good.connections == before + 1
    assert_good(make(redis.url).start())
    assert internet.good.connections == before + 2


def forge(redis: RedisServer) -> int:
    """Make each server that is known offer REQUIRETLS, with a digest that fits; how many."""
    forged, codec = 0, RecordCodec()
    for name in fnmatch.filter(redis.keys(), "requiretls-milter:probe:*"):
        key = name.partition(":probe:")[2]
        found = codec.decode(StoreKind.PROBE, key, redis.command("GET", name).encode("latin-1"))
        assert found is not None
        value = found.value.replace(b'"requiretls":false', b'"requiretls":true')
        forged += value != found.value
        record = Record(value, found.written, found.keep_until)
        redis.command("SET", name, codec.encode(StoreKind.PROBE, key, record))
    return forged


@pytest.mark.parametrize("with_secret", [True, False])
def test_only_without_a_secret_can_another_client_make_a_server_seem_to_offer_requiretls(
    make: Make, redis: RedisServer, tmp_path: Path, with_secret: bool
) -> None:
    """This is the boundary of what docs/security.md trusts."""
    first = make(redis.url).start()
    assert "forecast=5.7.30" in first.send("<bob@lacking.test>")[0]
    eventually(redis.keys, what="what the first one keeps")
    assert first.stop() == 0
    assert forge(redis) == 1
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    url = f'{redis.url}"\nsecret_file = "{secret}' if with_secret else redis.url
    (tag,) = make(url).start().send("<bob@lacking.test>")
    assert ("forecast=5.7.30" if with_secret else "forecast=2.0.0") in tag


def test_a_password_of_the_store_is_told_to_nobody(make: Make, redis: RedisServer) -> None:
    service = make(f"redis://:s3cret@127.0.0.1:{redis.port}/0").start()
    eventually(lambda: service.metric("store_up") == 0)
    assert "store_lost" in service.log_text
    assert "s3cret" not in service.log_text


# ---------------------------------------------------------------- what goes wrong with it


@dataclass
class Store:
    """What a fault may need: the services, a small disk of our own, a real Redis."""

    make: Make
    directory: Path
    request: pytest.FixtureRequest
    flavour: str = "redis"

    @cached_property
    def disk(self) -> Disk:
        return cast(Disk, self.request.getfixturevalue("disk"))

    @cached_property
    def redis(self) -> RedisServer:
        server = RedisServer(self.request.getfixturevalue("redis_root"), self.flavour)
        self.request.addfinalizer(lambda: server.__exit__())
        return server.__enter__()

    @cached_property
    def proxy(self) -> RedisProxy:
        proxy = RedisProxy(self.redis.port)
        self.request.addfinalizer(lambda: proxy.__exit__())
        return proxy.__enter__()

    def in_file(self, path: Path | None = None) -> Service:
        return self.make(f"sqlite://{path or self.directory / 'state.db'}").start()


def disk_full(store: Store) -> Service:
    disk = store.disk
    service = store.in_file(disk.path / "state.db")
    disk.fill()
    return service


def read_only(store: Store) -> Service:
    disk = store.disk
    disk.read_only(True)
    store.request.addfinalizer(lambda: disk.read_only(False))
    return store.in_file(disk.path / "state.db")


def locked(store: Store) -> Service:
    database = sqlite3.connect(store.directory / "state.db", isolation_level=None)
    store.request.addfinalizer(database.close)
    database.execute("BEGIN EXCLUSIVE")
    return store.in_file()


def damaged(store: Store) -> Service:
    (store.directory / "state.db").write_bytes(b"\0" * 20_000)
    return store.in_file()


def flipped_bit(store: Store) -> Service:
    path = store.directory / "state.db"
    first = store.in_file()
    assert_good(first)
    kept(first, path)
    assert first.stop() == 0
    with closing(sqlite3.connect(path)) as db:
        # One bit, and a session that is as good to look at as it was.
        session = (
            "UPDATE record SET value = CAST(replace(value, ?, ?) AS BLOB) WHERE kind = 'probe'"
        )
        assert db.execute(session, ("TLSv1.3", "TLSv1.2")).rowcount == 1
        db.commit()
    return store.in_file()


def no_directory(store: Store) -> Service:
    return store.in_file(store.directory / "later" / "state.db")


def redis_refuses(store: Store) -> Service:
    redis = store.redis
    redis.stop()
    return store.make(redis.url).start()


def redis_hangs(store: Store) -> Service:
    redis = store.redis
    service = store.make(redis.url).start()
    redis.hang()
    return service


def redis_wrong_type(store: Store) -> Service:
    return redis_changed(store, "redis.call('DEL', key) redis.call('LPUSH', key, 'x')")


def redis_flipped_bit(store: Store) -> Service:
    other = "string.gsub(redis.call('GET', key), 'TLSv1%.3', 'TLSv1.2')"
    return redis_changed(store, f"redis.call('SET', key, ({other}))")


def redis_changed(store: Store, change: str) -> Service:
    """A second service, after *change* (Lua) was made to each ``key`` that a first one kept."""
    redis = store.redis
    first = store.make(redis.url).start()
    assert_good(first)
    eventually(redis.keys, what="what the first one keeps")
    assert first.stop() == 0
    every = "for _, key in ipairs(redis.call('KEYS', '*')) do"
    redis.command("EVAL", f"{every} {change} end", "0")
    return store.make(redis.url).start()


def redis_says(store: Store, command: str, answer: Answer) -> Service:
    """What a man in the middle makes of one command."""
    service = store.make(store.proxy.url).start()
    store.proxy.answers[command] = answer
    return service


def redis_loads(store: Store) -> Service:
    return redis_says(store, "GETRANGE", lambda *_: [b"-LOADING Redis is loading the dataset\r\n"])


def redis_cuts(store: Store) -> Service:
    return redis_says(store, "SET", lambda _, reply: iter([reply[:2]]))


def redis_never_ends(store: Store) -> Service:
    endless = itertools.chain([b"$4000000000\r\n"], itertools.repeat(b"x" * 100_000))
    return redis_says(store, "GETRANGE", lambda *_: endless)


def redis_answers_late(store: Store) -> Service:
    service = store.make(store.proxy.url).start()
    store.proxy.delay = 0.4
    return service


def redis_fails_over(store: Store) -> Service:
    """A replica takes over; some seconds later the name leads to it, for new connections.

    Meanwhile the former primary is a replica that has no primary, and can be read.
    """
    service = store.make(store.proxy.url).start()
    server = RedisServer(store.request.getfixturevalue("redis_root"), store.flavour)
    store.request.addfinalizer(lambda: server.__exit__())
    port = server.__enter__().port
    store.redis.command("REPLICAOF", "127.0.0.1", "1")
    moving = threading.Timer(3.0, setattr, (store.proxy, "behind", port))
    store.request.addfinalizer(moving.join)
    moving.start()
    return service


def redis_full(store: Store) -> Service:
    redis = store.redis
    service = store.make(redis.url).start()
    redis.run([["CONFIG", "SET", "maxmemory-policy", "noeviction"]])
    redis.run([["CONFIG", "SET", "maxmemory", "1"]])
    return service


def redis_evicts(store: Store) -> Service:
    redis = store.redis
    service = store.make(redis.url).start()
    assert_good(service)
    for process in ("engine", "worker-1"):
        service.replaced(process, service.kill(process))
    assert_good(service)
    eventually(lambda: service.metric(STORED) == 1, what=STORED)
    redis.run([["FLUSHALL"]])
    for process in ("engine", "worker-1"):
        service.replaced(process, service.kill(process))
    return service


STORED = 'cache_requests_total{layer="host",result="stored"}'


@dataclass(frozen=True)
class Fault:
    """A row of the matrix, and what shows it: a series, and its value or what it comes to."""

    row: str
    happens: Callable[[Store], Service]
    series: str
    value: float


FAULTS = (
    Fault("disk full", disk_full, "store_up", 0),
    Fault("read-only at first", read_only, "store_up", 0),
    Fault("locked", locked, "store_up", 0),
    Fault("no directory yet", no_directory, "store_up", 0),
    Fault("damaged", damaged, "store_damaged_total", 1),
    Fault("a flipped bit", flipped_bit, 'store_errors_total{operation="decode"}', 1),
    Fault("Redis refuses", redis_refuses, "store_up", 0),
    Fault("Redis hangs", redis_hangs, 'store_errors_total{operation="read"}', 1),
    Fault(
        "Redis has a key of another type",
        redis_wrong_type,
        'store_errors_total{operation="decode"}',
        1,
    ),
    Fault("a flipped bit in Redis", redis_flipped_bit, 'store_errors_total{operation="decode"}', 1),
    Fault("Redis loads its data, or says that another server has them", redis_loads, "store_up", 0),
    Fault("Redis cuts its reply off", redis_cuts, 'store_errors_total{operation="write"}', 1),
    Fault("a reply of Redis without end", redis_never_ends, "store_up", 0),
    Fault("Redis answers late each time", redis_answers_late, "store_up", 0),
    Fault("Redis fails over", redis_fails_over, 'store_errors_total{operation="write"}', 1),
    Fault("Redis is full", redis_full, 'store_errors_total{operation="write"}', 1),
    Fault("Redis evicts", redis_evicts, STORED, 0),  # of the engine that came after it
)

OF_THE_STORE_ALONE = {
    "damage that shows while running",
    "damage that only the check of the whole file behind the start finds",
    "a slow disk",
    "disk full at first, or no inode left",
    "a disk that gives I/O errors",
    "the clock is set back",
    "the clock is set forward",
    "the clock is set back over a restart",
    "a replica lags, or an attacker plays back what was written",
    "FLUSHALL at any moment",
    "claims that are never given up",
}
"""Rows that are tested where the disk and the clock can be played with."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_mail_meets_each_fault_of_the_store_and_is_forecast_as_ever(
    make: Make, internet: Internet, tmp_path: Path, request: pytest.FixtureRequest, fault: Fault
) -> None:
    row = ROWS[fault.row]
    service = fault.happens(Store(make, tmp_path, request))
    assert_good(service)
    name = fault.series.partition("{")[0]
    assert f"`{name}`" in row.metric
    eventually(lambda: counts(service, fault), what=fault.series)
    for event in re.findall(r"`(\w+)`", row.line):
        eventually(lambda: service.events(event), what=event)  # noqa: B023 - called at once
    # and again: memory has it
    assert_good(service)
    assert service.metric('callback_errors_total{stage="eom"}') == 0


def counts(service: Service, fault: Fault) -> bool:
    value = service.metric(fault.series)
    return value >= fault.value if fault.value else value == 0


def test_no_fault_of_the_store_is_left_out() -> None:
    mine = {row.fault for row in ROWS.values() if row.section == "The store"}
    assert mine == {fault.row for fault in FAULTS} | OF_THE_STORE_ALONE


@pytest.mark.parametrize("happens", [no_directory, redis_hangs], ids=["directory", "valkey"])
def test_the_store_is_taken_up_again_when_it_is_there(
    make: Make,
    internet: Internet,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    happens: Callable[[Store], Service],
) -> None:
    store = Store(make, tmp_path, request, flavour="valkey")
    service = happens(store)
    assert_good(service)
    eventually(lambda: service.metric("store_up") == 0, what="store_up")
    if happens is redis_hangs:
        store.redis.go_on()
    else:
        (tmp_path / "later").mkdir()
    eventually(lambda: service.metric("store_up") == 1, what="store_up", wait=40)
    eventually(lambda: service.events("store_back"), what="store_back")
    if happens is no_directory:
        kept(service, tmp_path / "later" / "state.db")
