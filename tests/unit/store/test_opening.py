"""Which store a URL opens."""

from __future__ import annotations

import sys

import pytest

from requiretls_milter.store.base import Store, StoreError
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.opening import open_store
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.syntax.endpoint import StoreUrl, parse_store_url
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.stores import POLICY, counted


def opened(url: str) -> Store:
    return open_store(parse_store_url(url), Counters(), Gauges())


def test_each_url_has_its_store() -> None:
    assert isinstance(opened("memory:"), MemoryStore)
    for url, shared in {
        "sqlite:///var/lib/x/state.db": False,
        "sqlite:////var/lib/x/state.db": False,
        "redis://:secret@127.0.0.1:6379/0": True,
        "rediss://valkey.example/1?ssl_ca_certs=/etc/ca.pem": True,
    }.items():
        store = opened(url)
        assert isinstance(store, SteadyStore)
        assert store.shared is shared


def test_a_store_has_the_queue_that_is_configured() -> None:
    store = open_store(parse_store_url("sqlite:///x"), Counters(), Gauges(), max_pending=7)
    assert isinstance(store, SteadyStore)
    assert store.max_pending == 7


async def test_what_memory_has_no_room_for_is_counted() -> None:
    counters = Counters()
    store = open_store(parse_store_url("memory:"), counters, Gauges(), max_records=1)
    for key in ("a", "b", "c"):
        await store.put(POLICY, key, b"x", 100, 0)
    assert counted(counters, "store_evicted_total") == 2


def test_memory_is_always_up() -> None:
    gauges = Gauges()
    open_store(parse_store_url("memory:"), Counters(), gauges)
    assert list(gauges.items()) == [("store_up", (), 1.0)]


def test_a_url_that_the_driver_does_not_take_names_no_store() -> None:
    with pytest.raises(StoreError, match=r"^store\.url: "):
        open_store(StoreUrl("redis", "redis://host:99999/0"), Counters(), Gauges())


def test_without_the_extra_redis_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "requiretls_milter.store.redis", raising=False)
    assert isinstance(opened("sqlite:///x"), SteadyStore)
    with pytest.raises(StoreError, match=r"pip install requiretls-milter\[redis\]"):
        opened("redis://127.0.0.1:6379/0")
