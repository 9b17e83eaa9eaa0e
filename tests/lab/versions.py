"""The versions that the lab runs, and what to do when Debian has moved on to others.

A difference between a recording and another version of Postfix need not be a fault of ours: it is
listed, and the test is an expected failure that says so. docs/development.md tells what to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from tests.lab import roots

SEEN = {
    "postfix-3.11": "3.11.7",
    "postfix-3.10": "3.10.13",
    "postfix-3.7": "3.7.11",
    "sendmail-8.18": "8.18.1",
    "sendmail-8.17": "8.17.1.9",
}
"""The upstream versions with which all tests of the lab were seen to pass, by root."""

_UPSTREAM = re.compile(r"(?:\d+(?:%3a|:))?(?P<upstream>[0-9][0-9.]*[0-9])")


def running(root: str) -> str:
    """The upstream version of the MTA in the root of that name.

    Raises:
        LabUnavailable: the root was not made.
    """
    recipe = next(recipe for recipe in roots.ALL if recipe.name == root)
    return upstream(roots.installed(recipe))


def upstream(version: str) -> str:
    """The upstream part of a Debian version: 3.11.7 of ``3.11.7-1+b1``."""
    match = _UPSTREAM.match(version)
    return match["upstream"] if match is not None else version


def moved() -> list[str]:
    """A sentence for each root that was made, and whose version is not the one that was seen."""
    made = [root for root in SEEN if (roots.cache_home() / root).exists()]
    return [
        f"{root} is {now}; the tests were seen to pass with {SEEN[root]}"
        for root in made
        if (now := running(root)) != SEEN[root]
    ]


def none_differs(differences: Sequence[str], *, seen: str, now: str) -> None:
    """Fail if there are *differences*; list them if Postfix is another version than was seen."""
    if differences and now != seen:
        pytest.xfail(
            f"Postfix {now} does not all that {seen} did, which was recorded "
            "(docs/development.md, a new version of an MTA):\n" + "\n".join(differences)
        )
    assert not differences, "\n".join(differences)


def as_recorded(differences: Sequence[str]) -> None:
    """:func:`none_differs` for the lab's front MTA, whose deliveries are recorded."""
    none_differs(differences, seen=SEEN["postfix-3.11"], now=running("postfix-3.11"))
