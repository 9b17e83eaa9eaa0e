"""When trouble was seen last, by what it was seen of: a host, an address, a domain.

A forecast that rests on something that has failed since, or that has ceased to offer a feature,
must not be given out any more (:mod:`~requiretls_milter.engine.answers`). Whoever finds such
trouble notes it here. It is also noted if something was found again before its end: within its
life, too, a forecast is given out only if it rests on what is on the shelves now.

Many forecasts rest on the servers of a few providers, and one lookup in a thousand fails. So what
failed is forgotten as soon as each question that failed has found its answer again. What has ceased
to be offered is not.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Hashable, Iterable, Iterator

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.engine.records import worth_a_pause
from requiretls_milter.model import DnsOutcome, DomainEvidence, Feature, HopKind

MAX_OCTETS = 8 << 20
"""Octets of memory for subjects that were in trouble: some 10,000."""

MAX_FAILING = 64
"""Questions about one subject that fail at the same time and are remembered: with more of them
the trouble does not end."""

FAILING_PART = 4
"""The part of this memory (a fourth) that is for these questions: of what is forgotten the trouble
does not end."""

Subject = tuple[str, str]
"""What was asked (``mx``, ``probe`` ...) or lost, and of which name or address."""


class Troubles:
    """Remembers when each subject was in trouble last, and when it was found again.

    Args:
        clocks: only the monotonic clock counts.
        max_octets: of memory that they may take.
    """

    def __init__(self, clocks: Clocks = SYSTEM_CLOCKS, max_octets: int = MAX_OCTETS) -> None:
        self._monotonic = clocks.monotonic
        self._seen: BoundedMap[int, float] = BoundedMap(weigh=entry_octets)
        self._failing: BoundedMap[int, bytes] = BoundedMap(
            max_weight=max_octets // FAILING_PART, weigh=entry_octets
        )
        self._max_octets = max_octets - max_octets // FAILING_PART
        self._forgotten_until = float("-inf")
        self._renewed_until = float("-inf")

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, subject: Subject, question: Hashable = None) -> None:
        """Note that a subject is in trouble now.

        Args:
            subject: what is in trouble.
            question: which failed; None if nothing ends the trouble.
        """
        key = hash(subject)
        # One that is in trouble already, and not because of known questions, stays so.
        failing = set(_unpack(self._failing.pop(key) or b""))
        if question is not None and (failing or key not in self._seen):
            failing.add(hash(question))
            if len(failing) <= MAX_FAILING:
                self._failing.put(key, _packed(failing))
        self._put(key)

    def note_renewed(self, subject: Subject) -> None:
        """Note that a subject was found again now, before what was known of it had ended."""
        self._put(~hash(subject))

    def note_all_renewed(self) -> None:
        """Note that of any subject."""
        self._renewed_until = self._monotonic()

    def _put(self, key: int) -> None:
        """A subject's hash stands for trouble with it, the complement for its renewal."""
        self._seen.put(key, self._monotonic())
        while self._seen.weight > self._max_octets:
            forgotten, self._forgotten_until = self._seen.pop_oldest()
            self._failing.pop(forgotten)

    def end(self, subject: Subject, question: Hashable) -> None:
        """Note that a question has been answered; with the last that failed the trouble ends."""
        key = hash(subject)
        failing = self._failing.get(key)
        if failing is None:
            return
        left = [one for one in _unpack(failing) if one != hash(question)]
        if left:
            self._failing.put(key, _packed(left))
        else:
            self._failing.pop(key)
            self._seen.pop(key)

    def since(self, moment: float, packed: bytes, *, renewed: bool = False) -> bool:
        """Whether any of the subjects was in trouble at *moment* (monotonic), or later.

        If so many were that some are forgotten, each may have been.

        Args:
            moment: see above.
            packed: the subjects; see :func:`pack`.
            renewed: that one was found again counts, too.
        """
        if moment <= self._forgotten_until or (renewed and moment <= self._renewed_until):
            return True
        if not self._seen:
            return False
        get = self._seen.get
        for key in _unpack(packed):
            when = get(key)
            if when is not None and when >= moment:
                return True
            if renewed and (when := get(~key)) is not None and when >= moment:
                return True
        return False


def pack(subjects: Iterable[Subject]) -> bytes:
    """Subjects in the form in which an answer keeps them: 8 octets each.

    They are hashes: if two are the same, trouble with one counts for the other as well.
    """
    return _packed([hash(subject) for subject in subjects])


def _packed(hashes: Collection[int]) -> bytes:
    return struct.pack(f"{len(hashes)}q", *hashes)


def _unpack(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"{len(packed) // 8}q", packed)


def lost(feature: Feature, name: str) -> Subject:
    """The trouble of a host or domain that does not offer a feature any more."""
    return f"lost {feature}", name


def has_failures(evidence: DomainEvidence) -> bool:
    """Whether any of the evidence had failed, so that :func:`subjects` leaves it out."""
    if evidence.mx.outcome is DnsOutcome.ERROR or evidence.mta_sts.error:
        return True
    return any(
        host.addresses.outcome is DnsOutcome.ERROR
        or host.tlsa.outcome is DnsOutcome.ERROR
        or any(map(worth_a_pause, host.probes))
        for host in evidence.hosts
    )


def subjects(evidence: DomainEvidence) -> Iterator[Subject]:
    """What a forecast rests on: all of the evidence but what had failed already, each once."""
    nexthop = evidence.nexthop
    if evidence.mx.outcome is not DnsOutcome.ERROR:
        if nexthop.kind is HopKind.SRV:
            yield "srv", nexthop.srv_name
        else:
            yield "mx", nexthop.host
    if not evidence.mta_sts.error:
        yield "mta_sts", nexthop.host
    yield lost(Feature.MTA_STS, nexthop.host)
    for host in evidence.hosts:
        for feature in (Feature.TLSA, Feature.STARTTLS, Feature.REQUIRETLS):
            yield lost(feature, host.host)
        if host.addresses.outcome is not DnsOutcome.ERROR:
            yield "addresses", host.host
        if host.tlsa.outcome is not DnsOutcome.ERROR:
            yield "tlsa", host.host
        for probe in host.probes:
            if not worth_a_pause(probe):
                yield "probe", probe.address
