"""A callback waits for a forecast no longer than it may, and has one whatever happens."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter import waiting
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.serving import Connection, Serving, WorkerContext
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.milter.waiting import Waiting
from requiretls_milter.model import (
    Action,
    Capability,
    Forecast,
    Outcome,
    Question,
    Reason,
)
from requiretls_milter.syntax.expansion import Expansion
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Stage

GOOD = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)


class Source:
    """Implements :class:`requiretls_milter.milter.source.ForecastSource`."""

    def __init__(self) -> None:
        self.answers: dict[str, Forecast | Future[Forecast]] = {}
        self.asked: list[str] = []

    def ask(self, question: Question) -> Forecast | Future[Forecast]:
        self.asked.append(question.nexthop)
        return self.answers[question.nexthop]


class Served:
    """One connection with one message that asks for REQUIRETLS."""

    def __init__(self, expanded: dict[str, Future[Expansion]] | None = None, **limits: Any) -> None:
        self.source = Source()
        self.counters = Counters()
        config = Config.model_validate(
            {"limits": limits, "mta": {"aliases": "ask" if expanded is not None else "off"}}
        )
        expander = None if expanded is None else expanded.__getitem__
        context = WorkerContext(config, self.source, self.counters, "h", expander=expander)
        self.connection = Connection(Serving(context, Settings(config, expander)))
        client = SmtpClient(trusted=True, capability=Capability.REQUIRETLS, postfix=True)
        self.message = Transaction(self.connection.settings, client, "<a@x.test>", (b"REQUIRETLS",))

    def rcpt(self, address: str = "bob@example.org") -> Recipient:
        return self.message.add_recipient(f"<{address}>", "smtp", address.partition("@")[2])

    def answer(self, recipient: Recipient, patience: float = 0.01) -> Forecast | None:
        waiting.ask(self.connection, recipient, Stage.RCPT)
        return waiting.answer(self.connection, self.message, recipient, patience, Stage.RCPT)

    def counted(self, metric: str) -> dict[tuple[str, ...], float]:
        return {
            labels: value
            for name, labels, value in self.counters.totals().counters
            if name == metric and value
        }

    @property
    def waits(self) -> int:
        return sum(sum(counts) for _, counts, _ in self.counters.totals().histograms)


def text(forecast: Forecast | None) -> str:
    assert forecast is not None
    assert forecast.status == "unknown"
    return forecast.text


def test_a_question_is_put_once() -> None:
    served = Served()
    recipient = served.rcpt()
    served.source.answers["example.org"] = Future()
    waiting.ask(served.connection, recipient, Stage.RCPT)
    waiting.ask(served.connection, recipient, Stage.EOH)
    assert served.source.asked == ["example.org"]


def test_what_is_known_is_the_answer_without_a_wait() -> None:
    served = Served()
    recipient = served.rcpt()
    served.source.answers["example.org"] = GOOD
    assert served.answer(recipient) is GOOD
    assert (served.waits, recipient.waited) == (1, 0.0)


def test_without_an_answer_in_time_the_forecast_is_unknown() -> None:
    served = Served()
    recipient = served.rcpt()
    served.source.answers["example.org"] = Future()
    assert text(served.answer(recipient)) == "no forecast in time"
    assert served.message.waited == recipient.waited >= 0.01


def test_an_assessment_that_fails_is_counted_and_the_forecast_unknown() -> None:
    served = Served()
    failed: Future[Forecast] = Future()
    failed.set_exception(RuntimeError("a fault of this program"))
    served.source.answers["example.org"] = failed
    assert text(served.answer(served.rcpt())) == "the assessment failed"


def test_a_source_that_cannot_be_asked_makes_the_forecast_unknown() -> None:
    assert text(Served().answer(Served().rcpt())) == "the assessment could not be started"


def test_beyond_the_limit_no_further_callback_waits() -> None:
    served = Served(callbacks=1)
    served.source.answers["example.org"] = Future()
    with Waiting(served.connection), Waiting(Connection(served.connection.serving)):
        found = served.answer(served.rcpt(), patience=60.0)
    assert text(found) == "too many callbacks are waiting for a forecast"
    assert served.counted("saturated_total") == {("callbacks",): 1.0}


def test_all_recipients_of_a_message_share_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    first, second = served.rcpt(), served.rcpt("eve@other.example")
    served.source.answers = {"example.org": Future(), "other.example": GOOD}
    for recipient in (first, second):
        waiting.ask(served.connection, recipient, Stage.RCPT)
    monkeypatch.setattr(Transaction, "patience", lambda self: 60.0)
    waiting.wait_and_decide(served.connection, served.message, spent=59.99)
    assert first.waited < 30.0
    assert first.forecast is not None
    assert first.forecast.status == "unknown"
    assert second.forecast is GOOD
    assert first.decision is not None
    assert first.decision.action is Action.ACCEPT


def test_the_questions_of_an_expansion_are_put_as_soon_as_it_is_known() -> None:
    expansion: Future[Expansion] = Future()
    served = Served({"<alias@example.org>": expansion})
    recipient = served.rcpt("alias@example.org")
    served.source.answers = {"other.example": GOOD}
    waiting.foresee(served.connection, served.message, recipient)
    assert served.source.asked == []
    expansion.set_result(Expansion("alias@example.org", ("eve@other.example",)))
    assert served.source.asked == ["other.example"]


def test_what_a_recipient_becomes_is_waited_for_no_longer_than_it_may_be() -> None:
    served = Served({"<alias@example.org>": Future()})
    recipient = served.rcpt("alias@example.org")
    served.source.answers = {"example.org": GOOD}
    waited = waiting.settle(served.connection, served.message, recipient, 0.01, Stage.RCPT)
    assert waited >= 0.01
    assert served.message.waited == waited
    assert recipient.not_expanded == "not known in time"


def test_each_address_that_a_recipient_becomes_gets_a_forecast_within_one_patience() -> None:
    done: Future[Expansion] = Future()
    done.set_result(Expansion("list@example.org", ("ann@good.example", "bob@slow.example")))
    served = Served({"<list@example.org>": done})
    recipient = served.rcpt("list@example.org")
    served.source.answers = {"good.example": GOOD, "slow.example": Future()}
    waiting.settle(served.connection, served.message, recipient, 0.0, Stage.RCPT)
    assert served.answer(recipient, patience=0.02) is None
    good, slow = recipient.expansions
    assert good.forecast is GOOD
    assert text(slow.forecast) == "no forecast in time"
    assert recipient.waited == slow.waited


def test_all_that_is_expanded_is_waited_for_within_one_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pending: dict[str, Future[Expansion]] = {f"<{n}@example.org>": Future() for n in range(3)}
    served = Served(pending)
    served.source.answers = {"example.org": GOOD}
    recipients = [served.rcpt(address.strip("<>")) for address in pending]
    now, patiences = [100.0], []

    def wait(_: object, patience: float) -> None:
        patiences.append(patience)
        now[0] += min(patience, 2.0)

    monkeypatch.setattr(waiting, "wait", wait)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Transaction, "patience", lambda self: 5.0)
    assert waiting.settle_all(served.connection, served.message) == 5.0
    assert patiences == [5.0, 3.0, 1.0]
    assert {one.not_expanded for one in recipients} == {"not known in time"}
    assert served.connection.serving.running == {}


def test_without_anything_to_expand_nothing_is_waited_for() -> None:
    served = Served()
    served.rcpt()
    assert waiting.settle_all(served.connection, served.message) == 0.0


def test_what_a_message_may_wait_in_all_is_a_bound_that_is_counted() -> None:
    served = Served(message_wait=1)
    served.source.answers = {"example.org": Future(), "other.example": Future()}
    served.message.waited = 1.0
    served.answer(served.rcpt())
    assert served.counted("saturated_total") == {("message_wait",): 1.0}
