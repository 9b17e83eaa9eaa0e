"""Wait for a condition, with a limit: the one place where a test polls.

``eventually(...)`` is for tests without an event loop, ``await until(...)`` for those with one.
A fixed sleep is right only where a test waits for nothing to happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 20.0
"""Seconds that anything may take on a busy machine before a test calls it broken."""

PAUSE = 0.02
"""Seconds between two looks at a condition that a process or a file decides."""

LOOP_PAUSE = 0.005
"""Seconds between two looks at a condition that the test's own event loop decides."""


class NotInTime(AssertionError):
    """What was waited for did not come about within its limit."""


def eventually(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", *, wait: float = PATIENCE
) -> Any:
    """The value of *condition*, as soon as it is true.

    Args:
        condition: What is looked at again and again; an exception of it is passed on.
        what: What is waited for, for the message; a function is called once the wait is over.
        wait: Seconds.

    Raises:
        NotInTime: It was not true within *wait* seconds.
    """
    deadline = time.monotonic() + wait
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise _not_in_time(what, wait)
        time.sleep(PAUSE)
    return value


async def until(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", *, wait: float = PATIENCE
) -> Any:
    """Do as `eventually` does, while the event loop goes on."""
    deadline = time.monotonic() + wait
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise _not_in_time(what, wait)
        await asyncio.sleep(LOOP_PAUSE)
    return value


def _not_in_time(what: str | Callable[[], str], wait: float) -> NotInTime:
    told = what if isinstance(what, str) else what()
    return NotInTime(f"not within {wait:g} s: {told or 'the condition'}")


def log_written() -> None:
    """Wait until a process that logs to a file has written its lines: they gather for 20 ms."""
    time.sleep(0.05)
