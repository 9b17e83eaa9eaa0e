"""A child process. :class:`Child` is the supervisor's side of the fork, :func:`run_child` its own.

The two sides talk over a :class:`.control.Channel`, a socket pair made before the
fork. Its end is how each side learns that the other one is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

from requiretls_milter.config import Config
from requiretls_milter.ipc import control
from requiretls_milter.ipc.child import ENGINE, EXIT_FAILURE, EXIT_ORPHAN, Start
from requiretls_milter.ipc.control import Channel, ControlClosed
from requiretls_milter.milter import process as worker
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.printed import Printed
from requiretls_milter.service.title import name_process
from requiretls_milter.telemetry import log

START_TIMEOUT = 60.0
"""Seconds for a child to become ready: imports from a slow disk take a few."""

HEARTBEAT_FRESH = 5.0
"""Seconds since a child's last message within which it counts as healthy."""

HEARTBEAT_LOST = 15.0
"""Seconds without a message, or with a stuck callback, after which a child is killed."""

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""

_log = log.get_logger("child")


class Closable(Protocol):
    """Something of the supervisor's for which a child has no use."""

    def close(self) -> object:
        """Close it."""
        ...


class Child:
    """A running child: it knows how to start, to be talked to, to be judged and to end.

    Attributes:
        name: ``engine``, ``worker-1`` and so on.
        pid: its process id.
        generation: the configuration that it started with or has acknowledged.
        ready: whether it serves.
        served: whether peers may have reached it: a worker that has begun to accept.
        unable: whether it said that it cannot start now.
        draining: whether it has confirmed that it takes no new connection, or, the
            engine, was told to stop.
        connections: how many connections the MTA has open to it, by its last heartbeat.
        since: when it was started, seconds since the epoch.
        threads: how many a worker has, by its last heartbeat.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        channel: Channel,
        generation: int,
        selector: selectors.BaseSelector,
        printed: Printed | None = None,
    ) -> None:
        self.name = name
        self.pid = pid
        self.generation = generation
        self.ready = False
        self.served = False
        self.unable = False
        self.draining = False
        self.connections = 0
        self.threads = 0
        self._channel = channel
        self._selector = selector
        self._printed = printed
        self._connected = True
        self.since = time.time()
        # The other times are of the monotonic clock.
        self._started = self._heard = self._well = time.monotonic()
        self._problem = ""
        selector.register(channel, selectors.EVENT_READ, self)

    # ------------------------------------------------------------ start

    @classmethod
    def start(
        cls,
        name: str,
        config: Config,
        generation: int,
        incarnation: int,
        *,
        workers: int,
        selector: selectors.BaseSelector,
        listener: Listener,
        to_close: Iterable[Closable],
        snapshot: Mapping[str, Any] | None,
    ) -> Child:
        """Fork; returns in the supervisor only.

        Args:
            name: ``engine``, or a worker's name.
            config: the configuration in force.
            generation: its number.
            incarnation: which life of a child this is; grows over all children.
            workers: how many workers the service has.
            selector: on which the supervisor waits.
            listener: the milter's socket.
            to_close: what the child inherits and must not keep.
            snapshot: what the last engine had counted, for the next one.

        Raises:
            OSError: no memory, no descriptor or too many processes.
        """
        parent = os.getpid()
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as theirs:
            ours, end = control.pair()
            on_failure.callback(ours.close)
            theirs.callback(end.close)
            printed = Printed(selector)
            on_failure.callback(printed.end)
            theirs.callback(printed.close_child_end)
            pid = os.fork()
            if pid == 0:
                run_child(
                    Start(
                        name,
                        config,
                        generation,
                        incarnation,
                        Channel(end, takes_descriptors=True),
                        workers,
                    ),
                    parent=parent,
                    printed=printed,
                    to_close=[ours, printed, *to_close],
                    listener=listener,
                    snapshot=snapshot,
                )
            on_failure.pop_all()
        return cls(name, pid, ours, generation, selector, printed)

    # ------------------------------------------------------------ the control line

    def send(self, op: str, *, descriptor: int | None = None, **values: Any) -> None:
        """Send a message, as :meth:`.Channel.send` does; no effect once the line is closed."""
        if not self._connected:
            return
        try:
            self._channel.send(op, descriptor=descriptor, **values)
        except ControlClosed:
            self.disconnect()
        else:
            self._watch()

    def receive(self) -> list[Mapping[str, Any]]:
        """The messages that have come in; none once the line is closed."""
        if not self._connected:
            return []
        try:
            self._channel.flush()
            messages = self._channel.receive()
        except ControlClosed:
            self.disconnect()
            return []
        self._watch()
        if messages:
            self._heard = time.monotonic()
        return messages

    def disconnect(self) -> None:
        """Close the line. The child is dead too, or soon will be."""
        if self._connected:
            self._connected = False
            self._selector.unregister(self._channel)
            self._channel.close()

    def close(self) -> None:
        """Close only the inherited ends: in a sibling, which has no selector."""
        self._channel.close()
        if self._printed is not None:
            self._printed.close()

    def _watch(self) -> None:
        """Have the selector wait for what is left to do on this line."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._channel.unsent else 0)
        self._selector.modify(self._channel, wanted, self)

    # ------------------------------------------------------------ health

    def note_heartbeat(self, message: Mapping[str, Any]) -> None:
        """Take what a child says of itself every second."""
        self.connections = int(message["connections"])
        self.threads = int(message["threads"])
        self._problem = str(message["problem"])
        if message["well"]:
            self._well = self._heard

    def is_healthy(self, now: float) -> bool:
        """Whether it was heard of lately and has no problem; for the watchdog."""
        return now - self._heard < HEARTBEAT_FRESH and not self._problem

    def reason_to_kill(self, now: float) -> str:
        """Why this child is of no use any more; "" if it is."""
        if not self.ready and now - self._started > START_TIMEOUT:
            return f"not ready within {START_TIMEOUT:g} s"
        if self.ready and now - self._heard > HEARTBEAT_LOST:
            return f"no heartbeat for {now - self._heard:.0f} s"
        if self._problem and now - self._well > HEARTBEAT_LOST:
            return self._problem
        return ""

    # ------------------------------------------------------------ end

    def kill(self) -> None:
        """End it at once; :meth:`reap` tells when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        # One kill is enough: no reason to kill it again until it is reaped.
        self._started = self._heard = self._well = time.monotonic()

    def reap(self) -> int | None:
        """Its exit code if it has ended, negative for a signal; None while it lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self._end_printed()
        return os.waitstatus_to_exitcode(status)

    def wait(self) -> None:
        """Wait until it has ended, for a child that was killed."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._end_printed()

    def _end_printed(self) -> None:
        if self._printed is not None:
            self._printed.read()
            self._printed.end()


def run_child(
    start: Start,
    *,
    parent: int,
    printed: Printed,
    to_close: Iterable[Closable],
    listener: Listener,
    snapshot: Mapping[str, Any] | None,
) -> NoReturn:
    """Run the child's side, from the fork to the end of the process.

    Args:
        start: what a child is given.
        parent: pid of the supervisor.
        printed: becomes descriptor 2.
        to_close: what was inherited and belongs to the supervisor.
        listener: the milter's socket.
        snapshot: what the last engine had counted; for an engine.
    """
    status = EXIT_FAILURE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A terminal's Ctrl-C reaches all processes; the supervisor decides when a child ends, and
        # passes what a signal of a rotated log asks for.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        log.set_process(start.name)
        log.write_in_thread(printed.take_over())
        for inherited in to_close:
            inherited.close()
        _die_with_parent(parent)
        name_process(start.name)
        # A worker must not know the network: only the engine's code is imported in the child. That
        # of workers is there before the fork, in memory that all of them share.
        if start.name == ENGINE:
            # What does not serve the MTA must not keep its socket open.
            listener.stop_accepting()
            from requiretls_milter.engine import process

            status = process.run(start, snapshot)
        else:
            status = worker.run(start, listener)
    except BaseException as error:  # noqa: BLE001 - logged; a child never goes on as its parent
        _log.exception("child_failed", error=repr(error))
    finally:
        log.last_words()
        os._exit(status)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies, in case that it hangs.

    The control line's end is the usual way to learn of that death; this is the second
    one, so that its failure is only logged.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        _log.warning("no_parent_death_signal", error=os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:  # it died before the call
        os._exit(EXIT_ORPHAN)
