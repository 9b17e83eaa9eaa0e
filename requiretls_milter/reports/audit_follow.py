"""``audit --follow``: the comparison of forecasts and deliveries, while both are logged.

A process of its own, which takes part in no mail. It reads logs from now on, and ends at SIGTERM
or SIGINT, when all that was logged by then has been compared. Nothing that stands in a log, and no
log that is missing, ends it earlier.

Log lines, with keys that stay as they are: ``event=forecast_differs`` (with ``queue_id``, ``to``,
``forecast``, ``reason``, ``tls``, ``was``, ``was_tls``, ``relay``, ``text``), ``audit_following``,
``audit_log_unreadable`` and ``audit_log_readable`` (with ``log``), ``audit_not_written``,
``audit_ended``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from requiretls_milter.reports.audit import Auditor, Difference
from requiretls_milter.reports.audit_metrics import AuditFigures, values_of
from requiretls_milter.reports.logs.events import event_of
from requiretls_milter.reports.logs.lines import Line
from requiretls_milter.reports.logs.tailing import Tail
from requiretls_milter.reports.logs.times import DAY, Times
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.labels import AuditResult

TURN = 0.5
"""Seconds that are waited for lines before what is settled is looked at."""

WRITE_EVERY = 15.0
"""Seconds between two times that the file is written; Prometheus mostly looks as often."""

MAX_SAID = 200
"""Characters that are logged of the text of an attempt."""

_log = log.get_logger("audit")


class Follower:
    """Follows logs.

    Args:
        logs: as :class:`~.logs.tailing.Tail` has them.
        textfile: is written for node_exporter; None: no file.
    """

    def __init__(self, logs: Sequence[str], textfile: Path | None = None) -> None:
        self._logs = logs
        self._textfile = textfile
        self._tail = Tail(logs, self._say)
        self._auditor = Auditor(_log_difference)
        self.figures = AuditFigures()
        self._lines = 0
        self._unreadable: set[str] = set()
        self._times = Times(0.0)
        self._times_until = 0.0
        self._write_at = 0.0
        self._is_written = True
        self._stopped = False

    def write(self) -> None:
        """Write the file, if there is one to write.

        Raises:
            OSError: it cannot be written.
        """
        self._write_at = time.monotonic() + WRITE_EVERY
        if self._textfile is not None:
            self.figures.write(self._textfile)

    def run(self) -> None:
        """Follow until SIGTERM or SIGINT, or until standard input ends if it is the only log."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._tail.start()
        _log.info("audit_following", logs=" ".join(self._logs))
        while not self._stopped and not self._tail.has_ended:
            lines = self._tail.lines(TURN)
            self._auditor.following.advance(time.monotonic())
            self._take(lines)
            self._show(is_due=time.monotonic() >= self._write_at)
        self._take(self._tail.rest())
        found = self._auditor.finish()
        self._show(is_due=True)
        results = found.results
        _log.info(
            "audit_ended",
            equal=results[AuditResult.EQUAL],
            different=results[AuditResult.DIFFERENT],
            later=results[AuditResult.LATER],
            unknown=results[AuditResult.UNKNOWN],
            waiting=results[AuditResult.WAITING],
        )

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _take(self, lines: Iterable[Line]) -> None:
        now = time.time()
        if now >= self._times_until:
            # Times without a year are not later than this; a time that may be a bit too late costs
            # nothing, another one for each line would.
            self._times, self._times_until = Times(now + DAY), now + DAY / 4
        for line in lines:
            self._lines += 1
            event = event_of(line, self._times)
            if event is not None:
                self._auditor.take(event)

    def _show(self, *, is_due: bool) -> None:
        self.figures.show(
            values_of(self._auditor, lines=self._lines, unreadable=len(self._unreadable))
        )
        if not is_due:
            return
        try:
            self.write()
            self._is_written = True
        except OSError as error:
            if self._is_written:
                _log.error("audit_not_written", file=str(self._textfile), error=error.strerror)
            self._is_written = False

    def _say(self, name: str, text: str) -> None:
        """Note whether a log can be read; it is logged when that changes."""
        if text:
            if name not in self._unreadable:
                self._unreadable.add(name)
                _log.warning("audit_log_unreadable", log=name, error=text)
        elif name in self._unreadable:
            self._unreadable.discard(name)
            _log.info("audit_log_readable", log=name)


def _log_difference(one: Difference) -> None:
    _log.warning(
        "forecast_differs",
        queue_id=one.queue_id,
        to=f"<{one.recipient}>",
        forecast=one.forecast.status,
        reason=one.forecast.reason,
        tls=one.forecast.tls or None,
        was=one.delivery.status,
        was_tls=one.delivery.tls or None,
        relay=one.delivery.relay,
        text=one.delivery.said[:MAX_SAID],
    )


def follow(
    logs: Sequence[str], *, textfile: Path | None, listen: Endpoint | None, form: log.Format
) -> None:
    """Follow logs until the process is told to end.

    Args:
        logs: files, standard input, the journal.
        textfile: for node_exporter, or None.
        listen: where the metrics are served, or None.
        form: of the log.

    Raises:
        OSError: the file cannot be written, or the address cannot be had.
    """
    log.configure(form)
    follower = Follower(logs, textfile)
    follower.write()
    if listen is not None:
        port = follower.figures.serve(listen)
        _log.info("audit_listening", address=str(listen._replace(port=port)))
    follower.run()
