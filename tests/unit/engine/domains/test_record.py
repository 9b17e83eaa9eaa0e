"""What was found out last about each configured domain."""

from __future__ import annotations

import json

import pytest

from requiretls_milter.engine.condition import MAX_DOMAINS, MAX_WATCHED
from requiretls_milter.engine.domains.record import KEPT, KEPT_AGAIN, MAX_TEXT, DomainRecord
from requiretls_milter.engine.records import RecordError, Settled, decode_settled, encode_settled
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.watched.ownservers import MAX_VERDICT
from requiretls_milter.ipc.framing import MAX_FRAME
from requiretls_milter.ipc.wire import DomainStatus, StatusReply, WatchedStatus, encode
from requiretls_milter.model import (
    Forecast,
    HopKind,
    Mode,
    NextHop,
    Outcome,
    Reason,
    unknown_forecast,
)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.engineview import WELL

FINE = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
LACKING = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED)
UNKNOWN = unknown_forecast("no")


def answer(domain: str, nexthop: NextHop, forecast: Forecast) -> tuple[Mode, str]:
    return Mode.REJECT, "550 5.7.30" if forecast is LACKING else ""


async def note(
    record: DomainRecord, domain: str, forecast: Forecast = FINE, now: float = 1.0
) -> None:
    hop = NextHop(HopKind.MX, domain)
    await record.note(domain, hop, forecast, ready=forecast is FINE, now=now)


def shown(record: DomainRecord, most: int | None = None) -> tuple[DomainStatus, ...]:
    return record.shown(most, answer)


def names(record: DomainRecord, most: int | None = None) -> list[str]:
    return [one.domain for one in shown(record, most)]


async def test_since_is_when_the_verdict_became_what_it_is() -> None:
    record = DomainRecord()
    for now, forecast in ((1.0, FINE), (2.0, FINE), (3.0, LACKING), (4.0, LACKING)):
        await note(record, "a.example", forecast, now)
    (one,) = shown(record)
    assert (one.since, one.assessed_at, one.ready) == (3.0, 4.0, False)


async def test_a_time_in_which_nothing_is_known_does_not_begin_it_anew() -> None:
    record = DomainRecord()
    for now, forecast in ((1.0, FINE), (2.0, UNKNOWN), (3.0, UNKNOWN)):
        await note(record, "a.example", forecast, now)
    assert shown(record)[0].since == 2.0, "that nothing is known"
    await note(record, "a.example", FINE, 4.0)
    assert shown(record)[0].since == 1.0


async def test_of_what_is_not_known_it_is_not_said_whether_it_is_ready() -> None:
    record = DomainRecord()
    await note(record, "a.example", UNKNOWN)
    assert shown(record)[0].ready is None


async def test_those_that_are_not_ready_come_first_and_no_more_than_asked_for() -> None:
    record = DomainRecord()
    for name, forecast in (("c", FINE), ("b", LACKING), ("a", FINE), ("d", LACKING)):
        await note(record, name, forecast)
    assert names(record, 3) == ["b", "d", "a"]


async def test_those_of_which_nothing_is_known_come_next() -> None:
    record = DomainRecord()
    for name, forecast in (("a", FINE), ("b", UNKNOWN), ("c", LACKING)):
        await note(record, name, forecast)
    assert names(record) == ["c", "b", "a"]


async def test_a_domain_with_a_table_of_its_own_does_not_vanish_among_those_of_a_list() -> None:
    record = DomainRecord()
    for name, forecast in (("a", LACKING), ("b", UNKNOWN), ("c", FINE), ("d", LACKING)):
        await note(record, name, forecast)
    shown_first = record.shown(3, answer, {"c", "d"})
    assert [one.domain for one in shown_first] == ["d", "c", "a"]


async def test_a_copy_stays_as_it_was() -> None:
    record = DomainRecord()
    await note(record, "a")
    copy = record.copy()
    await note(record, "b")
    assert names(copy) == ["a"]


async def test_a_domain_without_a_rule_is_forgotten() -> None:
    record = DomainRecord()
    for name in ("a", "b"):
        await note(record, name)
    for _ in record.retain({"b", "c"}):
        pass
    assert names(record) == ["b"]


