"""Cut a log into lines of bounded length, and undo what journalctl makes of entries.

A line is one line of text; of ``journalctl -o export`` it is the MESSAGE of an entry, and of JSON
that is written over several lines (``-o json-pretty``) it is the whole object. The MESSAGE of an
entry of ``-o verbose`` is a line without a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE = 65_536
"""Octets of a line that are kept: what is longer is cut, as syslog does. Docker cuts at 16 KiB."""

_ENTRY = (b"__CURSOR=", b"__REALTIME_TIMESTAMP=")
"""What an entry of ``journalctl -o export`` begins with."""

_MESSAGE = b"    MESSAGE="
"""The line of an entry of ``journalctl -o verbose`` that has its message."""

_MICROSECONDS = 1e6

_MAX_FIELDS = 1000
"""Fields of an entry, and lines of an object; the journal itself allows 1,024 fields."""


class Line(NamedTuple):
    """A line without its end; ``time`` is known if the format tells it apart from the text."""

    text: bytes
    time: float | None = None


def lines(stream: BinaryIO) -> Iterator[Line]:
    """Read *stream* line by line, whatever octets are in it."""
    while text := _line(stream):
        if text.startswith(_ENTRY):
            yield _entry(stream, text)
        elif text.startswith(_MESSAGE):
            yield Line(text.removeprefix(_MESSAGE).rstrip(b"\r\n"))
        elif text.strip() == b"{":
            yield Line(_object(stream, text))
        else:
            yield Line(text.rstrip(b"\r\n"))


def _line(stream: BinaryIO) -> bytes:
    """The next line with its end, cut to :data:`MAX_LINE`; b"" at the end of the stream."""
    text = stream.readline(MAX_LINE)
    if len(text) == MAX_LINE and not text.endswith(b"\n"):
        rest = text
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE)
        text += b"\n"
    return text


def _entry(stream: BinaryIO, first: bytes) -> Line:
    """Read an entry of ``journalctl -o export`` up to the empty line that ends it."""
    message, time = b"", None
    field = first
    for _ in range(_MAX_FIELDS):
        name, separator, value = field.rstrip(b"\n").partition(b"=")
        if not separator:
            value = _binary(stream)
        if name == b"MESSAGE":
            message = value.replace(b"\n", b" ")
        elif name == b"__REALTIME_TIMESTAMP" and value.isdigit():
            time = int(value[:20]) / _MICROSECONDS
        field = _line(stream)
        if not field.rstrip(b"\n"):
            break
    return Line(message, time)


def _binary(stream: BinaryIO) -> bytes:
    """A value that is preceded by its length, since it is no text."""
    length = stream.read(8)
    if len(length) < 8:
        return b""
    (left,) = struct.unpack("<Q", length)
    value = stream.read(min(left, MAX_LINE))
    left -= len(value)
    while left > 0 and (skipped := stream.read(min(left, MAX_LINE))):
        left -= len(skipped)
    stream.readline(1)
    return value


def _object(stream: BinaryIO, first: bytes) -> bytes:
    """Join the lines of a JSON object that was written over several; it is cut if it is long."""
    end = (first.rstrip().removesuffix(b"{") + b"}", first.rstrip().removesuffix(b"{") + b"},")
    parts = [b"{"]
    size = 0
    for _ in range(_MAX_FIELDS):
        text = _line(stream)
        if not text:
            break
        if text.rstrip() in end:
            parts.append(b"}")
            break
        size += len(text)
        if size <= MAX_LINE:
            parts.append(text.strip())
    return b" ".join(parts)
