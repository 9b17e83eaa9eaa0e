"""The figures of a report on readiness: shares, the answer, what stands in the way. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from requiretls_milter.model import Reason
from requiretls_milter.readiness.days import Day
from requiretls_milter.readiness.values import (
    HopReadiness,
    HopState,
    Policy,
    Readiness,
    Step,
)
from requiretls_milter.syntax.moments import day

Key = TypeVar("Key", bound=Hashable)

HALF = 2
"""If more than one part in so many is not known, there is no answer."""


class Answer(enum.StrEnum):
    """Whether REQUIRETLS can be switched on for all of this mail."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole."""

    part: int
    whole: int

    @property
    def percent(self) -> str:
        """In words; never more than there is, and 100 % only of all."""
        if not self.whole:
            return "not known"
        tenths = 1000 * self.part // self.whole
        if self.part and not tenths:
            return "less than 0.1 %"
        return f"{tenths // 10}.{tenths % 10} %" if tenths % 10 else f"{tenths // 10} %"

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1; None of nothing."""
        return self.part / self.whole if self.whole else None


@dataclass(frozen=True, slots=True)
class Count:
    """Next hops, and the recipients to which mail went there."""

    domains: int = 0
    mail: int = 0

    def plus(self, domains: int, mail: int) -> Count:
        """Add some."""
        return Count(self.domains + domains, self.mail + mail)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a report comes to.

    Attributes:
        total: all next hops and all mail, those of which nothing is known too.
        states: what would become of it; what was not assessed is unknown.
        reasons: why it is not ready, most mail first.
        levels, policies, versions: of what was assessed, most mail first; the next hops that are
            ready stand apart.
        just_below: those that lack one step, by the step.
    """

    total: Count
    states: Mapping[HopState, Count]
    reasons: Mapping[Reason, Count]
    levels: Mapping[str, tuple[Count, Count]]
    policies: Mapping[Policy, tuple[Count, Count]]
    versions: Mapping[str, tuple[Count, Count]]
    just_below: Mapping[Step, Count]

    @property
    def ready(self) -> Count:
        """What would be delivered with REQUIRETLS today."""
        return self.states.get(HopState.READY, Count())

    @property
    def mail(self) -> Share:
        """The share of mail that is ready; of nothing if it is not known how much there is."""
        return Share(self.ready.mail, self.total.mail)

    @property
    def domains(self) -> Share:
        """The share of next hops that are ready."""
        return Share(self.ready.domains, self.total.domains)

    @property
    def counts_mail(self) -> bool:
        """Whether it is known how much mail there is."""
        return self.total.mail > 0

    @property
    def one_step(self) -> Count:
        """The next hops that lack one step."""
        found = Count()
        for count in self.just_below.values():
            found = found.plus(count.domains, count.mail)
        return found

    @property
    def share(self) -> Share:
        """The one that answers: of mail if it is known, else of next hops."""
        return self.mail if self.counts_mail else self.domains

    @property
    def answer(self) -> Answer:
        """Whether REQUIRETLS can be switched on for all of it."""
        share = self.share
        unknown = self.states.get(HopState.UNKNOWN, Count())
        if HALF * (unknown.mail if self.counts_mail else unknown.domains) >= share.whole:
            return Answer.UNKNOWN
        if share.part == share.whole and self.ready.domains == self.total.domains:
            return Answer.YES
        return Answer.PARTLY if share.part else Answer.NO


def figures(report: Readiness) -> Figures:
    """Work out the figures."""
    found = report.destinations
    elsewhere = Count(report.left_out, report.left_out_mail)
    states = counted(found, lambda one: one.state)
    if elsewhere != Count():
        unknown = states.get(HopState.UNKNOWN, Count())
        states[HopState.UNKNOWN] = unknown.plus(elsewhere.domains, elsewhere.mail)
    not_ready = [one for one in found if one.state is not HopState.READY]
    below = [one for one in found if one.is_just_below]
    return Figures(
        total=elsewhere.plus(len(found), sum(one.mail for one in found)),
        states=states,
        reasons=counted(not_ready, lambda one: one.reason),
        levels=_apart(found, lambda one: one.level),
        policies=_apart(found, lambda one: one.policy),
        versions=_apart(found, lambda one: one.tls_version),
        just_below=counted(below, lambda one: (one.missing or (Step.OWN_SETTINGS,))[0]),
    )


def counted(found: Iterable[HopReadiness], key: Callable[[HopReadiness], Key]) -> dict[Key, Count]:
    """Count next hops by a key: most mail first, then most next hops."""
    counts: dict[Key, Count] = {}
    for one in found:
        counts[key(one)] = counts.get(key(one), Count()).plus(1, one.mail)
    order = sorted(counts.items(), key=lambda item: (-item[1].mail, -item[1].domains, str(item[0])))
    return dict(order)


def _apart(
    found: Iterable[HopReadiness], key: Callable[[HopReadiness], Key]
) -> dict[Key, tuple[Count, Count]]:
    """Count next hops by a key, those that are ready and the others apart."""
    known = list(found)
    ready = counted((one for one in known if one.state is HopState.READY), key)
    others = counted((one for one in known if one.state is not HopState.READY), key)
    return {
        value: (ready.get(value, Count()), others.get(value, Count()))
        for value in counted(known, key)
    }


def today(report: Readiness, found: Figures) -> Day:
    """The figures of this report as they are kept."""
    return Day(
        day=day(report.made_at),
        mail=found.total.mail,
        mail_ready=found.ready.mail,
        domains=found.total.domains,
        domains_ready=found.ready.domains,
    )


# ---------------------------------------------------------------- lists


def by_mail(found: Iterable[HopReadiness]) -> list[HopReadiness]:
    """Order next hops: most mail first, then by name."""
    return sorted(found, key=lambda one: (-one.mail, one.nexthop))


def not_ready(report: Readiness) -> list[HopReadiness]:
    """The next hops that are not ready, most mail first."""
    return by_mail(one for one in report.destinations if one.state is not HopState.READY)


def just_below(report: Readiness) -> list[HopReadiness]:
    """The next hops that lack one step, most mail first."""
    return by_mail(one for one in report.destinations if one.is_just_below)