async def test_what_the_rule_in_force_does_is_shown_and_where_the_mail_goes() -> None:
    record = DomainRecord()
    await note(record, "a.example", LACKING)
    gateway = NextHop(HopKind.HOST, "gateway.example")
    await record.note("b.example", gateway, FINE, ready=True, now=1.0)
    first, second = shown(record)
    assert (first.mode, first.reply, first.nexthop) == (Mode.REJECT, "550 5.7.30", "")
    assert (second.reply, second.nexthop) == ("", "[gateway.example]")


async def test_a_text_is_printable_and_bounded() -> None:
    record = DomainRecord()
    long = Forecast("5.7.30", Outcome.BOUNCE, Reason.UNKNOWN, "\x1b" + "x" * 999)
    await note(record, "a", long)
    text = shown(record)[0].text
    assert len(text) <= MAX_TEXT
    assert text.isprintable()


async def test_the_longest_list_of_domains_fits_into_an_answer() -> None:
    record = DomainRecord()
    long = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, '"' * 999)
    for number in range(MAX_DOMAINS + 1):
        await note(record, f"{number:0253}", long, now=1_800_000_000.123456)
    watched = WatchedStatus(
        domain="x" * 253,
        severity="broken",
        verdict='"' * MAX_VERDICT,
        problems=99,
        observed_at=1_800_000_000.123456,
    )
    condition = WELL.model_copy(
        update={
            "domains": record.shown(MAX_DOMAINS, lambda *_: (Mode.REJECT, "550 5.7.30")),
            "watched": (watched,) * MAX_WATCHED,
        }
    )
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


# ---------------------------------------------------------------- over restarts


async def test_since_outlives_the_engine() -> None:
    store = MemoryStore()

    def engine() -> DomainRecord:
        return DomainRecord(RecordStore(store, Counters()))

    for now, forecast in ((1.0, FINE), (2.0, LACKING)):
        await note(engine(), "a.example", forecast, now)
    later = engine()
    await note(later, "a.example", UNKNOWN, 3.0)
    await note(later, "a.example", LACKING, 4.0)
    assert shown(later)[0].since == 2.0
    changed = engine()
    await note(changed, "a.example", FINE, 5.0)
    assert shown(changed)[0].since == 5.0


async def test_it_is_kept_for_as_long_as_the_domain_is_seen() -> None:
    store = MemoryStore()
    record = DomainRecord(RecordStore(store, Counters()))
    await note(record, "a.example", FINE, 1.0)
    await note(record, "a.example", FINE, 1.0 + KEPT_AGAIN)
    assert await store.get(StoreKind.DOMAIN, "a.example", KEPT + 2.0) is not None
    assert await store.get(StoreKind.DOMAIN, "a.example", KEPT + KEPT_AGAIN + 2.0) is None


async def test_what_was_written_under_a_clock_ahead_of_ours_begins_now() -> None:
    store = MemoryStore()
    ahead = encode_settled(Settled(Outcome.DELIVER, "2.0.0", Reason.OK, 99.0))
    await store.put(StoreKind.DOMAIN, "a.example", ahead, 1e9, 1.0)
    record = DomainRecord(RecordStore(store, Counters()))
    await note(record, "a.example", FINE, 5.0)
    assert shown(record)[0].since == 5.0


def test_what_was_encoded_comes_back() -> None:
    settled = Settled(Outcome.BOUNCE, "5.7.30", Reason.REQUIRETLS_NOT_OFFERED, 2.5)
    assert decode_settled(encode_settled(settled)) == settled
    assert settled.is_same(LACKING)
    assert not settled.is_same(FINE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v", 2),
        ("outcome", "unknown"),
        ("outcome", "deliver"),
        ("status", "5.7.30\n"),
        ("status", "unknown"),
        ("status", "5." * 999),
        ("reason", "no_such_word"),
        ("since", -1.0),
        ("since", 1e300),
        ("since", "long"),
        ("more", 1),
    ],
)
def test_what_we_would_not_have_written_is_no_record(key: str, value: object) -> None:
    record = json.loads(encode_settled(Settled(Outcome.BOUNCE, "5.7.30", Reason.UNKNOWN, 2.5)))
    with pytest.raises(RecordError):
        decode_settled(json.dumps({**record, key: value}).encode())
