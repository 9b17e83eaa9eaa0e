"""The milter itself, as its own processes, beside the lab's MTA."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from requiretls_milter.config import Config
from requiretls_milter.config.text import render
from tests.lab.lab import Lab
from tests.lab.labconfig import settings
from tests.lab.processes import Server
from tests.lab.roots import GID_POSTFIX
from tests.support import addresses
from tests.support.milterlogs import with_what_is_empty
from tests.support.paths import REPOSITORY
from tests.support.processes import children
from tests.support.waiting import eventually, log_written

METRICS = f"{addresses.MILTER}:9894"


def _item(octets: bytes) -> dict[str, Any] | None:
    line = octets.decode(errors="replace")
    try:
        item = json.loads(line)
    except ValueError:
        return {"event": "not_json", "line": line}
    return item if isinstance(item, dict) else None


Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its labels."""


class Milter:
    """``requiretls-milter serve`` in a lab, attached to the front MTA.

    with Milter(lab, rules={"mode": "reject"}) as milter:
        accepted = lab.send("a-ok")
        print(milter.recipient(accepted.queue_id))
    """

    def __init__(
        self,
        lab: Lab,
        *,
        transport: Mapping[str, Any] | None = None,
        default_action: str = "tempfail",
        postfix: Mapping[str, str] | None = None,
        **sections: Any,
    ) -> None:
        """Plan a milter whose configuration has these *sections* besides the lab's own.

        *postfix* goes to the front MTA's main.cf with it, e.g. ``milter_command_timeout``.
        """
        self._lab = lab
        self._postfix = {"milter_default_action": default_action, **(postfix or {})}
        self._transport = transport
        self._sections = sections
        self.directory = lab.directory / f"milter{len(list(lab.directory.glob('milter*')))}"
        self.directory.mkdir()
        self.config_file = self.directory / "config.toml"
        self.log_file = self.directory / "log"
        self.socket_file = Path(lab.front.milter.outside) / f"{self.directory.name}.sock"
        self.config = self.configuration()
        self._reading = threading.Lock()
        self._position = 0
        self._items: list[dict[str, Any]] = []

    # Set by start().
    server: Server

    program: Sequence[str] = (sys.executable, "-m", "requiretls_milter")
    """What is started, up to the command."""

    def configuration(self, **sections: Any) -> Config:
        """The configuration, with *sections* on top."""
        merged: dict[str, Any] = {
            "milter": {
                "socket": f"unix:{self.socket_file}",
                "socket_group": str(GID_POSTFIX),
                "socket_mode": "0666",
            },
            "engine": {"socket": str(self.directory / "engine.sock")},
            "metrics": {"listen": METRICS},
            "log": {"format": "json", "level": "debug"},
            "store": {"url": "memory:"},
        }
        for layer in (self._sections, sections):
            for name, values in layer.items():
                merged[name] = {**merged.get(name, {}), **values}
        return settings(self._lab, self._transport, **merged)

    def write(self, **sections: Any) -> None:
        """Write the configuration file, with *sections* on top."""
        self.config = self.configuration(**sections)
        self.config_file.write_text(render(self.config))

    def __enter__(self) -> Milter:
        """Start it and make the MTA ask it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detach it and stop it."""
        self.stop()

    def start(self) -> None:
        """Start it and make the MTA ask it."""
        self.write()
        self.launch()
        inside = f"{self._lab.front.milter.inside}/{self.socket_file.name}"
        self._lab.attach_milter(f"unix:{inside}", **self._postfix)

    def launch(self) -> None:
        """Start its processes and wait until it answers."""
        self.server = Server(
            "milter",
            [*self.program, "serve", "--config", str(self.config_file)],
            log=self.log_file,
            environment={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            grace=20.0,
        )
        self.server.wait_until(self.answers, "a milter that answers")

    def stop(self) -> None:
        """Detach it from the MTA, then end it."""
        self._lab.attach_milter("")
        self.server.stop()

    def answers(self) -> bool:
        """Whether all of its processes are there and know each other, and metrics are served."""
        # Lines name their process at the level "debug" alone; each worker has one such line.
        lines = self.look("engine_found")
        found = len({item.get("process", number) for number, item in enumerate(lines)})
        serving = self.look("serving")
        if not serving or found < int(serving[0]["workers"]):
            return False
        try:
            return bool(self.metrics())
        except OSError:
            return False

    # -- its processes ---------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        """Its processes by name: ``supervisor``, ``engine``, ``worker-1``..."""
        supervisor = self.server.main_pid
        found = {
            name.removeprefix("rtls-"): pid
            for pid, name in children(supervisor).items()
            if name.startswith("rtls-")
        }
        return {"supervisor": supervisor, **found}

    def send_signal(self, number: signal.Signals, *names: str) -> list[int]:
        """Send a signal to processes of these names, ``workers`` for all of them."""
        pids = [
            pid
            for name, pid in self.pids().items()
            if name in names or ("workers" in names and name.startswith("worker-"))
        ]
        for pid in pids:
            os.kill(pid, number)
        return pids

    # -- what it says ----------------------------------------------------------------------

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines, or those of one event; a recipient's has all keys of the contract."""
        log_written()
        return self.look(name)

    def look(self, name: str | None = None) -> list[dict[str, Any]]:
        """Do as ``events`` does, without what is about to be written: for those who look again."""
        return [
            with_what_is_empty(item) for item in self._said() if name in (None, item.get("event"))
        ]

    def wait(
        self, name: str, count: int = 1, timeout: float = 10.0, **values: Any
    ) -> list[dict[str, Any]]:
        """Wait for *count* log lines of one event whose keys have these *values*."""

        def found() -> list[dict[str, Any]]:
            return [item for item in self.look(name) if values.items() <= item.items()]

        eventually(
            lambda: len(found()) >= count,
            lambda: f"{len(found())} of {count} {name} {values}, see {self.log_file}",
            wait=timeout,
        )
        return found()

    def forget(self) -> None:
        """Leave out of ``events`` what was logged until now."""
        log_written()
        self._said()
        self._items = []

    def _said(self) -> list[dict[str, Any]]:
        """All lines that are whole; each is parsed once, however often a test looks."""
        with self._reading, self.log_file.open("rb") as file:
            file.seek(self._position)
            lines = file.read().split(b"\n")
            self._position = file.tell() - len(lines.pop())
            self._items += filter(None, map(_item, lines))
            return self._items

    def recipients(self, queue_id: str, count: int = 1, timeout: float = 20.0) -> list[Any]:
        """Wait for the log lines of *count* recipients of a message."""
        return self.wait("recipient", count, timeout, queue_id=queue_id)

    def recipient(self, queue_id: str) -> dict[str, Any]:
        """The log line of a message's only recipient."""
        (line,) = self.recipients(queue_id)
        return dict(line)

    def metrics(self) -> dict[Sample, float]:
        """All samples, now."""
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as response:
            text = response.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def await_metric(
        self, name: str, at_least: float, timeout: float = 10.0, **labels: str
    ) -> None:
        """Wait until a metric's sum has come to a value: workers send theirs once a second."""
        eventually(
            lambda: self.metric(name, **labels) >= at_least,
            lambda: f"{name} is {self.metric(name, **labels):g}, not yet {at_least:g}",
            wait=timeout,
        )

    def await_gauge(self, name: str, value: float, timeout: float = 10.0, **labels: str) -> None:
        """Wait until a gauge is *value*."""
        eventually(
            lambda: self.metric(name, **labels) == value, f"{name} is {value:g}", wait=timeout
        )

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one metric whose labels include these."""
        full = f"requiretls_milter_{name}"
        return sum(
            value
            for (sample, found), value in self.metrics().items()
            if sample == full and labels.items() <= dict(found).items()
        )


class TcpMilter(Milter):
    """A milter that Postfixes know by their own configuration, of whatever root."""

    def start(self) -> None:
        """Start it; nothing is attached."""
        self.write()
        self.launch()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def reload(self, **sections: Any) -> None:
        """Take the configuration with *sections* on top."""
        before = len(self.events("reloaded"))
        self.write(**sections)
        self.send_signal(signal.SIGHUP, "supervisor")
        self.wait("reloaded", count=before + 1, timeout=20)
