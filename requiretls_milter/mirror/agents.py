"""What the transports of master.cf do with mail: deliver it here, or hand it on over the network.

Pure. A transport is local if its daemon delivers on this host. lmtp(8) is local over a unix
socket alone; over TCP its server is a next hop. local(8) is local unless it hands its mail over to
another transport (mailbox_transport, fallback_transport).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from requiretls_milter.config import Destination
from requiretls_milter.config.values import destination, hand_over_key
from requiretls_milter.mirror.postconf import Parameters, Postfix, Service
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.model import MailProtocol
from requiretls_milter.syntax.tables import split_list, static_result

LOCAL_PROGRAMS = frozenset({"local", "virtual", "discard", "error", "pipe"})
"""Delivery agents of Postfix that need no network."""

_UNIX_SOCKET = "unix:"


@dataclass(slots=True)
class Agents:
    """The delivery agents of one Postfix, by the names of their transports.

    Attributes:
        services: the services of master.cf that can be transports.
        hand_over: what local(8) hands over, in the form of ``mta.hand_over``.
        warnings: what of it cannot be mirrored.
        over_tcp: the transports that are lmtp(8) and were seen with a next hop over TCP.
    """

    services: Mapping[str, Service]
    hand_over: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    over_tcp: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, postfix: Postfix) -> Agents:
        """Find the agents, and what local(8) hands over."""
        agents = cls({one.name: one for one in postfix.services if one.type == "unix"})
        for service in postfix.running("local"):
            if service.type == "unix":
                agents._add_hand_over(service, postfix)
        return agents

    def is_local(self, route: str) -> bool:
        """Whether a route, ``transport:nexthop``, is delivered on this host.

        A transport that master.cf does not have delivers nothing; its name says what it is for.
        """
        to = Destination.parse(route)
        if to.transport in self.hand_over:
            return False
        if to.nexthop.startswith(_UNIX_SOCKET):
            return True
        service = self.services.get(to.transport)
        program = to.transport if service is None else service.program
        return program in LOCAL_PROGRAMS

    def protocol_of(self, transport: str) -> MailProtocol | None:
        """What a transport speaks over the network; None if it is neither smtp(8) nor lmtp(8)."""
        service = self.services.get(transport)
        program = "" if service is None else service.program
        return MailProtocol(program) if program in tuple(MailProtocol) else None

    def keeps_all(self, route: str) -> bool:
        """Whether a route is delivered on this host for each of its users."""
        transport = Destination.parse(route).transport
        some_leave = any(key.endswith(f"@{transport}") for key in self.hand_over)
        return self.is_local(route) and not some_leave

    def note(self, route: str) -> None:
        """Take note of a route that is in use: is it LMTP over TCP?"""
        to = Destination.parse(route)
        service = self.services.get(to.transport)
        if service is not None and service.program == "lmtp" and not self.is_local(route):
            self.over_tcp.add(to.transport)

    def local_transports(self) -> Iterator[str]:
        """List the transports whose mail is never a next hop's."""
        for name, service in self.services.items():
            if name in self.hand_over or name in self.over_tcp:
                continue
            if service.program in LOCAL_PROGRAMS or service.program == "lmtp":
                yield name

    # ------------------------------------------------------------ local(8)

    def _add_hand_over(self, service: Service, postfix: Postfix) -> None:
        """Read the settings by which local(8) passes mail on, in its own order."""
        settings = service.settings or postfix.settings
        everyone = _of_all(settings, "mailbox_transport")
        unknown_users = _of_all(settings, "fallback_transport")
        over = everyone or unknown_users
        if over and not self.is_local(over):
            self._put(service.name, over)
            self.note(over)
            if not everyone:
                self.warnings.append(
                    f"fallback_transport = {shown(over)}: mail of users that this host does not "
                    "know is handed over; forecasts take all users for such"
                )
        self._add_users(service, "mailbox_transport_maps", settings, postfix)
        if not everyone:  # else local(8) never comes to it
            self._add_users(service, "fallback_transport_maps", settings, postfix)

    def _add_users(
        self, service: Service, parameter: str, settings: Parameters, postfix: Postfix
    ) -> None:
        unreadable = []
        for item in split_list(settings.get(parameter, "")):
            if static_result(item) is not None:
                break
            entries = postfix.tables.get(item)
            if entries is None:
                unreadable.append(item)
                continue
            for user, over in entries:
                self.note(over)
                if service.name in self.hand_over or not self.is_local(over):
                    self._put(f"{user}@{service.name}", over)
        if unreadable:
            self.warnings.append(
                f"{parameter}: {examples(unreadable)}: a table that cannot be read: mail that it "
                "hands over is forecast as local"
            )

    def _put(self, key: str, over: str) -> None:
        try:
            self.hand_over.setdefault(hand_over_key(key), destination(over))
        except ValueError:
            self.warnings.append(f"{shown(key)}: {shown(over)} cannot be mirrored")


def _of_all(settings: Parameters, name: str) -> str:
    """The transport to which *name* hands over all users: of a static table, else its own value."""
    items = split_list(settings.get(f"{name}_maps", ""))
    results = (static_result(item) for item in items)
    static = next((text for text in results if text is not None), None)
    return settings.get(name, "") if static is None else static
