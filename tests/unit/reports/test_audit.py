"""``audit`` compares the forecasts in logs with what Postfix then did."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.audit import MAX_DIFFERENCES, Audit
from requiretls_milter.reports.audit import audit as audit_events
from requiretls_milter.reports.following import MAX_EARLY
from requiretls_milter.telemetry.labels import AuditResult
from tests.support.milterlogs import delivery_line, events, forecast_line


def audit(lines: Iterable[str]) -> Audit:
    return audit_events(events(lines))


def result(*lines: str) -> str:
    """How the only recipient in *lines* compares."""
    found = audit(lines)
    assert found.results.total() == 1
    return next(iter(found.results)).value


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize(
    ("forecast", "delivery", "expected"),
    [
        (("2.0.0", "ok", "dane/requiretls"), ("2.0.0", "dane/requiretls"), "equal"),
        (("2.0.0",), ("2.6.0",), "equal"),  # what a success is called is the server's affair
        (("5.7.30", "requiretls_not_offered"), ("5.7.30",), "equal"),
        (("4.7.5", "tls_handshake_failed", "dane?"), ("4.7.5", "dane?"), "equal"),
        (("5.7.30", "requiretls_not_offered"), ("5.7.10",), "different"),
        (("2.0.0", "ok", "dane"), ("2.0.0", "may:none"), "different"),
        (("2.0.0", "ok", "dane"), ("2.0.0",), "equal"),  # no such word before 3.11
        (("2.0.0",), ("4.4.1",), "different"),
        (("5.7.30", "requiretls_not_offered"), ("2.0.0",), "different"),
        (("unknown", "unknown"), ("2.0.0",), "unknown"),
    ],
)
def test_status_and_token_are_compared(
    form: str, forecast: tuple[str, ...], delivery: tuple[str, ...], expected: str
) -> None:
    assert result(forecast_line(*forecast, form=form), delivery_line(*delivery)) == expected


@pytest.mark.parametrize("command", ["MAIL FROM", "RCPT TO", "DATA", "end of DATA"])
def test_a_refusal_that_no_forecast_knows_is_no_difference(command: str) -> None:
    said = f"host mx1[192.0.2.1] said: 550 5.1.1 no (in reply to {command} command)"
    assert result(forecast_line("2.0.0"), delivery_line("5.1.1", said=said)) == "later"
    failure = forecast_line("5.7.30", "requiretls_not_offered")
    assert result(failure, delivery_line("5.1.1", said=said)) == "different"


def test_a_reply_to_ehlo_or_starttls_is_what_a_forecast_knows() -> None:
    said = "host mx1[192.0.2.1] said: 454 4.7.0 no (in reply to STARTTLS command)"
    assert result(forecast_line("2.0.0"), delivery_line("4.7.0", said=said)) == "different"


def test_the_first_attempt_counts() -> None:
    lines = (forecast_line("4.4.1", "unreachable"), delivery_line("4.4.1"), delivery_line("2.0.0"))
    assert result(*lines) == "equal"


def test_mail_that_waits_for_a_next_hop_in_trouble_was_not_tried() -> None:
    suspended = "delivery temporarily suspended: connect to mx1[192.0.2.1]:25: refused"
    forecast = forecast_line("4.4.1", "unreachable")
    assert result(forecast, delivery_line("4.4.1", said=suspended)) == "waiting"
    assert (
        result(forecast, delivery_line("4.4.1", said=suspended), delivery_line("4.4.1")) == "equal"
    )


def test_the_recipient_is_the_one_that_the_milter_saw() -> None:
    alias = delivery_line("2.0.0", to="v@elsewhere.example", extra="orig_to=<U@Example.org>, ")
    assert result(forecast_line("2.0.0"), alias) == "equal"
    assert audit([forecast_line("2.0.0"), delivery_line("2.0.0", to="v@example.org")]).compared == 0


@pytest.mark.parametrize(
    "line",
    [
        forecast_line("5.7.30", "requiretls_not_offered", action="reject"),
        forecast_line("5.7.30", "requiretls_not_offered", action="defer"),
        forecast_line("2.0.0", "local"),
        forecast_line("2.0.0", event="message"),
        forecast_line("2.0.0", queue_id=""),
        "event=recipient",
    ],
    ids=["refused", "deferred", "local", "no-recipient", "no-id", "nothing"],
)
def test_what_has_no_delivery_to_compare_is_passed_over(line: str) -> None:
    assert audit([line, delivery_line("2.0.0")]) == Audit()


@pytest.mark.parametrize(
    ("forecast", "delivery", "expected"),
    [
        ("5.7.30", ("4.7.30", "dane/!requiretls:none"), "equal"),
        ("4.7.30", ("4.7.30", "dane/!requiretls:none"), "equal"),  # soft_bounce is mirrored
        ("5.7.30", ("4.7.10", "dane/!requiretls:none"), "different"),
        ("2.0.0", ("4.7.30", "dane/!requiretls:none"), "different"),
    ],
)
def test_a_failure_that_soft_bounce_made_temporary_is_the_one_that_was_forecast(
    forecast: str, delivery: tuple[str, str], expected: str
) -> None:
    line = delivery_line(*delivery).replace("status=deferred", "status=SOFTBOUNCE")
    told = forecast_line(forecast, "requiretls_not_offered", "dane/!requiretls:none")
    assert result(told, line) == expected
    assert result(told, delivery_line(*delivery)) == (
        "equal" if forecast == delivery[0] else "different"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("5.6.7", "SMTPUTF8 is required, but was not offered by host mx1[192.0.2.1]"),
        ("5.3.4", "message size 2 exceeds size limit 1 of server mx1[192.0.2.1]"),
        ("4.7.8", "SASL authentication failed; server mx1[192.0.2.1] said: 535 no"),
        ("4.4.2", "lost connection with mx1[192.0.2.1] while sending end of data -- message may"),
    ],
    ids=["SMTPUTF8", "SIZE", "SASL", "the dot"],
)
def test_a_failure_that_no_probe_sees_is_later_unless_it_was_forecast(
    status: str, said: str
) -> None:
    delivery = delivery_line(status, said=said)
    assert result(forecast_line("2.0.0"), delivery) == "later"
    assert result(forecast_line(status, "unknown"), delivery) == "equal"
    assert result(forecast_line("5.7.30", "requiretls_not_offered"), delivery) == "different"


@pytest.mark.parametrize("relay", ["127.0.0.1[127.0.0.1]:10024", "scan[private/scan]"])
def test_a_filter_that_refuses_the_message_says_nothing_about_the_next_hop(relay: str) -> None:
    said = f"host {relay} said: 554 5.7.0 Reject, id=1 - spam (in reply to end of DATA command)"
    refused = delivery_line("5.7.0", said=said).replace("mx1.example.org[192.0.2.1]:25", relay)
    gone = delivery_line("4.4.1", said=f"connect to {relay}: Connection refused").replace(
        "mx1.example.org[192.0.2.1]:25", "none"
    )
    for forecast in (forecast_line("2.0.0"), forecast_line("5.7.30", "requiretls_not_offered")):
        assert result(forecast, refused) == result(forecast, gone) == "later"


def test_a_line_that_was_cut_before_its_status_says_nothing() -> None:
    delivery = delivery_line("4.4.1")
    cut = delivery[: delivery.index("dsn=")]
    assert result(forecast_line("2.0.0"), cut, delivery) == "unknown"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_forecast_whose_line_was_cut_behind_it_counts(form: str) -> None:
    line = forecast_line("5.7.30", "requiretls_not_offered", form=form, component="milter.account")
    cut = line[: line.index("action")]
    assert result(cut, delivery_line("5.7.30")) == "equal"


def test_lines_of_two_programs_may_cross() -> None:
    assert result(delivery_line("2.0.0"), forecast_line("2.0.0")) == "equal"


def test_what_is_kept_is_bounded() -> None:
    others = (delivery_line("2.0.0", to=f"u{n}@example.org") for n in range(MAX_EARLY))
    assert result(delivery_line("2.0.0"), *others, forecast_line("2.0.0")) == "waiting"
    many = audit(
        line
        for n in range(MAX_DIFFERENCES + 5)
        for line in (
            forecast_line("2.0.0", to=f"<u{n}@example.org>"),
            delivery_line("4.4.1", to=f"u{n}@example.org"),
        )
    )
    assert many.results[AuditResult.DIFFERENT] == MAX_DIFFERENCES + 5
    assert len(many.differences) == MAX_DIFFERENCES


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]))
        | st.sampled_from((forecast_line("2.0.0"), delivery_line("2.0.0"))),
        max_size=6,
    )
)
def test_no_line_raises_anything(lines: list[str]) -> None:
    audit(lines)


# ---------------------------------------------------------------- recipients that are expanded

ALIAS = "orig_to=<u@example.org>, "


def expansion(status: str, address: str, **other: str) -> str:
    return forecast_line(status, event="expansion", expansion=address, **other)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("late", [False, True])
def test_each_expansion_counts_in_the_place_of_its_recipient(form: str, late: bool) -> None:
    forecasts = [
        forecast_line("5.7.30", "requiretls_not_offered", expansions="2", form=form),
        expansion("2.0.0", "a@one.example", form=form),
        expansion("5.7.30", "b@two.example", form=form),
    ]
    deliveries = [
        delivery_line("2.0.0", to="A@one.example", extra=ALIAS),
        delivery_line("5.7.30", to="b@two.example", extra=ALIAS),
    ]
    found = audit([*deliveries, *forecasts] if late else [*forecasts, *deliveries])
    assert +found.results == {AuditResult.EQUAL: 2}


@pytest.mark.parametrize("late", [False, True])
def test_an_expansion_that_is_the_recipient_itself_has_the_delivery_to_it(late: bool) -> None:
    forecasts = [
        forecast_line("5.7.30", "requiretls_not_offered"),
        expansion("2.0.0", "u@example.org"),
        expansion("5.7.30", "b@two.example"),
    ]
    deliveries = [delivery_line("2.0.0"), delivery_line("5.7.30", to="b@two.example", extra=ALIAS)]
    found = audit([*deliveries, *forecasts] if late else [*forecasts, *deliveries])
    assert +found.results == {AuditResult.EQUAL: 2}


def test_an_expansion_that_is_local_is_not_waited_for() -> None:
    lines = [
        forecast_line("2.0.0"),
        expansion("2.0.0", "local@example.org", reason="local"),
        expansion("2.0.0", "b@two.example"),
        delivery_line("4.4.1", to="b@two.example", extra=ALIAS),
    ]
    found = audit(lines)
    assert +found.results == {AuditResult.DIFFERENT: 1}
    (difference,) = found.differences
    assert difference.recipient == "b@two.example"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_line_of_an_expansion_that_was_cut_counts_as_far_as_it_goes(form: str) -> None:
    begin = {"component": "milter.account"} if form == "json" else {}
    line = expansion("2.0.0", "b@two.example", form=form, **begin)
    if form == "json":
        line = json.dumps({**begin, **json.loads(line), "event": "expansion"})
        line = line.replace('"event": "expansion", ', "")
    cut = line[: line.index("mx1")]
    assert result(cut, delivery_line("2.0.0", to="b@two.example", extra=ALIAS)) == "equal"
