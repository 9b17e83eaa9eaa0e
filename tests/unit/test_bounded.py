"""A map with a limit: what goes first, and that the weights add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.bounded import ALIGNMENT, PIECE, BoundedMap, in_pieces, octets
from requiretls_milter.model import DnsOutcome, MxRecord


def test_the_least_recently_used_entry_makes_room() -> None:
    kept: BoundedMap[str, int] = BoundedMap(2)
    assert [kept.put(key, 0) for key in "aba"] == [0, 0, 0]
    assert kept.put("c", 0) == 1
    assert list(kept) == ["a", "c"]
    kept.touch("a")
    kept.put("d", 0)
    assert list(kept) == ["a", "d"]


def test_reading_is_not_using() -> None:
    kept: BoundedMap[str, int] = BoundedMap(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert (kept.get("a"), kept.get("x")) == (1, None)
    assert ("a" in kept, "x" in kept) == (True, False)
    kept.put("c", 3)
    assert dict(kept.items()) == {"b": 2, "c": 3}


def test_a_lower_limit_takes_effect_with_the_next_entry() -> None:
    kept: BoundedMap[int, None] = BoundedMap()
    for number in range(10):
        kept.put(number, None)
    kept.limit = 3
    assert len(kept) == 10
    assert kept.put(10, None) == 8
    assert list(kept) == [8, 9, 10]


def test_entries_are_bounded_by_weight() -> None:
    kept: BoundedMap[str, bytes] = BoundedMap(max_weight=10, weigh=lambda _, value: len(value))
    kept.put("a", bytes(4))
    kept.put("b", bytes(4))
    assert kept.put("c", bytes(9)) == 2
    assert (list(kept), kept.weight) == (["c"], 9)
    assert kept.put("d", bytes(11)) == 2, "too heavy by itself"
    assert (len(kept), kept.weight) == (0, 0)


def test_what_is_not_there_cannot_be_used() -> None:
    kept: BoundedMap[str, int] = BoundedMap(2)
    assert kept.pop("a") is None
    with pytest.raises(KeyError):
        kept.touch("a")
    with pytest.raises(KeyError):
        kept.pop_oldest()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "pop", "oldest", "touch", "clear"]),
        st.integers(0, 9),
        st.integers(0, 50),
    )
)


@given(OPERATIONS)
def test_no_bound_is_ever_exceeded_and_the_weight_is_the_sum(
    operations: list[tuple[str, int, int]],
) -> None:
    kept: BoundedMap[int, int] = BoundedMap(4, max_weight=100, weigh=lambda key, value: key + value)
    for operation, key, value in operations:
        if operation == "put":
            kept.put(key, value)
        elif operation == "pop":
            kept.pop(key)
        elif operation == "oldest" and len(kept):
            kept.pop_oldest()
        elif operation == "touch" and key in kept:
            kept.touch(key)
            assert list(kept)[-1] == key
        elif operation == "clear":
            kept.clear()
        assert len(kept) <= 4
        assert kept.weight == sum(key + value for key, value in kept.items()) <= 100


def test_octets_are_those_of_a_value_and_of_all_that_it_holds() -> None:
    text = "x" * 1000
    assert 1000 < octets(text) < 1100
    assert octets(text) % ALIGNMENT == 0
    assert octets((text, text)) > 2 * octets(text)
    record = MxRecord(60_000, text)
    assert octets(record) > octets(text) + octets(60_000)
    assert octets(((record,), record)) > 2 * octets(record)


@pytest.mark.parametrize("value", [None, True, 0, 25, 256, DnsOutcome.FOUND])
def test_what_there_is_only_one_of_has_no_octets(value: object) -> None:
    assert octets(value) == 0


@pytest.mark.parametrize("value", [-1, 257, 1.0, "", b""])
def test_any_other_value_has_some(value: object) -> None:
    assert octets(value) > 0


def test_what_is_forgotten_in_pieces_is_gone_at_once_and_what_comes_meanwhile_stays() -> None:
    kept: BoundedMap[int, str] = BoundedMap(weigh=lambda _key, value: len(value))
    for number in range(2 * PIECE + 1):
        kept.put(number, "x")
    pieces = kept.clear_in_pieces()
    assert (len(kept), kept.weight, kept.get(1)) == (0, 0, None)
    kept.put(1, "new")
    assert sum(1 for _ in pieces) >= 3
    assert (list(kept.items()), kept.weight) == ([(1, "new")], 3)


def test_pieces_hold_each_item_once_and_in_order() -> None:
    pieces = list(in_pieces(range(2 * PIECE + 1)))
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, 1]
    assert [one for piece in pieces for one in piece] == list(range(2 * PIECE + 1))
    assert list(in_pieces(())) == []
