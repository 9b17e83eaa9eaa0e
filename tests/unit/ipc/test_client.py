"""The worker's way to the engine: never in SMTP's way, whatever the engine does."""

from __future__ import annotations

import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config, Limits
from requiretls_milter.ipc import client as module
from requiretls_milter.ipc.client import EngineClient
from requiretls_milter.ipc.framing import frame
from requiretls_milter.ipc.kept import FORECAST_OCTETS
from requiretls_milter.ipc.wire import (
    ExpandReply,
    ExpandRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    MtaRequest,
    Request,
    encode,
    error_reply,
)
from requiretls_milter.model import Forecast, Needs, Outcome, Question, Requirement
from requiretls_milter.syntax.expansion import Expansion, ExpansionError
from requiretls_milter.telemetry.counting import Counters
from tests.support.fakeengine import FakeEngine, answers, forecast, is_silent, says
from tests.support.memory import measured
from tests.support.waiting import eventually


def question(nexthop: str = "example.org", transport: str = "smtp") -> Question:
    return Question(nexthop, transport, Requirement.REQUIRETLS, Requirement.REQUIRETLS)


AT_ONCE = 0.5
"""Seconds: nothing for SMTP, and enough for a busy machine to come to its turn."""


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rtls-") as directory:
        yield Path(directory) / "e.sock"


@pytest.fixture
def engine(path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(path, answers()).start()
    yield fake
    fake.stop()


class ShiftedClocks:
    """The host's clocks, set forward or back by a test."""

    def __init__(self) -> None:
        self.wall_shift = 0.0
        self.monotonic_shift = 0.0

    def wall(self) -> float:
        return time.time() + self.wall_shift

    def monotonic(self) -> float:
        return time.monotonic() + self.monotonic_shift

    def pass_(self, seconds: float) -> None:
        self.wall_shift += seconds
        self.monotonic_shift += seconds


def configured(path: Path, limits: Limits | None = None) -> Config:
    """Limits may be lower than an operator can set them."""
    settings = {"engine": {"socket": str(path)}, "limits": limits or Limits()}
    return Config.model_validate(settings)


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[..., EngineClient]]:
    made: list[EngineClient] = []

    def one(*, wait: bool = True, limits: Limits | None = None, **options: Any) -> EngineClient:
        made.append(EngineClient(configured(path, limits), **options))
        if wait:
            eventually(lambda: made[-1].connected)
        return made[-1]

    yield one
    for client in made:
        client.close()


Connect = Callable[..., EngineClient]


Answer = Forecast | Future[Forecast]


def soon(answer: Answer) -> Forecast:
    return answer if isinstance(answer, Forecast) else answer.result(5)


def at_once(answer: Answer) -> Forecast:
    assert isinstance(answer, Forecast)
    return answer


def later(answer: Answer) -> Future[Forecast]:
    assert isinstance(answer, Future)
    return answer


def unknown(forecast: Forecast) -> bool:
    return forecast.status == "unknown" and forecast.outcome is Outcome.UNKNOWN


def test_a_question_gets_the_engine_s_answer(engine: FakeEngine, connect: Connect) -> None:
    assert soon(connect().ask(question("a.example"))).text == "a.example"


