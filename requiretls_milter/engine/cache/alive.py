"""Evidence that is alive, in the hands of gatherings that go on.

A shelf is bounded, but a gathering keeps what it has found until its last question is answered,
and hundreds go on at once. If each waits for one server that says nothing, what all the others
said stays in memory meanwhile: strangers choose how much that is. So each piece of evidence that
is given out is counted until it is freed. If half of what may be in hand is, only pieces of a usual
size are given out, so that the gatherings that fill the memory get none first; beyond the bound,
none are.
"""

from __future__ import annotations

import weakref
from collections import deque

from requiretls_milter.bounded import octets
from requiretls_milter.engine.cache.packing import Evidence

IN_HAND_OCTETS = 128 << 20
"""Octets of memory for evidence beside the shelves: 500 gatherings with 16
sessions each have 8 KiB for a session in half of it, and a usual chain takes 4 KiB."""

LARGE = 16_384
"""Octets of memory that a piece of evidence of a usual size takes at most."""

REFERENCE_OCTETS = 256
"""Octets of memory that counting a piece of evidence takes itself, at most."""


class _Reference(weakref.ref[Evidence]):
    __slots__ = ("octets",)
    octets: int


class LiveEvidence:
    """Counts evidence until it is freed; for use on one thread, while any may free it.

    Args:
        in_hand: octets of memory that evidence may take.
    """

    def __init__(self, in_hand: int) -> None:
        self._crowded = in_hand // 2
        self._full = in_hand
        self._octets = 0
        # By identity: references to equal pieces of evidence are equal.
        self._references: dict[int, _Reference] = {}
        self._freed: deque[int] = deque()

    @property
    def octets(self) -> int:
        """The octets of memory that all evidence takes that is alive."""
        while self._freed:
            self._octets -= self._references.pop(self._freed.popleft()).octets
        return self._octets

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more piece of a usual size."""
        return self.octets + LARGE > self._full

    def may_be_held(self, evidence: Evidence) -> bool:
        """Whether a caller may be given *evidence*, which is counted already."""
        taken = self.octets
        return taken < self._crowded or (taken < self._full and octets(evidence) <= LARGE)

    def add(self, evidence: Evidence) -> None:
        """Count *evidence* from now on; to be called once for each."""
        reference = _Reference(evidence, self._note_freed)
        reference.octets = octets(evidence) + REFERENCE_OCTETS
        self._references[id(reference)] = reference
        self._octets += reference.octets

    def _note_freed(self, reference: weakref.ref[Evidence]) -> None:
        # Called on whatever thread, in the midst of anything: it must do no more than that.
        self._freed.append(id(reference))
