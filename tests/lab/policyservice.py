"""A TLS policy service as Postfix asks one: socketmap_table(5), answering from a table or live.

It stands for postfix-tlspol or postfix-mta-sts-resolver, which a site runs beside its Postfix.
Nothing in it is the milter's own code.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import dns.rcode

from tests.lab.dns import query
from tests.lab.errors import LabError
from tests.support.scenarioplan import policy_entry

PORT = 8461
"""That of postfix-mta-sts-resolver."""

MAX_NETSTRING = 100_000

Lookup = Callable[[str], str | None]
"""Next hop to an entry of smtp_tls_policy_maps; None: no policy."""


class OutOfOrder(Exception):
    """A lookup that says so: the table is not to be had for now."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    lookup: Lookup
    asked: list[str]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        while (request := self._netstring()) is not None:
            _, _, key = request.partition(" ")  # "MAPNAME KEY"
            self.server.asked.append(key)
            try:
                found = self.server.lookup(key)
                reply = "NOTFOUND " if found is None else f"OK {found}"
            except OutOfOrder as error:
                reply = f"TEMP {error}"
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
    """``with PolicyService(lookup) as service:`` answers, and keeps what it was ``asked``."""

    def __init__(self, lookup: Lookup, port: int = PORT) -> None:
        """*lookup* may be asked by several threads at once."""
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.lookup = lookup
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


# ---------------------------------------------------------------- MTA-STS


class LivePolicies:
    """The lookup of a service that finds out for itself, as RFC 8461 section 3 says."""

    def __init__(self, style: str, ca_file: Path) -> None:
        """*style* is for :func:`policy_entry`; *ca_file* has those whom HTTPS trusts."""
        self._style = style
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self.fetched: list[str] = []
        """The domains of which a policy was fetched, testing ones included."""

    def __call__(self, key: str) -> str | None:
        """The entry for a domain; None for all else, and where there is no policy to be had."""
        if key.startswith((".", "[")) or not self._announced(key):
            return None
        lines = self._fetch(key)
        if not lines or lines[0] != "version: STSv1":
            return None
        self.fetched.append(key)
        return policy_entry(self._style, key, lines) if "mode: enforce" in lines else None

    def _announced(self, domain: str) -> bool:
        try:
            answer = query(f"_mta-sts.{domain}", "TXT")
        except LabError:
            return False
        return answer.rcode() == dns.rcode.NOERROR and '"v=STSv1;' in answer.to_text()

    def _fetch(self, domain: str) -> list[str]:
        host = f"mta-sts.{domain}"
        (address,) = (
            item.to_text().split()[-1] for item in query(host, "A").answer if item.rdtype == 1
        )
        client = http.client.HTTPSConnection(host, timeout=5)
        try:
            plain = socket.create_connection((address, 443), timeout=5)
            client.sock = self._context.wrap_socket(plain, server_hostname=host)
            client.request("GET", "/.well-known/mta-sts.txt")
            response = client.getresponse()
            body = response.read(64 * 1024 + 1)
        except (OSError, http.client.HTTPException):
            return []
        finally:
            client.close()
        if response.status != 200 or len(body) > 64 * 1024:
            return []
        return body.decode().splitlines()
