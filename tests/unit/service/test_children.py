"""The children of a service, taken together."""

from __future__ import annotations

import time
from collections.abc import Callable

from requiretls_milter.service.spawn import HEARTBEAT_FRESH
from tests.unit.service.conftest import Family

Make = Callable[..., Family]


def test_a_service_is_whole_when_all_are_ready(family: Make) -> None:
    one = family(workers=2)
    seen = [(one.children.all_ready, one.children.summary())]
    one.children.remove(one["worker-2"])
    seen.append((one.children.all_ready, one.children.summary()))
    one.add("worker-2", ready=False)
    seen.append((one.children.all_ready, one.children.summary()))
    assert seen == [
        (True, "3 of 3 processes ready, 0 connections"),
        (False, "2 of 3 processes ready, 0 connections"),
        (False, "2 of 3 processes ready, 0 connections"),
    ]


def test_connections_and_threads_are_those_of_all_workers(family: Make) -> None:
    one = family(workers=2)
    for number, name in enumerate(("engine", "worker-1", "worker-2")):
        heartbeat = {"well": True, "problem": "", "connections": number, "threads": 10 + number}
        one[name].note_heartbeat(heartbeat)
    assert one.children.gauges() == {
        "workers_ready": 2.0,
        "milter_connections": 3.0,
        "milter_threads": 23.0,
    }


def test_a_worker_that_is_not_ready_or_not_there_is_none(family: Make) -> None:
    one = family(workers=2)
    one.children.remove(one["worker-2"])
    assert one.children.gauges()["workers_ready"] == 1.0
    one.add("worker-2", ready=False)
    assert one.children.gauges()["workers_ready"] == 1.0


def test_engine_and_workers_are_told_apart(family: Make) -> None:
    one = family(workers=2)
    assert one.children.names == ("engine", "worker-1", "worker-2")
    assert [child.name for child in one.children.workers] == ["worker-1", "worker-2"]
    assert one.children.engine is one["engine"]
    one.children.remove(one["engine"])
    assert one.children.engine is None


def test_a_service_is_healthy_while_it_is_whole_and_every_child_is(family: Make) -> None:
    one = family(workers=2)
    now = time.monotonic()
    assert one.children.is_healthy(now)
    assert not one.children.is_healthy(now + HEARTBEAT_FRESH + 1)
    one["engine"].ready = False
    assert not one.children.is_healthy(now)
    assert one.children.is_healthy(now, whole=False)
    assert not one.children.is_healthy(now + HEARTBEAT_FRESH + 1, whole=False)


def test_children_may_be_removed_while_they_are_gone_through(family: Make) -> None:
    one = family(workers=2)
    for child in one.children:
        one.children.remove(child)
    assert not one.children
