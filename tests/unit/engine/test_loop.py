"""How long the loop's turns take."""

from __future__ import annotations

import asyncio
import time

import pytest

from requiretls_milter.engine.loop import WINDOW, TimedSelector
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
