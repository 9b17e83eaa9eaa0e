"""Servers of tables by tcp_table(5) and socketmap_table(5) of Postfix, in this process."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping


class _Handler(socketserver.StreamRequestHandler, ABC):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.connections.append(self.connection)
        while (request := self._request()) is not None:
            server.asked.append(request)
            if server.hangs.is_set():
                server.ended.wait()
                return
            self._reply(server.entries.get(request))

    @abstractmethod
    def _request(self) -> str | None:
        """The key that is asked for; None at the end."""

    @abstractmethod
    def _reply(self, value: str | None) -> None:
        """Answer with what the table has; None if it has nothing."""


class _Tcp(_Handler):
    """``get KEY`` and a reply with a number, each a line."""

    def _request(self) -> str | None:
        line = self.rfile.readline().decode().strip()
        return re.sub("%(..)", _decoded, line.removeprefix("get ")) if line else None

    def _reply(self, value: str | None) -> None:
        text = "500 nothing" if value is None else f"200 {value.replace(' ', '%20')}"
        self.wfile.write(f"{text}\n".encode())


class _Socketmap(_Handler):
    """``NAME KEY`` and ``OK VALUE`` or ``NOTFOUND``, each a netstring."""

    def _request(self) -> str | None:
        length = b""
        while (octet := self.rfile.read(1)) not in (b":", b""):
            length += octet
        if not octet:
            return None
        text = self.rfile.read(int(length)).decode()
        self.rfile.read(1)
        return text.partition(" ")[2]

    def _reply(self, value: str | None) -> None:
        text = b"NOTFOUND " if value is None else f"OK {value}".encode()
        self.wfile.write(b"%d:%b," % (len(text), text))


def _decoded(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], kind: str, entries: Mapping[str, str]) -> None:
        super().__init__(address, {"tcp": _Tcp, "socketmap": _Socketmap}[kind])
        self.entries = entries
        self.hangs = threading.Event()
        self.ended = threading.Event()
        self.asked: list[str] = []
        self.connections: list[socket.socket] = []

    def end(self) -> None:
        """Stop, and hang up on all clients."""
        self.shutdown()
        self.server_close()
        self.ended.set()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # it is closed
                connection.shutdown(socket.SHUT_RDWR)


class TableServer:
    """``with TableServer("tcp", entries) as server:`` answers on loopback."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        """Plan one of type *kind*, ``tcp`` or ``socketmap``, that has these entries."""
        self.kind = kind
        self._entries = entries
        self._server: _Server | None = None
        self.port = 0

    @property
    def table(self) -> str:
        """As main.cf names it."""
        name = {"tcp": "", "socketmap": "inet:"}[self.kind] + f"127.0.0.1:{self.port}"
        return f"{self.kind}:{name}" + (":aliases" if self.kind == "socketmap" else "")

    def __enter__(self) -> TableServer:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Answer from now on, at the same port as before."""
        self._server = _Server(("127.0.0.1", self.port), self.kind, self._entries)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def hang(self) -> None:
        """Take queries from now on, and answer none."""
        assert self._server is not None
        self._server.hangs.set()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._server is not None:
            self._server.end()
            self._thread.join(5)
            self._server = None
