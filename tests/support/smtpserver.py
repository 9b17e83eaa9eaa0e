"""A scripted SMTP server with real sockets and real TLS, for every way of going wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field


class Close:
    """In the place of a reply: the connection is closed."""


class Hang:
    """In the place of a reply: nothing comes any more."""


Reply = bytes | Iterable[bytes] | type[Close] | type[Hang]
"""Octets, pieces that come one by one, or no reply at all."""

LAST_WORDS = 0.2
"""Seconds for what is left of the dialogue when the server is closed."""

EHLO = b"250-mx.example.net hello\r\n250-SIZE 10240000\r\n250 STARTTLS\r\n"
EHLO_TLS = b"250-mx.example.net hello\r\n250 REQUIRETLS\r\n"


@dataclass
class SmtpServer:
    """Each field is the reply at its step; ``tls`` does the handshake, None closes instead."""

    banner: Reply = b"220 mx.example.net ESMTP\r\n"
    ehlo: Reply = EHLO
    helo: Reply = b"250 mx.example.net\r\n"
    starttls: Reply = b"220 2.0.0 ready\r\n"
    tls: ssl.SSLContext | None = None
    instead_of_tls: (
        Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None
    ) = None
    ehlo_tls: Reply = EHLO_TLS
    helo_tls: Reply = b"250 mx.example.net\r\n"
    quit: Reply = b"221 bye\r\n"
    pause: float = 0.0
    """Seconds before the banner."""
    piece_pause: float = 0.0
    """Seconds before each piece of a reply."""
    host: str = "127.0.0.1"

    port: int = 0
    commands: list[bytes] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    server_names: list[str | None] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> SmtpServer:
        self._server = await asyncio.start_server(self.serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.tls is not None:
            self.tls.sni_callback = lambda _, name, __: self.server_names.append(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._tasks:  # a probe does not wait for the reply to QUIT
            await asyncio.wait(self._tasks, timeout=LAST_WORDS)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Go through the dialogue with one client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._dialogue(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            return  # the peer left
        finally:
            self.at_once -= 1
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.pause)
        if not await _say(writer, self.banner, self.piece_pause):
            return
        replies = {b"EHLO": self.ehlo, b"HELO": self.helo}
        while line := await reader.readline():
            self.commands.append(line)
            verb = line.split()[0].upper()
            if verb == b"STARTTLS":
                if not await _say(writer, self.starttls, self.piece_pause):
                    return
                if self.instead_of_tls is not None:
                    await self.instead_of_tls(reader, writer)
                    return
                if self.tls is None:
                    continue
                await writer.start_tls(self.tls)
                replies = {b"EHLO": self.ehlo_tls, b"HELO": self.helo_tls}
            elif verb == b"QUIT":
                await _say(writer, self.quit, self.piece_pause)
                return
            elif not await _say(writer, replies[verb], self.piece_pause):
                return


async def _say(writer: asyncio.StreamWriter, reply: Reply, pause: float) -> bool:
    if reply is Close:
        return False
    if reply is Hang:
        await asyncio.sleep(3600)
        return False
    assert not isinstance(reply, type)
    for piece in [reply] if isinstance(reply, bytes) else reply:
        if pause:
            await asyncio.sleep(pause)
        writer.write(piece)
        await writer.drain()
    return True
