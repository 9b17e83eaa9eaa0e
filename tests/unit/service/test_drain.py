"""The steps of a drain, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from requiretls_milter.ipc.child import EXIT_FAILURE, EXIT_OK
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.drain import DRAIN_TIMEOUT, STOP_TIMEOUT, Drain
from tests.unit.service.conftest import Family

Make = Callable[..., Family]


class Socket(Listener):
    """Notes when new connections are refused."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.refusals = 0

    def refuse_connections(self) -> None:
        self.refusals += 1


def test_workers_drain_first_and_the_engine_stops_last(family: Make) -> None:
    one, listener = family(workers=2), Socket()
    drain = Drain(5.0, one.children, listener, 100.0)
    for name in ("worker-1", "worker-2"):
        assert one.told(name) == [{"op": "drain", "seconds": 5.0}]
    assert drain.step(100.0) is None
    for name in ("worker-1", "worker-2"):
        one.children.remove(one[name])
    assert drain.step(101.0) is None
    assert drain.step(101.1) is None
    assert one.told("engine") == [{"op": "stop"}], "once"
    one.children.remove(one["engine"])
    assert drain.step(102.0) == EXIT_OK


def test_connections_are_refused_once_every_worker_has_stopped_accepting(family: Make) -> None:
    one, listener = family(workers=2), Socket()
    drain = Drain(5.0, one.children, listener, 100.0)
    one["worker-1"].draining = True
    drain.step(100.5)
    assert listener.refusals == 0, "worker-2 might be about to accept one"
    one["worker-2"].draining = True
    drain.step(100.6)
    drain.step(100.7)
    assert listener.refusals == 1


def test_a_worker_that_does_not_answer_holds_the_refusal_up_for_two_seconds(family: Make) -> None:
    one, listener = family(workers=1), Socket()
    drain = Drain(5.0, one.children, listener, 100.0)
    drain.step(100.0 + DRAIN_TIMEOUT - 0.1)
    assert listener.refusals == 0
    drain.step(100.0 + DRAIN_TIMEOUT)
    assert listener.refusals == 1


def test_a_drain_that_takes_too_long_is_a_failure(family: Make) -> None:
    one = family(workers=1)
    drain = Drain(5.0, one.children, Socket(), 100.0)
    assert drain.longest == 5.0 + STOP_TIMEOUT
    assert drain.step(100.0 + drain.longest) is None
    assert drain.step(100.0 + drain.longest + 0.1) == EXIT_FAILURE
