"""What a policy host answers, and what an attacker leaves of it who ends the connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path

import aiohttp

from requiretls_milter.evidence.policyhost import MAX_POLICY, ReplyError, get, session
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect

_LOOP = asyncio.new_event_loop()

_TIMEOUT = 5.0

_HEADER = re.compile(rb"HTTP/1\.[01] 200[^\n]*\n(?:[^\n]*[^\r\n]\r?\n)*\r?\n")

_FRAMED = re.compile(rb"\n(?:content-length|transfer-encoding):", re.IGNORECASE)
"""What shows the end of a text (RFC 9112 section 6.3)."""


class _Host:
    """A server that answers each request with the octets that it was given, and hangs up.

    There is no TLS: how a connection ended is not seen through it either.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = str(Path(self._directory.name) / "host")
        self._reply = b""
        _LOOP.run_until_complete(asyncio.start_unix_server(self._answer, self.path))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._reply)
            await writer.drain()
        writer.close()

    async def text(self, reply: bytes) -> bytes | None:
        """Fetch a text from the host; None if there is none."""
        self._reply = reply
        try:
            async with session(aiohttp.UnixConnector(self.path), _TIMEOUT) as opened:
                found = await get(opened, "http://mta-sts.example.org/")
        except ReplyError as error:
            expect.one_line(str(error), MAX_TEXT)
            return None
        except TimeoutError as error:
            raise AssertionError("a reply that has ended is waited for") from error
        except (aiohttp.ClientError, OSError, ValueError):
            return None
        assert len(found) <= MAX_POLICY
        return found


_HOST = _Host()


def policy_reply(data: bytes) -> None:
    """Two octets that say where the connection ends, then the whole reply.

    A text that was cut is refused, or whole lines are missing at its end: then a policy has
    fewer names, or it is none at all.
    """
    reply = data[2:]
    whole = _LOOP.run_until_complete(_HOST.text(reply))
    if whole is None:
        return
    at = int.from_bytes(data[:2], "big") % len(reply)
    part = _LOOP.run_until_complete(_HOST.text(reply[:at]))
    if part is None or part == whole:
        return
    assert whole.startswith(part), "what came is no part of the text"
    assert part.endswith(b"\n"), "a line was cut"
    header = _HEADER.match(reply)
    assert header is None or _FRAMED.search(header[0]) is None, "its end was to be seen"
