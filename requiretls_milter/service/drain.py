"""Drain: the way of a service from SIGTERM to its end.

1. The path of the milter's socket goes, so that no client finds it any more.
2. Every worker stops to accept, and says so. Only then, or after
   :data:`DRAIN_TIMEOUT`, is the socket shut down for all processes: earlier, a
   connection that a worker was about to accept would be cut.
3. The workers end when their connections have, or after ``milter.drain_timeout``.
4. The engine ends last: until then it answers the workers' questions, and takes
   their last counters.
"""

from __future__ import annotations

from requiretls_milter.ipc.child import EXIT_FAILURE, EXIT_OK
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.children import Children
from requiretls_milter.telemetry import log

DRAIN_TIMEOUT = 2.0
"""Seconds for all workers to stop accepting; after that, waiting clients are refused anyway."""

STOP_TIMEOUT = 10.0
"""Seconds beyond ``milter.drain_timeout`` for all children to end."""

_log = log.get_logger("supervisor")


class Drain:
    """A drain that has begun.

    Args:
        patience: ``milter.drain_timeout``.
        children: to be ended.
        listener: the milter's socket.
        now: on the monotonic clock.
        status: the exit status of a service that has ended in order.
    """

    def __init__(
        self,
        patience: float,
        children: Children,
        listener: Listener,
        now: float,
        status: int = EXIT_OK,
    ) -> None:
        self._status = status
        self.longest = patience + STOP_TIMEOUT
        """Seconds from the beginning to the end, at most."""
        self._children = children
        self._listener = listener
        self._deadline = now + self.longest
        self._refuse_at = now + DRAIN_TIMEOUT
        self._refusing = False
        for worker in children.workers:
            worker.send("drain", seconds=patience)

    def step(self, now: float) -> int | None:
        """Take the next step if its time has come.

        Returns:
            The exit status of the service if it has ended or its time is over.
        """
        workers = self._children.workers
        accepting = not all(worker.draining for worker in workers)
        if not self._refusing and (not accepting or now >= self._refuse_at):
            self._refusing = True
            self._listener.refuse_connections()
        engine = self._children.engine
        if not workers and engine is not None and not engine.draining:
            engine.draining = True
            engine.send("stop")
        if not self._children:
            _log.info("stopped")
            return self._status
        if now > self._deadline:
            names = ", ".join(child.name for child in self._children)
            _log.warning("stop_takes_too_long", children=names)
            return EXIT_FAILURE
        return None
