"""What was found out last about each configured domain."""

from __future__ import annotations

from requiretls_milter.engine.condition import MAX_DOMAINS
from requiretls_milter.engine.domainrecord import MAX_TEXT, DomainRecord
from requiretls_milter.ipc.framing import MAX_FRAME
from requiretls_milter.ipc.wire import StatusReply, encode
from requiretls_milter.model import Forecast, Outcome, Reason, unknown_forecast
from tests.support.engineview import WELL

FINE = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
LACKING = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED)


def test_since_is_when_the_verdict_became_what_it_is() -> None:
    record = DomainRecord()
    for now, forecast in ((1.0, FINE), (2.0, FINE), (3.0, LACKING), (4.0, LACKING)):
        record.note("a.example", forecast, ready=forecast is FINE, now=now)
    (one,) = record.shown(10)
    assert (one.since, one.assessed_at, one.ready) == (3.0, 4.0, False)


def test_of_what_is_not_known_it_is_not_said_whether_it_is_ready() -> None:
    record = DomainRecord()
    record.note("a.example", unknown_forecast("no"), ready=False, now=1.0)
    assert record.shown(10)[0].ready is None


def test_those_that_are_not_ready_come_first_and_no_more_than_asked_for() -> None:
    record = DomainRecord()
    for name, ready in (("c", True), ("b", False), ("a", True), ("d", False)):
        record.note(name, FINE if ready else LACKING, ready=ready, now=1.0)
    assert [one.domain for one in record.shown(3)] == ["b", "d", "a"]


def test_those_of_which_nothing_is_known_come_next() -> None:
    record = DomainRecord()
    record.note("a", FINE, ready=True, now=1.0)
    record.note("b", unknown_forecast("no"), ready=False, now=1.0)
    record.note("c", LACKING, ready=False, now=1.0)
    assert [one.domain for one in record.shown(None)] == ["c", "b", "a"]


def test_a_copy_stays_as_it_was() -> None:
    record = DomainRecord()
    record.note("a", FINE, ready=True, now=1.0)
    copy = record.copy()
    record.note("b", FINE, ready=True, now=2.0)
    assert [one.domain for one in copy.shown(None)] == ["a"]


def test_a_domain_without_a_rule_is_forgotten() -> None:
    record = DomainRecord()
    for name in ("a", "b"):
        record.note(name, FINE, ready=True, now=1.0)
    record.retain(["b", "c"])
    assert [one.domain for one in record.shown(9)] == ["b"]


def test_a_text_is_printable_and_bounded() -> None:
    record = DomainRecord()
    long = Forecast("5.7.30", Outcome.BOUNCE, Reason.UNKNOWN, "\x1b" + "x" * 999)
    record.note("a", long, ready=False, now=1.0)
    text = record.shown(1)[0].text
    assert len(text) <= MAX_TEXT
    assert text.isprintable()


def test_the_longest_list_of_domains_fits_into_an_answer() -> None:
    record = DomainRecord()
    long = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, '"' * 999)
    for number in range(MAX_DOMAINS + 1):
        record.note(f"{number:0253}", long, ready=False, now=1_800_000_000.123456)
    condition = WELL.model_copy(update={"domains": record.shown(MAX_DOMAINS)})
    reply = StatusReply(
        id=1,
        version="",
        pid=1,
        generation=1,
        assessment_digest="",
        uptime=1.0,
        workers=(),
        in_flight=0,
        cache_entries={},
        condition=condition,
    )
    assert len(encode(reply)) < MAX_FRAME
