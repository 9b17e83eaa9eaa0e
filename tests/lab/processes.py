"""Starting and stopping the lab's servers, each below a keeper (``keeper.py``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab.errors import LabError
from tests.support.paths import REPOSITORY
from tests.support.processes import Ended, Process, children
from tests.support.waiting import NotInTime

_KEEPER = str(Path(__file__).with_name("keeper.py"))


class Server:
    """One running server and all of its processes."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        root: Path | None = None,
        grace: float = 5.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start *command* (an absolute path first; seen from *root* if given).

        *log* takes what it prints; *grace* is how long it may take to stop.
        """
        self.name = name
        self._grace = grace
        self._keeper = Process(
            [
                sys.executable,
                "-I",
                _KEEPER,
                str(os.getpid()),
                str(root) if root else "",
                str(grace),
                *command,
            ],
            log,
            cwd=REPOSITORY,
            env=dict(environment) if environment is not None else None,
        )

    @property
    def pid(self) -> int:
        """The keeper's process number: the root of this server's process tree."""
        return self._keeper.pid

    @property
    def main_pid(self) -> int:
        """The process number of the server itself, which its keeper started first."""
        return min(children(self.pid))

    def running(self) -> bool:
        """Whether it still runs."""
        return self._keeper.running

    def hangup(self) -> None:
        """Make the server reread its configuration."""
        self._keeper.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it, and return when no process of it is left."""
        if self._keeper.running:
            self._keeper.terminate()
        try:
            self._keeper.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise LabError(f"{self.name} did not stop") from None

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
        """Wait for *ready*; a server that ends meanwhile is an error told with its last words."""
        try:
            self._keeper.wait_until(ready, what, timeout)
        except (Ended, NotInTime) as error:
            raise LabError(f"{self.name}: {error}") from None


def accepts(address: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def run(
    command: Sequence[str], *, root: Path | None = None, text: str = "", timeout: float = 30.0
) -> str:
    """Run a short command (in *root* if given) and return what it printed."""
    prefix = ["chroot", str(root)] if root else []
    done = subprocess.run(
        [*prefix, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise LabError(
            f"{command[0]}: exit {done.returncode}: {(done.stderr + done.stdout)[-500:]}"
        )
    return done.stdout
