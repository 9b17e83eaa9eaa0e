"""What is kept of certificates and records, so that a hop is judged in microseconds."""

from __future__ import annotations

import threading

import pytest

from requiretls_milter.bounded import entry_octets
from requiretls_milter.forecast.memo import MAX_CACHED_OCTETS, cached_if_small
from requiretls_milter.model import TlsaRecord
from tests.support.memory import measured

MUCH = 1 << 20


def test_a_result_is_kept_but_none_about_much_data() -> None:
    """It is kept with its arguments, which servers and zones write."""
    calls = []

    @cached_if_small(MUCH)
    def length(chain: tuple[bytes, ...], records: tuple[TlsaRecord, ...]) -> int:
        calls.append(len(chain))
        return len(chain) + len(records)

    usual = (bytes(MAX_CACHED_OCTETS - 1), b"x")
    for _ in range(2):
        assert length(usual, ()) == 2
    assert calls == [2]
    large = TlsaRecord(3, 0, 0, b"xx")
    for _ in range(2):
        assert length(usual[:1], (large,)) == 2
    assert calls == [2, 1, 1]


@pytest.mark.parametrize(
    ("octets", "computed"), [(0, 1), (16_383, 1), (16_384, 1), (16_385, 2), (100_000, 2)]
)
def test_an_answer_about_16384_octets_is_kept_and_none_about_more(
    octets: int, computed: int
) -> None:
    """Of chains, certificates and records alike; names and numbers beside them do not count."""

    def times(*arguments: object) -> int:
        calls: list[object] = []

        @cached_if_small(MUCH)
        def answer(*given: object) -> int:
            calls.append(given)
            return len(given)

        assert answer(*arguments) == answer(*arguments) == len(arguments)
        return len(calls)

    half = octets // 2
    records = (TlsaRecord(3, 0, 0, bytes(half)), TlsaRecord(3, 0, 0, bytes(octets - half)))
    assert times(bytes(octets)) == computed
    assert times((bytes(half), bytes(octets - half)), ("name",), 7, None) == computed
    assert times(records) == computed


def test_so_many_answers_are_kept_and_then_the_oldest_makes_room() -> None:
    calls: list[object] = []

    @cached_if_small(2 * entry_octets(("a",), ("a",)))
    def answer(question: str) -> str:
        calls.append(question)
        return question

    for question in "abab":
        assert answer(question) == question
    assert calls == ["a", "b"]
    for question in "cbca":
        assert answer(question) == question
    assert calls == ["a", "b", "c", "a"]


def test_that_there_is_no_objection_is_an_answer_too() -> None:
    calls: list[str] = []

    @cached_if_small(MUCH)
    def objection(name: str) -> str | None:
        calls.append(name)
        return None

    assert objection("a") is objection("a") is None
    assert calls == ["a"]


def test_what_is_kept_takes_no_more_memory_than_is_promised() -> None:
    """Arguments and results with all that they hold."""

    @cached_if_small(MUCH)
    def names(chain: tuple[bytes, ...], number: int) -> tuple[str, ...]:
        return tuple(f"{number}-{part}.example" for part in range(30))

    with measured() as taken:
        for number in range(1_000, 2_000):
            names((bytes(4_000), bytes(number)), number)
        kept = taken()
    assert 0.5 * MUCH < kept <= MUCH


def test_several_threads_may_ask_at_once() -> None:
    @cached_if_small(4 * entry_octets((1_000,), (2_000,)))
    def double(number: int) -> int:
        return 2 * number

    wrong: list[int] = []

    def ask() -> None:
        wrong.extend(n for _ in range(200) for n in range(1_000, 1_020) if double(n) != 2 * n)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
