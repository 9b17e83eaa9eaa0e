"""What is kept of certificates and records, so that a hop is judged in microseconds."""

from __future__ import annotations

import pytest

from requiretls_milter.forecast.memo import MAX_CACHED_OCTETS, cached_if_small
from requiretls_milter.model import TlsaRecord


def test_a_result_is_kept_but_none_about_much_data() -> None:
    """It is kept with its arguments, which servers and zones write."""
    calls = []

    @cached_if_small(2)
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
    for chain in ((b"1",), (b"2",), (b"3",), (b"1",)):
        length(chain, ())
    assert calls == [2, 1, 1, 1, 1, 1, 1], "the oldest made room"


@pytest.mark.parametrize(
    ("octets", "computed"), [(0, 1), (16_383, 1), (16_384, 1), (16_385, 2), (100_000, 2)]
)
def test_an_answer_about_16384_octets_is_kept_and_none_about_more(
    octets: int, computed: int
) -> None:
    """Of chains, certificates and records alike; names and numbers beside them do not count."""

    def times(*arguments: object) -> int:
        calls: list[object] = []

        @cached_if_small(10)
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

    @cached_if_small(2)
    def answer(question: str) -> str:
        calls.append(question)
        return question

    for question in "abab":
        assert answer(question) == question
    assert calls == ["a", "b"]
    for question in "cbca":
        assert answer(question) == question
    assert calls == ["a", "b", "c", "a"]
