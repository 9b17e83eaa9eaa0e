"""A whole service in processes of its own, as an operator starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.milterclient import MilterClient
from tests.support.milterlogs import with_what_is_empty
from tests.support.processes import Process, alive, free_port
from tests.support.waiting import PATIENCE, eventually, log_written

MACROS = {"j": "mta.example.net", "v": "Postfix 3.11.7", "i": "4XyZ1", "{daemon_name}": "smtpd"}

WITH_LIMITS = """
import importlib, json, sys
from requiretls_milter import cli
for name, value in json.loads(sys.argv.pop(1)).items():
    module = importlib.import_module("requiretls_milter." + name.rpartition(".")[0])
    assert hasattr(module, name.rpartition(".")[2]), name
    setattr(module, name.rpartition(".")[2], value)
sys.argv[0] = "requiretls-milter"
sys.exit(cli.main())
"""
"""The same program with shorter limits: waiting for the real ones proves nothing more."""


class Manager:
    """systemd's side of sd_notify(3)."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._messages: list[str] = []

    @property
    def messages(self) -> list[str]:
        """All that was said so far, an assignment each."""
        while True:
            try:
                self._messages += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self._messages

    def close(self) -> None:
        self._socket.close()


class Service:
    """``python -m requiretls_milter serve`` with a configuration, and all its traces."""

    def __init__(
        self,
        config: str = "",
        *,
        environ: Mapping[str, str] | None = None,
        inet: bool = False,
        workers: int = 2,
        log_format: str = "json",
        limits: Mapping[str, float] | None = None,
        below: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "requiretls_milter"),
        stderr: int | None = None,
        tree: Path | None = None,
    ) -> None:
        """*below*: a command that runs the one that follows it, such as prlimit(1).

        *stderr*: a descriptor that becomes standard error, in place of the file that is read here.

        *program*: the command line's beginning, up to ``serve``.

        *workers*: 0 for the default of the program.

        *tree*: that of the package, if it is not the installed one.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="rtls-"))
        self.metrics_port = free_port()
        self.milter_port = free_port() if inet else 0
        self.socket_path = self.directory / "m.sock"
        self.engine_path = self.directory / "e.sock"
        self.config_path = self.directory / "config.toml"
        self.workers = workers
        self._log_format = log_format
        self._limits = limits or {}
        self._below = below
        self._program = program
        self._stderr = {} if stderr is None else {"stderr": stderr}
        self.manager = Manager(self.directory)
        self._environ = {
            **os.environ,
            "NOTIFY_SOCKET": self.manager.path,
            "PYTHONFAULTHANDLER": "1",
            **({} if tree is None else {"PYTHONPATH": str(tree)}),
            **(environ or {}),
        }
        self._tree = tree
        self.process: Process | None = None
        self.configure(config)

    # ------------------------------------------------------------ its life

    def configure(self, more: str = "", *, milter: str = "", workers: int | None = None) -> None:
        """Write the configuration file."""
        where = (
            f"inet:{self.milter_port}@127.0.0.1" if self.milter_port else f"unix:{self.socket_path}"
        )
        workers = self.workers if workers is None else workers
        self.config_path.write_text(f"""
[milter]
socket = "{where}"
{f"workers = {workers}" if workers else ""}
{milter}
[engine]
socket = "{self.engine_path}"
[metrics]
listen = "127.0.0.1:{self.metrics_port}"
[store]
url = "memory:"
[log]
format = "{self._log_format}"
{more}
""")

    def start(self, *, ready: bool = True, patience: float = PATIENCE) -> Service:
        program = self._program
        if self._limits:
            program = (sys.executable, "-c", WITH_LIMITS, json.dumps(self._limits))
        self.process = Process(
            [*self._below, *program, "serve", "--config", self.config_path],
            self.directory / "log",
            env=self._environ,
            cwd=self._tree,
            start_new_session=True,
            **self._stderr,
        )
        if ready:
            self.process.wait_until(lambda: "READY=1" in self.manager.messages, wait=patience)
        return self

    def poll(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def destroy(self) -> None:
        """End whatever is left of it; nothing of it may outlive the test."""
        if self.process is not None:
            left = self.family
            if self.poll() is None:
                self.send_signal(signal.SIGKILL)
                self.wait()
            eventually(lambda: not any(map(alive, left)), what="all children ended")
        self.manager.close()
        shutil.rmtree(self.directory)

    # ------------------------------------------------------------ its processes

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def children(self) -> dict[str, int]:
        """Pids by name: ``engine``, ``worker-1``, …"""
        found = {}
        for text in _read(f"/proc/{self.pid}/task/{self.pid}/children").split():
            name = _read(f"/proc/{text}/comm").strip()
            if name.startswith("rtls-") and alive(int(text)):
                found[name.removeprefix("rtls-")] = int(text)
        return found

    @property
    def family(self) -> list[int]:
        return list(self.children.values())

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid = self.children[name]
        os.kill(pid, number)
        return pid

    def replaced(self, name: str, pid: int) -> int:
        """Wait until another process bears the name and the service is whole; its pid."""

        def look() -> int:
            new = self.children.get(name, pid)
            told = [line for line in self.events("ready") if line.get("pid") == new]
            return new if new != pid and told else 0

        return int(eventually(look, what=f"{name} replaced"))

    # ------------------------------------------------------------ what it says

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the configuration of this service."""
        command = [sys.executable, "-m", "requiretls_milter", *arguments]
        command += ["--config", str(self.config_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    def report(self, *arguments: str) -> Any:
        """What the command ``report`` tells, as JSON."""
        command = [sys.executable, "-m", "requiretls_milter", "report", *arguments]
        command += ["--config", str(self.config_path), "--format", "json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    @property
    def log_text(self) -> str:
        log_written()
        return (self.directory / "log").read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log_text.splitlines() if line.startswith("{")]
        found = [fields for fields in map(json.loads, lines) if fields["event"] == event]
        return [with_what_is_empty(fields) for fields in found]

    def http(self, path: str = "/metrics") -> str:
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as reply:
            return str(reply.read().decode())

    def metric(self, series: str) -> float:
        """The value of a series, given without the prefix; NaN if it is not there."""
        try:
            text = self.http()
        except (OSError, urllib.error.URLError):
            return float("nan")
        pattern = rf"^requiretls_milter_{re.escape(series)} (\S+)$"
        found = re.search(pattern, text, re.MULTILINE)
        return float(found[1]) if found else float("nan")

    # ------------------------------------------------------------ the MTA

    @property
    def address(self) -> str | tuple[str, int]:
        return ("127.0.0.1", self.milter_port) if self.milter_port else str(self.socket_path)

    def client(self, macros: Mapping[str, str] = MACROS) -> MilterClient:
        client = MilterClient(self.address, macros)
        client.connect()
        client.helo()
        return client

    def send(
        self, recipient: str = "<bob@example.org>", *, requiretls: bool = True, count: int = 1
    ) -> list[str]:
        """Messages through the milter, over a connection each; the tags that it wrote."""
        tags = []
        for _ in range(count):
            with self.client() as client:
                outcome = client.message(
                    "<alice@example.net>",
                    [recipient],
                    parameters=["REQUIRETLS"] if requiretls else [],
                )
                assert outcome.end is not None
                assert outcome.end.passed
                tags += [edit.value for edit in outcome.edits]
        return tags

    @property
    def accepts(self) -> bool:
        """Whether a process accepts connections at the milter's address."""
        family = socket.AF_INET if self.milter_port else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(2)
            try:
                caller.connect(self.address)
            except OSError:
                return False
            return True


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
