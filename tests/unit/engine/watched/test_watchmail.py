"""The text of mails about watched domains."""

from __future__ import annotations

from dataclasses import replace

from requiretls_milter.engine.watched.inboundreport import Change
from requiretls_milter.engine.watched.watchmail import (
    MAX_LINE,
    MAX_LINES,
    changes_letter,
    digest_letter,
)
from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.model import InboundProblem

DAY = 86_400.0
MX = "mx.example.org"
LOST = Problem(InboundProblem.STARTTLS_NOT_OFFERED, Urgency.BROKEN, MX, "STARTTLS is not offered")
ENDS = Problem(InboundProblem.CERTIFICATE_EXPIRES, Urgency.ENDS, MX, "it ends", 20 * DAY)
ADVICE = Problem(InboundProblem.TLSRPT_MISSING, Urgency.ADVICE, "", "no TLSRPT record")


def report(*problems: Problem, domain: str = "example.org") -> InboundReport:
    return InboundReport(domain, problems, (), None, frozenset(), 10 * DAY)


def test_a_change_is_told_with_what_breaks_first() -> None:
    letter = changes_letter([Change(report(LOST, ENDS), (LOST, ENDS), (ADVICE,), validates=True)])
    assert letter.subject == "example.org: 2 new problems, 0 ended"
    assert letter.text.splitlines()[:5] == [
        "example.org, 1970-01-11T00:00:00Z",
        "  new, broken:  starttls_not_offered: mx.example.org: STARTTLS is not offered",
        "  new, ends:  certificate_expires: mx.example.org: it ends",
        "  ended:  tlsrpt_missing: no TLSRPT record",
        "  Breaks first: starttls_not_offered of mx.example.org, now.",
    ]
    assert letter.text.endswith("requiretls-milter check --inbound example.org\n")


def test_changes_of_several_domains_come_in_one_mail() -> None:
    one = Change(report(LOST), (LOST,), (), validates=True)
    other = Change(report(domain="example.net"), (), (ENDS,), validates=True)
    letter = changes_letter([one, other])
    assert letter.subject == "example.org and 1 more: 1 new problem, 1 ended"
    assert "example.net, 1970" in letter.text
    assert "Nothing that was seen breaks soon." in letter.text


def test_a_digest_has_the_domains_with_problems_first() -> None:
    letter = digest_letter([report(domain="a.example"), report(ADVICE, ENDS, domain="z.example")])
    assert letter.subject == "1 of 2 watched domains with problems: z.example"
    lines = letter.text.splitlines()
    assert lines[0].startswith("z.example, 1970-01-11T00:00:00Z: Breaks first: certificate_expires")
    assert lines[2] == "  ends:    certificate_expires: mx.example.org: it ends"
    assert "a.example, 1970-01-11T00:00:00Z: Nothing that was seen breaks soon." in lines


def test_a_digest_of_good_domains_says_so() -> None:
    assert digest_letter([report(ADVICE)]).subject == "1 watched domain in good order"
    letter = digest_letter([report(), report(domain="example.net")])
    assert letter.subject == "2 watched domains in good order"


def test_lines_and_their_number_are_bounded() -> None:
    many = tuple(replace(LOST, text="x" * 999) for _ in range(MAX_LINES + 5))
    letter = changes_letter([Change(report(), many, (), validates=True)])
    lines = letter.text.splitlines()
    assert max(map(len, lines)) == MAX_LINE
    assert len(lines) < MAX_LINES + 10
    assert any("lines more" in line for line in lines)


def test_what_a_server_says_is_no_template() -> None:
    odd = replace(LOST, text="the server says {domain} {0}")
    assert "says {domain} {0}" in changes_letter([Change(report(), (odd,), (), True)]).text
