"""The supervisor: processes, signals, reload, drain; no network, no threads.

It opens the milter's socket, forks the engine and the workers, replaces what
dies and tells systemd how the service is. One loop waits for signals, for the
children's messages and for time.

- A child that dies is replaced within a second. Five deaths in ten seconds:
  the socket is closed and we exit, so that the MTA sees "refused", not a hang.
- A child that gives no sign of life, or has an endless callback, is killed.
- SIGHUP: a new configuration goes to the engine, which may refuse it; then to
  the workers. What only takes effect at a restart keeps its old value.
- SIGTERM and SIGINT: the socket's path goes first, then no process takes a new
  connection, then those that are open may end within ``drain_timeout``. A
  second SIGINT ends everything at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from requiretls_milter import config as configuration
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.ipc import control
from requiretls_milter.ipc.child import ENGINE, EXIT_FAILURE, EXIT_OK, Start, take_log_settings
from requiretls_milter.ipc.control import Channel, ControlClosed
from requiretls_milter.milter import adapter
from requiretls_milter.milter.listener import SocketError
from requiretls_milter.service.sdnotify import Notifier
from requiretls_milter.service.spawn import Child, live
from requiretls_milter.syntax.endpoint import parse_milter_socket
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Process

EXIT_CONFIG = 2
"""Exit status of a configuration that cannot be used; the unit does not restart after it."""

EXIT_INTERRUPTED = 128 + signal.SIGINT

MAX_DEATHS = 5
DEATHS_WITHIN = 10.0
"""So many deaths within so many seconds: the service gives up."""

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 1.0
"""Seconds until what died is replaced; doubles with each death of the last seconds."""

START_TIMEOUT = 60.0
"""Seconds for a child to become ready: imports from a slow disk take a few."""

HEARTBEAT_FRESH = 5.0
"""Seconds since a child's last sign of life within which the watchdog is fed."""

HEARTBEAT_LOST = 15.0
"""Seconds without a sign of life, or with a stuck callback, after which a child is killed."""

RELOAD_TIMEOUT = 15.0
"""Seconds for a child to acknowledge a configuration; it is killed after that."""

DRAIN_TIMEOUT = 2.0
"""Seconds for all workers to take no more connections; then those who wait are refused anyway."""

STOP_TIMEOUT = 10.0
"""Seconds beyond ``drain_timeout`` for all children to end."""

TICK = 1.0
"""Seconds that the loop waits at most."""

SIGNALS_NOTED = 2
"""Of one kind, until the loop acts on them: a second SIGINT ends the waiting, no third does."""

_log = log.get_logger("supervisor")


def run(config_path: Path | None) -> int:
    """Run the service until it is told to stop; returns the exit status.

    To be called in a process without threads.

    Args:
        config_path: the configuration; None for the usual place, or all defaults.
    """
    log.configure()
    log.set_process("supervisor")
    try:
        config = configuration.load(config_path)
    except ConfigError as error:
        _tell_mistakes("config_invalid", error)
        return EXIT_CONFIG
    take_log_settings(config)
    for warning in configuration.warnings(config):
        _log.warning("config_warning", text=warning)
    notifier = Notifier()
    with contextlib.ExitStack() as cleanup:
        try:
            lock = cleanup.enter_context(_locked(config.engine.socket))
            adapter.open_socket(config.milter)
        except (OSError, SocketError) as error:
            _log.error("cannot_start", error=str(error))
            return EXIT_FAILURE
        return Supervisor(config_path, config, notifier, lock).run()


def _locked(engine_socket: str) -> IO[bytes]:
    """The open lock file that says: this engine socket has a service.

    It stays where it is when we end: whoever removed it could remove that of a
    successor.

    Raises:
        SocketError: another instance holds it, or it cannot be made.
    """
    path = f"{engine_socket}.lock"
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise SocketError(
            f"there is no directory {directory} for the engine's socket (engine.socket): make it, "
            "with systemd's RuntimeDirectory= or install -d"
        )
    try:
        file = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "wb")
    except OSError as error:
        raise SocketError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise SocketError(f"{path}: another instance holds this lock") from error
    return file


