"""How much may be asked about for its answer to be kept: to the octet."""

from __future__ import annotations

import pytest

from requiretls_milter.forecast.memo import cached_if_small
from requiretls_milter.model import TlsaRecord


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
