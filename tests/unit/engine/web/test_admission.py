"""Whose connection makes room, and how fast callers are let through."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from requiretls_milter.engine.web.admission import Connections, Pace, client_of


class Crowd:
    """Connections by name, each with a task that never ends."""

    def __init__(self) -> None:
        self.connections: Connections[str] = Connections()
        self._names: dict[asyncio.Task[None], str] = {}

    def add(self, name: str, address: str) -> None:
        task = asyncio.create_task(asyncio.sleep(3600))
        self._names[task] = name
        self.connections.add(name, task, address)

    def make_room(self, address: str) -> str:
        task = self.connections.make_room(address)
        task.cancel()
        return self._names[task]

    async def end(self) -> None:
        for task in self._names:
            task.cancel()
        await asyncio.gather(*self._names, return_exceptions=True)


async def test_the_client_with_most_connections_makes_room_with_the_longest_idle_one() -> None:
    crowd = Crowd()
    for name, address in (
        ("scraper", "192.0.2.1"),
        ("a", "192.0.2.9"),
        ("b", "192.0.2.9"),
        ("c", "192.0.2.9"),
    ):
        crowd.add(name, address)
    crowd.connections.touch("a")
    assert crowd.make_room("192.0.2.9") == "b"
    assert crowd.make_room("192.0.2.1") == "scraper", "with its new one it has as many"
    assert len(crowd.connections) == 2
    assert len(crowd.connections.tasks()) == 2
    await crowd.end()


async def test_a_newcomer_counts_among_the_connections_of_its_client() -> None:
    crowd = Crowd()
    for name, address in (("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3")):
        crowd.add(name, address)
    assert crowd.make_room("192.0.2.3") == "c"
    assert crowd.make_room("192.0.2.4") == "a", "of clients with as many, the longest idle one"
    await crowd.end()


async def test_what_has_ended_makes_no_room_and_is_not_touched() -> None:
    crowd = Crowd()
    crowd.add("a", "192.0.2.1")
    crowd.connections.remove("a")
    crowd.connections.remove("a")
    crowd.connections.touch("a")
    with pytest.raises(KeyError):
        crowd.connections.make_room("192.0.2.1")
    await crowd.end()


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(address: str, client: str) -> None:
    assert client_of(address) == client


async def test_callers_go_through_in_order_and_at_their_pace() -> None:
    pace, passed = Pace(50), []
    clock = asyncio.get_running_loop().time
    started = clock()

    async def caller(number: int) -> None:
        await pace.turn()
        passed.append(number)

    await asyncio.gather(*map(caller, range(6)))
    assert passed == [0, 1, 2, 3, 4, 5]
    assert clock() - started >= 5 / 50 - 0.01


async def test_a_caller_that_gives_up_costs_the_others_no_time() -> None:
    pace = Pace(2)
    await pace.turn()
    waiting = [asyncio.create_task(pace.turn()) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(pace.turn(), 5)
        return
    raise AssertionError("those that have left are still waited for")
