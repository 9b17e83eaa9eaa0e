"""Threads that stand still are told from those that work or wait for the interpreter's lock.

Each test runs in a process of its own, which has no thread but those of the test.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context

from requiretls_milter.milter.threads import Threads
from tests.support.waiting import eventually

ROUNDS = 20_000
"""More than a thread does before it has to give up the lock: it is asked to after 5 ms."""


def alone(scenario: Callable[[], None]) -> None:
    """Run *scenario* in a new process; what it asserts, the test asserts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(scenario).result()


@contextmanager
def waiting_for_octets() -> Iterator[None]:
    """A thread that reads what does not come."""
    read, write = os.pipe()
    thread = threading.Thread(target=os.read, args=(read, 1))
    thread.start()
    yield
    os.close(write)
    thread.join()
    os.close(read)


class Busy:
    """A thread that works, as far as it gets the lock."""

    def __init__(self) -> None:
        self.rounds = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._ended.is_set():
            sum(range(100))
            self.rounds += 1

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_a_thread_that_waits_for_octets_stands_still_and_one_that_works_does_not() -> None:
    alone(_ten_wait_and_five_work)


def _ten_wait_and_five_work() -> None:
    threads = Threads()
    threads.look()
    assert threads.still == 0, "there was no look before"
    before = threads.count
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(waiting_for_octets())

        def ten_are_still() -> bool:
            threads.look()
            return threads.still == 10

        eventually(ten_are_still, "those that wait for octets stand still, and this one does not")
        assert threads.count == before + 10
        busy = [stack.enter_context(Busy()) for _ in range(5)]
        threads.look()
        begun = [one.rounds for one in busy]
        eventually(
            lambda: all(
                one.rounds > rounds + ROUNDS for one, rounds in zip(busy, begun, strict=True)
            ),
            "each has had the lock several times",
        )
        threads.look()
        assert threads.count == before + 15
        assert threads.still == 10


def test_without_a_descriptor_the_last_look_holds() -> None:
    alone(_no_descriptor_is_left)


def _no_descriptor_is_left() -> None:
    threads = Threads()
    threads.look()
    before = threads.count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        threads.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert threads.count == before > 0
