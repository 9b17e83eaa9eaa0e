"""What the metrics server answers, and how a thread makes it beside the loop."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

SWITCH_INTERVAL = 0.0005
"""Seconds after which the rendering lets another thread run: Python's default is ten times that,
and a turn of the loop has to wait several times."""

_USUAL_INTERVAL = sys.getswitchinterval()


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered answer.

    Attributes:
        body: the text.
        media_type: its media type.
        is_whole: whether it has all series of configured domains.
        status: of HTTP.
        headers: further fields of the header.
    """

    body: bytes
    media_type: str
    is_whole: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Rendering = Callable[[], Page]
"""Renders a page from values that were copied on the loop: in a thread, once."""


@contextmanager
def beside_the_loop() -> Iterator[None]:
    """Let the loop's thread run while this one makes tens of thousands of objects.

    They would start a collection of all garbage, in which no thread runs for tens of milliseconds;
    there are no cycles among them. And a thread that wants to run has to wait for a tenth of
    the usual time.
    """
    collects = gc.isenabled()
    gc.disable()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_INTERVAL)
        if collects:
            gc.enable()
