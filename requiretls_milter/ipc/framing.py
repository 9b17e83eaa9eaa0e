"""Frames: how a stream of bytes is cut into messages.

A frame is a length (4 bytes, big-endian, of what follows) and that many bytes. Both lines
between our processes use it: the engine's socket (:mod:`requiretls_milter.ipc.wire`) and the
supervisor's channels (:mod:`requiretls_milter.ipc.control`).
"""

from __future__ import annotations

import struct

from requiretls_milter.errors import RequiretlsMilterError

MAX_FRAME = 1 << 20
"""Bytes in a frame: the evidence of thirty MX hosts with chains of 8 KiB fits several times."""

_LENGTH = struct.Struct(">I")


class WireError(RequiretlsMilterError, ValueError):
    """Bytes that are no frame or message of ours, or a message that cannot be sent.

    A receiver concludes that the peer is broken or of another version, and gives the
    connection up: the next frame's beginning is unknown. A sender concludes that this one
    message cannot be delivered.
    """


def frame(payload: bytes, limit: int = MAX_FRAME) -> bytes:
    """``payload`` with its length before it.

    Raises:
        WireError: it is longer than ``limit`` bytes.
    """
    if len(payload) > limit:
        raise WireError(f"a message of {len(payload)} bytes is over the limit of {limit}")
    return _LENGTH.pack(len(payload)) + payload


class Unframer:
    """Cuts a stream of bytes into frames, whatever pieces it comes in."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that has not come in whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in and return the frames that are whole.

        Raises:
            WireError: a length of zero or over the limit. The stream is of no
                use after that: there is no telling where the next frame begins.
        """
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if not 0 < length <= self._limit:
                raise WireError(f"a frame of {length} bytes (1 to {self._limit} are allowed)")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return frames
