"""What was seen to fail, and when."""

from __future__ import annotations

from dataclasses import replace

from requiretls_milter.engine.troubles import MAX_FAILING, Troubles, lost, pack, subjects
from requiretls_milter.model import DnsOutcome, Feature, ProbeFailure, ProbeStage
from tests.support import build
from tests.support.fakesource import Clocks
from tests.support.memory import long_name


def test_what_failed_at_a_moment_or_later_counts_and_nothing_else() -> None:
    clocks = Clocks()
    troubles = Troubles(clocks)
    troubles.note(("mx", "a.example"))
    now = clocks.monotonic()
    assert troubles.since(now, pack([("probe", "192.0.2.1"), ("mx", "a.example")]))
    assert not troubles.since(now + 1, pack([("mx", "a.example")]))
    assert not troubles.since(now, pack([("mx", "b.example"), ("mta_sts", "a.example")]))


def test_trouble_ends_when_each_question_that_failed_is_answered() -> None:
    clocks = Clocks()
    troubles = Troubles(clocks)
    server, now = ("probe", "192.0.2.1"), clocks.monotonic()
    for name in ("mx.a.example", "mx.b.example", "mx.a.example"):
        troubles.note(server, ("192.0.2.1", 25, name))
    troubles.end(server, ("192.0.2.1", 25, "mx.c.example"))
    troubles.end(server, ("192.0.2.1", 25, "mx.a.example"))
    assert troubles.since(now, pack([server])), "another name fails there"
    troubles.end(server, ("192.0.2.1", 25, "mx.b.example"))
    assert not troubles.since(now, pack([server]))
    assert len(troubles) == 0


def test_no_answer_ends_what_is_not_offered_any_more() -> None:
    clocks = Clocks()
    troubles = Troubles(clocks)
    gone = lost(Feature.REQUIRETLS, "mx.a.example")
    troubles.note(gone)
    troubles.end(gone, "mx.a.example")
    assert troubles.since(clocks.monotonic(), pack([gone]))


def test_of_too_many_questions_that_fail_none_ends_the_trouble() -> None:
    clocks = Clocks()
    troubles = Troubles(clocks)
    server, now = ("probe", "192.0.2.1"), clocks.monotonic()
    for number in range(MAX_FAILING + 1):
        troubles.note(server, number)
    troubles.note(server, 0)  # which ones failed is not known any more
    for number in range(MAX_FAILING + 1):
        troubles.end(server, number)
    assert troubles.since(now, pack([server]))


def test_if_some_is_forgotten_everything_from_before_may_have_failed() -> None:
    clocks = Clocks()
    troubles = Troubles(clocks, max_octets=4_000)
    before = clocks.monotonic()
    for number in range(20):
        clocks.pass_(1)
        troubles.note(("mx", long_name(number)))
    assert len(troubles) < 20
    assert troubles.since(before, pack([("mx", "another.example")]))
    assert not troubles.since(clocks.monotonic() + 1, pack([("mx", "another.example")]))


def test_a_forecast_rests_on_each_piece_of_its_evidence() -> None:
    evidence = build.domain(build.host(build.certificate().tlsa()))
    assert set(subjects(evidence)) == {
        ("mx", "example.org"),
        ("mta_sts", "example.org"),
        lost(Feature.MTA_STS, "example.org"),
        ("addresses", "mx1.example.org"),
        ("tlsa", "mx1.example.org"),
        ("probe", "192.0.2.1"),
        *(
            lost(feature, "mx1.example.org")
            for feature in Feature
            if feature is not Feature.MTA_STS
        ),
    }


def test_it_does_not_rest_on_what_had_failed_already() -> None:
    dead = replace(build.probe(), stage=ProbeStage.CONNECT, failure=ProbeFailure.TIMEOUT, chain=())
    broken = build.host(seen=dead, tlsa_outcome=DnsOutcome.ERROR)
    evidence = build.domain(build.host(build.certificate().tlsa(), name="mx2.example.org"), broken)
    evidence = replace(evidence, mta_sts=replace(evidence.mta_sts, error="timed out"))
    found = set(subjects(evidence))
    assert ("tlsa", "mx2.example.org") in found
    assert ("tlsa", "mx1.example.org") not in found
    assert ("mta_sts", "example.org") not in found
