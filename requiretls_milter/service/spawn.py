"""A child of the supervisor, from both sides of the fork."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from requiretls_milter.ipc.child import ENGINE, EXIT_FAILURE, EXIT_ORPHAN, Start
from requiretls_milter.ipc.control import Channel
from requiretls_milter.milter import adapter
from requiretls_milter.telemetry import log

MAX_COMM = 15
"""Characters of a process' name in ps(1): PR_SET_NAME of prctl(2)."""

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""

_log = log.get_logger("child")


@dataclass(slots=True)
class Child:
    """What the supervisor knows of a process, and what that has told it.

    ``generation`` is the configuration that it has acknowledged; times are of
    the monotonic clock.
    """

    name: str
    pid: int
    channel: Channel
    generation: int
    started: float = field(default_factory=time.monotonic)
    beat: float = field(default_factory=time.monotonic)
    well_since: float = field(default_factory=time.monotonic)
    problem: str = ""
    ready: bool = False
    connected: bool = True
    draining: bool = False
    connections: int = 0


class Closable(Protocol):
    """Something of the supervisor's that a child has no use for."""

    def close(self) -> object:
        """Close it."""
        ...


def live(
    start: Start,
    *,
    parent: int,
    to_close: Iterable[Closable],
    snapshot: Mapping[str, Any] | None,
) -> NoReturn:
    """The life of a child, from the fork to its end.

    Args:
        start: how it begins.
        parent: pid of the supervisor.
        to_close: what was inherited and is the supervisor's.
        snapshot: what the last engine had counted; for an engine.
    """
    status = EXIT_FAILURE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The supervisor decides when we end; a terminal's Ctrl-C reaches us all.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        log.set_process(start.name)
        for inherited in to_close:
            inherited.close()
        _die_with_parent(parent)
        _name_process(start.name)
        # Each imports what it needs: a worker must not know the network.
        if start.name == ENGINE:
            # What does not serve the MTA must not keep its socket.
            adapter.stop_accepting()
            from requiretls_milter.engine import process

            status = process.run(start, snapshot)
        else:
            from requiretls_milter.milter import process as worker

            status = worker.run(start)
    except BaseException as error:  # noqa: BLE001 - told; a child never goes on as its parent
        _log.exception("child_failed", error=repr(error))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill us when the supervisor dies, in case that we hang.

    A second line behind the control line's end, hence no error where it fails.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        _log.warning("no_parent_death_signal", error=os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:  # it died before
        os._exit(EXIT_ORPHAN)


def _name_process(name: str) -> None:
    """Show in ps(1) who is who."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"rtls-{name}"[:MAX_COMM])
