"""What the supervisor makes of what a child says, or does not say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from requiretls_milter.ipc.control import ControlClosed
from requiretls_milter.service.spawn import HEARTBEAT_FRESH, HEARTBEAT_LOST, START_TIMEOUT
from tests.unit.service.conftest import Family

Make = Callable[..., Family]

WELL: Mapping[str, Any] = {"well": True, "problem": "", "connections": 3, "threads": 12}
STUCK: Mapping[str, Any] = {**WELL, "well": False, "problem": "a callback takes 99 s"}


def test_messages_go_both_ways_over_the_control_line(family: Make) -> None:
    one = family()
    child = one["worker-1"]
    child.send("drain", seconds=5)
    assert one.told("worker-1") == [{"op": "drain", "seconds": 5}]
    one.ends["worker-1"].send("draining")
    assert child.receive() == [{"op": "draining"}]


def test_once_the_line_has_ended_nothing_is_sent_or_received_and_nothing_raises(
    family: Make,
) -> None:
    one = family()
    child = one["worker-1"]
    one.ends["worker-1"].send("ready")
    one.ends["worker-1"].close()
    assert child.receive() == [{"op": "ready"}], "what was sent before the end is heard"
    assert child.receive() == []
    child.send("stop")
    child.disconnect()
    assert child.receive() == []
    watched = [key.data for key in one.selector.get_map().values()]
    assert child not in watched


def test_a_heartbeat_tells_connections_and_health(family: Make) -> None:
    child = family()["worker-1"]
    now = time.monotonic()
    child.note_heartbeat(WELL)
    assert child.connections == 3
    assert child.is_healthy(now)
    child.note_heartbeat(STUCK)
    assert not child.is_healthy(time.monotonic())


def test_a_silent_child_is_not_healthy_and_after_a_while_killed(family: Make) -> None:
    child = family()["worker-1"]
    now = time.monotonic()
    assert child.is_healthy(now + HEARTBEAT_FRESH - 1)
    assert not child.is_healthy(now + HEARTBEAT_FRESH + 1)
    assert child.reason_to_kill(now + HEARTBEAT_LOST - 1) == ""
    assert "no heartbeat for 16 s" in child.reason_to_kill(now + HEARTBEAT_LOST + 1)


def test_a_child_that_beats_and_is_stuck_is_killed_for_its_problem(family: Make) -> None:
    one = family()
    child = one["worker-1"]
    start = time.monotonic()
    child.note_heartbeat(STUCK)
    assert child.reason_to_kill(start) == ""
    one.ends["worker-1"].send("heartbeat", **STUCK)
    child.receive()
    assert child.reason_to_kill(time.monotonic() + HEARTBEAT_LOST) in (
        STUCK["problem"],
        f"no heartbeat for {HEARTBEAT_LOST:.0f} s",
    )


def test_a_child_that_never_becomes_ready_is_killed(family: Make) -> None:
    one = family()
    child = one.add("worker-1", ready=False)
    now = time.monotonic()
    assert child.reason_to_kill(now + START_TIMEOUT - 1) == ""
    assert child.reason_to_kill(now + START_TIMEOUT + 1) == f"not ready within {START_TIMEOUT:g} s"


def test_the_line_s_end_is_how_a_child_learns_that_the_supervisor_is_gone(family: Make) -> None:
    one = family()
    one["engine"].close()
    with pytest.raises(ControlClosed):
        one.told("engine")
