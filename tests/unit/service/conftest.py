"""Children that are no processes: the test holds the other end of their control line."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from requiretls_milter.ipc import control
from requiretls_milter.ipc.control import Channel
from requiretls_milter.service.children import Children
from requiretls_milter.service.spawn import Child


class Family:
    """A service's children, and the ends of the lines that their processes would hold."""

    def __init__(self, workers: int = 2) -> None:
        self.selector = selectors.DefaultSelector()
        self.children = Children(workers)
        self.ends: dict[str, Channel] = {}
        self._made: list[Child] = []
        self._sockets: list[socket.socket] = []
        for name in self.children.names:
            self.add(name)

    def add(self, name: str, generation: int = 1, *, ready: bool = True) -> Child:
        ours, theirs = control.pair()
        self._sockets.append(theirs)
        self.ends[name] = Channel(theirs)
        child = Child(name, 2**22 + len(self._sockets), ours, generation, self.selector)
        child.ready = ready
        self._made.append(child)
        self.children.add(child)
        return child

    def __getitem__(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)

    def told(self, name: str) -> list[Mapping[str, Any]]:
        """What the supervisor has sent to a child since the last call."""
        return self.ends[name].receive()

    def close(self) -> None:
        for child in self._made:
            child.disconnect()
        for end in self._sockets:
            end.close()
        self.selector.close()


@pytest.fixture
def family() -> Iterator[Callable[..., Family]]:
    with ExitStack() as stack:

        def make(workers: int = 2) -> Family:
            one = Family(workers)
            stack.callback(one.close)
            return one

        yield make
