"""``report --would-have`` decides logged mail again, under stricter modes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.reports import would_have
from requiretls_milter.reports.would_have import MAX_OPEN, read, replay
from requiretls_milter.rules import RuleSet
from tests.support.milterlogs import events
from tests.support.milterlogs import recipient_line as line


def counts(*lines: str, **rules: object) -> dict[str, tuple[int, int, int]]:
    ruleset = RuleSet(Config.model_validate({"rules": rules}).rules)
    return {
        tally.mode.value: (tally.refused, tally.deferred, tally.messages)
        for tally in replay(read(events(lines)), ruleset)
    }


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_each_stricter_mode_is_tried(form: str) -> None:
    assert counts(line(form)) == {"defer": (0, 1, 1), "reject": (1, 0, 1)}


def test_a_rule_that_is_as_strict_already_is_not_counted() -> None:
    assert counts(line(), mode="defer") == {"defer": (0, 0, 0), "reject": (1, 0, 1)}
    assert counts(line(), mode="reject") == {"defer": (0, 0, 0), "reject": (0, 0, 0)}
    table = {"example.org": {"mode": "reject"}}
    assert counts(line(), recipient=table)["reject"] == (0, 0, 0)


def test_recipients_of_one_message_hit_it_once() -> None:
    assert counts(line(), line(to="<v@example.org>"))["reject"] == (2, 0, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"requirement": "none", "carried": "none"},
        {"requirement": "tls-required-no", "carried": "tls-required-no"},
        {"forecast": "2.0.0", "reason": "ok", "compliant": "true"},
        {"forecast": "4.4.1", "reason": "unreachable"},
        {"forecast": "2.0.0", "reason": "local"},
        {"sender": "<>"},
        {"client": "other"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_no_mode_acts_on_is_not_counted(fields: dict[str, str]) -> None:
    assert counts(line(**fields)) == {"defer": (0, 0, 0), "reject": (0, 0, 0)}


def test_the_rules_of_today_judge_the_mail_of_yesterday() -> None:
    assert counts(line(client="other"), enforce_for="all")["reject"] == (1, 0, 1)
    temporary = line(forecast="4.7.5", reason="tls_handshake_failed")
    assert counts(temporary)["reject"] == (0, 0, 0)
    assert counts(temporary, on_temporary="defer")["reject"] == (0, 1, 1)


FIELD = {"source": "require-tls-esmtp"}


def test_what_the_header_asks_is_decided_for_all_recipients_of_a_message() -> None:
    """At the end of a message: all are refused, or it passes and the MTA bounces."""
    good = {"to": "<v@example.net>", "forecast": "2.0.0", "reason": "ok", "compliant": "true"}
    alone = line(**FIELD)
    assert counts(alone, line(**FIELD, to="<w@example.org>"))["reject"] == (2, 0, 1)
    assert counts(alone, line(**FIELD, **good))["reject"] == (0, 0, 0)
    assert counts(alone, line(**FIELD, **good, queue_id="4B"))["reject"] == (1, 0, 1)
    # the parameter is known at RCPT: there each recipient is decided by itself
    assert counts(line(), line(**good))["reject"] == (1, 0, 1)
    # so is a rule that asks, whatever the header says besides
    assert counts(alone, line(**FIELD, **good), require=True)["reject"] == (1, 0, 1)


def test_a_contradiction_refuses_the_whole_message() -> None:
    contradicted = line(source="rule", carried="tls-required-no", forecast="2.0.0", reason="ok")
    beside = line(
        requirement="tls-required-no",
        source="tls-required",
        carried="tls-required-no",
        forecast="2.0.0",
        reason="ok",
        to="<v@example.net>",
    )
    assert counts(contradicted, beside)["defer"] == (2, 0, 1)
    assert counts(beside)["defer"] == (0, 0, 0)


@pytest.mark.parametrize(("downgraded", "expected"), [("86400", (0, 1, 1)), ("864000", (1, 0, 1))])
def test_within_the_grace_of_a_downgrade_a_refusal_is_a_deferral(
    downgraded: str, expected: tuple[int, int, int]
) -> None:
    assert counts(line(downgraded=downgraded))["reject"] == expected


def test_messages_whose_further_recipients_may_come_are_bounded() -> None:
    log = [line(**FIELD, queue_id=str(number)) for number in range(MAX_OPEN + 10)]
    assert counts(*log)["reject"] == (MAX_OPEN + 10, 0, MAX_OPEN + 10)


def test_recipients_of_one_message_that_wait_for_others_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(would_have, "MAX_OPEN_RECIPIENTS", 10)
    log = [line(**FIELD, to=f"<{number}@example.org>") for number in range(25)]
    assert counts(*log)["reject"] == (25, 0, 1)


def test_messages_that_are_listed_are_bounded_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(would_have, "MAX_LISTED", 10)
    log = [line(queue_id=f"4A{n}", to=f"<u@{n}.example>") for n in range(25)]
    ruleset = RuleSet(Config.model_validate({}).rules)
    for tally in would_have.replay(read(events(log)), ruleset):
        assert tally.messages == 25
        assert sum(len(domain.messages) for domain in tally.domains.values()) == 10


def test_names_and_domains_are_kept_to_their_largest_length() -> None:
    log = [line(queue_id="4" * 900, to=f"<u@{'a' * 900}>")]
    ruleset = RuleSet(Config.model_validate({}).rules)
    (domain,) = would_have.replay(read(events(log)), ruleset)[1].domains.items()
    assert len(domain[0]) == 255
    assert [len(message) for message in domain[1].messages] == [64]


def test_lines_that_are_no_recipient_of_ours_are_passed_over() -> None:
    garbage = [
        "",
        "recipient",
        '{"event": "recipient"}',
        '{"event": "recipient", "recipient": [',
        "[1, 2] recipient {}",
        line(requirement="frobnicate"),
        line(reason="frobnicate"),
        "recipient " + "x" * 20_000,
    ]
    assert counts(*garbage) == {"defer": (0, 0, 0), "reject": (0, 0, 0)}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_line_raises_anything(text: str) -> None:
    counts(text + " recipient", 'event=recipient sender="' + text)
