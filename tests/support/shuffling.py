"""Postfix's choice of servers once more, plainly: every order, and what is tried of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class OfFamilies(Protocol):
    @property
    def families(self) -> frozenset[str]: ...


Item = TypeVar("Item", bound=OfFamilies)


def orders(groups: Sequence[Sequence[Item]]) -> Iterator[tuple[Item, ...]]:
    """Every order in which Postfix may have the servers."""
    for shuffled in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain.from_iterable(shuffled))


def balanced(order: tuple[Item, ...], limit: int) -> tuple[Item, ...]:
    """Those of one order that are tried: smtp_balance_inet_proto() of Postfix, and the limit."""
    v4 = [one for one in order if one.families == {"ipv4"}]
    v6 = [one for one in order if one.families == {"ipv6"}]
    if not limit:
        return order
    if v4 and v6 and len(order) > limit:
        if len(v6) <= limit // 2:
            v4_target = limit - len(v6)
        elif len(v4) <= limit // 2:
            v4_target = len(v4)
        else:
            v4_target = (limit + (order[0].families == {"ipv4"})) // 2
        kept = v4[:v4_target] + v6[: limit - v4_target]
        order = tuple(one for one in order if one in kept)
    return order[:limit]


def ever_tried(groups: Sequence[Sequence[Item]], limit: int) -> set[Item]:
    """The servers that some order lets be tried."""
    return {one for order in orders(groups) for one in balanced(order, limit)}
