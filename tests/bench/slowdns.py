"""A forwarder that answers late: each answer of a resolver is held back for a while.

    python -m tests.bench.slowdns LISTEN RESOLVER SECONDS

Addresses as ADDRESS:PORT. UDP only: the answers of the lab fit.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

Address = tuple[str, int]


class _Front(asyncio.DatagramProtocol):
    """Clients' side. Queries go on under numbers of our own, since clients choose the same."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0
        self._waiting: dict[bytes, tuple[bytes, Address]] = {}
        self.back: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Address) -> None:
        self._next = (self._next + 1) % 65536
        number = self._next.to_bytes(2, "big")
        self._waiting[number] = (data[:2], address)
        if self.back is not None:
            self.back.sendto(number + data[2:])

    def answered(self, data: bytes) -> None:
        """An answer of the resolver."""
        number, address = self._waiting.pop(data[:2], (b"", None))
        if address is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._seconds, self._transport.sendto, number + data[2:], address)


class _Back(asyncio.DatagramProtocol):
    """The resolver's side."""

    def __init__(self, front: _Front) -> None:
        self._front = front

    def datagram_received(self, data: bytes, _: Address) -> None:
        self._front.answered(data)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _serve(listen: str, resolver: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    _, front = await loop.create_datagram_endpoint(
        lambda: _Front(seconds), local_addr=_address(listen)
    )
    front.back, _ = await loop.create_datagram_endpoint(
        lambda: _Back(front), remote_addr=_address(resolver)
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
