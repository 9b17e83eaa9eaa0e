"""Reading Postfix's log: what became of each recipient."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import eventually

_DELIVERY = re.compile(
    r" (?P<service>\S+)\[\d+\]: (?P<queue_id>[0-9A-Za-z]+): to=<(?P<to>[^>]*)>, (?P<rest>.*)$"
)
_FIELD = re.compile(r"(?P<name>[a-z_]+)=(?P<value>\S*?)(?:, |$)")
_STATUS = re.compile(r"status=(?P<status>\S+)(?: \((?P<reason>.*)\))?$")


@dataclass(frozen=True)
class Delivery:
    """One delivery line: what was done for one recipient, once."""

    queue_id: str
    to: str
    status: str
    """``sent``, ``bounced``, ``deferred``, ``expired``..."""
    dsn: str
    reason: str
    tls: str | None
    """The ``tls=`` token; None where the line has none."""
    relay: str
    delay: float
    transport: str
    """The service of master.cf, e.g. ``dane-enforce``."""
    orig_to: str | None = None
    line: str = ""


def parse(line: str) -> Delivery | None:
    """Make a Delivery of a log line; None of any other line."""
    match = _DELIVERY.search(line)
    if match is None:
        return None
    rest = match["rest"]
    status = _STATUS.search(rest)
    if status is None:
        return None
    fields = {item["name"]: item["value"] for item in _FIELD.finditer(rest[: status.start()])}
    if "dsn" not in fields:
        return None
    # postfix/SERVICE/PROGRAM where syslog_name says so, else postfix/PROGRAM
    service = match["service"].split("/")
    orig_to = fields.get("orig_to")
    return Delivery(
        queue_id=match["queue_id"],
        to=match["to"],
        status=status["status"],
        dsn=fields["dsn"],
        reason=status["reason"] or "",
        tls=fields.get("tls"),
        relay=fields.get("relay", ""),
        delay=float(fields.get("delay", "0")),
        transport=service[1] if len(service) > 1 else service[0],
        orig_to=orig_to.strip("<>") if orig_to else None,
        line=line,
    )


class MailLog:
    """A log file that grows while it is read."""

    def __init__(self, path: Path) -> None:
        """*path* need not exist yet."""
        self.path = path
        self._reading = threading.Lock()
        self._position = 0
        self._rest = ""
        self._deliveries: dict[str, list[Delivery]] = {}
        self._removed: set[str] = set()
        self.lines: list[str] = []
        """All lines read so far."""

    def read(self) -> None:
        """Take in what was written since the last time; from any thread."""
        with self._reading:
            self._read()

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                file.seek(self._position)
                text = self._rest + file.read()
                self._position = file.tell()
        except FileNotFoundError:
            return
        *lines, self._rest = text.split("\n")
        self.lines += lines
        for line in lines:
            delivery = parse(line)
            if delivery is not None:
                self._deliveries.setdefault(delivery.queue_id, []).append(delivery)
            elif line.endswith(": removed"):
                self._removed.add(line.split(": ")[-2])

    def deliveries(self, queue_id: str) -> list[Delivery]:
        """The delivery lines of *queue_id* so far, in order."""
        self.read()
        return list(self._deliveries.get(queue_id, ()))

    def wait(self, queue_id: str, recipients: int = 1, timeout: float = 60.0) -> list[Delivery]:
        """Wait until *recipients* different recipients of *queue_id* have a delivery line."""

        def served() -> int:
            return len({(item.to, item.orig_to) for item in self.deliveries(queue_id)})

        def told() -> str:
            lines = "\n".join(self.grep(f"{queue_id}: ")) or "the log does not name it"
            return f"{queue_id}: {served()} of {recipients} deliveries\n{lines}"

        eventually(lambda: served() >= recipients, told, wait=timeout)
        return self.deliveries(queue_id)

    def removed(self, queue_id: str) -> bool:
        """Whether the queue has let go of *queue_id*."""
        self.read()
        return queue_id in self._removed

    def grep(self, pattern: str, start: int = 0) -> Iterator[str]:
        """The lines that *pattern* is found in, from the line with the number *start* on."""
        self.read()
        return (line for line in self.lines[start:] if re.search(pattern, line))
