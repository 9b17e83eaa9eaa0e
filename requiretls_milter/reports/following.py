"""Follow each recipient that has a forecast to the first attempt to deliver to it. Pure.

Queue ID and recipient bring a forecast and its delivery together. What makes that difficult:

- Lines may come in any order: of two programs that wrote them at the same time, or of files that
  overlap. So nothing is decided before the end, or before memory is full; if times are known, the
  earliest attempt counts. Times may be wrong (of another zone, or of another clock), so they
  choose among attempts, and never leave a recipient without one.
- A short queue ID is used again (``enable_long_queue_ids = no``): "removed" ends it, and what was
  attempted before is not an attempt of the next message.
- A content filter takes the message and brings it back as another one. Its reply tells the new
  queue ID ("queued as"); a program that calls sendmail(1) leaves the Message-ID alone. The attempt
  that was forecast is that of the new message.

When is a recipient decided? In logs that are read to their end: at the end. In logs that are
followed while they are written, :meth:`Following.advance` tells how the time goes on: a recipient
is decided when nothing of it has changed for :data:`SETTLED_AFTER`, or is older than
:data:`MAX_AGE`.

Memory is bounded: the least recently used goes first, and is decided with what is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.reports.logs.matching import (
    is_content_filter,
    is_long_queue_id,
    same_address,
)
from requiretls_milter.reports.logs.milter import LoggedForecast
from requiretls_milter.reports.logs.postfix import LogDelivery

MAX_FOLLOWED = 100_000
"""Recipients with a forecast that are not decided yet: about 100 MiB."""

MAX_AGE = 86_400.0
"""Seconds after which a recipient is decided with what is known, if logs are followed."""

SETTLED_AFTER = 10.0
"""Seconds without a change after which a recipient that has an attempt is decided, if logs are
followed: by so much may a line of another log come too late."""

MAX_SETTLED = 50_000
"""Recipients that were decided in this way and are remembered: further lines about them say
nothing new."""

MAX_EARLY = 50_000
"""Attempts without a forecast so far: most of them are of mail that asks for nothing."""

MAX_QUEUE_IDS = 50_000
"""Messages of which it is kept that they came, left, or had a Message-ID."""

MAX_HANDOVERS = 10
"""Content filters that a message may pass one after the other."""

CROSSING = 1.0
"""Seconds within which the lines of milter and Postfix may be in the wrong order.

Times of RFC 3164 have no fractions.
"""

SLACK = 5.0
"""Seconds that an attempt may seem to be earlier than its forecast."""

Doubt = Literal[0, 1, 2]
"""Whether an attempt belongs to a forecast.

0: nothing speaks against it; 1: it is earlier than the forecast; 2: its message had left the queue
when the forecast was made, or so it seems. An attempt with less doubt takes its place.
"""

Key = tuple[str, str]
"""What a forecast and its delivery share: queue ID and recipient, see :func:`same_address`.