def _tell_mistakes(event: str, error: ConfigError) -> None:
    for mistake in error.mistakes:
        _log.error(event, mistake=mistake)


@dataclasses.dataclass(slots=True)
class _Reload:
    """A configuration on its way to the children: to the engine first."""

    config: Config
    generation: int
    deadline: float
    engine_has_it: bool = False


class Supervisor:
    """One service; :meth:`run` once."""

    def __init__(
        self, config_path: Path | None, config: Config, notifier: Notifier, lock: IO[bytes]
    ) -> None:
        self._path = config_path
        self._config = config
        self._notifier = notifier
        self._lock = lock
        self._generation = 1
        self._last_generation = 1
        self._incarnation = time.time_ns() // 1_000_000
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_w = socket.socketpair()
        self._signals: list[int] = []
        self._children: dict[str, Child] = {}
        self._due: dict[str, float] = {}
        self._deaths: deque[float] = deque()
        self._counters = Counters()
        self._reload_ok = 1.0
        self._reloaded_at = time.time()
        self._snapshot: Mapping[str, Any] | None = None
        self._was_ready = False
        self._reload: _Reload | None = None
        self._reload_wanted = False
        self._next_watchdog = 0.0
        self._status_told = ""
        self._stopping = False
        self._stop_deadline = 0.0
        self._refusing = False
        self._refuse_deadline = 0.0
        self._exit: int | None = None

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        """Serve until the end; returns the exit status."""
        self._take_signals()
        gc.freeze()  # pages that children share stay shared
        for name in self._names():
            self._spawn(name)
        try:
            while self._exit is None:
                self._turn()
        finally:
            self._end()
        return self._exit

    def _names(self) -> list[str]:
        workers = [f"worker-{number}" for number in range(1, self._config.milter.workers + 1)]
        return [ENGINE, *workers]

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)
            elif isinstance(key.fileobj, Channel):
                self._hear(key.data)
        self._act_on_signals()
        self._reap()
        now = time.monotonic()
        if self._stopping:
            self._go_on_stopping(now)
            return
        for name, due in list(self._due.items()):
            if now >= due:
                del self._due[name]
                self._spawn(name)
        for child in list(self._children.values()):
            self._examine(child, now)
        self._go_on_reloading(now)
        self._feed_watchdog(now)

    def _patience(self) -> float:
        """Seconds until something has to be done that nobody wakes us for."""
        now = time.monotonic()
        moments = [now + TICK, *self._due.values()]
        if self._notifier.watchdog_interval:
            moments.append(self._next_watchdog)
        if self._stopping:
            moments.append(now + 0.1)
        return max(0.0, min(moments) - now)

    # ------------------------------------------------------------ signals

    def _take_signals(self) -> None:
        """Have signals noted, and the loop woken by a socket: it is the only one to act on them.

        The socket alone would lose what comes when it is full: a SIGTERM behind a storm of others.
        """
        self._wakeup.setblocking(False)
        self._wakeup_w.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_w.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._note)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def _note(self, number: int, _frame: object) -> None:
        """Note a signal."""
        if self._signals.count(number) < SIGNALS_NOTED:
            self._signals.append(number)

    def _act_on_signals(self) -> None:
        numbers, self._signals = self._signals, []
        for number in numbers:
            match number:
                case signal.SIGHUP if self._stopping:
                    _log.info("reload_ignored", reason="the service stops")
                case signal.SIGHUP:
                    self._reload_wanted = True
                case signal.SIGINT if self._stopping:
                    _log.warning("interrupted")
                    self._exit = EXIT_INTERRUPTED
                case signal.SIGTERM | signal.SIGINT if not self._stopping:
                    _log.info("stopping", signal=signal.Signals(number).name)
                    self._stop()

    # ------------------------------------------------------------ children

    def _spawn(self, name: str) -> None:
        self._incarnation += 1
        try:
            child = self._fork(name)
        except OSError as error:  # no memory, no descriptor, too many processes: for now
            _log.error("cannot_fork", child=name, error=str(error))
            self._due[name] = time.monotonic() + MAX_BACKOFF
            return
        self._children[name] = child
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        _log.info("started", child=name, pid=child.pid)
        if name == ENGINE:
            self._tell_engine()

    def _fork(self, name: str) -> Child:
        ours, theirs = control.pair()
        generation = self._generation
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            live(
                Start(name, self._config, generation, self._incarnation, Channel(theirs)),
                parent=self._pid,
                # Another child's line must end when the supervisor does, not when we do.
                to_close=[
                    ours,
                    *(child.channel for child in self._children.values()),
                    self._selector,
                    self._wakeup,
                    self._wakeup_w,
                    self._notifier,
                    self._lock,
                ],
                snapshot=self._snapshot,
            )
        theirs.close()
        return Child(name, pid, ours, generation)

    def _hear(self, child: Child) -> None:
        try:
            child.channel.flush()
            for message in child.channel.receive():
                self._take(child, message)
        except ControlClosed:
            self._hang_up(child)
        else:
            self._listen_for(child)

    def _listen_for(self, child: Child) -> None:
        if not child.connected:
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.channel.unsent else 0)
        self._selector.modify(child.channel, wanted, child)

    def _hang_up(self, child: Child) -> None:
        """The line is dead. So is the child, or it soon will be."""
        if child.connected:
            child.connected = False
            self._selector.unregister(child.channel)
            child.channel.close()

    def _send(self, child: Child, op: str, **values: Any) -> None:
        if not child.connected:
            return
        try:
            child.channel.send(op, **values)
        except ControlClosed:
            self._hang_up(child)
        else:
            self._listen_for(child)

    def _take(self, child: Child, message: Mapping[str, Any]) -> None:
        child.beat = time.monotonic()
        match message["op"]:
            case "ready":
                child.ready = True
                _log.info("ready", child=child.name, pid=child.pid)
                self._tell_ready()
                self._settle_reload()
            case "heartbeat":
                child.connections = int(message["connections"])
                child.problem = str(message["problem"])
                if message["well"]:
                    child.well_since = child.beat
            case "snapshot":
                self._snapshot = message["snapshot"]
            case "ack":
                self._acknowledged(child, int(message["generation"]), str(message["error"]))
            case "draining":
                child.draining = True
            case "failed":
                # Once the service was up, the engine may find what it needs at its next try.
                if not self._was_ready:
                    _log.error("cannot_start", error=str(message["error"]))
                    self._exit = EXIT_FAILURE
            case other:
                _log.error("unknown_message", child=child.name, op=other)

    def _reap(self) -> None:
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                # What it said last may still be in the line.
                if child.connected:
                    self._hear(child)
                self._hang_up(child)
                del self._children[child.name]
                self._died(child, os.waitstatus_to_exitcode(status))

    def _died(self, child: Child, code: int) -> None:
        if self._stopping or self._exit is not None:
            _log.info("ended", child=child.name, status=code)
            return
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"status": code}
        _log.error("died", child=child.name, pid=child.pid, **how)
        process = Process.ENGINE if child.name == ENGINE else Process.WORKER
        self._counters.inc("process_restarts_total", (process,))
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - DEATHS_WITHIN:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            _log.error("crash_loop", deaths=len(self._deaths), seconds=DEATHS_WITHIN)
            self._exit = EXIT_FAILURE
            return
        backoff = min(FIRST_BACKOFF * 2 ** (len(self._deaths) - 1), MAX_BACKOFF)
        self._due[child.name] = now + backoff
        self._tell_engine()
        if child.name == ENGINE and self._reload is not None and not self._reload.engine_has_it:
            self._end_reload("the engine died of it")

    def _examine(self, child: Child, now: float) -> None:
        """Kill a child that is of no use any more; it is replaced like any that dies."""
        if not child.ready and now - child.started > START_TIMEOUT:
            self._kill(child, f"not ready within {START_TIMEOUT:g} s")
        elif child.ready and now - child.beat > HEARTBEAT_LOST:
            self._kill(child, f"no sign of life for {now - child.beat:.0f} s")
        elif now - child.well_since > HEARTBEAT_LOST and child.problem:
            self._kill(child, child.problem)

    def _kill(self, child: Child, reason: str) -> None:
        _log.error("killed", child=child.name, pid=child.pid, reason=reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.started = child.beat = child.well_since = time.monotonic()

    def _tell_engine(self) -> None:
        """What only the supervisor knows, for the engine to show."""
        engine = self._children.get(ENGINE)
        if engine is None:
            return
        self._send(
            engine,
            "supervisor",
            totals=dataclasses.asdict(self._counters.totals()),
            gauges={
                "config_last_reload_successful": self._reload_ok,
                "config_last_reload_success_timestamp_seconds": self._reloaded_at,
            },
        )

    # ------------------------------------------------------------ systemd

    @property
    def _all_ready(self) -> bool:
        return all(name in self._children and self._children[name].ready for name in self._names())

    def _tell_ready(self) -> None:
        if self._all_ready and not self._was_ready:
            self._was_ready = True
            self._notifier.ready(self._status())
            _log.info("serving", socket=self._config.milter.socket, workers=len(self._names()) - 1)

    def _status(self) -> str:
        ready = sum(child.ready for child in self._children.values())
        connections = sum(child.connections for child in self._children.values())
        return (
            f"{ready} of {len(self._names())} processes ready, {connections} connections, "
            f"configuration {self._generation}"
        )

    def _feed_watchdog(self, now: float) -> None:
        interval = self._notifier.watchdog_interval
        if not self._notifier.enabled or now < self._next_watchdog:
            return
        self._next_watchdog = now + (interval / 4 if interval else TICK)
        status = self._status()
        if self._was_ready and status != self._status_told:
            self._status_told = status
            self._notifier.status(status)
        if interval and self._healthy(now):
            self._notifier.watchdog()

    def _healthy(self, now: float) -> bool:
        """Whether all who should live do, and beat, and have no callback beyond its deadline."""
        return self._all_ready and all(
            now - child.beat < HEARTBEAT_FRESH and not child.problem
            for child in self._children.values()
        )

    # ------------------------------------------------------------ reload

    def _go_on_reloading(self, now: float) -> None:
        if self._reload is None:
            # Only where everybody can answer: who is being replaced starts with what we have.
            if self._reload_wanted and self._all_ready:
                self._reload_wanted = False
                self._begin_reload(now)
            return
        if now < self._reload.deadline:
            return
        # Who does not take it is stuck. Workers that are killed now begin with the new one.
        late = self._workers() if self._reload.engine_has_it else [self._children[ENGINE]]
        for child in late:
            if child.generation != self._reload.generation:
                self._kill(child, f"no word on configuration {self._reload.generation}")
        self._reload.deadline = now + RELOAD_TIMEOUT

    def _begin_reload(self, now: float) -> None:
        self._notifier.reloading()
        try:
            config = configuration.load(self._path)
        except ConfigError as error:
            _tell_mistakes("reload_mistake", error)
            self._end_reload(f"{len(error.mistakes)} mistakes in the configuration")
            return
        for warning in configuration.warnings(config):
            _log.warning("config_warning", text=warning)
        for key in self._config.changes_at_restart(config):
            _log.warning("needs_restart", key=key)
        config = _with_old(config, self._config, self._config.changes_at_restart(config))
        self._last_generation += 1
        self._reload = _Reload(config, self._last_generation, now + RELOAD_TIMEOUT)
        self._hand_over(ENGINE)

    def _hand_over(self, name: str) -> None:
        """Send the new configuration; a child that is not there begins with it."""
        if self._reload is not None and name in self._children:
            self._send(
                self._children[name],
                "config",
                generation=self._reload.generation,
                config=self._reload.config.model_dump(mode="json"),
            )

    def _acknowledged(self, child: Child, generation: int, error: str) -> None:
        reload = self._reload
        if reload is None or generation != reload.generation:
            return
        if error:
            self._end_reload(f"{child.name}: {error}")
            return
        child.generation = generation
        if not reload.engine_has_it:
            reload.engine_has_it = True
            # From here on it is the configuration: also for those who start meanwhile.
            self._config, self._generation = reload.config, generation
            take_log_settings(reload.config)
            for name in self._names()[1:]:
                self._hand_over(name)
        self._settle_reload()

    def _settle_reload(self) -> None:
        """The reload is done when everybody has the new configuration."""
        if self._reload is None or not self._reload.engine_has_it or not self._all_ready:
            return
        if all(child.generation == self._generation for child in self._children.values()):
            self._reload_ok, self._reloaded_at = 1.0, time.time()
            self._end_reload("")

    def _end_reload(self, error: str) -> None:
        self._reload = None
        if error:
            self._reload_ok = 0.0
            _log.error("reload_failed", error=error, generation=self._generation)
        else:
            _log.info("reloaded", generation=self._generation)
        self._tell_engine()
        status = f"reload failed: {error}; " if error else ""
        self._notifier.ready(status + self._status())

    # ------------------------------------------------------------ stop

    def _stop(self) -> None:
        """Drain: nothing new from now on, and what runs may finish."""
        self._stopping = True
        patience = self._config.milter.drain_timeout
        now = time.monotonic()
        self._stop_deadline = now + patience + STOP_TIMEOUT
        self._refuse_deadline = now + DRAIN_TIMEOUT
        self._notifier.stopping("waiting for open connections")
        self._notifier.extend_timeout(patience + STOP_TIMEOUT)
        self._unlink()
        for child in self._workers():
            self._send(child, "drain", seconds=patience)

    def _workers(self) -> list[Child]:
        return [child for child in self._children.values() if child.name != ENGINE]

    def _go_on_stopping(self, now: float) -> None:
        """The workers end by themselves; then the engine, which has their last counters."""
        workers = self._workers()
        engine = self._children.get(ENGINE)
        late = not all(child.draining for child in workers) and now < self._refuse_deadline
        if not late and not self._refusing:
            self._refusing = True
            adapter.refuse_connections()
        if not workers and engine is not None and not engine.draining:
            engine.draining = True
            self._send(engine, "stop")
        if not self._children:
            _log.info("stopped")
            self._exit = EXIT_OK
        elif now > self._stop_deadline:
            _log.warning("stop_takes_too_long", children=", ".join(self._children))
            self._exit = EXIT_FAILURE

    def _unlink(self) -> None:
        where = parse_milter_socket(self._config.milter.socket)
        if where.family == "unix":
            with contextlib.suppress(OSError):
                os.unlink(where.path)

    def _end(self) -> None:
        """Whatever brought us here: nobody of ours lives on, nothing of ours stays."""
        adapter.refuse_connections()
        if not self._stopping:
            self._unlink()
            self._notifier.stopping("the service ends")
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        for child in self._children.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        with contextlib.suppress(OSError):
            os.unlink(self._config.engine.socket)
        signal.set_wakeup_fd(-1)
        self._selector.close()


def _with_old(new: Config, old: Config, keys: tuple[str, ...]) -> Config:
    """``new`` with the values that ``old`` has under the dotted ``keys``."""
    sections: dict[str, dict[str, Any]] = {}
    for dotted in keys:
        section, _, key = dotted.partition(".")
        sections.setdefault(section, {})[key] = getattr(getattr(old, section), key)
    return new.model_copy(
        update={
            section: getattr(new, section).model_copy(update=values)
            for section, values in sections.items()
        }
    )
