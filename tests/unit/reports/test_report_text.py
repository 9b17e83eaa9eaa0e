"""What ``report`` prints for people."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from requiretls_milter.model import Mode
from requiretls_milter.reports import report_text
from requiretls_milter.reports.check import NextHopReport
from requiretls_milter.reports.would_have import DomainTally, ModeTally


def report(name: str, status: str, reason: str, outcome: str, reply: str | None) -> NextHopReport:
    made: dict[str, Any] = {
        "nexthop": name,
        "forecast": {"status": status, "reason": reason, "outcome": outcome},
        "rule": {"mode": "reject", "reply": reply},
        "resolver_validates": True,
    }
    return cast(NextHopReport, made)


GOOD = report("bank.example", "2.0.0", "ok", "deliver", None)
BAD = report("partner.example", "5.7.30", "requiretls_not_offered", "bounce", "550 5.7.30 no")


def tally() -> ModeTally:
    hits = DomainTally(
        refused=3,
        reasons=Counter(requiretls_not_offered=3),
        messages=dict.fromkeys(f"4dBGwW2XvVz1K{n}" for n in range(7)),
    )
    return ModeTally(Mode.REJECT, refused=3, messages=7, domains={"partner.example": hits})


def test_a_line_for_each_domain() -> None:
    assert report_text.ready([GOOD, BAD], {}, width=100).splitlines() == [
        "bank.example: 2.0.0 ok; mode reject, accepted",
        "partner.example: 5.7.30 requiretls_not_offered; mode reject, answered 550 5.7.30",
    ]
    assert report_text.ready([], {}) == "no domain has a rule of its own in [rules]"


def test_a_domain_whose_mail_goes_by_a_gateway_is_told_with_it() -> None:
    by_gateway = {"bank.example": "[gateway.example]"}
    assert report_text.ready([GOOD], by_gateway, width=100) == (
        "bank.example by [gateway.example]: 2.0.0 ok; mode reject, accepted"
    )


def test_what_a_mode_would_have_done() -> None:
    assert report_text.would_have([tally()], width=100).splitlines() == [
        "mode reject: 3 recipients refused, 0 deferred, 7 messages hit",
        "  partner.example: 3 refused, 0 deferred, mostly requiretls_not_offered",
        "    4dBGwW2XvVz1K0 4dBGwW2XvVz1K1 4dBGwW2XvVz1K2 4dBGwW2XvVz1K3 4dBGwW2XvVz1K4 and more",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width: int) -> None:
    for text in (
        report_text.ready([GOOD, BAD], {}, width=width),
        report_text.would_have([tally()], width=width),
    ):
        assert max(map(len, text.splitlines())) <= width
    assert "4dBGwW2XvVz1K4" in report_text.would_have([tally()], width=width)


def test_on_a_terminal_a_verdict_has_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = report_text.ready([GOOD, BAD], {}, width=100)
    assert "\x1b[32m2.0.0 ok\x1b[0m" in text
    assert "\x1b[31m5.7.30 requiretls_not_offered\x1b[0m" in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in report_text.ready([GOOD, BAD], {}, width=100)