If the milter forecast what Postfix makes of a recipient, that address stands before it.
"""


@dataclass(slots=True)
class Followed:
    """A recipient with a forecast, and what was found of it; ``attempt`` is None without one."""

    queue_id: str
    recipient: str
    forecast: LoggedForecast
    time: float | None
    serial: int
    stage: Key
    """The message and recipient whose attempts count: those behind the last filter."""
    attempt: LogDelivery | None = None
    attempt_time: float | None = None
    doubt: Doubt = 0
    handed_to: Key | None = None
    """What the filter made of it, of which no attempt was seen yet."""
    handovers: int = 0
    begun: float = 0.0
    """When its forecast was read, and when what is known of it has changed: by the clock of
    :meth:`Following.advance`."""
    changed: float = 0.0
    own_key: Key | None = None
    """If Postfix made the recipient of another one, the key of that."""

    @property
    def key(self) -> Key:
        """What its lines have in common."""
        return self.own_key or (self.queue_id, self.recipient)


class _Early(NamedTuple):
    """An attempt that has no forecast so far."""

    delivery: LogDelivery
    time: float | None
    serial: int


@dataclass(slots=True)
class _Ended:
    """A queue ID that was given up."""

    time: float | None
    serial: int
    is_reused: bool = False


class Following:
    """Brings forecasts and attempts together.

    Args:
        decided: is called with each recipient when all is known that will be known of it.
    """

    def __init__(self, decided: Callable[[Followed], None]) -> None:
        self._decided = decided
        self._serial = 0
        self._now = 0.0
        self.too_many = 0
        """Recipients that were decided before their time, to make room for others."""
        self.too_old = 0
        """Recipients that were decided because of :data:`MAX_AGE`."""
        self._followed: BoundedMap[Key, Followed] = BoundedMap()
        self._settling: BoundedMap[Key, Followed] = BoundedMap()
        self._settled: BoundedMap[Key, Followed] = BoundedMap(MAX_SETTLED)
        self._handed: BoundedMap[Key, Followed] = BoundedMap(MAX_FOLLOWED)
        self._early: BoundedMap[Key, _Early] = BoundedMap(MAX_EARLY)
        self._ended: BoundedMap[str, _Ended] = BoundedMap(MAX_QUEUE_IDS)
        self._arrived: BoundedMap[str, bool] = BoundedMap(MAX_QUEUE_IDS)
        self._by_message_id: BoundedMap[str, str] = BoundedMap(MAX_QUEUE_IDS)
        self._reinjected: BoundedMap[str, str] = BoundedMap(MAX_QUEUE_IDS)

    def add_forecast(
        self,
        queue_id: str,
        recipient: str,
        forecast: LoggedForecast,
        time: float | None,
        expansion: str = "",
    ) -> None:
        """Follow a recipient, or in its place what Postfix makes of it."""
        self._serial += 1
        key = given = (queue_id, same_address(recipient))
        if expansion:
            key = _key_of_expansion(queue_id, expansion, recipient)
            self._give_back(given)
        former = self._followed.get(key)
        if former is not None:
            if former.forecast == forecast and _within(former.time, time, CROSSING):
                return  # the same line, from another log
            self._followed.pop(key)
            if former.attempt is not None or self._is_over(former):
                self._decide(former)
        elif self._is_settled(key, forecast, time):
            return
        elif len(self._followed) >= MAX_FOLLOWED:
            self.too_many += 1
            self._decide(self._followed.pop_oldest()[1])
        address = same_address(expansion or recipient)
        followed = Followed(queue_id, address, forecast, time, self._serial, key, begun=self._now)
        followed.own_key = key if expansion else None
        self._followed.put(key, followed)
        # Of an alias that has itself as target Postfix does not log what it was before.
        self._take_early(followed, given if address == given[1] else key)

    def add_delivery(self, delivery: LogDelivery, time: float | None) -> None:
        """Note an attempt."""
        self._serial += 1
        self._arrived.put(delivery.queue_id, True)
        key = (delivery.queue_id, same_address(delivery.recipient))
        expanded = _key_of_expansion(delivery.queue_id, delivery.to, delivery.recipient)
        wanted = [self._take(one, delivery, time) for one in (key, expanded)]
        if not any(wanted):
            early = _Early(delivery, time, self._serial)
            self._keep_early(key, early)
            if delivery.to != delivery.recipient:
                self._keep_early(expanded, early)

    def _take(self, key: Key, delivery: LogDelivery, time: float | None) -> bool:
        """Attach an attempt to what is followed under a key; return whether there was any."""
        wanted = False
        followed = self._followed.get(key)
        if followed is not None and self._is_of(followed, time):
            wanted = True
            if followed.stage == key:
                self._attach(followed, delivery, time)
        handed = self._handed.get(key)
        if handed is not None:
            wanted = True
            self._attach_behind(handed, key, delivery, time)
        settled = self._settled.get(key)
        if settled is not None and self._is_of(settled, time):
            wanted = True  # a second attempt, or the same line from another log
        return wanted

    def add_arrival(self, queue_id: str, message_id: str, time: float | None) -> None:
        """Note that a message came into the queue; *message_id* is "" if the line has none."""
        self._serial += 1
        self._arrived.put(queue_id, True)
        ended = self._ended.get(queue_id)
        if ended is not None and not _is_before(time, ended.time):
            ended.is_reused = True
        if message_id:
            former = self._by_message_id.get(message_id)
            if former is not None and former != queue_id:
                self._reinjected.put(former, queue_id)
            self._by_message_id.put(message_id, queue_id)

    def add_removal(self, queue_id: str, time: float | None) -> None:
        """Note that a message has left the queue."""
        self._serial += 1
        self._ended.put(queue_id, _Ended(time, self._serial))

    def __len__(self) -> int:
        """How many recipients are followed and not decided yet."""
        return len(self._followed)

    def advance(self, now: float) -> None:
        """Decide what is settled by now; what is added later counts as read now.

        Args:
            now: seconds, of a clock that never goes back.
        """
        self._now = now
        while (followed := _first(self._settling)) and followed.changed + SETTLED_AFTER <= now:
            self._look_behind(followed)
            attempt = followed.attempt
            if attempt is None or attempt.piped or followed.handed_to is not None:
                self._change(followed)  # it may come back from a filter: look again later
            else:
                self._followed.pop(followed.key)
                self._settled.put(followed.key, followed)
                self._decide(followed)
        while (followed := _first(self._followed)) and followed.begun + MAX_AGE <= now:
            self.too_old += 1
            self._followed.pop(followed.key)
            self._decide(followed)

    def finish(self) -> None:
        """Decide all that are left."""
        while len(self._followed) > 0:
            self._decide(self._followed.pop_oldest()[1])

    def _is_settled(self, key: Key, forecast: LoggedForecast, time: float | None) -> bool:
        """Whether the line of a forecast is that of a recipient that was decided."""
        settled = self._settled.get(key)
        if settled is None:
            return False
        if settled.forecast == forecast and _within(settled.time, time, CROSSING):
            return True
        self._settled.pop(key)
        return False

    def _change(self, followed: Followed) -> None:
        followed.changed = self._now
        self._settling.put(followed.key, followed)

    # ------------------------------------------------------------ which attempts are whose

    def _give_back(self, key: Key) -> None:
        """Stop following a recipient if what it becomes is followed instead.

        The milter logs the recipient first. An attempt that was found is one of its expansions'.
        """
        followed = self._followed.pop(key)
        self._settling.pop(key)
        if followed is None or followed.attempt is None:
            return
        early = _Early(followed.attempt, followed.attempt_time, followed.serial)
        for one in (key, _key_of_expansion(key[0], early.delivery.to, early.delivery.recipient)):
            self._keep_early(one, early)

    def _take_early(self, followed: Followed, key: Key) -> None:
        early = self._early.get(key)
        if early is None:
            return
        doubt: Doubt = 0
        ended = self._ended.get(followed.queue_id)
        if ended is not None and ended.serial > early.serial:
            # This queue ID was given up between the attempt and the forecast.
            is_over = ended.is_reused or _is_before(ended.time, followed.time, CROSSING)
            if is_over and not is_long_queue_id(followed.queue_id):
                return
            doubt = 2
        self._early.pop(key)
        self._attach(followed, early.delivery, early.time, doubt)

    def _is_of(self, followed: Followed, time: float | None) -> bool:
        """Whether an attempt at *time*, read just now, can be one of *followed*."""
        if not self._is_over(followed):
            return True
        ended = self._ended.get(followed.queue_id)
        return ended is not None and _is_before(time, ended.time)

    def _is_over(self, followed: Followed) -> bool:
        """Whether the message of *followed* has left the queue."""
        ended = self._ended.get(followed.queue_id)
        if ended is None or ended.serial < followed.serial:
            return False
        return not _is_before(ended.time, followed.time)

    def _keep_early(self, key: Key, early: _Early) -> None:
        former = self._early.get(key)
        if former is not None:
            ended = self._ended.get(key[0])
            is_over = ended is not None and ended.serial > former.serial
            if not is_over and not _is_before(early.time, former.time):
                return
        self._early.put(key, early)

    def _attach(
        self, followed: Followed, delivery: LogDelivery, time: float | None, doubt: Doubt = 0
    ) -> None:
        if doubt == 0 and _is_before(time, followed.time, SLACK):
            doubt = 1
        is_earlier = _is_before(time, followed.attempt_time) and doubt == followed.doubt
        if followed.attempt is None or doubt < followed.doubt or is_earlier:
            followed.attempt, followed.attempt_time, followed.doubt = delivery, time, doubt
            self._change(followed)
        if followed.handed_to is None and followed.handovers < MAX_HANDOVERS:
            target = self._handed_over(followed, delivery)
            if target is not None and target != followed.stage:
                self._hand_over(followed, target)

    # ------------------------------------------------------------ content filters

    def _handed_over(self, followed: Followed, delivery: LogDelivery) -> Key | None:
        """What became of a message that a filter took; None if it is no filter, or not known."""
        address = same_address(delivery.to)
        if delivery.queued_as:
            is_filter = is_content_filter(delivery.relay, followed.forecast)
            return (delivery.queued_as, address) if is_filter else None
        behind = self._reinjected.get(delivery.queue_id) if delivery.piped else None
        return (behind, address) if behind is not None else None

    def _hand_over(self, followed: Followed, target: Key) -> None:
        followed.handovers += 1
        followed.handed_to = target
        self._handed.put(target, followed)
        self._change(followed)
        early = self._early.get(target)
        if early is not None:
            self._attach_behind(followed, target, early.delivery, early.time)

    def _attach_behind(
        self, followed: Followed, key: Key, delivery: LogDelivery, time: float | None
    ) -> None:
        if followed.handed_to == key:
            followed.stage, followed.handed_to = key, None
            followed.attempt = followed.attempt_time = None
        if followed.stage == key:
            self._attach(followed, delivery, time)

    def _look_behind(self, followed: Followed) -> None:
        """If a program took the message, find out whether it has come back since."""
        attempt = followed.attempt
        if attempt is not None and attempt.piped and followed.handed_to is None:
            target = self._handed_over(followed, attempt)
            if target is not None:
                self._hand_over(followed, target)

    # ------------------------------------------------------------ the end

    def _decide(self, followed: Followed) -> None:
        attempt = followed.attempt
        if attempt is not None and attempt.piped:
            # A program took it, which is no attempt at the next hop.
            self._look_behind(followed)
            if followed.attempt is attempt:
                followed.attempt = None
        if followed.handed_to is not None and followed.handed_to[0] in self._arrived:
            followed.attempt = None  # it came back, and waits
        for key in (followed.stage, followed.handed_to):
            if key is not None and self._handed.get(key) is followed:
                self._handed.pop(key)
        if self._settling.get(followed.key) is followed:
            self._settling.pop(followed.key)
        self._decided(followed)


def _first(followed: BoundedMap[Key, Followed]) -> Followed | None:
    """The one that was put first."""
    return next(iter(followed.items()), (None, None))[1]


def _key_of_expansion(queue_id: str, expansion: str, recipient: str) -> Key:
    """The key of what Postfix makes of a recipient."""
    return queue_id, f"{same_address(expansion)}\n{same_address(recipient)}"


# ---------------------------------------------------------------- times


def _is_before(one: float | None, other: float | None, by: float = 0.0) -> bool:
    """Whether *one* is certainly earlier than *other*, by *by* seconds at least."""
    if one is None or other is None:
        return False
    return one <= other - by if by else one < other


def _within(one: float | None, other: float | None, seconds: float) -> bool:
    """Whether two times are known and less than *seconds* apart."""
    return one is not None and other is not None and abs(one - other) < seconds
