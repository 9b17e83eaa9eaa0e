"""Forecasts that are kept: the answer to the next question, within their life and beyond it.

**Within its life** a forecast is as good as on the day on which it was made: nothing that it rests
on has come to its end. To find all of that on the shelves again, and to judge it again, would bring
the same, for twenty times the work. It is made anew nevertheless if any of it was found again since
(a refresh, for instance), has failed or is not offered any more; if some of it had failed when it
was made; during an outage of our own; and after each reload.

**Past its life** it may still be the answer to a message, while it is made anew. Nearly all domains
say tomorrow what they say today, and a message should not wait to be told so.
A forecast whose life is over is given out for at most ``engine.stale_for`` seconds more, while a
fresh one is made behind it, as resolvers do (RFC 8767). It must do no harm if it is wrong, so it is
not given out

- after the end of a proof on which it rests: a certificate, an MTA-STS policy;
- if a rule may act on it: where rules act, only a delivery that complies is given out, and only if
  the MTA itself carries what is asked, so that a server that has changed gets nothing;
- if anything on which it rests has failed since, or has ceased to offer a feature
  (:mod:`~requiretls_milter.engine.troubles`);
- after the configuration, the authorities or the resolver have changed: then another instance
  takes the place of this one.

A forecast that is used often is made anew at the end of its life, before mail asks for it. One that
mail asked for within the last three days is confirmed before the time ends for which it may be
given out: DNS and MTA-STS are asked again, but no server is called. If the forecast is the same, it
may be given out for as long again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks, Life
from requiretls_milter.engine.cache.shelf import CLOCK_STEP
from requiretls_milter.engine.troubles import Troubles, has_failures, pack, subjects
from requiretls_milter.ipc.questions import Key, holds_for, key_for, keys_of
from requiretls_milter.model import DomainEvidence, Forecast, Outcome, Question
from requiretls_milter.syntax.status import SUCCESS

REFRESH_PAUSE = 30.0
"""Seconds between two attempts to make a forecast anew while the first brings none (RFC 8767
section 5: not more often)."""

OFTEN = 3
"""Uses within a life and the one before from which a forecast is made anew at its end: the next
life will have a use as well, in four cases out of five."""

WARM = 3 * 86_400.0
"""Seconds after the last message for which a forecast is confirmed: over a weekend. RFC 8767
section 5 suggests one to three days. What is given out is past its life for no longer than that
either, or stale_for if that is more: confirmed or not, a session was held then."""

ENDING = 1_500.0
"""Seconds before it may be given out no more from which it is confirmed: two background passes."""

ANSWERS = 2
"""Times as many as one worker keeps forecasts (``limits.forecast_cache``): those of three days."""

ANSWER_OCTETS = 2_560
"""Octets of memory that an answer takes on average at most, with its question."""


@dataclass(slots=True)
class _Kept:
    """A forecast, and until when it may be given out.

    ``life`` is its own, ``last`` the end of what it may be used for beyond that. ``began`` is when
    its evidence began to be gathered (monotonic), ``whole`` whether none of it had failed. ``uses``
    counts those of its life, ``before`` those of the one before. ``asked_at`` is when mail asked
    last, ``retry_at`` when it may be made anew again (both monotonic).
    """

    question: Question
    forecast: Forecast
    rests_on: bytes
    whole: bool
    began: float
    life: Life
    last: Life
    asked_at: float
    uses: int = 0
    before: int = 0
    retry_at: float = float("-inf")

    @property
    def is_used_often(self) -> bool:
        return self.uses + self.before >= OFTEN


class Answers:
    """Keeps forecasts as long as they may be given out.

    Args:
        stale_for: seconds for which they may be given out past their life; 0 for never.
        limit: forecasts that are kept.
        troubles: what failed or was found again, and when.
        clocks: by which they age.
    """

    def __init__(
        self, stale_for: float, limit: int, troubles: Troubles, clocks: Clocks = SYSTEM_CLOCKS
    ) -> None:
        self.stale_for = stale_for
        self._troubles = troubles
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
        self._kept: BoundedMap[Key, _Kept] = BoundedMap(
            limit, max_weight=limit * ANSWER_OCTETS, weigh=entry_octets
        )

    def __len__(self) -> int:
        return len(self._kept)

    def forget(self) -> Iterator[None]:
        """Forget all; it is freed piece by piece while the caller iterates."""
        return self._kept.clear_in_pieces()

    def note(
        self, question: Question, forecast: Forecast, evidence: DomainEvidence, began: float
    ) -> None:
        """Keep a forecast in the place of an earlier one.

        If nothing is known, the earlier one stands. If mail would wait in the queue, none is kept:
        the next message asks anew. After a downgrade that was noted since *began*, the forecast is
        kept but not given out.

        Args:
            question: what was asked.
            forecast: the answer to it.
            evidence: all on which it rests.
            began: when that began to be gathered (monotonic).
        """
        if forecast.outcome is Outcome.UNKNOWN:
            return
        former = self._find(question)
        if former is not None:
            self._kept.pop(key_for(former.question, former.forecast))
        if forecast.outcome is Outcome.DEFER:
            return
        wall, monotonic = self._wall(), self._monotonic()
        left = max(0.0, forecast.valid_until - wall)
        kept = _Kept(
            question,
            forecast,
            pack(subjects(evidence)),
            not has_failures(evidence),
            began,
            Life.of(left, wall, monotonic),
            self._last(left + self.stale_for, forecast),
            asked_at=former.asked_at if former is not None else monotonic,
            before=former.uses if former is not None else 0,
        )
        self._kept.put(key_for(question, forecast), kept)

    def _last(self, seconds: float, forecast: Forecast) -> Life:
        """So many seconds, but no proof on which the forecast rests is to end within them."""
        wall = self._wall()
        if forecast.proven_until:
            seconds = min(seconds, forecast.proven_until - wall)
        return Life.of(seconds, wall, self._monotonic())

    def use(
        self, question: Question, uses: int, *, acts: bool, since: float
    ) -> tuple[Forecast, bool] | None:
        """The answer to a question of a message, and whether it is used often; None if none is.

        It is one within its life, or one past it with its age (:attr:`Forecast.stale`).

        Args:
            question: what a message asks.
            uses: how often the last answer was used since it was given out, with this time.
            acts: whether any rule may defer or refuse mail.
            since: when the configuration came into force (monotonic): what was made before is
                given out past its life alone.
        """
        kept = self._find(question)
        if kept is None:
            return None
        wall, monotonic = self._wall(), self._monotonic()
        kept.uses += uses
        kept.asked_at = monotonic
        left = kept.life.left(wall, monotonic)
        if left > 0:
            if not kept.whole or kept.began < since:
                return None
            if self._troubles.since(kept.began, kept.rests_on, renewed=True):
                return None
            forecast = kept.forecast
            # A clock that was set back must not make the caller keep it for longer (R61).
            if wall + left < forecast.valid_until - CLOCK_STEP:
                forecast = replace(forecast, valid_until=wall + left)
            return forecast, kept.is_used_often
        if not self.stale_for or not _harmless(question, kept.forecast, acts=acts):
            return None
        if kept.last.is_over(wall, monotonic) or self._troubles.since(kept.began, kept.rests_on):
            return None
        # Nobody else is to keep it: the next message may find the fresh one here.
        stale = replace(kept.forecast, valid_until=0.0, stale=max(1.0, -left))
        return stale, kept.is_used_often

    def may_retry(self, question: Question) -> bool:
        """Whether it is time to make the answer anew; if so, it is not for some seconds."""
        kept, now = self._find(question), self._monotonic()
        if kept is None or now < kept.retry_at:
            return False
        kept.retry_at = now + REFRESH_PAUSE
        return True

    def to_confirm(self, *, acts: bool) -> list[Question]:
        """The questions whose answers will be given out no more before long, though mail may ask.

        Args:
            acts: as for :meth:`use`.
        """
        if not self.stale_for:
            return []
        wall, monotonic = self._wall(), self._monotonic()
        return [
            kept.question
            for _, kept in self._kept.items()
            if 0 < (left := kept.last.left(wall, monotonic)) < ENDING
            and monotonic + left < kept.asked_at + WARM
            and _harmless(kept.question, kept.forecast, acts=acts)
            and not self._troubles.since(kept.began, kept.rests_on)
        ]

    def confirm(
        self, question: Question, forecast: Forecast, evidence: DomainEvidence, began: float
    ) -> None:
        """Give an answer out for as long again, if it still is the same.

        Args:
            question: one of :meth:`to_confirm`.
            forecast: the answer by what DNS says now, and by sessions of any age.
            evidence: all on which that rests.
            began: when that began to be gathered (monotonic).
        """
        kept = self._find(question)
        if kept is None or kept.began >= began:
            return
        if (forecast.status, forecast.compliant) != (kept.forecast.status, kept.forecast.compliant):
            return
        wall, monotonic = self._wall(), self._monotonic()
        left = forecast.valid_until - wall  # below 0: since the life of a session ended
        kept.forecast, kept.rests_on, kept.began = forecast, pack(subjects(evidence)), began
        kept.whole = not has_failures(evidence)
        kept.life = Life.of(left, wall, monotonic)
        kept.last = self._last(min(self.stale_for, left + WARM), forecast)

    def used_often(self, question: Question) -> tuple[Question, float] | None:
        """The question that an answer was made for and the seconds that are left of its life.

        None if there is no answer, if it is not used often, or if none is given out past its life.
        """
        kept = self._find(question)
        if kept is None or not self.stale_for or not kept.is_used_often:
            return None
        return kept.question, max(0.0, kept.life.left(self._wall(), self._monotonic()))

    def _find(self, question: Question) -> _Kept | None:
        for key in keys_of(question):
            kept = self._kept.get(key)
            if kept is not None and (key[-1] or holds_for(kept.forecast, question.needs.size)):
                self._kept.touch(key)
                return kept
        return None


def _harmless(question: Question, forecast: Forecast, *, acts: bool) -> bool:
    """Whether nothing is done because of a forecast that the MTA would not do by itself."""
    if not acts:
        return True
    complies = forecast.status == SUCCESS and forecast.compliant is not False
    return complies and question.carried is question.asked
