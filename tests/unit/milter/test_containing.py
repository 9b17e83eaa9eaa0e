"""What a part of a callback raises goes no further."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter import serving
from requiretls_milter.milter.containing import Apart
from requiretls_milter.milter.serving import WorkerContext
from requiretls_milter.model import Forecast, Question, unknown_forecast
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Stage


class Source:
    """Implements :class:`requiretls_milter.milter.source.ForecastSource`."""

    def ask(self, question: Question) -> Forecast:
        return unknown_forecast("nobody is asked")


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Counters:
    monkeypatch.setattr(serving, "_current", None)
    made = Counters()
    serving.begin(WorkerContext(Config(), Source(), made, "host.example.net"))
    return made


def failures(counters: Counters) -> dict[tuple[str, ...], float]:
    return {
        labels: value
        for name, labels, value in counters.totals().counters
        if name == "callback_errors_total" and value
    }


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_is_counted_and_goes_no_further(
    counters: Counters, error: BaseException
) -> None:
    reached = []
    with Apart(Stage.EOM):
        reached.append("before")
        raise error
    reached.append("behind")
    assert reached == ["before", "behind"]
    assert failures(counters) == {("eom",): 1.0}


def test_what_does_not_fail_is_not_counted(counters: Counters) -> None:
    with Apart(Stage.RCPT):
        pass
    assert failures(counters) == {}


def test_a_failure_before_anything_is_served_goes_no_further_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_current", None)
    with Apart(Stage.NEGOTIATE):
        raise ValueError("x")
    assert serving.current() is None
