"""Places at something that only so many may do at once; the others wait their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def nobody() -> None:
    """Whom it is told where nobody wants to know."""


class Slots(asyncio.Semaphore):
    """*limit* places; *full* is called whenever somebody finds none and has to wait."""

    def __init__(self, limit: int, full: Callable[[], None] = nobody) -> None:
        super().__init__(limit)
        self._full = full

    async def acquire(self) -> bool:  # type: ignore[override]  # typeshed: Literal[True]
        """Take a place, waiting for one where none is free."""
        if self.locked():
            self._full()
        return await super().acquire()
