"""What was spent of the budgets outlives the engine, in a store that may be a stranger's."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Limits
from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.turns.spending import SpendingKeeper, decode
from requiretls_milter.evidence.budgets import MAX_DEBTS, Budgets
from requiretls_milter.store.base import MAX_VALUE, Store, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.opening import open_store
from requiretls_milter.syntax.endpoint import parse_store_url
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.fakesource import Clocks

NODE = "mx.example.net"


class Kit:
    """One engine's budgets."""

    def __init__(self, store: Store, clocks: Clocks | None = None, **limits: int) -> None:
        self.store = store
        self.clocks = clocks or Clocks()
        self.counters = Counters()
        limits = {"address_per_hour": 40} | limits
        self.budgets = Budgets(Limits(**limits), self.counters, monotonic=self.clocks.monotonic)
        records = RecordStore(store, self.counters)
        self.keeper = SpendingKeeper(self.budgets, records, NODE, self.clocks)

    def connections(self, tries: int, name: str = "mx.a.test") -> int:
        return sum(not self.budgets.connection("192.0.2.1", name) for _ in range(tries))

    async def restarted(self, seconds: float) -> Kit:
        """Another process with the same store, some seconds later."""
        clocks = Clocks()
        clocks.wall_time, clocks.monotonic_time = self.clocks.wall_time + seconds, 3.0
        other = Kit(self.store, clocks)
        await other.keeper.load()
        return other


async def test_a_restart_gives_nobody_a_new_budget() -> None:
    kit = Kit(MemoryStore())
    assert kit.connections(100) == 10
    await kit.keeper.save()
    again = await kit.restarted(10)
    assert again.connections(100) == 0
    assert (await kit.restarted(3600)).connections(100) == 10


async def test_so_it_is_with_a_file(tmp_path: Path) -> None:
    async def opened() -> Store:
        store = open_store(parse_store_url(f"sqlite://{tmp_path}/state.db"), Counters(), Gauges())
        await store.start()
        return store

    first = await opened()
    kit = Kit(first)
    kit.clocks.wall_time = time.time()  # the file drops what is over by the host's clock
    kit.connections(100)
    await kit.keeper.save()
    await first.close()
    kit.store = await opened()
    assert (await kit.restarted(10)).connections(100) == 0
    await kit.store.close()


async def test_what_is_soon_paid_is_not_written_and_what_is_paid_goes() -> None:
    store = MemoryStore()
    kit = Kit(store, address_per_hour=4_000)
    kit.connections(3)
    await kit.keeper.save()
    assert not len(store)
    kit.connections(100)
    await kit.keeper.save()
    assert len(store)
    kit.clocks.pass_(3_600)
    kit.connections(1)
    await kit.keeper.save()
    assert not len(store)


async def test_without_a_new_connection_nothing_is_written() -> None:
    store = MemoryStore()
    kit = Kit(store)
    kit.connections(100)
    await kit.keeper.save()
    await store.close()  # forgets all
    await kit.keeper.save()
    assert not len(store)


async def test_the_hosts_of_a_fleet_have_budgets_of_their_own() -> None:
    kit = Kit(MemoryStore())
    kit.connections(100)
    await kit.keeper.save()
    other = Kit(kit.store)
    other.keeper = SpendingKeeper(
        other.budgets, RecordStore(kit.store, Counters()), "other.example.net", other.clocks
    )
    await other.keeper.load()
    assert other.connections(100) == 10


async def test_a_clock_that_was_set_back_makes_no_budget_wait_longer() -> None:
    kit = Kit(MemoryStore())
    kit.connections(100)
    await kit.keeper.save()
    again = await kit.restarted(-200)
    again.clocks.pass_(3_600)
    assert again.connections(100) == 10


async def test_the_largest_record_fits_into_a_store() -> None:
    store = MemoryStore()
    kit = Kit(store, address_per_hour=2, network_per_hour=2)
    for number in range(2 * MAX_DEBTS):
        label = f"{number:063}"
        address = f"2001:db8:{number:x}:ffff:ffff:ffff:ffff:ffff"
        kit.budgets.connection(address, f"mx.{label}.com.br")
    await kit.keeper.save()
    for listed in await store.listing(StoreKind.BUDGET, kit.clocks.wall()):
        value = await store.get(StoreKind.BUDGET, listed.key, kit.clocks.wall())
        assert value is not None
        assert len(value) < MAX_VALUE
        assert len(decode(value).debts) == MAX_DEBTS


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        json.dumps({"v": 1, "at": 0, "debts": [["a", [-1.0]]]}).encode(),
        json.dumps({"v": 1, "at": 0, "debts": [["a" * 400, [1.0]]]}).encode(),
        json.dumps({"v": 1, "at": 0, "debts": [["a", [1.0]]] * (MAX_DEBTS + 1)}).encode(),
        b'{"v":1,"at":0,"debts":[["a",[Infinity]]]}',
        b'{"v":1,"at":0,"debts":[["a",[NaN]]]}',
    ],
)
def test_what_is_no_record_of_ours_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode(value)


@given(
    st.fixed_dictionaries(
        {
            "v": st.just(1),
            "at": st.floats(0, 1e300),
            "debts": st.lists(
                st.tuples(st.sampled_from(["192.0.2.1", "x"]), st.lists(st.floats(0, 1e300)))
            ),
        }
    )
)
async def test_whatever_a_record_says_an_hour_later_the_budget_is_whole(
    record: dict[str, object],
) -> None:
    store = MemoryStore()
    clocks = Clocks()
    for kind in ("address", "network", "address_share", "network_share", "zone"):
        value = json.dumps(record).encode()
        await store.put(
            StoreKind.BUDGET, f"{kind}@{NODE}", value, clocks.wall() + 1e6, clocks.wall()
        )
    kit = Kit(store, clocks)
    await kit.keeper.load()
    clocks.pass_(3_601)
    assert kit.connections(100) == 10
