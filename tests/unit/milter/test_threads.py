"""Threads that stand still are told from those that work or wait for the interpreter's lock."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from requiretls_milter.milter.threads import Threads
from tests.support.waiting import eventually


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


@contextmanager
def busy() -> Iterator[None]:
    """A thread that works, as far as it gets the lock."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_thread_that_waits_for_octets_stands_still_and_one_that_works_does_not() -> None:
    threads = Threads()
    threads.look()
    assert threads.still == 0, "there was no look before"
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(waiting_for_octets())
        before = threads.count

        def all_still() -> bool:
            """Whether ours are, and whatever threads other tests have left do nothing new."""
            earlier = threads.still
            time.sleep(0.3)
            threads.look()
            ours = threads.count == before + 10 and threads.still >= 10
            return ours and threads.still == earlier

        eventually(all_still)
        still = threads.still
        for _ in range(5):
            stack.enter_context(busy())
        threads.look()
        time.sleep(0.3)
        threads.look()
        assert threads.count == before + 15
        assert threads.still <= still


def test_without_a_descriptor_the_last_look_holds() -> None:
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
