"""Signals are noted, in order, and none that matters is lost."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from requiretls_milter.service.signals import HANDLED, MAX_NOTED, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    noted = Signals()
    noted.install()
    yield noted
    noted.uninstall()
    noted.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def raised(number: int, times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)


def wakes(signals: Signals) -> bool:
    return bool(select.select([signals], [], [], 0)[0])


def test_signals_wake_the_loop_and_are_taken_once_in_their_order(signals: Signals) -> None:
    assert not wakes(signals)
    raised(signal.SIGHUP)
    raised(signal.SIGTERM)
    assert wakes(signals)
    assert signals.take() == [signal.SIGHUP, signal.SIGTERM]
    assert signals.take() == []
    assert not wakes(signals)


def test_a_storm_of_one_signal_is_a_few_notes_and_hides_no_other(signals: Signals) -> None:
    raised(signal.SIGHUP, 1000)  # a socket pair holds 278 bytes
    raised(signal.SIGTERM)
    assert signals.take() == [signal.SIGHUP] * MAX_NOTED + [signal.SIGTERM]


def test_a_second_interrupt_is_noted(signals: Signals) -> None:
    raised(signal.SIGINT, 3)
    assert signals.take() == [signal.SIGINT, signal.SIGINT]
