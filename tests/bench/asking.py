"""A worker's side of the engine's socket, which keeps no answer.

It speaks the wire by itself (requiretls_milter/ipc/wire.py), so that it can ask engines of other
commits.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any

from tests.support.waiting import eventually

PATIENCE = 60.0
"""Seconds for an answer."""

GOOD = b'"status":"2.0.0"'

_LENGTH = struct.Struct(">I")


class WrongAnswerError(AssertionError):
    """The engine says something else than that mail would be delivered."""


class Asker:
    """One connection with the engine at *path*; the answers must be good deliveries."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._message: dict[str, Any] = {"generation": 1, "may_be_stale": True}
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(PATIENCE)

        def connected() -> bool:
            try:
                found.connect(self._path)
            except OSError:
                return False
            return True

        eventually(connected, what="an engine at its socket")
        return found

    def agree(self, domain: str) -> bytes:
        """Find out how the engine is asked, and return its answer about *domain*."""
        try:
            return self._one(domain)
        except ConnectionError:
            # An earlier engine has no word for what a message may be told.
            del self._message["may_be_stale"]
            self._socket.close()
            self._socket = self._connected()
            return self._one(domain)

    def _one(self, domain: str) -> bytes:
        self._socket.sendall(self._frame(1, domain))
        buffer = bytearray()
        while not (replies := _frames(buffer)):
            buffer += self._received()
        _check(replies[0])
        return replies[0]

    def ask(self, domains: Iterable[str], window: int) -> tuple[float, list[float]]:
        """Ask about all of them, *window* at once.

        Returns how many seconds it took, and when each answer came, in order.
        """
        left = iter(list(domains))
        ends: list[float] = []
        buffer = bytearray()
        waiting = numbers = 0
        began = time.perf_counter()
        while True:
            out = bytearray()
            while waiting < window and (domain := next(left, None)) is not None:
                numbers += 1
                waiting += 1
                out += self._frame(numbers, domain)
            if not waiting:
                return ends[-1] - began, ends
            self._socket.sendall(out)
            buffer += self._received()
            for reply in _frames(buffer):
                _check(reply)
                ends.append(time.perf_counter())
                waiting -= 1

    def _received(self) -> bytes:
        found = self._socket.recv(1 << 16)
        if not found:
            raise ConnectionError("the engine closed the connection")
        return found

    def _frame(self, number: int, domain: str) -> bytes:
        question = {
            "nexthop": domain,
            "transport": "smtp",
            "asked": "requiretls",
            "carried": "requiretls",
        }
        message = {"op": "forecast", "id": number, "question": question, **self._message}
        payload = json.dumps(message).encode()
        return _LENGTH.pack(len(payload)) + payload

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _frames(buffer: bytearray) -> list[bytes]:
    """Take the frames that are whole out of a buffer."""
    found = []
    while len(buffer) >= _LENGTH.size:
        end = _LENGTH.size + int(_LENGTH.unpack_from(buffer)[0])
        if len(buffer) < end:
            break
        found.append(bytes(buffer[_LENGTH.size : end]))
        del buffer[:end]
    return found


def _check(reply: bytes) -> None:
    if GOOD not in reply:
        raise WrongAnswerError(reply.decode(errors="replace")[:500])
