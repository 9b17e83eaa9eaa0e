"""The children of one service, those that live now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from requiretls_milter.ipc.child import ENGINE, worker_name
from requiretls_milter.service.spawn import Child


class Children:
    """The engine and the workers, by name.

    Args:
        workers: how many workers the service has; fixed until it is restarted.
    """

    def __init__(self, workers: int) -> None:
        self.all_workers = workers
        """How many workers a whole service has."""
        self.names = (ENGINE, *map(worker_name, range(1, workers + 1)))
        """All that a whole service has."""
        self._living: dict[str, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        """Those that live, in a copy: the caller may remove some."""
        return iter(list(self._living.values()))

    def __bool__(self) -> bool:
        """Whether any lives."""
        return bool(self._living)

    def add(self, child: Child) -> None:
        """Note a child that was started."""
        self._living[child.name] = child

    def remove(self, child: Child) -> None:
        """Forget a child that has ended."""
        del self._living[child.name]

    @property
    def engine(self) -> Child | None:
        """The engine, unless it is being replaced."""
        return self._living.get(ENGINE)

    @property
    def workers(self) -> list[Child]:
        """The workers that live."""
        return [child for child in self if child.name != ENGINE]

    @property
    def all_ready(self) -> bool:
        """Whether the service is whole: every child lives and serves."""
        return all(name in self._living and self._living[name].ready for name in self.names)

    def is_healthy(self, now: float, *, whole: bool = True) -> bool:
        """Whether no child is silent or stuck.

        Args:
            now: on the monotonic clock.
            whole: whether every child has to be there and ready.
        """
        if whole and not self.all_ready:
            return False
        return all(child.is_healthy(now) for child in self)

    def missing(self, now: float) -> list[str]:
        """The names of those that are not there, not ready, or silent or stuck."""
        return [
            name
            for name in self.names
            if (child := self._living.get(name)) is None
            or not child.ready
            or not child.is_healthy(now)
        ]

    def gauges(self) -> Mapping[str, float]:
        """How many workers serve, and what their last heartbeats add up to."""
        return {
            "workers_ready": float(sum(worker.ready for worker in self.workers)),
            "milter_connections": float(sum(worker.connections for worker in self.workers)),
            "milter_threads": float(sum(worker.threads for worker in self.workers)),
        }

    def shown(self) -> list[Mapping[str, Any]]:
        """All that a whole service has, for ``status``; see ``wire.ProcessStatus``."""
        return [
            {"name": name}
            if (child := self._living.get(name)) is None
            else {
                "name": name,
                "pid": child.pid,
                "ready": child.ready,
                "since": child.since,
                "connections": child.connections,
            }
            for name in self.names
        ]

    def summary(self) -> str:
        """A line for people: how many are ready, and how many connections they have."""
        ready = sum(child.ready for child in self)
        connections = sum(child.connections for child in self)
        return f"{ready} of {len(self.names)} processes ready, {connections} connections"
