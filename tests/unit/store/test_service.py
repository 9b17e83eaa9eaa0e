"""The store in the whole service: processes that end and come back, files that are damaged."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.store.redisserver import RedisServer
from tests.unit.supervisor.service import Service, eventually
from tests.unit.supervisor.world import World, world

Make = Callable[[str], Service]


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as one:
        yield one


@pytest.fixture
def make(internet: World) -> Iterator[Make]:
    """Makes services with a store, and ends whatever is left of them."""
    made: list[Service] = []

    def one(url: str) -> Service:
        service = Service(internet.config, workers=1)
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


def test_neither_a_restart_nor_a_killed_engine_has_a_server_called_again(
    make: Make, internet: World, tmp_path: Path
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


def test_with_a_damaged_file_mail_goes_on_and_the_service_says_so(
    make: Make, internet: World, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"\0" * 20_000)
    service = make(f"sqlite://{path}").start()
    assert_good(service)
    assert service.metric("store_damaged_total") == 1
    assert service.metric("store_up") == 1
    (told,) = service.events("store_damaged")
    assert Path(told["set_aside"]).read_bytes() == b"\0" * 20_000


def test_without_its_directory_mail_goes_on_until_it_is_there(
    make: Make, internet: World, tmp_path: Path
) -> None:
    path = tmp_path / "later" / "state.db"
    service = make(f"sqlite://{path}").start()
    assert_good(service)
    assert service.metric("store_up") == 0
    assert service.metric('store_errors_total{operation="open"}') >= 1
    path.parent.mkdir()
    eventually(lambda: service.metric("store_up") == 1, what="store_up", wait=40)
    kept(service, path)


def test_two_services_on_one_redis_call_a_server_once(
    make: Make, internet: World, redis: RedisServer
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
        for result in ("ours", "theirs", "in_vain")
    ]
    assert flights == [1, 1, 0]


def test_with_a_redis_that_hangs_mail_goes_on(
    make: Make, internet: World, redis: RedisServer
) -> None:
    service = make(redis.url).start()
    redis.hang()
    assert_good(service)
    assert service.metric("store_up") == 0
    redis.go_on()
    eventually(lambda: service.metric("store_up") == 1, what="store_up", wait=40)
    assert [event["event"] for event in service.events("store_back")] == ["store_back"]


def test_a_password_of_the_store_is_told_to_nobody(make: Make, redis: RedisServer) -> None:
    service = make(f"redis://:s3cret@127.0.0.1:{redis.port}/0").start()
    eventually(lambda: service.metric("store_up") == 0)
    assert "store_lost" in service.log_text
    assert "s3cret" not in service.log_text
