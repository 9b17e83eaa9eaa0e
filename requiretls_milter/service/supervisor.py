"""The supervisor: one loop that waits for signals, children and time.

It opens the milter's socket, forks the engine and the workers, replaces those that
die and reports to systemd. It has no threads and uses no network. The docstring of the
package tells what happens to the service as a whole; this module has the loop, and what
it does at each turn. Reload (:mod:`.reload`), drain (:mod:`.drain`) and restarts
(:mod:`.restarts`) are state machines of their own, to which the loop passes the time.

Log lines, with keys that stay as they are: ``event=started``, ``event=ready``,
``event=died``, ``event=killed`` and ``event=ended`` (with ``child``), ``event=serving``,
``event=stopping``, ``event=crash_loop``, ``event=cannot_start``,
``event=reopen_ignored``; those of a reload besides.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import selectors
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.ipc.child import ENGINE, EXIT_FAILURE, EXIT_OK, SUPERVISOR
from requiretls_milter.ipc.unixsocket import SocketFile
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.children import Children
from requiretls_milter.service.cores import usable_cores, usual_workers
from requiretls_milter.service.drain import Drain
from requiretls_milter.service.lockfile import LockFile
from requiretls_milter.service.logfile import LogFile
from requiretls_milter.service.printed import Printed
from requiretls_milter.service.reload import Reloader
from requiretls_milter.service.restarts import DEATHS_WITHIN, Restarts
from requiretls_milter.service.sdnotify import ServiceManager
from requiretls_milter.service.signals import Signals
from requiretls_milter.service.sockets import Sockets
from requiretls_milter.service.spawn import Child
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Process, Socket

EXIT_INTERRUPTED = 128 + signal.SIGINT

CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)
"""Signals by which a process ends for what its code did, such as a C library that met an octet that
it did not expect; SIGKILL and others come from outside."""

TICK = 1.0
"""Seconds that the loop waits at most."""

DRAIN_TICK = 0.1
"""The same while the service drains."""

_log = log.get_logger("supervisor")


class Supervisor:
    """One service; :meth:`run` once.

    Args:
        config_path: the file that is read again at a reload.
        config: what the file holds now.
        notifier: sends messages to systemd, if systemd started the service.
        listener: the milter's socket, open.
        lock: keeps a second instance away; children must not keep it open.
        log_file: the log, if it is a file.
    """

    def __init__(
        self,
        config_path: Path | None,
        config: Config,
        notifier: ServiceManager,
        listener: Listener,
        lock: LockFile,
        log_file: LogFile | None,
    ) -> None:
        self._notifier = notifier
        self._log_file = log_file
        self._listener = listener
        self._lock = lock
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        workers = config.milter.workers or usual_workers(usable_cores())
        self._children = Children(workers)
        self._restarts = Restarts()
        self._reload = Reloader(
            config_path,
            config,
            self._children,
            notifier,
            kill=self._kill,
            changed=self._tell_engine,
        )
        self._sockets = Sockets(
            listener,
            lock,
            self._children,
            lambda: self._reload.config.milter,
            self._count_lost_socket,
        )
        self._engine_socket: SocketFile | None = None
        self._drain: Drain | None = None
        self._exit: int | None = None
        self._incarnation = time.time_ns() // 1_000_000
        self._counters = Counters()
        self._snapshot: Mapping[str, Any] | None = None
        self._told: tuple[Mapping[str, float], Mapping[str, Any]] = ({}, {})
        self._was_ready = False
        self._since = time.time()
        self._next_watchdog = 0.0
        self._status_told = ""

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        """Serve until the end; returns the exit status."""
        self._signals.install()
        self._selector.register(self._signals, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # memory pages that children share stay shared
        for name in self._children.names:
            self._start(name)
        try:
            while self._exit is None:
                self._turn()
        finally:
            self._end()
        return self._exit

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if isinstance(key.data, Child):
                self._receive(key.data)
            elif isinstance(key.data, Printed):
                key.data.read()
        log.flush()
        self._act_on_signals()
        self._reap()
        now = time.monotonic()
        if self._drain is not None:
            status = self._drain.step(now)
            if status is not None and self._exit is None:
                self._exit = status
            return
        for name in self._restarts.take_due(now):
            self._start(name)
        for child in self._children:
            reason = child.reason_to_kill(now)
            if reason:
                self._kill(child, reason)
        self._reload.step(now)
        if self._sockets.step(now):
            self._stop(EXIT_FAILURE)  # the service manager starts it again
            return
        if self._log_file is not None:
            self._pass_log(self._log_file.look(now))
        if dropped := log.take_dropped():
            self._counters.inc("log_lines_dropped_total", by=dropped)
        if dropped or (self._children.gauges(), self._health(now)) != self._told:
            self._tell_engine()
        self._feed_watchdog(now)

    def _patience(self) -> float:
        """Seconds until something is due that neither a signal nor a child announces."""
        now = time.monotonic()
        moments = [now + TICK, *self._restarts.moments]
        if self._notifier.watchdog_interval:
            moments.append(self._next_watchdog)
        if self._drain is not None:
            moments.append(now + DRAIN_TICK)
        return max(0.0, min(moments) - now)

    def _act_on_signals(self) -> None:
        for number in self._signals.take():
            match number:
                case signal.SIGHUP if self._drain is not None:
                    _log.info("reload_ignored", reason="the service is stopping")
                case signal.SIGHUP:
                    self._reload.request()
                case signal.SIGUSR1 if self._log_file is not None:
                    self._pass_log(self._log_file.reopen())
                case signal.SIGUSR1:
                    _log.info("reopen_ignored", reason="the log is not a file (--log-file)")
                case signal.SIGINT if self._drain is not None:
                    _log.warning("interrupted")
                    self._exit = EXIT_INTERRUPTED
                case signal.SIGTERM | signal.SIGINT if self._drain is None:
                    _log.info("stopping", signal=signal.Signals(number).name)
                    self._stop(EXIT_OK)

    def _pass_log(self, descriptor: int | None) -> None:
        """Have all children write to another file."""
        if descriptor is not None:
            for child in self._children:
                child.send("log", descriptor=descriptor)
            os.close(descriptor)

    # ------------------------------------------------------------ children

    def _start(self, name: str) -> None:
        self._incarnation += 1
        try:
            child = Child.start(
                name,
                self._reload.config,
                self._reload.generation,
                self._incarnation,
                workers=self._children.all_workers,
                selector=self._selector,
                listener=self._listener,
                # A child that kept the supervisor's end of a sibling's channel open would keep
                # that sibling from noticing the death of the supervisor.
                to_close=[
                    *self._children,
                    self._selector,
                    self._signals,
                    self._notifier,
                    self._lock,
                ],
                snapshot=self._snapshot,
            )
        except OSError as error:
            _log.error("cannot_fork", child=name, error=str(error))
            self._restarts.postpone(name, time.monotonic())
            return
        self._children.add(child)
        _log.info("started", child=name, pid=child.pid)
        if name == ENGINE:
            self._tell_engine()

    def _receive(self, child: Child) -> None:
        for message in child.receive():
            self._handle(child, message)

    def _handle(self, child: Child, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "accepting":
                child.served = True
            case "ready":
                child.ready = True
                _log.info("ready", child=child.name, pid=child.pid)
                self._tell_engine()
                self._tell_ready()
                self._reload.settle()
            case "heartbeat":
                child.note_heartbeat(message)
            case "snapshot":
                self._snapshot = message["snapshot"]
            case "ack":
                self._reload.acknowledged(child, int(message["generation"]), str(message["error"]))
            case "suspend":
                self._reload.suspend(bool(message["suspended"]))
            case "draining":
                child.draining = True
            case "listening":
                self._engine_socket = SocketFile(
                    self._reload.config.engine.socket,
                    int(message["device"]),
                    int(message["inode"]),
                )
            case "failed":
                # At the first start this ends the service. Later the engine is started again.
                child.unable = True
                if not self._was_ready:
                    _log.error("cannot_start", error=str(message["error"]))
                    self._exit = EXIT_FAILURE
            case other:
                _log.error("unknown_message", child=child.name, op=other)

    def _reap(self) -> None:
        for child in self._children:
            code = child.reap()
            if code is not None:
                self._receive(child)  # its last messages may still be in the channel
                child.disconnect()
                self._children.remove(child)
                self._died(child, code)

    def _died(self, child: Child, code: int) -> None:
        if self._drain is not None or self._exit is not None:
            _log.info("ended", child=child.name, status=code)
            return
        _log.error(
            "died",
            child=child.name,
            pid=child.pid,
            signal=signal.Signals(-code).name if code < 0 else None,
            status=code if code >= 0 else None,
        )
        process = Process.ENGINE if child.name == ENGINE else Process.WORKER
        self._counters.inc("process_restarts_total", (process,))
        if child.unable:  # a full disk, a port in use: it is no crash, and may end at any time
            self._restarts.postpone(child.name, time.monotonic())
        else:
            # Before it was ready for the first time, the service crashes by itself.
            provoked = self._was_ready and child.served and -code in CRASHES
            self._restarts.died(child.name, time.monotonic(), provoked=provoked)
        if self._restarts.crash_loop:
            _log.error("crash_loop", deaths=self._restarts.deaths, seconds=DEATHS_WITHIN)
            self._exit = EXIT_FAILURE
            return
        self._tell_engine()
        if child.name == ENGINE:
            self._reload.engine_died()

    def _kill(self, child: Child, reason: str) -> None:
        """Kill a child that no longer works; it is replaced like any child that dies."""
        _log.error("killed", child=child.name, pid=child.pid, reason=reason)
        child.kill()

    def _tell_engine(self) -> None:
        """Send the engine what only the supervisor knows; the engine shows it as metrics."""
        gauges, health = self._told = (
            self._children.gauges(),
            self._health(time.monotonic()),
        )
        if self._children.engine is not None:
            self._children.engine.send(
                "supervisor",
                totals=dataclasses.asdict(self._counters.totals()),
                gauges={**self._reload.gauges(), **gauges},
                service=self._service(health),
            )

    def _service(self, health: Mapping[str, Any]) -> Mapping[str, Any]:
        """What ``status`` shows of the service; see :class:`.wire.ServiceStatus`."""
        return {
            "since": self._since,
            **health,
            **self._reload.shown(),
            "processes": [
                {"name": SUPERVISOR, "pid": os.getpid(), "ready": True, "since": self._since},
                *self._children.shown(),
            ],
        }

    def _health(self, now: float) -> Mapping[str, Any]:
        """How the service is; see :class:`.wire.ServiceStatus`."""
        missing = self._children.missing(now)
        problems = [f"{name} is not ready" for name in missing]
        if not self._sockets.in_place:
            problems.append("the milter's socket is not in its place")
        if self._drain is not None:
            problems.append("the service is stopping")
        workers = [name for name in self._children.names if name != ENGINE]
        serves = self._sockets.in_place and self._drain is None and not set(workers) <= set(missing)
        return {"serves": serves, "problems": problems}

    def _count_lost_socket(self) -> None:
        self._counters.inc("sockets_lost_total", (Socket.MILTER,))
        self._tell_engine()

    # ------------------------------------------------------------ systemd

    def _tell_ready(self) -> None:
        if self._children.all_ready and not self._was_ready:
            self._was_ready = True
            self._tell_engine()
            self._notifier.ready(self._reload.status())
            milter = self._reload.config.milter
            workers = self._children.all_workers
            _log.info("serving", socket=str(milter.socket), workers=workers)

    def _feed_watchdog(self, now: float) -> None:
        interval = self._notifier.watchdog_interval
        if not self._notifier.enabled or now < self._next_watchdog:
            return
        self._next_watchdog = now + (interval / 4 if interval else TICK)
        status = self._reload.status()
        if self._was_ready and status != self._status_told:
            self._status_told = status
            self._notifier.status(status)
        # While a peer kills workers there is seldom a moment with all of them. They are replaced,
        # and to start the whole service anew, until systemd gives up, would stop all mail.
        whole = not self._restarts.provoked(now)
        if interval and self._children.is_healthy(now, whole=whole):
            self._notifier.watchdog()

    # ------------------------------------------------------------ the end

    def _stop(self, status: int) -> None:
        """Begin to drain; the service then ends with ``status``."""
        self._sockets.remove()
        self._drain = Drain(
            self._reload.config.milter.drain_timeout,
            self._children,
            self._listener,
            time.monotonic(),
            status,
        )
        self._tell_engine()
        self._notifier.stopping("waiting for open connections to end")
        self._notifier.extend_timeout(self._drain.longest)

    def _end(self) -> None:
        """Leave nothing behind, whatever the reason: no child, no socket."""
        self._listener.refuse_connections()
        if self._drain is None:
            self._sockets.remove()
            self._notifier.stopping("the service is ending")
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        if self._engine_socket is not None:  # an engine that was killed has left it
            self._engine_socket.remove()
        self._signals.uninstall()
        self._selector.close()
