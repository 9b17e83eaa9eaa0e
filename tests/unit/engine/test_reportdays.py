"""The history of reports in the store, whatever the store is and whatever it says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.reportdays import MAX_MAIL, ReportDays, decode, mail_by_domain
from requiretls_milter.ipc.framing import MAX_FRAME
from requiretls_milter.ipc.wire import MAX_NAME, ReportReply, encode
from requiretls_milter.readiness.days import MAX_COUNT, MAX_DAYS, Day, MailSource
from requiretls_milter.store.base import Store, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.opening import open_store
from requiretls_milter.syntax.endpoint import parse_store_url
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.fakesource import Clocks
from tests.support.readinesses import days


def kept(store: Store, node: str = "mx1", clocks: Clocks | None = None) -> ReportDays:
    return ReportDays(RecordStore(store, Counters()), node, clocks or Clocks())


async def test_what_is_kept_is_there_for_the_next_engine() -> None:
    store = MemoryStore()
    for day in days(3):
        await kept(store).keep(MailSource.LOG, day)
    assert await kept(store).read(MailSource.LOG) == days(3)


async def test_a_file_keeps_it_over_restarts(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.wall_time = time.time()
    for day in days(2):
        store = open_store(parse_store_url(f"sqlite://{tmp_path}/state.db"), Counters(), Gauges())
        await store.start()
        await kept(store, clocks=clocks).keep(MailSource.LOG, day)
        await store.close()
    store = open_store(parse_store_url(f"sqlite://{tmp_path}/state.db"), Counters(), Gauges())
    await store.start()
    try:
        assert await kept(store, clocks=clocks).read(MailSource.LOG) == days(2)
    finally:
        await store.close()


async def test_each_source_and_each_host_has_a_history_of_its_own() -> None:
    store = MemoryStore()
    (day,) = days(1)
    await kept(store).keep(MailSource.LOG, day)
    assert await kept(store).read(MailSource.LIST) == ()
    assert await kept(store, "mx2").read(MailSource.LOG) == ()


async def test_a_record_that_is_none_is_a_history_that_begins() -> None:
    store, clocks = MemoryStore(), Clocks()
    now = clocks.wall()
    await store.put(StoreKind.REPORT, "log@mx1", b'{"v":1,"days":[1]}', now + 99, now)
    assert await kept(store, clocks=clocks).read(MailSource.LOG) == ()
    (day,) = days(1)
    assert await kept(store, clocks=clocks).keep(MailSource.LOG, day) == (day,)


@pytest.mark.parametrize("value", [b"", b"[]", b'{"v":2,"days":[]}', b'{"days":[{}]}', b"\xff"])
def test_bytes_that_are_no_history_are_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode(value)


def test_mail_is_that_of_each_domain_whatever_its_status() -> None:
    counters = Counters(("a.example", "b.example"))
    for domain, status, count in (
        ("a.example", "2.0.0", 3),
        ("a.example", "5.7.30", 4),
        ("b.example", "2.0.0", 9),
        ("stranger.example", "2.0.0", 5),
    ):
        counters.inc("domain_forecasts_total", (domain, status), by=count)
    assert mail_by_domain(counters.totals().counters) == {
        "b.example": 9,
        "a.example": 7,
        "other": 5,
    }


def test_the_longest_answer_fits_into_a_frame() -> None:
    name = "x" * (MAX_NAME - 8)
    totals = [
        ("domain_forecasts_total", (f"{name}{number:08}", "2.0.0"), float(MAX_COUNT))
        for number in range(2 * MAX_MAIL)
    ]
    mail = mail_by_domain(totals)
    assert len(mail) == MAX_MAIL
    full = Day(
        day="2026-11-29",
        mail=MAX_COUNT,
        mail_ready=MAX_COUNT,
        domains=MAX_COUNT,
        domains_ready=MAX_COUNT,
    )
    reply = ReportReply(id=1, days=(full,) * MAX_DAYS, mail=mail)
    assert len(encode(reply)) < MAX_FRAME
