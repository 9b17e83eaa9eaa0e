"""How a target finds what it needs in the one string of octets that it gets."""

from __future__ import annotations

MAX_PARTS = 16


def text(data: bytes) -> str:
    """Text as it comes in from a decoder that keeps what it cannot decode visible."""
    return data.decode("utf-8", "backslashreplace")


def parts(data: bytes) -> list[bytes]:
    """Several strings of octets, each behind its length in two octets, the last one cut short."""
    found: list[bytes] = []
    while len(data) >= 2 and len(found) < MAX_PARTS:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def joined(found: list[bytes]) -> bytes:
    """The inverse of :func:`parts`, for seeds."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in found)
