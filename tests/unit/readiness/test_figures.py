"""The figures: shares that are never too good, the answer, what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.model import Reason
from requiretls_milter.readiness import words
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.readiness.figures import (
    Answer,
    Count,
    Share,
    figures,
    just_below,
    not_ready,
    today,
)
from requiretls_milter.readiness.values import HopReadiness, HopState, Policy, Readiness, Step
from tests.support.readinesses import below, clear, listed, ready, report, unknown


@pytest.mark.parametrize(
    ("part", "whole", "percent"),
    [
        (0, 0, "not known"),
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (1, 3, "33.3 %"),
        (1, 2, "50 %"),
        (999_999, 1_000_000, "99.9 %"),
        (1, 1_000_000, "less than 0.1 %"),
    ],
)
def test_a_share_is_never_said_to_be_more_than_it_is(part: int, whole: int, percent: str) -> None:
    assert Share(part, whole).percent == percent


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_all_is_said_of_all_alone(part: int, whole: int) -> None:
    percent = Share(min(part, whole), whole).percent
    assert (percent == "100 %") == (part >= whole)
    assert (percent == "0 %") == (part == 0)


def answered(*found: HopReadiness, **more: Any) -> tuple[Answer, str]:
    one = report(*found, **more)
    return figures(one).answer, words.answer(one, figures(one))


def test_if_all_mail_is_ready_the_answer_is_yes() -> None:
    answer, sentence = answered(ready(), ready("b.example"))
    assert answer is Answer.YES
    assert sentence == "Yes: all of the mail would be delivered with REQUIRETLS today."


def test_one_next_hop_with_little_mail_that_is_not_ready_is_a_no_for_all() -> None:
    answer, sentence = answered(ready(mail=1_000_000), below(mail=1))
    assert answer is Answer.PARTLY
    assert sentence == (
        "Not for all mail: 99.9 % of the mail would be delivered with REQUIRETLS today, the rest "
        "would not. It can be switched on for 1 next hop of 2."
    )


def test_if_nothing_is_ready_the_answer_is_no() -> None:
    assert answered(below(), clear())[0] is Answer.NO


def test_if_half_is_not_known_there_is_no_answer() -> None:
    assert answered(ready(mail=10), unknown(mail=10))[0] is Answer.UNKNOWN
    assert answered(ready(mail=10), unknown(mail=9))[0] is Answer.PARTLY


def test_without_any_next_hop_nothing_is_known() -> None:
    answer, sentence = answered()
    assert answer is Answer.UNKNOWN
    assert sentence == "Nothing is known: no next hop was assessed."


def test_what_was_not_assessed_counts_as_not_known_and_never_as_ready() -> None:
    one = figures(report(ready(mail=60), left_out=3, left_out_mail=40))
    assert one.answer is Answer.PARTLY
    assert (one.mail.percent, one.domains.percent) == ("60 %", "25 %")
    assert one.states[HopState.UNKNOWN] == Count(3, 40)
    assert figures(report(ready(mail=60), left_out_mail=60)).answer is Answer.UNKNOWN


def test_of_a_list_the_next_hops_decide() -> None:
    one = report(*map(listed, (ready(), below(), clear())), source=MailSource.LIST)
    assert not figures(one).counts_mail
    assert figures(one).mail.percent == "not known"
    assert figures(one).share == Share(1, 3)
    assert "mail to 33.3 % of the next hops" in words.answer(one, figures(one))


SOME = (ready(mail=10), below(mail=5), clear(mail=2), unknown(mail=1), below("b2.example", 4))


def test_next_hops_are_counted_by_state_reason_policy_and_level_with_most_mail_first() -> None:
    one = figures(report(*SOME))
    assert one.total == Count(5, 22)
    assert one.ready == Count(1, 10)
    assert dict(one.states) == {
        HopState.READY: Count(1, 10),
        HopState.BOUNCE: Count(3, 11),
        HopState.UNKNOWN: Count(1, 1),
    }
    assert list(one.reasons.items()) == [
        (Reason.REQUIRETLS_NOT_OFFERED, Count(2, 9)),
        (Reason.STARTTLS_NOT_OFFERED, Count(1, 2)),
        (Reason.UNKNOWN, Count(1, 1)),
    ]
    assert one.policies[Policy.DANE] == (Count(1, 10), Count(2, 9))
    assert one.policies[Policy.NEITHER] == (Count(), Count(1, 2))
    assert one.levels["dane"] == (Count(1, 10), Count(2, 9))
    assert one.levels[""] == (Count(), Count(1, 1))


def test_just_below_the_bar_is_what_lacks_one_step() -> None:
    one = report(*SOME)
    assert dict(figures(one).just_below) == {Step.REQUIRETLS: Count(2, 9)}
    assert figures(one).one_step == Count(2, 9)
    assert [hop.nexthop for hop in just_below(one)] == ["below.example", "b2.example"]


def test_what_is_not_ready_is_listed_with_most_mail_first() -> None:
    names = [hop.nexthop for hop in not_ready(report(*SOME))]
    assert names == ["below.example", "b2.example", "clear.example", "unknown.example"]


def test_the_day_is_what_is_kept_of_a_report() -> None:
    one = report(*SOME)
    day = today(one, figures(one))
    assert day.day == "2026-11-29"
    assert (day.mail_ready, day.mail, day.domains_ready, day.domains) == (10, 22, 1, 5)


@given(st.lists(st.sampled_from(SOME), max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_the_states_add_up_to_all(found: list[HopReadiness], hops: int, mail: int) -> None:
    made: Readiness = report(*found, left_out=hops, left_out_mail=mail)
    one = figures(made)
    assert sum(count.mail for count in one.states.values()) == one.total.mail
    assert sum(count.domains for count in one.states.values()) == one.total.domains
    assert (one.answer is Answer.YES) <= (one.ready == one.total != Count())


# ---------------------------------------------------------------- words


def test_each_word_has_its_text() -> None:
    assert set(words.STATES) == set(HopState)
    assert set(words.STEPS) == set(words.LACKS) == set(Step)
    assert set(words.POLICIES) == set(Policy)
    assert set(words.REASONS) == set(Reason)
    assert set(words.SOURCES) == set(MailSource)
