"""The server of a delivery as Postfix logs it: ``relay=mx1.example.org[192.0.2.1]:25``. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from requiretls_milter.syntax.endpoint import is_loopback
from requiretls_milter.syntax.names import address_literal

SMTP_PORT = "25"

_RELAY = re.compile(r"(?P<host>[^\[]*)\[(?P<address>[^\]]*)\](?::(?P<port>\d+))?")


class Relay(NamedTuple):
    """A server that was tried; of a unix-domain socket the address is its path.

    ``port`` is None if none is logged.
    """

    host: str
    address: str
    port: str | None

    @classmethod
    def parse(cls, text: str) -> Relay | None:
        """Read what stands behind ``relay=``; None if it is no server: ``none``, ``local``."""
        match = _RELAY.fullmatch(text)
        return None if match is None else cls(match["host"], match["address"], match["port"])

    @property
    def is_address(self) -> bool:
        """Whether it was reached over the network, be it that of this host alone."""
        return address_literal(self.address) is not None

    @property
    def is_here(self) -> bool:
        """Whether it has an address that only this host reaches."""
        address = address_literal(self.address)
        return address is not None and is_loopback(address)
