from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from requiretls_milter.milter.tag import Route, Tag, Tagged, aggregate, of_one, strongest
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Forecast,
    Outcome,
    Reason,
    Requirement,
    Source,
)
from requiretls_milter.syntax.status import severity

REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE


def tagged(
    requirement: Requirement = REQUIRETLS,
    source: Source = Source.ESMTP,
    nexthop: str = "example.org",
    status: str | None = "2.0.0",
    reason: Reason = Reason.OK,
    compliant: bool | None = None,
) -> Tagged:
    forecast = (
        None if status is None else Forecast(status, Outcome.UNKNOWN, reason, compliant=compliant)
    )
    return Tagged(requirement, source, nexthop, False, forecast)


LOCAL = Tagged(REQUIRETLS, Source.ESMTP, "local", True, LOCAL_FORECAST)


def test_the_value_has_its_keys_in_the_order_of_the_contract() -> None:
    tag = aggregate([tagged(status="5.7.30", reason=Reason.REQUIRETLS_NOT_OFFERED)])
    assert tag.value("mail.example.net") == (
        "requirement=requiretls; source=esmtp; forecast=5.7.30; "
        "reason=requiretls_not_offered; route=requiretls; by=mail.example.net"
    )


def test_several_recipients_of_one_next_hop_share_a_forecast() -> None:
    tag = aggregate([tagged(), tagged()])
    assert (tag.forecast, tag.reason, tag.route) == ("2.0.0", Reason.OK, Route.REQUIRETLS)


def test_with_more_than_one_next_hop_the_forecast_is_withheld() -> None:
    tag = aggregate([tagged(), tagged(nexthop="example.net")])
    assert (tag.forecast, tag.reason, tag.route) == (
        "withheld",
        Reason.WITHHELD,
        Route.REQUIRETLS,
    )


def test_a_local_recipient_beside_a_remote_one_is_a_second_next_hop() -> None:
    tag = aggregate([tagged(), LOCAL])
    assert (tag.forecast, tag.route) == ("withheld", Route.MIXED)


def test_an_equal_forecast_of_another_next_hop_is_withheld_all_the_same() -> None:
    assert aggregate([tagged(), tagged(nexthop="[mx.example.org]")]).forecast == "withheld"


@pytest.mark.parametrize(
    ("recipients", "route"),
    [
        ([tagged()], Route.REQUIRETLS),
        ([tagged(), tagged(nexthop="b.example")], Route.REQUIRETLS),
        ([tagged(REQUIRETLS, Source.RULE)], Route.REQUIRETLS),
        ([tagged(NO, Source.TLS_REQUIRED)], Route.TLS_OPTIONAL),
        ([tagged(NO), tagged(NO, nexthop="b.example")], Route.TLS_OPTIONAL),
        ([tagged(NONE, Source.NONE)], Route.DEFAULT),
        ([tagged(NONE), tagged(NONE, nexthop="b.example")], Route.DEFAULT),
        ([tagged(), tagged(NO)], Route.MIXED),
        ([tagged(), tagged(NONE)], Route.MIXED),
        ([tagged(NO), tagged(NONE)], Route.MIXED),
        ([LOCAL], Route.MIXED),
        ([tagged(), LOCAL], Route.MIXED),
        ([Tagged(NO, Source.TLS_REQUIRED, "local", True, LOCAL_FORECAST)], Route.MIXED),
        ([Tagged(NONE, Source.NONE, "local", True, None)], Route.DEFAULT),
    ],
)
def test_a_route_other_than_default_needs_every_recipient_remote_and_of_one_requirement(
    recipients: list[Tagged], route: Route
) -> None:
    assert aggregate(recipients).route is route


WORST_FIRST = ["5.7.30", "5.4.4", "4.7.5", "4.4.1", "unknown", "2.0.0"]


def test_the_worst_of_several_is_told() -> None:
    assert sorted(WORST_FIRST, key=severity, reverse=True) == WORST_FIRST
    for position, status in enumerate(WORST_FIRST):
        recipients = [tagged(status=other) for other in reversed(WORST_FIRST[position:])]
        assert aggregate(recipients).forecast == status


