"""How callbacks come to forecasts: questions are put early, and their answers waited for late.

A question is put as soon as it is known, at RCPT; the engine works on it while the message comes
in. A callback waits only if it has to decide, and never longer than the message has patience. Each
one that waits holds one of libmilter's threads, and is noted for the watchdog.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from requiretls_milter.milter.containing import Apart
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.serving import Connection
from requiretls_milter.milter.transaction import Transaction
from requiretls_milter.model import Forecast, unknown_forecast
from requiretls_milter.telemetry.labels import Bound, Stage

if TYPE_CHECKING:
    from requiretls_milter.syntax.expansion import Expansion


# ---------------------------------------------------------------- forecasts


def ask(connection: Connection, recipient: Recipient, stage: Stage) -> None:
    """Start the assessment, which then runs while the message comes in."""
    for one in recipient.targets:
        if one.question is None or one.pending is not None:
            continue
        with Apart(stage):  # on failure the forecast is unknown, and the rule decides
            one.pending = connection.serving.context.forecasts.ask(one.question)


def known(connection: Connection, recipient: Recipient) -> Forecast | None:
    """The forecast of a recipient, if it is there already: no callback waits for it."""
    if not isinstance(recipient.pending, Forecast):
        return None
    connection.counters.observe("forecast_wait_seconds", 0.0)
    return recipient.pending


def answer(
    connection: Connection,
    message: Transaction,
    recipient: Recipient,
    patience: float,
    stage: Stage,
) -> Forecast | None:
    """The forecast, unknown if it takes more than ``patience`` seconds; None without a question.

    If the recipient is expanded, what it becomes gets the forecasts.
    """
    if recipient.expansions:
        deadline = time.monotonic() + patience
        for one in recipient.expansions:
            left = deadline - time.monotonic()
            one.forecast = answer(connection, message, one, left, stage)
        recipient.waited = sum(one.waited for one in recipient.expansions)
        return None
    if recipient.question is None:
        return None
    pending = recipient.pending
    if pending is None:
        return unknown_forecast("the assessment could not be started")
    if isinstance(pending, Forecast):
        return known(connection, recipient)
    # Each callback that waits holds one of libmilter's threads.
    limits = connection.settings.config.limits
    if len(connection.serving.running) > limits.callbacks and not pending.done():
        connection.counters.inc("saturated_total", (Bound.CALLBACKS,))
        return unknown_forecast("too many callbacks are waiting for a forecast")
    forecast = unknown_forecast("the assessment failed")
    started = time.monotonic()
    with Apart(stage):
        try:
            forecast = pending.result(max(0.0, patience))
        except TimeoutError:
            forecast = unknown_forecast("no forecast in time")
    recipient.waited = time.monotonic() - started
    message.waited += recipient.waited
    if not pending.done() and not message.patience_left:
        connection.counters.inc("saturated_total", (Bound.MESSAGE_WAIT,))
    connection.counters.observe("forecast_wait_seconds", recipient.waited)
    return forecast


def wait_and_decide(connection: Connection, message: Transaction, spent: float) -> None:
    """Decide the recipients whose forecasts are under way, all within the message's patience.

    Args:
        connection: of the message.
        message: with recipients that are undecided.
        spent: seconds of this patience that are gone already.
    """
    with Waiting(connection):
        deadline = time.monotonic() + message.patience() - spent
        for recipient in message.undecided():
            patience = deadline - time.monotonic()
            forecast = answer(connection, message, recipient, patience, Stage.EOM)
            message.decide(recipient, forecast, time.time())


# ---------------------------------------------------------------- what a recipient becomes


def foresee(connection: Connection, message: Transaction, recipient: Recipient) -> None:
    """Have the assessments of what a recipient becomes begin as soon as that is known.

    The answers are kept until the recipient asks for them: no event may come before the end of the
    message. This runs on the thread that brings the expansion, and changes nothing of the message.
    """
    if recipient.expanding is None:
        return
    forecasts = connection.serving.context.forecasts

    def begin(found: Future[Expansion]) -> None:
        with Apart(Stage.RCPT):
            if not found.cancelled() and found.exception() is None:
                for question in message.foreseen(recipient, found.result()):
                    forecasts.ask(question)

    recipient.expanding.add_done_callback(begin)


def settle(
    connection: Connection,
    message: Transaction,
    recipient: Recipient,
    patience: float,
    stage: Stage,
) -> float:
    """Wait for what a recipient becomes, and take it; returns the seconds that SMTP waited."""
    pending = recipient.expanding
    waited = 0.0
    if pending is not None and not pending.done() and patience > 0:
        if len(connection.serving.running) > connection.settings.config.limits.callbacks:
            connection.counters.inc("saturated_total", (Bound.CALLBACKS,))
        else:
            started = time.monotonic()
            wait([pending], patience)
            waited = time.monotonic() - started
            message.waited += waited
    message.settle(recipient)
    ask(connection, recipient, stage)
    return waited


def settle_all(connection: Connection, message: Transaction) -> float:
    """Take what recipients have become; returns the seconds that SMTP waited for it."""
    expanding = [one for one in message.accepted if one.expanding is not None]
    if not expanding:
        return 0.0
    patience = message.patience()
    spent = 0.0
    with Waiting(connection):
        for recipient in expanding:
            spent += settle(connection, message, recipient, patience - spent, Stage.EOM)
    return spent


# ---------------------------------------------------------------- the watchdog


class Waiting:
    """Notes that a callback may be waiting, for the watchdog."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.serving.running[self._connection.number] = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._connection.serving.running.pop(self._connection.number, None)
