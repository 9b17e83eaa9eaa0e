"""Which servers Postfix may try: against every order that there can be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from requiretls_milter.forecast.reach import sharings, within_reach
from tests.support.shuffling import ever_tried

V4, V6 = frozenset({"ipv4"}), frozenset({"ipv6"})
EITHER = V4 | V6


@dataclass(frozen=True)
class Candidate:
    """A server, told from the others by its number."""

    number: int
    families: frozenset[str]


Groups = tuple[tuple[Candidate, ...], ...]


def numbered(*groups: tuple[frozenset[str], ...]) -> Groups:
    numbers = itertools.count(1)
    return tuple(tuple(Candidate(next(numbers), of) for of in group) for group in groups)


def group_lists(*families: frozenset[str]) -> st.SearchStrategy[Groups]:
    """Servers in groups of equal preference."""
    group = st.lists(st.sampled_from(families), min_size=1, max_size=3).map(tuple)
    return st.lists(group, min_size=1, max_size=3).map(lambda groups: numbered(*groups))


def flat(groups: Groups) -> set[Candidate]:
    return {server for group in groups for server in group}


@given(group_lists(V4, V6), st.integers(0, 7))
def test_within_reach_is_every_server_that_some_order_lets_be_tried(
    groups: Groups, limit: int
) -> None:
    reached = within_reach(groups, limit)
    assert flat(reached) == ever_tried(groups, limit)
    assert all(reached), "an empty group"


@settings(max_examples=300)
@given(group_lists(V4, V6, EITHER), st.integers(0, 6), st.data())
@example(numbered((EITHER,), (V4,), (V6,)), 2, None)
def test_within_reach_is_also_what_is_tried_whatever_stands_behind_the_unseen(
    groups: Groups, limit: int, data: st.DataObject | None
) -> None:
    """An unseen server stands for one or several, each of some family."""
    numbers = itertools.count(100)
    stand_in: dict[Candidate, Candidate] = {}
    real: list[tuple[Candidate, ...]] = []
    for group in groups:
        members: list[Candidate] = []
        room = 4 - len(group)  # more would have too many orders to go through
        for server in group:
            if server.families != EITHER:
                members.append(server)
                continue
            behind = st.lists(st.sampled_from((V4, V6)), min_size=1, max_size=1 + min(1, room))
            there = data.draw(behind) if data else [V6]
            room -= len(there) - 1
            for families in there:
                members.append(Candidate(next(numbers), families))
                stand_in[members[-1]] = server
        real.append(tuple(members))
    tried = {stand_in.get(server, server) for server in ever_tried(real, limit)}
    reached = within_reach(groups, limit)
    assert tried <= flat(reached)
    assert all(reached), "an empty group"


def test_the_shares_of_the_families_are_not_known_beside_an_unseen_server() -> None:
    groups = numbered((V4, V6), (EITHER,))
    assert sharings(groups, 2) is None
    assert sharings(groups, 5) is None, "it may stand for many"
    for limit in (0, 1):
        ways = sharings(groups, limit)
        assert ways is not None, "nothing is shared"
        assert [share.families for way in ways for share in way.shares] == [EITHER]
