"""A milter process to talk to; see served.py."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.milterclient import MilterClient
from tests.support.milterlogs import with_what_is_empty
from tests.support.processes import Process, alive
from tests.support.waiting import eventually, log_written

POSTFIX_3_11 = {
    "j": "mta.example.net",
    "v": "Postfix 3.11.7",
    "i": "4XyZ1",
    "{daemon_name}": "smtpd",
}
POSTFIX_3_10 = {**POSTFIX_3_11, "v": "Postfix 3.10.2"}
SENDMAIL = {**POSTFIX_3_11, "v": "8.18.2"}


@dataclass
class MilterProcess:
    """A served milter: where it listens, what it counted, asked and logged."""

    directory: Path
    socket: str | tuple[str, int]
    process: Process

    def client(
        self,
        macros: Mapping[str, str] = POSTFIX_3_11,
        *,
        connect: bool = True,
        address: str = "127.0.0.1",
        **options: Any,
    ) -> MilterClient:
        client = MilterClient(self.socket, macros, **options)
        if connect:
            client.connect(address=address)
            client.helo()
        return client

    @property
    def log(self) -> list[str]:
        log_written()
        return (self.directory / "log").read_text().splitlines()

    def events(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event, as a mapping; the log is in JSON."""
        found = []
        for line in self.log:
            if line.startswith("{"):
                fields = json.loads(line)
                if fields["event"] == event:
                    found.append(with_what_is_empty(fields))
        return found

    def wait_for_event(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        eventually(lambda: len(self.events(event)) >= count)
        return self.events(event)

    @property
    def asked(self) -> list[str]:
        """Questions put to the source: next hop, transport, asked, carried."""
        path = self.directory / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 1)[1] for line in lines]

    def totals(self) -> dict[str, float]:
        """What was counted in all workers, as of now or later."""
        for _ in range(2):  # what is written first may have been counted before
            self._await_totals(time.time_ns())
        summed: dict[str, float] = {}
        for path in self.directory.glob("totals.*[0-9]"):
            for line in path.read_text().splitlines():
                name, value = line.rsplit(" ", 1)
                summed[name] = summed.get(name, 0.0) + float(value)
        return summed

    def _await_totals(self, moment: int) -> None:
        eventually(lambda: all(self._written_since(moment, pid) for pid in self.pids()))

    def _written_since(self, moment: int, pid: int) -> bool:
        """Whether a worker has written its totals anew, or is dead and never will."""
        path = self.directory / f"totals.{pid}"
        return path.stat().st_mtime_ns > moment or not alive(pid)

    def pids(self) -> list[int]:
        return [int(path.suffix[1:]) for path in self.directory.glob("ready.*")]

    def state(self) -> tuple[int, float]:
        """(transactions in progress, seconds of the longest callback) of the one worker."""
        (path,) = self.directory.glob("state.*")
        count, longest = path.read_text().split()
        return int(count), float(longest)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)
