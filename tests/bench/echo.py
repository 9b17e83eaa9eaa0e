"""The least that answers a worker: a socket of asyncio that gives one answer to each frame.

    python -m tests.bench.echo SOCKET ANSWER

ANSWER is a file with what a frame of an answer has behind its length.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path
from typing import cast

_LENGTH = struct.Struct(">I")


class _Echo(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + int(_LENGTH.unpack_from(self._buffer)[0])
            if len(self._buffer) < end:
                break
            del self._buffer[:end]
            self._transport.write(self._answer)


async def _serve(path: str, answer: bytes) -> None:
    frame = _LENGTH.pack(len(answer)) + answer
    loop = asyncio.get_running_loop()
    async with await loop.create_unix_server(lambda: _Echo(frame), path) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2]).read_bytes()))
