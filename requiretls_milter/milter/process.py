"""The worker process: libmilter in a thread, and a main thread that hears the supervisor.

The main thread sends heartbeats, takes new configurations, drains and stops. It
obeys the control line alone: signals that reach the whole process group are for
the supervisor to act on. An exception in either thread ends the process; the
supervisor notices and starts another one.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from requiretls_milter.aliases import AliasKeeper
from requiretls_milter.config import Config
from requiretls_milter.ipc.child import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_ORPHAN,
    HEARTBEAT,
    Start,
    read_config,
    take_log_settings,
)
from requiretls_milter.ipc.client import EngineClient
from requiretls_milter.ipc.control import Channel, ControlClosed
from requiretls_milter.milter import adapter, serving
from requiretls_milter.milter.listener import Listener
from requiretls_milter.milter.settings import Expander
from requiretls_milter.milter.threads import Threads
from requiretls_milter.model import Aliases
from requiretls_milter.syntax.capability import MAX_VERSION
from requiretls_milter.syntax.text import printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import configured_domains

CALLBACK_MARGIN = 5.0
"""Seconds that a callback may take beyond the longest wait that is configured."""

MAX_HELD = 40
"""Threads that stand still while no callback waits: libmilter keeps some for the next events. More
of them are held by events that are half sent. With those of ``limits.callbacks``, eight workers
have 1920 of the 2048 that the systemd unit allows (TasksMax); without a thread no event is
answered."""

POLL = 0.1
"""Seconds between two checks while the worker starts or drains."""

CLOSE_WAIT = 1.0
"""Seconds to hand the last counters over to the engine."""

_log = log.get_logger("worker")


def run(start: Start, listener: Listener) -> int:
    """Live a worker's whole life; return its exit status.

    Args:
        start: what the supervisor gives to each child.
        listener: the socket on which the MTA calls.
    """
    counters = Counters(configured_domains(start.config))
    client = EngineClient(
        start.config,
        generation=start.generation,
        worker=start.name,
        incarnation=start.incarnation,
        counters=counters,
    )
    aliases = AliasKeeper(counters)
    context = serving.WorkerContext(
        config=start.config,
        forecasts=client,
        counters=counters,
        host_name=socket.gethostname(),
        expander=_expander(start.config, aliases, client),
    )
    try:
        return _Worker(start.channel, client, counters, context, aliases, listener).run()
    except ControlClosed:
        # Without a supervisor nothing replaces or stops this process: end, and free the socket.
        _log.error("supervisor_lost")
        client.close(CLOSE_WAIT)
        return EXIT_ORPHAN


def _expander(config: Config, aliases: AliasKeeper, client: EngineClient) -> Expander | None:
    """What expands recipients: the worker's own tables, the engine, or nothing."""
    tables = aliases.tables(config)
    if config.mta.aliases is Aliases.ASK:
        return client.expand
    return None if tables is None else tables.expand


class _Worker:
    def __init__(
        self,
        channel: Channel,
        client: EngineClient,
        counters: Counters,
        context: serving.WorkerContext,
        aliases: AliasKeeper,
        listener: Listener,
    ) -> None:
        self._channel = channel
        self._listener = listener
        self._client = client
        self._counters = counters
        self._context = context
        self._aliases = aliases
        self._milter = threading.Thread(target=self._serve, name="milter", daemon=True)
        self._threads = Threads()
        self._ready = False
        self._drain_until: float | None = None
        self._stop = False
        self._next_beat = 0.0

    def _serve(self) -> None:
        try:
            adapter.serve(self._context)
        except BaseException as error:  # noqa: BLE001 - logged; run() sees that the thread has ended
            _log.exception("libmilter_failed", error=repr(error))

    def run(self) -> int:
        self._channel.send("accepting")
        self._milter.start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while not self._stop:
                if not self._milter.is_alive():
                    _log.error("libmilter_ended")
                    self._client.close(CLOSE_WAIT)
                    return EXIT_FAILURE
                self._beat()
                if self._drained():
                    break
                busy = self._channel.unsent or not self._ready or self._drain_until is not None
                if selector.select(POLL if busy else HEARTBEAT):
                    for message in self._channel.receive():
                        self._take(message)
        return self._end()

    def _beat(self) -> None:
        """Tell the supervisor that the worker is ready, alive, and whether it is well."""
        self._channel.flush()
        if not self._ready and self._client.connected:
            self._ready = True
            self._channel.send("ready")
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + HEARTBEAT
        self._counters.inc("log_lines_dropped_total", by=log.take_dropped())
        self._client.tell_mta(printable(self._context.mta_version, MAX_VERSION))
        self._threads.look()
        problem = self._problem()
        self._channel.send(
            "heartbeat",
            well=not problem,
            problem=problem,
            connections=serving.connections_open(),
            threads=self._threads.count,
        )

    def _problem(self) -> str:
        """Why this worker serves badly; "" if it does not."""
        longest = serving.longest_callback()
        rules = self._context.config.rules
        if longest > max(rules.longest_decide_wait, rules.tag_wait) + CALLBACK_MARGIN:
            return f"a callback takes {longest:.0f} s"
        held = self._threads.still - serving.callbacks_waiting()
        if held > MAX_HELD:
            return f"{held} threads stand still: the MTA does not send the rest of its events"
        return ""

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "config":
                config, generation = read_config(message)
                take_log_settings(config)
                self._counters.configure(configured_domains(config))
                self._context.expander = _expander(config, self._aliases, self._client)
                self._context.config = config
                self._client.reconfigure(config, generation)
                self._channel.send("ack", generation=generation, error="")
            case "socket":
                self._replace_socket(self._channel.take_descriptor())
            case "log":
                log.replace_file(self._channel.take_descriptor())
            case "drain":
                self._listener.stop_accepting()
                self._drain_until = time.monotonic() + float(message["seconds"])
                self._channel.send("draining")
            case "stop":
                self._stop = True
            case other:
                _log.error("unknown_order", op=other)

    def _replace_socket(self, descriptor: int) -> None:
        """Accept from another socket, unless nothing is to be accepted any more."""
        if self._drain_until is None:
            self._listener.replace(descriptor)
        else:
            os.close(descriptor)

    def _drained(self) -> bool:
        """Whether the worker was told to drain, and no connection or no time is left.

        Open connections count, not only transactions: an MTA holds back events that
        get no reply, so that we may learn of a message only at its end.
        """
        if self._drain_until is None:
            return False
        left = serving.connections_open()
        if left and time.monotonic() < self._drain_until:
            return False
        if left:
            transactions = serving.transactions_in_progress()
            _log.warning("connections_cut", connections=left, transactions=transactions)
        return True

    def _end(self) -> int:
        # libmilter's own stop would wait up to 5 s for its listener. There is nothing to wait
        # for: no connection is left, or its time is over; the kernel closes what is open.
        self._client.close(CLOSE_WAIT)
        return EXIT_OK
