"""A recipient is followed to its first attempt: across files, filters and used queue IDs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.reports import following
from requiretls_milter.reports.following import Followed, Following
from requiretls_milter.reports.logs.milter import LoggedForecast
from requiretls_milter.reports.logs.postfix import LogDelivery

GOOD = LoggedForecast("2.0.0", "ok", "dane/requiretls", "mx1.example.org", "example.org")
BAD = LoggedForecast("5.7.30", "requiretls_not_offered", "", "mx1.example.org", "example.org")
MX = "mx1.example.org[192.0.2.1]:25"
FILTER = "127.0.0.1[127.0.0.1]:10025"


def attempt(
    status: str = "2.0.0",
    queue_id: str = "3A3D26C44D0",
    *,
    to: str = "u@example.org",
    alias: str = "",
    relay: str = MX,
    queued_as: str = "",
    piped: bool = False,
) -> LogDelivery:
    return LogDelivery(
        queue_id, alias or to, to, relay, status, "", "", False, False, queued_as, piped
    )


class Story:
    """What a log tells, line by line; each line is a second later than the one before."""

    def __init__(self, start: float | None = 100.0, step: float = 10.0) -> None:
        self.results: list[str] = []
        self.now, self.step = start, step
        self.clock = 0.0
        self.following = Following(self._decided)

    def _decided(self, followed: Followed) -> None:
        self.results.append(followed.attempt.status if followed.attempt else "waiting")

    def _time(self, time: float | None) -> float | None:
        if time is not None:
            return time
        if self.now is not None:
            self.now += self.step
        return self.now

    def forecast(
        self,
        forecast: LoggedForecast = GOOD,
        queue_id: str = "3A3D26C44D0",
        to: str = "<u@example.org>",
        time: float | None = None,
    ) -> Story:
        self.following.add_forecast(queue_id, to, forecast, self._time(time))
        return self

    def attempt(self, delivery: LogDelivery, time: float | None = None) -> Story:
        self.following.add_delivery(delivery, self._time(time))
        return self

    def arrived(self, queue_id: str = "3A3D26C44D0", message_id: str = "") -> Story:
        self.following.add_arrival(queue_id, message_id, self._time(None))
        return self

    def removed(self, queue_id: str = "3A3D26C44D0", time: float | None = None) -> Story:
        self.following.add_removal(queue_id, self._time(time))
        return self

    def end(self) -> list[str]:
        self.following.finish()
        return self.results


both = pytest.mark.parametrize("start", [100.0, None], ids=["with times", "without times"])


@both
def test_the_first_attempt_counts(start: float | None) -> None:
    story = Story(start).arrived().forecast().attempt(attempt("4.2.0")).attempt(attempt("5.7.30"))
    assert story.removed().end() == ["4.2.0"]


def test_the_first_attempt_by_time_counts_in_whatever_order_they_are_read() -> None:
    for order in itertools.permutations((120.0, 130.0, 140.0)):
        story = Story()
        for time in order:
            story.attempt(attempt(f"4.0.{time:.0f}"), time)
        assert story.forecast(time=119.0).end() == ["4.0.120"]


def test_times_that_are_wrong_leave_no_recipient_without_its_attempt() -> None:
    """A clock, a zone or a year may be wrong: then the order of the lines counts."""
    story = Story().forecast(time=5000.0).attempt(attempt("4.4.2"), 20.0).removed(time=21.0)
    assert story.end() == ["4.4.2"]
    early = Story().attempt(attempt("4.4.2"), 20.0).forecast(time=5000.0)
    assert early.end() == ["4.4.2"]
    rather = Story().forecast(time=5000.0).attempt(attempt("4.4.2"), 20.0)
    assert rather.attempt(attempt("2.0.0"), 5001.0).end() == ["2.0.0"]


@both
def test_removed_ends_a_queue_id_for_the_attempts_before(start: float | None) -> None:
    ordinary = Story(start).arrived().attempt(attempt("5.1.1")).removed()
    assert ordinary.forecast().attempt(attempt("2.0.0")).end() == ["2.0.0"]


@both
def test_removed_ends_a_queue_id_for_the_attempts_behind(start: float | None) -> None:
    story = Story(start).forecast().attempt(attempt("2.0.0")).removed()
    assert story.arrived().attempt(attempt("5.1.1")).removed().end() == ["2.0.0"]
    gone = Story(start).forecast().removed()  # by postsuper -d
    assert gone.arrived().attempt(attempt("5.1.1")).end() == ["waiting"]


@both
def test_a_used_queue_id_whose_message_waits_has_no_attempt(start: float | None) -> None:
    story = Story(start).arrived().attempt(attempt("5.1.1")).removed().arrived()
    assert story.forecast().end() == ["waiting"]
    assert Story().attempt(attempt("5.1.1")).removed().forecast().end() == ["waiting"]


def test_two_messages_with_one_queue_id_are_two() -> None:
    story = Story().forecast().attempt(attempt("2.0.0")).removed()
    assert story.forecast(BAD).attempt(attempt("5.7.30")).removed().end() == ["2.0.0", "5.7.30"]
    waits = Story().forecast().removed().forecast(BAD).attempt(attempt("5.7.30"))
    assert waits.end() == ["waiting", "5.7.30"]


def test_lines_of_two_programs_may_cross_even_behind_the_end_of_the_message() -> None:
    story = Story(step=0.01).arrived().attempt(attempt("2.0.0")).removed().forecast()
    assert story.end() == ["2.0.0"]


def test_a_long_queue_id_is_never_used_again() -> None:
    long = "4dBGwW2XvVz1Kb"
    story = Story().attempt(attempt("2.0.0", long)).removed(long).forecast(GOOD, long)
    assert story.end() == ["2.0.0"]


def test_the_same_line_from_two_logs_is_one() -> None:
    story = Story().forecast(time=100.0).forecast(time=100.4)
    assert story.attempt(attempt("2.0.0")).forecast(time=100.0).end() == ["2.0.0"]


# ---------------------------------------------------------------- content filters

BEHIND = "3B4E37D55E1"
TO_FILTER = attempt(relay=FILTER, queued_as=BEHIND)


def test_behind_a_filter_the_message_has_another_queue_id() -> None:
    story = Story().forecast(BAD).arrived(BEHIND).attempt(TO_FILTER).removed()
    assert story.attempt(attempt("5.7.30", BEHIND)).removed(BEHIND).end() == ["5.7.30"]


def test_lines_of_a_filter_may_come_in_any_order() -> None:
    lines: list[Callable[[Story], Story]] = [
        lambda story: story.forecast(BAD, time=100.0),
        lambda story: story.attempt(TO_FILTER, 101.0),
        lambda story: story.attempt(attempt("5.7.30", BEHIND), 101.5),
        lambda story: story.attempt(attempt("4.4.1", BEHIND), 200.0),
    ]
    for order in itertools.permutations(lines):
        story = Story()
        for line in order:
            line(story)
        assert story.end() == ["5.7.30"]


def test_a_filter_that_was_not_there_at_first_is_no_attempt_at_the_next_hop() -> None:
    story = Story().forecast(BAD).attempt(attempt("4.4.1", relay="none")).attempt(TO_FILTER)
    assert story.attempt(attempt("5.7.30", BEHIND)).end() == ["5.7.30"]


def test_a_message_that_waits_behind_a_filter_has_no_attempt() -> None:
    assert Story().forecast().arrived(BEHIND).attempt(TO_FILTER).end() == ["waiting"]


def test_a_filter_that_sends_the_message_elsewhere_is_where_the_log_ends() -> None:
    assert Story().forecast().attempt(TO_FILTER).end() == ["2.0.0"]


def test_filters_may_stand_in_a_row_but_not_for_ever() -> None:
    story = Story().forecast(BAD)
    chain = [f"3A3D26C44D{n:X}" for n in range(5)]
    for one, other in itertools.pairwise(chain):
        story.attempt(attempt(queue_id=one, relay=FILTER, queued_as=other))
    assert story.attempt(attempt("5.7.30", chain[-1])).end() == ["5.7.30"]
    circle = Story().forecast()
    for one, other in ((chain[0], chain[1]), (chain[1], chain[0])) * 20:
        circle.attempt(attempt(queue_id=one, relay=FILTER, queued_as=other))
    assert len(circle.end()) == 1


def test_a_filter_gets_what_an_alias_was_expanded_to() -> None:
    expanded = attempt(relay=FILTER, queued_as=BEHIND, to="v@example.org", alias="u@example.org")
    story = Story().forecast(BAD).attempt(expanded)
    assert story.attempt(attempt("5.7.30", BEHIND, to="v@example.org")).end() == ["5.7.30"]


def test_a_second_forecast_behind_the_filter_is_compared_by_itself() -> None:
    story = Story().forecast(BAD).arrived(BEHIND).forecast(BAD, BEHIND).attempt(TO_FILTER)
    assert story.attempt(attempt("5.7.30", BEHIND)).end() == ["5.7.30", "5.7.30"]


PIPED = attempt(relay="filter", piped=True)


@pytest.mark.parametrize("late", [False, True])
def test_a_program_that_calls_sendmail_leaves_the_message_id_alone(late: bool) -> None:
    story = Story().arrived(message_id="<a@b>").forecast(BAD)
    if late:
        story.attempt(PIPED).removed()
    story.arrived(BEHIND, "<a@b>")
    if not late:
        story.attempt(PIPED).removed()
    assert story.attempt(attempt("5.7.30", BEHIND)).end() == ["5.7.30"]


def test_a_program_that_took_the_message_is_no_attempt_at_the_next_hop() -> None:
    assert Story().forecast().attempt(PIPED).end() == ["waiting"]


# ---------------------------------------------------------------- bounds


def test_what_is_followed_is_bounded_and_the_oldest_is_decided_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "MAX_FOLLOWED", 10)
    story = Story().forecast().attempt(attempt("2.0.0"))
    for number in range(20):
        story.forecast(BAD, f"4A{number:04}")
    assert story.results == ["2.0.0"] + ["waiting"] * 10
    assert len(story.end()) == 21


@pytest.mark.parametrize("seed", range(20))
def test_each_forecast_is_decided_once_whatever_comes(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a law, not a secret
    story, forecasts = Story(chance.choice([None, 100.0])), 0
    ids = [f"4A000{number}" for number in range(4)]
    for _ in range(300):
        one, other = chance.choices(ids, k=2)
        match chance.randrange(6):
            case 0:
                story.forecast(GOOD, one)
                forecasts += 1
            case 1:
                story.attempt(attempt(queue_id=one, relay=FILTER, queued_as=other))
            case 2:
                story.attempt(attempt(queue_id=one, relay="filter", piped=True))
            case 3:
                story.arrived(one, chance.choice(["", "<a@b>"]))
            case 4:
                story.removed(one)
            case _:
                story.attempt(attempt(chance.choice(["2.0.0", "4.4.1"]), one))
    assert len(story.end()) <= forecasts
    assert len(story.end()) == len(story.results)


# ---------------------------------------------------------------- while logs are written


def later(story: Story, seconds: float = following.SETTLED_AFTER) -> list[str]:
    """What is decided when so much time has gone by."""
    story.clock += seconds
    story.following.advance(story.clock)
    return story.results


def test_a_recipient_is_decided_when_nothing_has_changed_for_a_while() -> None:
    story = Story().forecast().attempt(attempt("4.2.0"))
    assert later(story, following.SETTLED_AFTER - 1) == []
    assert len(story.following) == 1
    story.attempt(attempt("4.4.1"), 115.0)  # an earlier one, of another log
    assert later(story, following.SETTLED_AFTER - 1) == []
    assert later(story, 1.0) == ["4.4.1"]
    assert len(story.following) == 0
    assert story.end() == ["4.4.1"]


def test_a_later_attempt_keeps_no_recipient_from_being_decided() -> None:
    story = Story().forecast().attempt(attempt("4.2.0"))
    later(story, following.SETTLED_AFTER - 1)
    story.attempt(attempt("4.4.1"))
    assert later(story, 1.0) == ["4.2.0"]


def test_further_attempts_and_repeated_lines_of_a_decided_recipient_are_nothing_new() -> None:
    story = Story().forecast(time=100.0).attempt(attempt("4.2.0"))
    assert later(story) == ["4.2.0"]
    story.attempt(attempt("2.0.0")).forecast(time=100.4)
    later(story)
    assert story.removed().end() == ["4.2.0"]


def test_a_queue_id_that_is_used_again_is_another_message_also_behind_a_decided_one() -> None:
    story = Story().forecast().attempt(attempt("2.0.0")).removed()
    assert later(story) == ["2.0.0"]
    story.arrived().forecast(BAD).attempt(attempt("5.7.30")).removed()
    assert later(story) == ["2.0.0", "5.7.30"]
    story.arrived().attempt(attempt("4.4.2")).forecast(GOOD)  # the lines cross
    assert later(story) == ["2.0.0", "5.7.30", "4.4.2"]


def test_a_message_that_a_filter_took_is_waited_for() -> None:
    story = Story().forecast(BAD).attempt(TO_FILTER)
    assert later(story, 100.0) == []
    story.attempt(attempt("5.7.30", BEHIND))
    assert later(story) == ["5.7.30"]


@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_a_program_took_is_found_when_it_comes_back(late: bool) -> None:
    story = Story().arrived(message_id="<a@b>").forecast(BAD).attempt(PIPED).removed()
    assert later(story, 100.0) == []
    story.arrived(BEHIND, "<a@b>")
    if late:
        assert later(story, 100.0) == []
    story.attempt(attempt("5.7.30", BEHIND))
    later(story)
    assert later(story) == ["5.7.30"]


def test_what_is_too_old_is_given_up_and_counted() -> None:
    story = Story()
    later(story, 1e6)  # the host runs for long
    story.forecast()
    assert later(story, following.MAX_AGE - 1) == []
    story.forecast(BAD, "4A0001")
    assert later(story, 1.0) == ["waiting"]
    assert (story.following.too_old, story.following.too_many) == (1, 0)
    assert len(story.following) == 1


def test_what_is_too_much_is_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_FOLLOWED", 10)
    story = Story()
    for number in range(25):
        story.forecast(BAD, f"4A{number:04}")
    assert story.following.too_many == 15
    assert len(story.following) == 10


def test_what_is_remembered_of_decided_recipients_is_bounded() -> None:
    """Each is decided at once, and a hundred thousand leave no more behind than fifty thousand."""
    story = Story(None)
    for number in range(2 * following.MAX_SETTLED):
        queue_id = f"4A{number:06}"
        story.forecast(GOOD, queue_id).attempt(attempt(queue_id=queue_id))
        if number % 1000 == 999:
            later(story)
            later(story)
    assert len(story.end()) == 2 * following.MAX_SETTLED
    maps = (value for value in vars(story.following).values() if isinstance(value, BoundedMap))
    assert max(map(len, maps)) <= following.MAX_SETTLED


@pytest.mark.parametrize("seed", range(40))
def test_what_is_decided_while_logs_are_written_is_what_is_decided_at_their_end(
    seed: int,
) -> None:
    """Messages of all kinds at the same time; the lines of each come in order."""
    chance = random.Random(seed)  # noqa: S311 - a law, not a secret
    at_once, followed = Story(), Story()
    messages = [list(_message(chance, f"3A{number:06}")) for number in range(60)]
    under_way: list[list[Callable[[Story], Story]]] = []
    while messages or under_way:
        if messages and len(under_way) < 8:
            under_way.append(messages.pop())
        one = chance.choice(under_way)
        line = one.pop(0)
        if not one:
            under_way.remove(one)
        line(at_once)
        line(followed)
        if chance.random() < 0.5:
            later(followed, chance.uniform(0, 4))
    assert sorted(followed.end()) == sorted(at_once.end())


def _message(chance: random.Random, queue_id: str) -> Iterator[Callable[[Story], Story]]:
    """The lines of a message."""
    behind, message_id = f"{queue_id}F", f"<{queue_id}@b>"
    status = chance.choice(["2.0.0", "5.7.30", "4.4.1"])
    yield lambda story: story.arrived(queue_id, message_id)
    if chance.random() < 0.8:
        yield lambda story: story.forecast(GOOD, queue_id)
    way = chance.choice(["direct", "filter", "pipe", "retry", "gone"])
    last = queue_id
    if way == "filter":
        last = behind
        to_filter = attempt(queue_id=queue_id, relay=FILTER, queued_as=behind)
        yield lambda story: story.arrived(behind)
        yield lambda story: story.attempt(to_filter)
        yield lambda story: story.removed(queue_id)
    elif way == "pipe":
        last = behind
        yield lambda story: story.attempt(attempt(queue_id=queue_id, relay="f", piped=True))
        yield lambda story: story.removed(queue_id)
        yield lambda story: story.arrived(behind, message_id)
    elif way == "retry":
        yield lambda story: story.attempt(attempt("4.2.0", queue_id))
    if way != "gone":
        yield lambda story: story.attempt(attempt(status, last))
        yield lambda story: story.removed(last)
