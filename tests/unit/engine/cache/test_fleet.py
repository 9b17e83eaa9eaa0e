"""Who of a fleet does the work: a claim, a result, or a wait in vain."""

from __future__ import annotations

import asyncio

import pytest

from requiretls_milter.engine.cache import fleet as module
from requiretls_milter.engine.cache.fleet import Fleet
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import FleetResult
from tests.support.stores import counted


class SharedStore(MemoryStore):
    """A fleet's store, in which another engine may hold the claim."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.claimed = False
        self.released: list[str] = []

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        return None if self.claimed else "token"

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        self.released.append(token)


class Kit:
    def __init__(self, store: MemoryStore) -> None:
        self.counters = Counters()
        self.fleet = Fleet(store, self.counters, lambda: 0.0)
        self.stored: str | None = None
        self.found = 0
        self.error: Exception | None = None

    async def find_once(self) -> str:
        async def stored() -> str | None:
            return self.stored

        async def find() -> str:
            self.found += 1
            if self.error is not None:
                raise self.error
            return "found"

        return await self.fleet.find_once(StoreKind.PROBE, "key", stored, find)

    def results(self) -> dict[str, float]:
        return {
            result: number
            for result in FleetResult
            if (number := counted(self.counters, "fleet_flights_total", result))
        }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK", 0.001)
    monkeypatch.setattr(module, "LAST_LOOK", 0.002)


async def test_an_engine_alone_makes_no_claims() -> None:
    kit = Kit(MemoryStore())
    assert not kit.fleet.exists
    assert await kit.find_once() == "found"
    assert kit.results() == {}


async def test_the_engine_with_the_claim_finds_it_and_gives_the_claim_up() -> None:
    store = SharedStore()
    kit = Kit(store)
    assert await kit.find_once() == "found"
    assert kit.results() == {"ours": 1}
    assert store.released == ["token"]


async def test_what_another_engine_has_just_stored_is_taken() -> None:
    store = SharedStore()
    kit = Kit(store)
    kit.stored = "theirs"
    assert await kit.find_once() == "theirs"
    assert (kit.found, kit.results()) == (0, {"theirs": 1})
    assert store.released == ["token"]


async def test_the_others_wait_for_its_result() -> None:
    store = SharedStore()
    store.claimed = True
    kit = Kit(store)
    asyncio.get_running_loop().call_later(0.02, setattr, kit, "stored", "theirs")
    assert await kit.find_once() == "theirs"
    assert (kit.found, kit.results()) == (0, {"theirs": 1})
    assert store.released == []


async def test_an_engine_whose_work_came_to_nothing_is_succeeded() -> None:
    store = SharedStore()
    store.claimed = True
    kit = Kit(store)
    asyncio.get_running_loop().call_later(0.02, setattr, store, "claimed", False)
    assert await kit.find_once() == "found"
    assert kit.results() == {"ours": 1}
    assert store.released == ["token"]


async def test_an_engine_that_takes_too_long_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FLEET_WAIT", 0.02)
    store = SharedStore()
    store.claimed = True
    kit = Kit(store)
    assert await kit.find_once() == "found"
    assert kit.results() == {"ours_after_waiting": 1}
    assert store.released == []


async def test_claims_that_are_never_given_up_are_waited_for_three_times_in_ten_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FLEET_WAIT", 0.2)
    monkeypatch.setattr(module, "VAIN_PERIOD", 1.0)
    store = SharedStore()
    store.claimed = True
    kit = Kit(store)
    waited = []
    loop = asyncio.get_running_loop()
    for _ in range(6):
        began = loop.time()
        assert await kit.find_once() == "found"
        waited.append(loop.time() - began >= 0.2)
    assert waited == [True, True, True, False, False, False]
    assert kit.results() == {"ours_after_waiting": 6}
    await asyncio.sleep(1.0)
    began = loop.time()
    await kit.find_once()
    assert loop.time() - began >= 0.2


async def test_a_claim_is_given_up_whatever_goes_wrong() -> None:
    store = SharedStore()
    kit = Kit(store)
    kit.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await kit.find_once()
    assert store.released == ["token"]


async def test_what_only_one_need_do_one_engine_goes_on_doing() -> None:
    store = SharedStore()
    kit = Kit(store)
    assert await kit.fleet.leads(StoreKind.MTA_STS_POLICY, "#scope")
    assert await kit.fleet.leads(StoreKind.MTA_STS_POLICY, "#scope")
    assert store.released == ["token"], "the claim is renewed"
    store.claimed = True
    assert not await kit.fleet.leads(StoreKind.MTA_STS_POLICY, "#scope")
    store.claimed = False
    assert await kit.fleet.leads(StoreKind.MTA_STS_POLICY, "#scope")
    assert store.released == ["token", "token"], "what is not held is not given up"


async def test_an_engine_alone_does_what_only_one_need_do() -> None:
    assert await Kit(MemoryStore()).fleet.leads(StoreKind.MTA_STS_POLICY, "")
