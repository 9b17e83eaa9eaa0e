"""How many clients are let in, how fast, and which one makes room: for the metrics server.

The engine's loop answers the workers too. So whatever a client of the metrics server can make it do
has a pace, and a client with many connections makes room for one with few.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Generic, TypeVar

from requiretls_milter.bounded import BoundedMap

IPV6_NETWORK = 64
"""Bits of an IPv6 address that one client has at its disposal."""

C = TypeVar("C")


class Pace:
    """Lets its callers through one after the other, at most so many a second.

    A caller that is cancelled while it waits costs the others nothing.

    Args:
        per_second: how many; they are evenly spread.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._lock = asyncio.Lock()
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for one's turn, in the order of the calls."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            # Even without a wait the others have their turn: the one that was let in, first of all.
            await asyncio.sleep(max(0.0, self._next - clock()))
            self._next = clock() + self._interval


class Connections(Generic[C]):
    """The connections of a server, with the task that serves each, and the client it belongs to."""

    def __init__(self) -> None:
        self._kept: BoundedMap[C, tuple[asyncio.Task[None], str]] = BoundedMap()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, connection: C, task: asyncio.Task[None], address: str) -> None:
        """Note a connection that begins.

        Args:
            connection: the connection.
            task: serves it.
            address: of the client.
        """
        self._kept.put(connection, (task, client_of(address)))

    def touch(self, connection: C) -> None:
        """Note that a connection was of use; no effect on one that has ended."""
        if connection in self._kept:
            self._kept.touch(connection)

    def remove(self, connection: C) -> None:
        """Forget a connection that has ended."""
        self._kept.pop(connection)

    def make_room(self, address: str) -> asyncio.Task[None]:
        """Forget the connection that makes room for another one, and return its task.

        It belongs to a client with most connections, and of those it is the one that has been
        without use for longest: so many connections of one client do not keep others out.

        Args:
            address: of the client that wants to come in; the new connection is one of its own.

        Raises:
            KeyError: there is none.
        """
        counts = Counter(client for _, client in self._values())
        newcomer = client_of(address)
        if newcomer in counts:
            counts[newcomer] += 1
        most = max(counts.values(), default=0)
        for connection, (task, client) in self._kept.items():
            if counts[client] == most:
                self._kept.pop(connection)
                return task
        raise KeyError(address)

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of all connections."""
        return [task for task, _ in self._values()]

    def _values(self) -> Iterable[tuple[asyncio.Task[None], str]]:
        return [value for _, value in self._kept.items()]


def client_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False))
    return str(parsed)
