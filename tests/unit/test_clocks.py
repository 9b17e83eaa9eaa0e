"""A life that ends on both clocks."""

from __future__ import annotations

import pytest

from requiretls_milter.clocks import SYSTEM_CLOCKS, Life


@pytest.mark.parametrize(
    ("wall", "monotonic", "left"),
    [
        (1000.0, 50.0, 60.0),
        (1059.0, 109.0, 1.0),
        (1060.0, 50.0, 0.0),  # the wall clock was set forward
        (1000.0, 110.0, 0.0),  # it was set back
        (0.0, 100.0, 10.0),
        (1050.0, 50.0, 10.0),  # the host was suspended
        (2000.0, 60.0, -940.0),
    ],
)
def test_r61_neither_clock_prolongs_a_life(wall: float, monotonic: float, left: float) -> None:
    life = Life.of(60.0, 1000.0, 50.0)
    assert life.left(wall, monotonic) == left
    assert life.is_over(wall, monotonic) == (left <= 0)


def test_the_clocks_of_the_host_go_on() -> None:
    before = SYSTEM_CLOCKS.wall(), SYSTEM_CLOCKS.monotonic()
    assert SYSTEM_CLOCKS.wall() >= before[0] - 1
    assert SYSTEM_CLOCKS.monotonic() >= before[1]