def test_of_two_deliveries_the_noncompliant_one_is_told() -> None:
    bad = tagged(reason=Reason.NONCOMPLIANT_UNVERIFIED, compliant=False)
    for recipients in ([tagged(), bad], [bad, tagged()]):
        assert aggregate(recipients).reason is Reason.NONCOMPLIANT_UNVERIFIED


def test_recipients_without_a_forecast_say_nothing_of_the_others() -> None:
    assert aggregate([tagged(status=None), tagged(status="5.7.10")]).forecast == "5.7.10"
    assert aggregate([tagged(status=None)]).forecast == "unknown"


def test_the_most_that_is_asked_stands_with_its_strongest_source() -> None:
    tag = aggregate([tagged(NO, Source.TLS_REQUIRED), tagged(REQUIRETLS, Source.RULE)])
    assert (tag.requirement, tag.source) == (REQUIRETLS, Source.RULE)
    tag = aggregate([tagged(REQUIRETLS, Source.RULE), tagged(REQUIRETLS, Source.ESMTP)])
    assert tag.source is Source.ESMTP
    assert strongest([]) is NONE


asked = st.sampled_from(
    [
        (REQUIRETLS, Source.ESMTP),
        (REQUIRETLS, Source.RULE),
        (NO, Source.TLS_REQUIRED),
        (NONE, Source.NONE),
    ]
)
hops = st.sampled_from(["a.example", "b.example", "[mx.c.example]:587", "local"])
ends = st.sampled_from(
    [
        None,
        LOCAL_FORECAST,
        Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True, mx="mx.secret.example"),
        Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, mx="mx.secret.example"),
    ]
)
mixes = st.lists(st.tuples(asked, hops, ends), min_size=2, max_size=6)


@given(mixes, st.data())
def test_of_a_mix_the_tag_tells_what_is_asked_and_not_of_whom(
    mix: list[tuple[tuple[Requirement, Source], str, Forecast | None]], data: st.DataObject
) -> None:
    """Other recipients, other next hops, other forecasts, more of them, in any order: one tag."""
    recipients = [Tagged(*what, hop, hop == "local", end) for what, hop, end in mix]
    assume(len({recipient.nexthop for recipient in recipients}) > 1)
    tag = aggregate(recipients)
    assert (tag.forecast, tag.reason) == ("withheld", Reason.WITHHELD)

    def another(one: Tagged, number: int) -> Tagged:
        hop = "local" if one.local else f"other{number}.example"
        return replace(one, nexthop=hop, forecast=data.draw(ends))

    others = [another(one, number) for number, one in enumerate(recipients * 2)]
    assert aggregate(data.draw(st.permutations(others))) == tag
    assert "example" not in tag.value("m")


@given(st.text(), st.text())
def test_r62_the_value_is_one_line_of_tokens_whatever_comes_from_outside(
    status: str, by: str
) -> None:
    value = Tag(REQUIRETLS, Source.ESMTP, status, Reason.OK, Route.MIXED).value(by)
    assert re.fullmatch(
        r"requirement=requiretls; source=esmtp; forecast=[\w.:\[\]-]{1,255}; reason=ok; "
        r"route=mixed; by=[\w.:\[\]-]{1,255}",
        value,
        re.ASCII,
    )


@given(
    st.sampled_from(
        [
            (NONE, Source.NONE),
            (NO, Source.TLS_REQUIRED),
            *((REQUIRETLS, one) for one in (Source.ESMTP, Source.REQUIRE_TLS_ESMTP, Source.RULE)),
        ]
    ),
    st.booleans(),
    ends,
)
def test_the_tag_of_one_recipient_is_that_of_a_message_with_it_alone(
    asked: tuple[Requirement, Source], local: bool, forecast: Forecast | None
) -> None:
    alone = Tagged(*asked, "example.org", local, forecast)
    assert of_one(*asked, local, forecast) == aggregate([alone])
