"""Many reports in a few words."""

from __future__ import annotations

from requiretls_milter.model import DomainEvidence
from requiretls_milter.reports.tally import Tally, VerdictChanges, line
from tests.support import build
from tests.support.build import clear, domain, host, probe
from tests.unit.reports.test_check import reported

GOOD = domain(host(build.certificate().tlsa(3, 1, 1)))
LACKING = domain(host(build.certificate().tlsa(3, 1, 1), seen=probe(requiretls=False)))
IN_CLEAR = domain(host(build.certificate().tlsa(3, 1, 1), seen=clear()))


def tallied(*evidence: DomainEvidence) -> Tally:
    tally = Tally()
    for one in evidence:
        tally.add(reported(one))
    return tally


def test_a_line_says_what_would_become_of_mail_and_why() -> None:
    assert line(reported(LACKING)) == (
        "Example.ORG  5.7.30 requiretls_not_offered: mx1.example.org[192.0.2.1] does not offer "
        "REQUIRETLS"
    )


def test_it_is_said_if_a_rule_refuses_what_the_mta_would_deliver() -> None:
    report = reported(GOOD)
    report["rule"]["reply"] = "550 5.7.30 REQUIRETLS cannot be honoured for example.org"
    assert line(report).endswith("; the rule answers 550 5.7.30")
    tally = Tally()
    tally.add(report)
    assert tally.outcomes().endswith("0 unknown; a rule answers 1 of them")


def test_the_summary_has_rate_outcomes_and_verdicts_the_commonest_first() -> None:
    summary = tallied(LACKING, GOOD, LACKING, IN_CLEAR).summary(2.0)
    assert summary.splitlines() == [
        "4 next hops in 2.0 s, 2.0/s: 1 would be delivered, 3 would fail permanently, "
        "0 would be deferred, 0 unknown",
        "       2  5.7.30 requiretls_not_offered",
        "       1  2.0.0 ok",
        "       1  5.7.30 starttls_not_offered",
    ]


def test_the_exit_status_is_the_worst_and_a_malformed_line_is_worse_than_all() -> None:
    assert tallied().exit_status == 0
    assert tallied(GOOD).exit_status == 0
    assert tallied(LACKING, GOOD).exit_status == 1
    tally = tallied(GOOD)
    tally.malformed = 1
    assert tally.exit_status == 2
    assert tally.outcomes().endswith(", 1 malformed")


def test_a_change_is_told_once() -> None:
    changes = VerdictChanges()
    assert changes.take(reported(GOOD)) == ""
    assert changes.take(reported(GOOD)) is None
    told = changes.take(reported(LACKING))
    assert told is not None
    assert told.startswith("Example.ORG  was 2.0.0 ok, is 5.7.30 requiretls_not_offered: ")
    assert changes.take(reported(LACKING)) is None
