"""A man in the middle: in front of a real Redis, it delays, cuts off or changes what is said."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO

Answer = Callable[[list[bytes], bytes], Iterable[bytes]]
"""Makes the pieces that the client gets of the command's words and the server's own reply. After
the last piece the connection is closed, unless they are a list."""


class RedisProxy:
    """Listens on loopback while it is entered.

    Args:
        behind: the port of the server; it may be changed, for connections that begin later.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.delay = 0.0
        """Seconds before each reply."""
        self.answers: dict[str, Answer] = {}
        """By command."""
        self.seen: list[list[bytes]] = []
        """The words of each command."""

    def __enter__(self) -> RedisProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            stack.enter_context(client)
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self.behind), 5))
            said, told = client.makefile("rb"), server.makefile("rb")
            while True:
                request = raw(said)
                words = request.split(b"\r\n")[2::2]
                self.seen.append(words)
                server.sendall(request)
                reply = raw(told)
                time.sleep(self.delay)
                answer = self.answers.get(words[0].decode().upper())
                pieces = [reply] if answer is None else answer(words, reply)
                for piece in pieces:
                    client.sendall(piece)
                if not isinstance(pieces, list):
                    return


def raw(stream: IO[bytes]) -> bytes:
    """One value of the protocol, as its octets; raises EOFError at the end of the stream."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    if line[:1] in b"$*" and int(line[1:]) >= 0:
        number = int(line[1:])
        if line[:1] == b"$":
            return line + stream.read(number + 2)
        return line + b"".join(raw(stream) for _ in range(number))
    return line
