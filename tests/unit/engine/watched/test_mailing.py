"""Mails about watched domains, to a real SMTP server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from requiretls_milter.config import Watch
from requiretls_milter.engine.watched import mailing
from requiretls_milter.engine.watched.inboundreport import Change
from requiretls_milter.engine.watched.mailing import MAX_WAITING, Mailer, next_digest
from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.model import InboundProblem
from requiretls_milter.telemetry.counting import Counters
from tests.support.mailbox import Mailbox
from tests.support.waiting import until

TO = ["postmaster@example.org", "ops@example.net"]
LOST = Problem(
    InboundProblem.STARTTLS_NOT_OFFERED,
    Urgency.BROKEN,
    "mx.example.org",
    "STARTTLS is not offered",
)
REPORT = InboundReport("example.org", (LOST,), (), None, frozenset(), 1.0)
CHANGE = Change(REPORT, (LOST,), (), validates=True)


class Kit:
    def __init__(self, box: Mailbox) -> None:
        self.box = box
        self.settings = self.with_(mail_to=TO)
        self.counters = Counters()
        self.now = 0.0
        self.mailer = Mailer(
            lambda: self.settings,
            lambda: [REPORT],
            self.counters,
            wall=lambda: self.now,
        )

    def with_(self, **keys: object) -> Watch:
        return Watch.model_validate({"mail_server": f"127.0.0.1:{self.box.port}", **keys})

    def counted(self) -> dict[str, float]:
        return {labels[0]: value for _, labels, value in self.counters.totals().counters}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(run()) for run in (self.mailer.run, self.mailer.run_digests)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def kit(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kit]:
    for name, seconds in (("COLLECT", 0.05), ("RETRY", 0.05), ("TICK", 0.01)):
        monkeypatch.setattr(mailing, name, seconds)
    async with Mailbox() as box:
        one = Kit(box)
        async with one.running():
            yield one


async def test_a_change_is_mailed_to_all(kit: Kit) -> None:
    kit.mailer.tell(CHANGE)
    await until(lambda: kit.counted() == {"sent": 1})
    (mail,) = kit.box.mails
    assert mail["Subject"] == "example.org: 1 new problem, 0 ended"
    assert mail["To"] == ", ".join(TO)
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "starttls_not_offered: mx.example.org" in mail.get_content()
    ((sender, recipients),) = kit.box.envelopes
    assert sender.startswith("<requiretls-milter@")
    assert recipients == ("<postmaster@example.org>", "<ops@example.net>")


async def test_the_sender_may_be_configured(kit: Kit) -> None:
    kit.settings = kit.with_(mail_to=TO, mail_from="watch@example.org")
    kit.mailer.tell(CHANGE)
    await until(lambda: kit.box.envelopes)
    assert kit.box.envelopes[0][0] == "<watch@example.org>"


async def test_what_changes_at_once_comes_in_one_mail(kit: Kit) -> None:
    for domain in ("example.org", "example.net"):
        kit.mailer.tell(replace(CHANGE, report=replace(REPORT, domain=domain)))
    await until(lambda: kit.counted() == {"sent": 1})
    assert kit.box.mails[0]["Subject"] == "example.org and 1 more: 2 new problems, 0 ended"


async def test_without_an_address_nothing_is_mailed(kit: Kit) -> None:
    kit.settings = kit.with_()
    kit.mailer.tell(CHANGE)
    kit.settings = kit.with_(mail_to=TO)
    kit.mailer.tell(replace(CHANGE, report=replace(REPORT, domain="second.example")))
    await until(lambda: kit.box.mails)
    assert "example.org" not in kit.box.mails[0]["Subject"]


async def test_a_mail_that_is_put_off_comes_later_with_what_changed_since(kit: Kit) -> None:
    kit.box.busy = True
    with capture_logs() as logs:
        kit.mailer.tell(CHANGE)
        await until(lambda: kit.box.refused >= 1 and _failing(kit))
        assert _failing(kit).startswith("127.0.0.1:")
        kit.mailer.tell(replace(CHANGE, report=replace(REPORT, domain="second.example")))
        kit.box.busy = False
        await until(lambda: kit.counted().get("sent") == 1)
    assert _failing(kit) == "", "it is taken now"
    assert "example.org and 1 more" in kit.box.mails[0]["Subject"]
    assert {line["event"] for line in logs} == {"watch_mail_failed"}
    assert "451" in logs[0]["error"]


def _failing(kit: Kit) -> str:
    return "" if kit.mailer.failing is None else kit.mailer.failing.error


async def test_an_mta_that_is_not_there_is_told(kit: Kit) -> None:
    kit.settings = kit.with_(mail_to=TO, mail_server="127.0.0.1:1")
    with capture_logs() as logs:
        kit.mailer.tell(CHANGE)
        await until(lambda: kit.counted().get("failed", 0) >= 1)
    assert "refused" in logs[0]["error"]


async def test_beyond_the_bound_the_oldest_change_goes(kit: Kit) -> None:
    kit.box.busy = True
    for number in range(MAX_WAITING + 2):
        kit.mailer.tell(replace(CHANGE, report=replace(REPORT, domain=f"d{number}.example")))
    assert kit.counted() == {"dropped": 2}
    kit.box.busy = False
    await until(lambda: kit.box.mails)
    assert kit.box.mails[0]["Subject"].startswith(f"d2.example and {MAX_WAITING - 1} more")


async def test_the_digest_comes_at_its_time_once(kit: Kit) -> None:
    kit.settings = kit.with_(mail_to=TO, digest_at="07:00")
    due = next_digest("07:00", kit.now)
    kit.now = due - 1.0
    await asyncio.sleep(0.1)  # nothing happens
    assert kit.box.mails == []
    kit.now = due + 1.0
    await until(lambda: kit.box.mails)
    await asyncio.sleep(0.1)  # nothing more happens
    assert [mail["Subject"] for mail in kit.box.mails] == [
        "1 of 1 watched domains with problems: example.org"
    ]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(year: int, month: int, day: int, hour: int, minute: int = 0) -> float:
    return datetime.datetime(year, month, day, hour, minute).astimezone().timestamp()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("at", "after", "expected"),
    [
        ("07:00", lambda: local(2026, 7, 1, 6), lambda: local(2026, 7, 1, 7)),
        ("07:00", lambda: local(2026, 7, 1, 7), lambda: local(2026, 7, 2, 7)),
        ("07:00", lambda: local(2026, 12, 31, 8), lambda: local(2027, 1, 1, 7)),
        # Clocks go forward at 2:00 on that day.
        ("07:00", lambda: local(2026, 3, 28, 8), lambda: local(2026, 3, 29, 7)),
    ],
)
def test_the_time_of_the_digest_is_local(
    at: str, after: Callable[[], float], expected: Callable[[], float]
) -> None:
    assert next_digest(at, after()) == expected()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("at", ["00:00", "02:30", "03:00", "23:59"])
def test_a_digest_comes_each_day_also_when_clocks_are_changed(at: str) -> None:
    for begin in (local(2026, 3, 28, 0), local(2026, 10, 24, 0)):
        moment = begin
        for _ in range(4):
            moment, before = next_digest(at, moment), moment
            assert before < moment <= before + 25.5 * 3600
        assert moment > begin + 3 * 86_400 - 3600
