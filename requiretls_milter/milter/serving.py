"""What a worker is serving: its connections with the MTA, and the callbacks that wait.

libmilter knows its process and nothing else, so there is one :class:`Serving` in a process. The
adapter begins it and keeps it up to date; the worker's main thread reads how things are.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.splitting import PutOff
from requiretls_milter.milter.transaction import SmtpClient, Transaction

if TYPE_CHECKING:
    from requiretls_milter import config
    from requiretls_milter.milter.settings import Expander
    from requiretls_milter.milter.source import ForecastSource
    from requiretls_milter.telemetry.counting import Counters


@dataclass(slots=True)
class WorkerContext:
    """What a worker serves with.

    Attributes:
        config: may be replaced at any time; connections that begin later use the new one.
        expander: what expands recipients with that configuration; None if nothing does.
        forecasts: answers questions about next hops.
        counters: this process' counters.
        host_name: for ``by=`` of the tag if neither the configuration nor the MTA has a name.
        mta_version: what the MTA says that it is (macro ``v``); "" before it has sent any mail.
    """

    config: config.Config
    forecasts: ForecastSource
    counters: Counters
    host_name: str
    mta_version: str = ""
    expander: Expander | None = None

    def settings(self) -> Settings:
        """The settings of the configuration and the expander that are here now."""
        return Settings(self.config, self.expander)


@dataclass(slots=True)
class Serving:
    """What a worker is serving.

    Attributes:
        negotiated: actions and protocol flags that the last MTA agreed to.
        numbers: gives each connection its number.
        put_off: recipients whose route was another one than that of their message.
        running: callbacks that may be waiting for a forecast, by connection: since when,
            on the monotonic clock.
        transactions: connections in the middle of a message.
        connections: connections that are open.
    """

    context: WorkerContext
    settings: Settings
    negotiated: tuple[int, int] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)
    put_off: PutOff = field(default_factory=PutOff)
    running: dict[int, float] = field(default_factory=dict)
    transactions: set[int] = field(default_factory=set)
    connections: set[int] = field(default_factory=set)

    def settings_in_force(self) -> Settings:
        """The settings of the configuration that is in force now."""
        if self.settings.config is not self.context.config:
            self.settings = self.context.settings()
        return self.settings


class Connection:
    """What is known of one connection with the MTA; libmilter keeps it for us.

    The adapter sets what it has agreed on with the MTA: ``protocol``, the protocol flags, and
    ``header_answer``, the answer to a header field.
    """

    __slots__ = (
        "address",
        "client",
        "counters",
        "header_answer",
        "heard",
        "looks_for_utf8",
        "mta_name",
        "number",
        "protocol",
        "sender",
        "serving",
        "settings",
        "transaction",
        "trusted",
    )

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.settings = serving.settings_in_force()
        self.counters = serving.context.counters
        self.protocol = self.header_answer = 0
        self.number = next(serving.numbers)
        self.heard = time.monotonic()
        self.mta_name = ""
        self.address = ""
        self.client: SmtpClient | None = None
        self.trusted = False
        self.sender = b""
        self.transaction: Transaction | None = None
        self.looks_for_utf8 = False

    def begin(self, transaction: Transaction) -> None:
        """Start a message."""
        self.transaction = transaction
        self.looks_for_utf8 = transaction.may_need_smtputf8
        self.serving.transactions.add(self.number)

    def end(self) -> None:
        """Forget the message."""
        self.transaction = None
        self.serving.transactions.discard(self.number)


_current: Serving | None = None
"""None until :func:`begin`. Global because libmilter is: it has one set of callbacks in a
process and hands them nothing but their connection's data, which a new connection lacks."""


def begin(context: WorkerContext) -> None:
    """Have something to serve: from now on callbacks may come."""
    global _current
    _current = Serving(context, context.settings())


def current() -> Serving | None:
    """What this process is serving; None before :func:`begin`."""
    return _current


def transactions_in_progress() -> int:
    """How many connections are in the middle of a message."""
    return len(_current.transactions) if _current is not None else 0


def connections_open() -> int:
    """How many connections the MTA holds open.

    An MTA may hold an event that needs no reply back, and send it with the next
    one. Of a message that an MTA is receiving we may therefore know nothing until
    its end, except for the connection.
    """
    return len(_current.connections) if _current is not None else 0


def callbacks_waiting() -> int:
    """How many callbacks may be waiting for a forecast, each on a thread."""
    return len(_current.running) if _current is not None else 0


def longest_callback() -> float:
    """Seconds since the oldest callback began that has not returned; 0.0 if there is none."""
    if _current is None or not _current.running:
        return 0.0
    started = list(_current.running.values())
    return max(0.0, time.monotonic() - min(started)) if started else 0.0