def test_many_questions_are_in_flight_on_one_connection(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    client = connect()
    futures = [client.ask(question(f"{number}.example")) for number in range(1000)]
    eventually(lambda: len(engine.asked) == 1000)
    assert not any(later(future).done() for future in futures)
    connection = engine.connections[0]
    for request in reversed(engine.questions):
        answers()(connection, request)
    for number, future in enumerate(futures):
        assert soon(future).text == f"{number}.example"
    assert engine.accepted == 1


def test_without_an_engine_the_answer_is_unknown_at_once(connect: Connect) -> None:
    client = connect(wait=False)
    assert unknown(at_once(client.ask(question())))


def test_an_engine_that_dies_with_a_question_under_way_leaves_it_unknown_at_once(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    future = connect().ask(question())
    eventually(lambda: engine.asked)
    engine.stop()
    assert unknown(later(future).result(AT_ONCE))


def test_an_engine_that_comes_back_is_found_again(engine: FakeEngine, connect: Connect) -> None:
    client = connect()
    engine.stop()
    eventually(lambda: not client.connected)
    assert unknown(at_once(client.ask(question())))
    engine.start()
    eventually(lambda: client.connected)
    assert soon(client.ask(question())).text == "example.org"


def test_an_answer_is_kept_until_its_end_and_given_at_once(
    engine: FakeEngine, connect: Connect
) -> None:
    clocks = ShiftedClocks()
    engine.behaviour = answers(life=60)
    client = connect(clocks=clocks)
    first = soon(client.ask(question()))
    for _ in range(10):
        assert at_once(client.ask(question())) == first
    assert len(engine.asked) == 1
    clocks.pass_(60)
    soon(client.ask(question()))
    assert len(engine.asked) == 2


def test_the_engine_is_told_how_often_an_answer_was_used_when_it_has_ended(
    engine: FakeEngine, connect: Connect
) -> None:
    clocks = ShiftedClocks()
    client = connect(clocks=clocks)
    for uses in (0, 3, 1):
        engine.behaviour = answers(life=60 + clocks.wall_shift)
        soon(client.ask(question()))
        request = engine.questions[-1]
        assert (request.uses, request.may_be_stale) == (uses, True)
        for _ in range(3 if uses == 0 else 1):
            at_once(client.ask(question()))
        clocks.pass_(60)


def test_an_answer_that_is_past_its_life_is_given_and_not_kept(
    engine: FakeEngine, connect: Connect
) -> None:
    """The next message finds a fresh one at the engine."""
    client = connect()
    stale = replace(forecast(), valid_until=0.0, stale=60.0)

    def behave(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ForecastRequest):
            reply = ForecastReply(id=request.id, generation=request.generation, forecast=stale)
            connection.sendall(encode(reply))

    engine.behaviour = behave
    assert soon(client.ask(question())) == stale
    assert client.kept == 0


def test_a_kept_answer_is_given_also_while_the_engine_is_away(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect()
    first = soon(client.ask(question()))
    engine.stop()
    eventually(lambda: not client.connected)
    assert at_once(client.ask(question())) == first


def sized(size: int, *, smtputf8: bool = False) -> Question:
    return replace(question(), needs=Needs(smtputf8, size))


def test_an_answer_serves_messages_of_every_size_for_which_it_holds(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = answers(largest=10_000)
    client = connect()
    first = soon(client.ask(sized(3000)))
    for size in (0, 1, 3000, 9999, 10_000):
        assert at_once(client.ask(sized(size))) == first
    assert len(engine.asked) == 1
    engine.behaviour = answers(largest=0)
    for size in (10_001, 20_000):
        of_this_size = soon(client.ask(sized(size)))
        assert at_once(client.ask(sized(size))) == of_this_size
    assert at_once(client.ask(sized(3000))) == first
    soon(client.ask(sized(3000, smtputf8=True)))
    assert len(engine.asked) == 4


def test_an_answer_that_holds_for_any_size_serves_them_all(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect()
    first = soon(client.ask(sized(0)))
    assert at_once(client.ask(sized(2**60))) == first
    assert len(engine.asked) == 1


def test_unknown_is_never_kept(engine: FakeEngine, connect: Connect) -> None:
    engine.behaviour = answers(status="unknown")
    client = connect()
    soon(client.ask(question()))
    soon(client.ask(question()))
    assert len(engine.asked) == 2


def test_r59_questions_that_differ_in_anything_are_different_questions(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect()
    nothing, something = Requirement.NONE, Requirement.REQUIRETLS
    for one in (
        Question("a.example", "smtp", something, something),
        Question("b.example", "smtp", something, something),
        Question("a.example", "relay", something, something),
        Question("a.example", "smtp", nothing, something),
        Question("a.example", "smtp", something, nothing),
    ):
        assert soon(client.ask(one)).text == one.nexthop
    assert len(engine.asked) == 5


def test_r61_a_clock_set_back_does_not_make_an_answer_live_longer(
    engine: FakeEngine, connect: Connect
) -> None:
    clocks = ShiftedClocks()
    client = connect(clocks=clocks)
    engine.behaviour = answers(life=60)
    soon(client.ask(question()))
    clocks.wall_shift = -1000.0
    assert at_once(client.ask(question())).text == "example.org"
    clocks.monotonic_shift = 60.0
    soon(client.ask(question()))
    assert len(engine.asked) == 2


def test_a_clock_set_forward_ends_an_answer_s_life(engine: FakeEngine, connect: Connect) -> None:
    clocks = ShiftedClocks()
    client = connect(clocks=clocks)
    soon(client.ask(question()))
    clocks.wall_shift = 1000.0
    soon(client.ask(question()))
    assert len(engine.asked) == 2


def test_no_more_answers_are_kept_than_allowed_and_the_least_used_goes_first(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect(limits=Limits().model_copy(update={"forecast_cache": 3}))
    for name in ("a", "b", "c", "a", "d"):
        soon(client.ask(question(name)))
    asked = len(engine.asked)
    soon(client.ask(question("a")))
    assert len(engine.asked) == asked
    soon(client.ask(question("b")))
    assert len(engine.asked) == asked + 1


def test_r60_the_same_question_is_put_once_however_many_ask(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    client = connect()
    futures = [client.ask(question()) for _ in range(50)]
    eventually(lambda: engine.asked)
    answers()(engine.connections[0], engine.questions[-1])
    assert [soon(future).text for future in futures] == ["example.org"] * 50
    assert len(engine.asked) == 1


def test_r60_a_cancelled_call_does_not_take_the_answer_from_the_others(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    client = connect()
    first, second, third = (client.ask(question()) for _ in range(3))
    assert later(first).cancel()
    eventually(lambda: engine.asked)
    answers()(engine.connections[0], engine.questions[-1])
    assert soon(second) == soon(third)


def test_a_new_configuration_forgets_what_was_judged_under_the_old_one(
    engine: FakeEngine, connect: Connect, path: Path
) -> None:
    client = connect(generation=1)
    soon(client.ask(question()))
    client.reconfigure(configured(path), 2)
    soon(client.ask(question()))
    assert len(engine.asked) == 2
    assert [asked.generation for asked in engine.questions] == [1, 2]


def test_at_the_engines_word_all_that_was_judged_is_forgotten(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect()
    for name in ("a", "b"):
        soon(client.ask(question(name)))
    engine.connections[0].sendall(encode(ForgetReply()))
    eventually(lambda: not client.kept)
    for name in ("a", "b"):
        soon(client.ask(question(name)))
    assert engine.asked == ["a", "b", "a", "b"]


def test_of_what_another_engine_has_judged_nothing_is_kept(
    engine: FakeEngine, connect: Connect
) -> None:
    """It may have trusted what this one does not, and cannot take its word back."""
    client = connect()
    soon(client.ask(question()))
    engine.drop()
    eventually(lambda: engine.accepted == 2 and client.connected)
    soon(client.ask(question()))
    assert len(engine.asked) == 2


def test_an_answer_judged_under_another_configuration_is_given_but_not_kept(
    engine: FakeEngine, connect: Connect
) -> None:
    def old(connection: Any, request: Any) -> None:
        if request.op == "forecast":
            reply = ForecastReply(id=request.id, generation=1, forecast=forecast("old"))
            connection.sendall(encode(reply))

    engine.behaviour = old
    client = connect(generation=2)
    assert soon(client.ask(question())).text == "old"
    assert soon(client.ask(question())).text == "old"
    assert len(engine.asked) == 2


GOOD = ForecastReply(id=1, generation=0, forecast=forecast("forged"))


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(8),
        struct.pack(">I", 1 << 31) + b"x",
        frame(b"{}"),
        frame(b"[1]"),
        frame(b"\xff\xfe"),
        frame(b"[" * 50_000),
        frame(b'{"op":"forecast","id":1,"generation":0,"forecast":{"status":"2.0.0"}}'),
        frame(b'{"op":"status","id":1}'),
        encode(GOOD).replace(b'"deliver"', b'"DELIVER"'),
        encode(GOOD).replace(b'"op":"forecast"', b'"op":"evidence"'),
    ],
    ids=[
        *("http", "empty", "too-long", "object", "list", "no-utf8", "deep", "no-time", "status"),
        *("no-outcome", "another-operation"),
    ],
)
def test_a_malformed_answer_is_unknown_and_the_next_question_is_answered(
    engine: FakeEngine, connect: Connect, octets: bytes
) -> None:
    engine.behaviour = says(octets)
    client = connect()
    assert unknown(soon(client.ask(question())))
    engine.behaviour = answers()
    eventually(lambda: client.connected)
    assert soon(client.ask(question())).text == "example.org"


def test_an_answer_without_a_question_is_passed_over(engine: FakeEngine, connect: Connect) -> None:
    def chatty(connection: Any, request: Any) -> None:
        if request.op == "forecast":
            stray = GOOD.model_copy(update={"id": 999_999})
            connection.sendall(encode(stray))
            answers()(connection, request)
            answers()(connection, request)

    engine.behaviour = chatty
    client = connect()
    assert soon(client.ask(question("a"))).text == "a"
    assert soon(client.ask(question("b"))).text == "b"
    assert engine.accepted == 1


def test_an_engine_that_refuses_a_question_leaves_it_unknown(
    engine: FakeEngine, connect: Connect
) -> None:
    def busy(connection: Any, request: Any) -> None:
        if request.op == "forecast":
            connection.sendall(encode(error_reply(request.id, "too many")))

    engine.behaviour = busy
    client = connect()
    result = soon(client.ask(question()))
    assert unknown(result)
    assert result.text == "too many"
    assert client.connected


def test_a_question_that_cannot_be_sent_is_unknown_and_harms_no_other(
    engine: FakeEngine, connect: Connect
) -> None:
    client = connect()
    assert unknown(soon(client.ask(question("\udc80.example"))))
    assert unknown(soon(client.ask(question("x" * 2_000_000))))
    assert soon(client.ask(question())).text == "example.org"
    assert engine.accepted == 1


def test_an_engine_that_lets_a_question_lie_is_given_up(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    limits = Limits().model_copy(update={"assessment_timeout": 0.4})
    client = connect(limits=limits, answer_margin=0.1)
    started = time.monotonic()
    assert unknown(soon(client.ask(question())))
    assert 0.4 < time.monotonic() - started < 2.5
    eventually(lambda: engine.accepted == 2)


def test_asking_takes_no_time_whatever_the_engine_does(
    engine: FakeEngine, connect: Connect, path: Path
) -> None:
    engine.stop()
    with socket.socket(socket.AF_UNIX) as deaf:  # accepts nobody, reads nothing
        path.unlink(missing_ok=True)
        deaf.bind(str(path))
        deaf.listen(1)
        client = connect()
        # A question that waited for the engine would never end; a busy machine may keep us
        # from our turn now and then, but not at every second question.
        took = []
        for number in range(3000):
            started = time.monotonic()
            client.ask(question(f"{number}.{'x' * 200}.example"))
            took.append(time.monotonic() - started)
        assert statistics.median(took) < AT_ONCE


def test_there_is_an_end_to_how_many_questions_are_under_way(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    counters = Counters()
    client = connect(limits=Limits(questions=16), counters=counters)
    futures = [client.ask(question(f"{number}")) for number in range(17)]
    assert unknown(at_once(futures[16]))
    assert not any(later(future).done() for future in futures[:16])
    assert ("saturated_total", ("questions",), 1.0) in counters.totals().counters


def test_many_threads_may_ask_at_once(engine: FakeEngine, connect: Connect) -> None:
    client = connect()
    wrong: list[str] = []

    def ask(seed: int) -> None:
        for number in range(100):
            name = f"{(seed * number) % 50}.example"
            if soon(client.ask(question(name))).text != name:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(engine.asked) == 50


# ---------------------------------------------------------------- counters


def test_counters_are_shipped_as_cumulative_totals_when_they_change(
    engine: FakeEngine, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHIP_INTERVAL", 0.1)
    counters = Counters()
    connect(worker="worker-7", incarnation=3, counters=counters)

    def shipped() -> float:
        return {m: v for m, _, v in engine.counted[-1].totals.counters}.get(
            "requirement_lost_total", 0.0
        )

    counters.inc("requirement_lost_total")
    eventually(lambda: engine.counted and shipped() == 1)
    counters.inc("requirement_lost_total")
    eventually(lambda: shipped() == 2)
    assert {(r.worker, r.incarnation) for r in engine.counted} == {("worker-7", 3)}
    number = len(engine.counted)
    time.sleep(0.4)
    assert len(engine.counted) == number


def test_a_new_engine_is_told_everything(engine: FakeEngine, connect: Connect) -> None:
    counters = Counters()
    counters.inc("requirement_lost_total", (), 5)
    connect(counters=counters)
    eventually(lambda: engine.counted)
    engine.stop()
    engine.requests.clear()
    engine.start()
    eventually(lambda: engine.counted)
    assert ("requirement_lost_total", (), 5.0) in engine.counted[0].totals.counters


def test_each_engine_is_told_once_what_the_mta_is(engine: FakeEngine, connect: Connect) -> None:
    def told() -> list[str]:
        return [one.version for one in engine.requests if isinstance(one, MtaRequest)]

    client = connect()
    client.tell_mta("Postfix 3.11.7")
    eventually(lambda: told() == ["Postfix 3.11.7"])
    client.tell_mta("Postfix 3.11.7")
    client.tell_mta("Postfix 3.12.0")
    eventually(lambda: told() == ["Postfix 3.11.7", "Postfix 3.12.0"])


def test_the_last_counts_are_shipped_at_the_end(engine: FakeEngine, connect: Connect) -> None:
    counters = Counters()
    client = connect(counters=counters)
    eventually(lambda: engine.counted)  # the first, and the next only after a second
    counters.inc("requirement_lost_total", (), 3)
    client.close()
    eventually(
        lambda: any(
            ("requirement_lost_total", (), 3.0) in r.totals.counters for r in engine.counted
        )
    )
    assert unknown(at_once(client.ask(question())))


def test_totals_of_any_size_are_shipped_in_pieces(
    engine: FakeEngine, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 3)
    domains = [f"{number}.example" for number in range(10)]
    counters = Counters(domains)
    for domain in domains:
        counters.inc("domain_forecasts_total", (domain, "2.0.0"))
    connect(counters=counters)
    eventually(lambda: sum(len(r.totals.counters) for r in engine.counted) >= 10)
    assert all(len(r.totals.counters) <= 3 for r in engine.counted)


def test_hits_and_misses_are_counted(engine: FakeEngine, connect: Connect) -> None:
    counters = Counters()
    client = connect(counters=counters)
    for _ in range(3):
        soon(client.ask(question()))
    found = {labels: value for _, labels, value in counters.totals().counters}
    assert found == {("forecast", "miss"): 1, ("forecast", "hit"): 2}


def test_forecasts_that_are_kept_take_no_more_memory_than_is_promised(
    engine: FakeEngine, connect: Callable[..., EngineClient], path: Path
) -> None:
    """Of next hops, transports and texts of the largest size; dropping them gives it back."""
    limits = Limits().model_copy(update={"forecast_cache": 600})
    engine.behaviour = answers(status="5.7.30")
    client = connect(limits=limits)
    promised = 600 * FORECAST_OCTETS
    with measured() as taken:
        for number in range(700):
            answer = client.ask(question(f"{number:0255}", f"{number:0255}"))
            assert isinstance(answer, Future)
            assert answer.result(5).status == "5.7.30"
        full = taken()
        assert client.kept < 600
        client.reconfigure(configured(path, limits), 0)
        kept = full - taken()
    assert 0.6 * promised < kept <= promised


# ---------------------------------------------------------------- what recipients become


def expands(**reply: Any) -> Callable[[socket.socket, Request], None]:
    def behave(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ExpandRequest):
            connection.sendall(encode(ExpandReply(id=request.id, **reply)))

    return behave


def test_the_engine_says_what_a_recipient_becomes(engine: FakeEngine, connect: Connect) -> None:
    engine.behaviour = expands(given="a@x.test", addresses=("b@x.test", "c@x.test"))
    found = connect().expand("<a@x.test>").result(5)
    assert found == Expansion("a@x.test", ("b@x.test", "c@x.test"))
    requests = [one for one in engine.requests if isinstance(one, ExpandRequest)]
    assert [one.recipient for one in requests] == ["<a@x.test>"]


def why(future: Future[Expansion]) -> str:
    with pytest.raises(ExpansionError) as error:
        future.result(5)
    return str(error.value)


def test_what_it_does_not_know_is_told(engine: FakeEngine, connect: Connect) -> None:
    engine.behaviour = expands(error="ldap:/x: gone")
    assert why(connect().expand("a@x.test")) == "ldap:/x: gone"

    def refuses(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ExpandRequest):
            connection.sendall(encode(error_reply(request.id, "internal error")))

    engine.behaviour = refuses
    assert why(connect().expand("a@x.test")) == "internal error"


def test_without_an_engine_a_recipient_is_not_expanded_at_once(connect: Connect) -> None:
    client = connect(wait=False)
    future = client.expand("a@x.test")
    assert future.done()
    assert "cannot be reached" in why(future)


def test_an_engine_that_goes_away_leaves_no_recipient_waiting(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    client = connect()
    future = client.expand("a@x.test")
    eventually(lambda: any(isinstance(one, ExpandRequest) for one in engine.requests))
    engine.stop()
    assert "the engine was lost" in why(future)


@pytest.mark.parametrize("asks_for_forecast", [True, False])
def test_an_answer_to_another_question_cuts_the_connection_and_nobody_waits(
    engine: FakeEngine, connect: Connect, asks_for_forecast: bool
) -> None:
    def confused(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ForecastRequest):
            connection.sendall(encode(ExpandReply(id=request.id)))
        elif isinstance(request, ExpandRequest):
            reply = ForecastReply(id=request.id, generation=0, forecast=forecast())
            connection.sendall(encode(reply))

    engine.behaviour = confused
    client = connect()
    before = engine.accepted
    if asks_for_forecast:
        assert soon(client.ask(question())).status == "unknown"
    else:
        assert "answered with a forecast" in why(client.expand("a@x.test"))
    eventually(lambda: engine.accepted > before)


def test_recipients_count_among_the_questions_under_way(
    engine: FakeEngine, connect: Connect
) -> None:
    engine.behaviour = is_silent
    client = connect(limits=Limits().model_copy(update={"questions": 2}))
    for number in range(2):
        client.expand(f"{number}@x.test")
    assert "too many questions" in why(client.expand("a@x.test"))
    assert soon(client.ask(question())).status == "unknown"


def test_an_absurdly_long_recipient_is_not_asked_for(engine: FakeEngine, connect: Connect) -> None:
    assert "characters" in why(connect().expand("x" * 5000))
