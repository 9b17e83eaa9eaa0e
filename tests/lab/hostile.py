"""An SMTP server that says whatever bytes it is told, also when nobody listens any more."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

Words = bytes | Iterable[bytes]
"""A reply, or the pieces of one that is too long to be made at once."""

GREETING = b"220 hostile ESMTP\r\n"
EHLO = b"250-hostile\r\n250 STARTTLS\r\n"
EHLO_TLS = b"250-hostile\r\n250 REQUIRETLS\r\n"


@dataclass
class Visit:
    """One session: who came, and how much it was told."""

    helo: str = ""
    told: int = 0
    """Octets that were sent, or are on their way."""
    message: bytes = b""
    """What was taken after DATA; lines end with LF, and have no dot that SMTP put before them."""


@dataclass
class HostileServer:
    """Listens while it is entered; takes any mail that comes so far."""

    address: str
    pem: Path
    greeting: Words = GREETING
    ehlo: Words = EHLO
    starttls: bytes = b"220 go ahead\r\n"
    ehlo_tls: Words = EHLO_TLS
    instead_of_tls: Callable[[socket.socket], None] | None = None
    """What is done after the reply to STARTTLS, in the place of all that follows."""
    configure: Callable[[ssl.SSLContext], None] | None = None
    """Changes the TLS that the server speaks, before the certificate is loaded."""
    pause: float = 0.0
    """Seconds after each piece of a reply that comes in pieces."""
    visits: list[Visit] = field(default_factory=list)

    def __enter__(self) -> HostileServer:
        """Begin to listen."""
        self._listener = socket.create_server((self.address, 25))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Listen no more; sessions that are open end by themselves."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        visit = Visit()
        self.visits.append(visit)
        client.settimeout(30)
        # They had enough, in whatever way they say so.
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, ValueError):
            stack.enter_context(client)
            self._converse(client, visit, stack)

    def _say(self, client: socket.socket, words: Words, visit: Visit) -> None:
        for piece in [words] if isinstance(words, bytes) else words:
            visit.told += len(piece)
            client.sendall(piece)
            if piece is not words:
                time.sleep(self.pause)

    def _converse(self, client: socket.socket, visit: Visit, stack: contextlib.ExitStack) -> None:
        self._say(client, self.greeting, visit)
        lines = stack.enter_context(client.makefile("rb"))
        inside = False
        while line := lines.readline():
            verb = line.split()[0].upper() if line.split() else b""
            if verb in (b"EHLO", b"HELO"):
                visit.helo = line.split()[-1].decode()
                self._say(client, self.ehlo_tls if inside else self.ehlo, visit)
            elif verb == b"STARTTLS":
                self._say(client, self.starttls, visit)
                if self.instead_of_tls is not None:
                    self.instead_of_tls(client)
                    return
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                if self.configure is not None:
                    self.configure(context)
                context.load_cert_chain(self.pem)
                client = stack.enter_context(context.wrap_socket(client, server_side=True))
                lines = stack.enter_context(client.makefile("rb"))
                inside = True
            elif verb == b"DATA":
                self._say(client, b"354 go ahead\r\n", visit)
                while (text := lines.readline()) not in (b".\r\n", b""):
                    visit.message += text.removeprefix(b".").replace(b"\r\n", b"\n")
                self._say(client, b"250 2.0.0 taken\r\n", visit)
            elif verb == b"QUIT":
                self._say(client, b"221 2.0.0 bye\r\n", visit)
                return
            else:
                self._say(client, b"250 2.0.0 ok\r\n", visit)
