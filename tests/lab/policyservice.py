"""A TLS policy service as Postfix asks one: socketmap_table(5), answering from a table.

It stands for postfix-tlspol or postfix-mta-sts-resolver, which a site runs beside its Postfix.
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Mapping
from types import TracebackType

ADDRESS = ("127.0.0.1", 8461)
"""The port of postfix-mta-sts-resolver."""

MAX_NETSTRING = 100_000


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    table: Mapping[str, str]
    asked: list[str]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        while (request := self._netstring()) is not None:
            _, _, key = request.partition(" ")  # "MAPNAME KEY"
            self.server.asked.append(key)
            found = self.server.table.get(key)
            reply = "NOTFOUND " if found is None else f"OK {found}"
            self.wfile.write(f"{len(reply)}:{reply},".encode())

    def _netstring(self) -> str | None:
        length = b""
        while (octet := self.rfile.read(1)).isdigit():
            length += octet
        if octet != b":" or not length or int(length) > MAX_NETSTRING:
            return None
        text = self.rfile.read(int(length))
        return text.decode() if self.rfile.read(1) == b"," else None


class PolicyService:
    """``with PolicyService(table) as service:`` answers, and keeps what it was ``asked``."""

    def __init__(self, table: Mapping[str, str]) -> None:
        """*table*: next hop to an entry of smtp_tls_policy_maps."""
        self._server = _Server(ADDRESS, _Handler)
        self._server.table = table
        self.asked: list[str] = []
        self._server.asked = self.asked
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> PolicyService:
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
        with contextlib.suppress(OSError):
            self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
