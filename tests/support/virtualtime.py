"""An event loop whose time passes at once when nothing is left to do, and clocks that follow it.

What a day brings is then simulated in seconds, with all timeouts and timers as they are.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BEGIN = 1_800_000_000.0
"""The wall clock's time at the beginning: that of tests.support.build."""


class _Selector(selectors.SelectSelector):
    """Never waits: says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and for nothing that time brings")
        self.passed += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Threads do not go with it: what is given to one is done at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        done.set_result(func(*args))
        return done


class VirtualClocks:
    """Both clocks of a :class:`VirtualLoop`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def wall(self) -> float:
        return BEGIN + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()


def run(main: Callable[[VirtualClocks], Coroutine[Any, Any, T]]) -> T:
    """Run what *main* makes of the clocks, to its end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(VirtualClocks(loop)))
    finally:
        loop.close()
