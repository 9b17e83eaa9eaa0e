"""Mail about watched domains: to ``watch.mail_to``, by SMTP to the MTA of this host.

Nothing waits for it. What changes within :data:`COLLECT` comes in one mail. If a mail cannot be
handed over, it is tried again every :data:`RETRY` seconds with what has changed since; beyond
:data:`MAX_WAITING` changes the oldest is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import smtplib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from requiretls_milter.config import Watch
from requiretls_milter.engine.watched.inboundreport import Change
from requiretls_milter.engine.watched.watchmail import Letter, changes_letter, digest_letter
from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.ipc.wire import Failing
from requiretls_milter.syntax.text import printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import WatchMailResult

COLLECT = 10.0
"""Seconds in which changes gather to one mail: a renewal that failed breaks several servers."""

RETRY = 300.0
"""Seconds after which a mail that could not be handed over is tried again."""

REPLY_TIMEOUT = 20.0
"""Seconds for each reply of the MTA."""

MAX_WAITING = 100
"""Changes that wait for a mail."""

TICK = 20.0
"""Seconds between two looks whether the time of the digest has come."""

_log = log.get_logger("engine.watch")


class Mailer:
    """Mails changes, and once a day how all watched domains are.

    Args:
        settings: gives ``[watch]`` as it is at the moment.
        reports: gives the last report of each watched domain.
        counters: where it is counted what became of each mail.
        wall: wall time, seconds since the epoch.
    """

    def __init__(
        self,
        settings: Callable[[], Watch],
        reports: Callable[[], Sequence[InboundReport]],
        counters: Counters,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._reports = reports
        self._counters = counters
        self._wall = wall
        self._waiting: deque[Change] = deque()
        self._digest_due = False
        self._wake = asyncio.Event()
        self.failing: Failing | None = None
        """Whether the last mail could not be handed over."""

    def tell(self, change: Change) -> None:
        """Have a change mailed; returns at once."""
        if not self._settings().mail_to:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._count(WatchMailResult.DROPPED, f"{MAX_WAITING} changes wait already")
        self._waiting.append(change)
        self._wake.set()

    async def run(self) -> None:
        """Mail what is told; a task, until it is cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(COLLECT)
            self._wake.clear()
            while self._waiting or self._digest_due:
                if not await self._mail_next():
                    await asyncio.sleep(RETRY)

    async def run_digests(self) -> None:
        """Have a digest mailed each day at its time; a task, until it is cancelled."""
        last = self._wall()
        while True:
            await asyncio.sleep(TICK)
            now, at = self._wall(), self._settings().digest_at
            if at and next_digest(at, last) <= now:
                self._digest_due = True
                self._wake.set()
            last = now

    async def _mail_next(self) -> bool:
        """Mail all changes that wait, or else the digest; whether nothing has to be tried again."""
        changes = tuple(self._waiting)
        if not changes:
            reports = self._reports()
            if reports and not await self._mail(digest_letter(reports)):
                return False
            self._digest_due = False
            return True
        if not await self._mail(changes_letter(changes)):
            return False
        for change in changes:  # some of them may have been dropped meanwhile
            if self._waiting and self._waiting[0] is change:
                self._waiting.popleft()
        return True

    async def _mail(self, letter: Letter) -> bool:
        settings = self._settings()
        if not settings.mail_to:
            return True
        try:
            await _in_a_thread(lambda: _hand_over(letter, settings))
        except (OSError, smtplib.SMTPException) as error:
            self._count(WatchMailResult.FAILED, printable(f"{settings.mail_server}: {error}"))
            return False
        self._count(WatchMailResult.SENT)
        return True

    def _count(self, result: WatchMailResult, error: str = "") -> None:
        self._counters.inc("watch_mails_total", (result,))
        if result is WatchMailResult.SENT:
            self.failing = None
            return
        self.failing = Failing.again(self.failing, error, self._wall())
        _log.warning("watch_mail_failed", result=result, error=error)


def next_digest(at: str, after: float) -> float:
    """Say when it is *at* (``HH:MM``, local time) for the first time after *after*."""
    hour, minute = map(int, at.split(":"))
    begin = datetime.datetime.fromtimestamp(after).astimezone()
    for days in (0, 1, 2):  # a day may lack this time, where clocks are put forward
        date = begin.date() + datetime.timedelta(days)
        time_of_day = datetime.time(hour, minute)
        moment = datetime.datetime.combine(date, time_of_day).astimezone().timestamp()
        if moment > after:
            return moment
    raise AssertionError("one of three days has not passed")


def _hand_over(letter: Letter, settings: Watch) -> None:
    """Give a mail to the MTA.

    Raises:
        OSError: the MTA cannot be reached.
        smtplib.SMTPException: it does not take the mail.
    """
    host = socket.getfqdn()
    sender = settings.mail_from or f"requiretls-milter@{host}"
    mail = EmailMessage()
    mail["Date"] = formatdate(localtime=True)
    mail["From"] = sender
    mail["To"] = ", ".join(settings.mail_to)
    mail["Subject"] = letter.subject
    mail["Message-ID"] = make_msgid(domain=host)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: nobody is to answer
    mail.set_content(letter.text)
    server = settings.mail_server
    with smtplib.SMTP(server.address, server.port, timeout=REPLY_TIMEOUT) as smtp:
        smtp.send_message(mail, sender, list(settings.mail_to))


async def _in_a_thread(work: Callable[[], None]) -> None:
    """Wait for *work* in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as failure:  # noqa: BLE001 - goes to the task that waits
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="watch-mail", daemon=True).start()
    await done
