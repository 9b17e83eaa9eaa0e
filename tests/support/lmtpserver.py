"""An LMTP server (RFC 2033) that takes all mail, for tests of deliveries over LMTP."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from types import TracebackType


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # an MTA that is stopped leaves at once
            self._serve()

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        self._say("220 boxes.test LMTP")
        recipients = 0
        while line := self.rfile.readline():
            command = line.decode("ascii", "replace").strip()
            word = command.split(" ", maxsplit=1)[0].upper()
            self.server.commands.append(command)
            if word == "LHLO":
                self._say("250-boxes.test", "250-8BITMIME", "250 PIPELINING")
            elif word in ("EHLO", "HELO"):
                self._say("500 5.5.1 this is LMTP")
            elif word == "MAIL":
                recipients = 0
                self._say("250 2.1.0 ok")
            elif word == "RCPT":
                recipients += 1
                self._say("250 2.1.5 ok")
            elif word == "DATA":
                self._say("354 go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self._say(*["250 2.0.0 in its box"] * recipients)
            elif word == "QUIT":
                self._say("221 2.0.0 bye")
                return
            else:
                self._say("250 2.0.0 ok")

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    commands: list[str]


class LmtpServer:
    """``with LmtpServer(address, port) as server:`` takes mail and keeps its ``commands``."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._server = _Server((address, port), _Handler)
        self._server.commands = []
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_address[1])

    @property
    def commands(self) -> list[str]:
        """Each command that any client has sent."""
        return self._server.commands

    def __enter__(self) -> LmtpServer:
        """Answer from now on."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
