"""What a worker's main thread reads of the connections that it serves."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter import serving
from requiretls_milter.milter.serving import Connection, Serving, WorkerContext
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.milter.waiting import Waiting
from requiretls_milter.model import Forecast, Question, unknown_forecast
from requiretls_milter.telemetry.counting import Counters

CONFIG = Config()


class Source:
    """Implements :class:`requiretls_milter.milter.source.ForecastSource`."""

    def ask(self, question: Question) -> Forecast | Future[Forecast]:
        return unknown_forecast("nobody is asked")


def context() -> WorkerContext:
    return WorkerContext(CONFIG, Source(), Counters(), "host.example.net")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr(serving, "_current", None)
    serving.begin(context())
    made = serving.current()
    assert made is not None
    return made


def read() -> tuple[int, int, int, float]:
    return (
        serving.connections_open(),
        serving.transactions_in_progress(),
        serving.callbacks_waiting(),
        serving.longest_callback(),
    )


def test_nothing_is_served_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_current", None)
    assert serving.current() is None
    assert read() == (0, 0, 0, 0.0)


def test_each_connection_has_a_number_of_its_own(begun: Serving) -> None:
    assert Connection(begun).number != Connection(begun).number


def test_a_message_is_in_progress_until_it_ends(begun: Serving) -> None:
    connection = Connection(begun)
    message = Transaction(connection.settings, SmtpClient(), "<a@x.test>", ())
    connection.begin(message)
    assert serving.transactions_in_progress() == 1
    connection.end()
    assert (serving.transactions_in_progress(), connection.transaction) == (0, None)


def test_the_callback_that_waits_longest_is_known(
    begun: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Waiting(Connection(begun)):
        now[0] = 107.0
        with Waiting(Connection(begun)):
            now[0] = 109.0
            assert (serving.callbacks_waiting(), serving.longest_callback()) == (2, 9.0)
    assert (serving.callbacks_waiting(), serving.longest_callback()) == (0, 0.0)


def test_connections_that_begin_later_have_the_new_configuration(begun: Serving) -> None:
    before = Connection(begun)
    begun.context.config = new = CONFIG.model_copy()
    assert Connection(begun).settings.config is new
    assert before.settings.config is CONFIG
