"""Starting and stopping the lab's servers, each below a keeper (``keeper.py``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab.errors import LabError
from tests.support.paths import REPOSITORY

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
        self.log = log
        self._grace = grace
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    _KEEPER,
                    str(os.getpid()),
                    str(root) if root else "",
                    str(grace),
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
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
        return self._keeper.poll() is None

    def hangup(self) -> None:
        """Make the server reread its configuration."""
        self._keeper.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it, and return when no process of it is left."""
        if self._keeper.poll() is None:
            self._keeper.terminate()
        try:
            self._keeper.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise LabError(f"{self.name} did not stop") from None

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
        """Wait for *ready*; a server that ends meanwhile is an error told with its last words."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running():
                raise LabError(f"{self.name} ended instead of being {what}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} not {what} after {timeout} s: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """The end of what it printed."""
        try:
            return self.log.read_text(errors="replace")[-2000:].strip()
        except OSError:
            return ""


def children(pid: int) -> dict[int, str]:
    """The living children of a process, and the names that ps(1) has for them."""
    found = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            name, _, rest = (path / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        state, parent = rest.split(" ", 2)[:2]
        if int(parent) == pid and state != "Z":
            found[int(path.name)] = name
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


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
