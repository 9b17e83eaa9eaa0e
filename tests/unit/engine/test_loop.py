"""How long the loop's turns take."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time

import pytest

from requiretls_milter.engine.loop import AT_ONCE, WINDOW, TimedSelector
from tests.support.fakesource import Clocks


def test_the_longest_turn_is_told_and_no_wait_is_a_turn() -> None:
    selector = TimedSelector()

    async def work() -> None:
        await asyncio.sleep(0.3)
        time.sleep(0.05)  # noqa: ASYNC251 - this is what is measured
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(work())
    assert 0.05 <= selector.longest_turn < 0.3


@pytest.mark.parametrize(
    ("passed", "longest"), [(WINDOW - 3, 2.0), (WINDOW, 2.0), (2 * WINDOW + 3, 0.0)]
)
def test_what_was_long_ago_is_forgotten(passed: float, longest: float) -> None:
    clocks = Clocks()
    selector = TimedSelector(clocks)
    try:
        clocks.pass_(2)
        selector.select(0)
        clocks.pass_(passed)
        assert selector.longest_turn == longest
        clocks.pass_(2 * WINDOW + 1)
        assert selector.longest_turn == 0.0
    finally:
        selector.close()


def test_of_many_sockets_that_are_ready_some_are_served_in_each_turn_and_all_before_any_again() -> (
    None
):
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(contextlib.closing(TimedSelector()))
        pairs = [socket.socketpair() for _ in range(2 * AT_ONCE + 3)]
        for ours, theirs in pairs:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            theirs.send(b"x")
            selector.register(ours.fileno(), selectors.EVENT_READ)
        turns = [[key.fd for key, _ in selector.select(0)] for _ in range(3)]
        assert [len(turn) for turn in turns] == [AT_ONCE, AT_ONCE, 3]
        served = [fd for turn in turns for fd in turn]
        assert sorted(served) == sorted(ours.fileno() for ours, _ in pairs)
        assert len(selector.select(0)) == AT_ONCE


def test_a_socket_for_which_nothing_waits_any_more_is_not_served() -> None:
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(contextlib.closing(TimedSelector()))
        for _ in range(2 * AT_ONCE):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            theirs.send(b"x")
            selector.register(ours.fileno(), selectors.EVENT_READ)
        served = {key.fd for key, _ in selector.select(0)}
        for fd in [key.fd for key in selector.get_map().values()]:
            if fd not in served:
                selector.unregister(fd)
        assert selector.select(0) == []
        assert {key.fd for key, _ in selector.select(0)} == served
