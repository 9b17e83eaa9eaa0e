"""The engine's socket: what is answered, and what is refused, cut off or given up."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.engine import server
from requiretls_milter.engine.server import TAKEN_AT_ONCE, EngineServer
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.ipc import query
from requiretls_milter.ipc.framing import Unframer, frame
from requiretls_milter.ipc.query import EngineUnavailable
from requiretls_milter.ipc.wire import (
    CountersRequest,
    EngineReply,
    ErrorReply,
    EvidenceRequest,
    ExpandReply,
    ExpandRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    MtaRequest,
    Request,
    StatusReply,
    StatusRequest,
    SuspendRequest,
    decode_reply,
    encode,
)
from requiretls_milter.model import (
    LOCAL_FORECAST,
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HostEvidence,
    MxEvidence,
    NextHop,
    Outcome,
    ProbeEvidence,
    Question,
    Reason,
    Requirement,
)
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.syntax.expansion import Expansion, ExpansionError
from requiretls_milter.telemetry.counting import Totals
from tests.support.engineview import SetEngine
from tests.support.readinesses import days
from tests.support.waiting import until


class FakeAssessor:
    """Answers after ``gate``, or raises."""

    def __init__(self) -> None:
        self.gate: asyncio.Event | None = None
        self.error: BaseException | None = None
        self.asked: list[str] = []
        self.uses: list[int] = []
        self.at_hand: Forecast | Exception | None = None
        self.chain: tuple[bytes, ...] = ()
        self.text = ""
        self.in_flight = 0

    async def assess(self, question: Question) -> Forecast:
        self.asked.append(question.nexthop)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        text = self.text or question.nexthop
        return Forecast("2.0.0", Outcome.DELIVER, Reason.OK, text)

    def answer_at_hand(self, question: Question, uses: int = 0) -> Forecast | None:
        self.uses.append(uses)
        if isinstance(self.at_hand, Exception):
            raise self.at_hand
        return self.at_hand

    async def evidence(self, nexthop: NextHop, refresh: bool = False) -> DomainEvidence:
        self.asked.append(f"{nexthop} {refresh}")
        if self.error is not None:
            raise self.error
        probes = (ProbeEvidence("192.0.2.1", chain=self.chain),)
        host = HostEvidence("mx", 1, AddressLookup(DnsOutcome.FOUND), probes=probes)
        return DomainEvidence(nexthop, MxEvidence(DnsOutcome.FOUND), hosts=(host,))


class Served:
    """An engine's server with nothing but a script behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.assessor = FakeAssessor()
        self.engine = SetEngine(self.assessor)  # type: ignore[arg-type]
        self.server = EngineServer(str(path), self.engine, workers=4)

    async def visit(self) -> Visitor:
        return Visitor(*await asyncio.open_unix_connection(str(self.path)))


class Visitor:
    """A client of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._unframer = Unframer()
        self._replies: list[EngineReply] = []

    def send(self, *requests: Request) -> None:
        self.writer.write(b"".join(map(encode, requests)))

    async def reply(self) -> Any:
        while not self._replies:
            data = await asyncio.wait_for(self.reader.read(65536), 5)
            if not data:
                raise EOFError
            self._replies += map(decode_reply, self._unframer.feed(data))
        return self._replies.pop(0)

    async def is_cut(self) -> bool:
        """Whether the connection ends, whatever still comes before."""
        try:
            while await asyncio.wait_for(self.reader.read(65536), 5):
                continue
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rtls-") as directory:
        yield Path(directory) / "e.sock"


@pytest.fixture
async def served(path: Path) -> AsyncIterator[Served]:
    one = Served(path)
    await one.server.open()
    yield one
    await one.server.close()


def ask(number: int, nexthop: str = "a.example") -> ForecastRequest:
    asked = Question(nexthop, "smtp", Requirement.NONE, Requirement.NONE)
    return ForecastRequest(id=number, generation=1, question=asked)


def count(value: float, worker: str = "worker-1") -> CountersRequest:
    totals = Totals((("requirement_lost_total", (), value),))
    return CountersRequest(worker=worker, incarnation=1, totals=totals)


async def test_a_message_may_get_a_forecast_past_its_life_and_a_command_never(
    served: Served,
) -> None:
    visitor = await served.visit()
    visitor.send(ask(1))
    await visitor.reply()
    assert served.assessor.uses == []
    visitor.send(ask(2).model_copy(update={"may_be_stale": True, "uses": 9}))
    await visitor.reply()
    assert served.assessor.uses == [9]
    visitor.close()


async def test_what_is_at_hand_is_not_assessed(served: Served) -> None:
    visitor = await served.visit()
    served.assessor.at_hand = replace(LOCAL_FORECAST, text="at hand")
    visitor.send(ask(1).model_copy(update={"may_be_stale": True}), ask(2))
    replies = [await visitor.reply(), await visitor.reply()]
    assert [(one.id, one.forecast.text) for one in replies if isinstance(one, ForecastReply)] == [
        (1, "at hand"),
        (2, "a.example"),
    ]
    assert served.assessor.asked == ["a.example"]
    served.server.void_forecasts()
    assert isinstance(await visitor.reply(), ForgetReply)
    visitor.close()


async def test_a_mistake_over_what_is_at_hand_costs_one_question(served: Served) -> None:
    visitor = await served.visit()
    served.assessor.at_hand = RuntimeError("a mistake")
    visitor.send(ask(1).model_copy(update={"may_be_stale": True}), ask(2))
    assert await visitor.reply() == ErrorReply(id=1, error="internal error")
    assert isinstance(await visitor.reply(), ForecastReply)
    visitor.close()


async def test_nor_does_a_message_under_rules_that_are_not_the_engines(served: Served) -> None:
    """During a reload the engine has the new rules first: these may act no more, the others may."""
    visitor = await served.visit()
    served.engine.generation = 2
    visitor.send(ask(1).model_copy(update={"may_be_stale": True}))
    await visitor.reply()
    assert served.assessor.asked == ["a.example"]
    assert served.assessor.uses == []
    visitor.close()


async def test_a_question_is_answered_with_the_generation_that_judged_it(served: Served) -> None:
    visitor = await served.visit()
    served.engine.generation = 4
    visitor.send(ask(7))
    reply = await visitor.reply()
    assert isinstance(reply, ForecastReply)
    assert (reply.id, reply.generation, reply.forecast.text) == (7, 4, "a.example")
    visitor.close()


async def test_requests_are_answered_as_they_are_done_and_none_waits_for_another(
    served: Served,
) -> None:
    served.assessor.gate = asyncio.Event()
    visitor = await served.visit()
    visitor.send(ask(1), StatusRequest(id=2))
    assert (await visitor.reply()).id == 2
    served.assessor.gate.set()
    assert (await visitor.reply()).id == 1
    visitor.close()


async def test_many_requests_at_once_are_taken_in_several_turns_of_the_loop(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = await served.visit()
    in_each_turn: list[int] = []
    taken = 0
    at_hand = served.server.answer_at_hand

    def noting(*arguments: Any) -> Any:
        nonlocal taken
        if not taken:
            asyncio.get_running_loop().call_soon(next_turn)
        taken += 1
        return at_hand(*arguments)

    def next_turn() -> None:
        nonlocal taken
        in_each_turn.append(taken)
        taken = 0

    monkeypatch.setattr(served.server, "answer_at_hand", noting)
    visitor.send(*(ask(number) for number in range(1, 3 * TAKEN_AT_ONCE)))
    visitor.send(count(3))
    assert {(await visitor.reply()).id for _ in range(1, 3 * TAKEN_AT_ONCE)} == set(
        range(1, 3 * TAKEN_AT_ONCE)
    )
    assert max(in_each_turn) <= TAKEN_AT_ONCE
    visitor.send(*(ask(number) for number in range(1, 3 * TAKEN_AT_ONCE)), count(4))
    visitor.close()
    await until(lambda: served.engine.aggregate.totals().counters[0][2] == 4)  # nothing is lost


async def test_counters_are_added_up_and_have_no_reply(served: Served) -> None:
    visitor = await served.visit()
    visitor.send(count(3), count(5), count(4, "worker-2"), StatusRequest(id=1))
    reply = await visitor.reply()
    assert isinstance(reply, StatusReply)
    assert served.engine.aggregate.totals().counters == (("requirement_lost_total", (), 9.0),)
    visitor.close()


async def test_the_version_of_the_mta_is_taken_and_told(served: Served) -> None:
    visitor = await served.visit()
    visitor.send(MtaRequest(version="Postfix 3.7.11"), StatusRequest(id=1))
    assert (await visitor.reply()).mta_version == "Postfix 3.7.11"
    visitor.close()


async def test_an_order_to_suspend_is_passed_on(served: Served) -> None:
    visitor = await served.visit()
    visitor.send(SuspendRequest(id=1, suspended=True), SuspendRequest(id=2, suspended=False))
    assert {(await visitor.reply()).op for _ in range(2)} == {"status"}
    assert served.engine.suspensions == [True, False]
    visitor.close()


async def test_the_condition_is_told_to_those_who_ask_for_the_whole(served: Served) -> None:
    visitor = await served.visit()
    visitor.send(StatusRequest(id=1))
    assert (await visitor.reply()).condition is None
    visitor.send(StatusRequest(id=2, whole=True))
    assert (await visitor.reply()).condition == served.engine.its_condition
    visitor.close()


async def test_the_figures_of_a_report_are_kept_and_given_to_the_next_one(served: Served) -> None:
    path = str(served.path)
    served.engine.mail = {"example.org": 3}
    (day,) = days(1)
    first = await asyncio.to_thread(query.report, path, MailSource.LOG)
    assert (first.days, first.mail) == ((), {"example.org": 3})
    second = await asyncio.to_thread(query.report, path, MailSource.LOG, keep=day)
    assert second.days == (day,)
    assert (await asyncio.to_thread(query.report, path, MailSource.LOG)).days == (day,)
    assert (await asyncio.to_thread(query.report, path, MailSource.LIST)).days == ()


async def test_a_status_tells_who_and_what_this_is(served: Served) -> None:
    worker, visitor = await served.visit(), await served.visit()
    worker.send(count(1, "worker-9"), ask(1))
    await worker.reply()
    visitor.send(StatusRequest(id=1))
    reply = await visitor.reply()
    assert isinstance(reply, StatusReply)
    assert reply.pid == os.getpid()
    assert reply.assessment_digest == "digest"
    assert reply.workers == ("worker-9",)
    assert reply.all_workers == 4
    assert reply.cache_entries == {"host": 3}
    assert reply.uptime >= 0
    worker.close()
    visitor.close()


async def test_evidence_is_given_for_a_next_hop_in_postfix_s_syntax(served: Served) -> None:
    served.assessor.chain = (bytes(range(256)),)
    path = str(served.path)
    found = await query.evidence(path, "[mx.example.org]:587", refresh=True)
    assert str(found.nexthop) == "[mx.example.org]:587"
    assert found.hosts[0].probes[0].chain == served.assessor.chain
    assert served.assessor.asked == ["[mx.example.org]:587 True"]
    with pytest.raises(EngineUnavailable, match="next hop"):
        await query.evidence(path, "a..b")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BusyError("full"), "busy"),
        (TimeoutError(), "in time"),
        (RuntimeError("secret"), "internal error"),
    ],
)
async def test_evidence_that_there_is_none_of_is_an_error_that_says_why(
    served: Served, error: Exception, text: str
) -> None:
    served.assessor.error = error
    visitor = await served.visit()
    visitor.send(EvidenceRequest(id=1, nexthop="a.example"))
    reply = await visitor.reply()
    assert isinstance(reply, ErrorReply)
    assert text in reply.error
    assert "secret" not in reply.error
    visitor.close()


async def test_evidence_of_half_a_mebibyte_arrives_whole(served: Served) -> None:
    served.assessor.chain = (bytes(500_000),)
    found = await query.evidence(str(served.path), "a.example")
    assert found.hosts[0].probes[0].chain == served.assessor.chain


async def test_evidence_that_is_too_much_for_a_frame_is_an_error_not_silence(
    served: Served,
) -> None:
    served.assessor.chain = (bytes(900_000),)
    visitor = await served.visit()
    visitor.send(EvidenceRequest(id=1, nexthop="a.example"))
    reply = await visitor.reply()
    assert isinstance(reply, ErrorReply)
    assert "over the limit" in reply.error
    visitor.close()


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4),
        b"\xff" * 100,
        frame(b"{}"),
        frame(b'{"op":"forecast","id":1}'),
        frame(b"\xff"),
        frame(b'{"op":"counters","worker":"w","incarnation":1,"totals":{"counters":[["x",[],1]]}}'),
        encode(count(1)).replace(b"requirement_lost_total", b"requirement_lost_tota1"),
    ],
)
async def test_a_client_that_sends_no_request_is_cut_off_and_no_other(
    served: Served, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await served.visit(), await served.visit()
    bad.writer.write(octets)
    assert await bad.is_cut()
    good.send(ask(1))
    assert isinstance(await good.reply(), ForecastReply)
    assert caplog.records == []  # it was foreseen: asyncio has nothing to complain of
    good.close()
    bad.close()


async def test_a_request_that_comes_byte_by_byte_is_understood(served: Served) -> None:
    visitor = await served.visit()
    for octet in encode(ask(1)):
        visitor.writer.write(bytes([octet]))
        await asyncio.sleep(0)
    assert (await visitor.reply()).id == 1
    visitor.close()


async def test_there_is_an_end_to_how_many_may_visit(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    inside = [await served.visit() for _ in range(3)]
    for visitor in inside:
        visitor.send(ask(1))
        await visitor.reply()
    late = await served.visit()
    assert await late.is_cut()
    late.close()
    inside[0].close()
    await until(lambda: served.server.connections == 2)
    late = await served.visit()
    late.send(ask(1))
    assert (await late.reply()).id == 1
    for visitor in (*inside, late):
        visitor.close()


async def test_there_is_an_end_to_what_one_visitor_may_ask_at_once(served: Served) -> None:
    served.server.max_requests = 5
    served.assessor.gate = asyncio.Event()
    visitor = await served.visit()
    visitor.send(*(ask(number) for number in range(6)))
    reply = await visitor.reply()
    assert isinstance(reply, ErrorReply)
    assert reply.id == 5
    served.assessor.gate.set()
    assert {(await visitor.reply()).id for _ in range(5)} == {0, 1, 2, 3, 4}
    visitor.close()


async def test_a_client_that_does_not_read_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_UNSENT", 100_000)
    served.assessor.chain = (bytes(50_000),)
    deaf = socket.socket(socket.AF_UNIX)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, str(served.path))
    requests = b"".join(encode(EvidenceRequest(id=n, nexthop="a.example")) for n in range(50))
    await loop.sock_sendall(deaf, requests)
    await until(lambda: not served.server.connections)
    deaf.close()


async def test_who_keeps_forecasts_is_told_when_they_are_not_to_be_believed(served: Served) -> None:
    worker, person = await served.visit(), await served.visit()
    worker.send(ask(1))
    assert (await worker.reply()).op == "forecast"
    person.send(StatusRequest(id=1))
    assert (await person.reply()).op == "status"
    served.server.void_forecasts()
    assert (await worker.reply()).op == "forget"
    person.send(StatusRequest(id=2))
    assert (await person.reply()).op == "status"  # and no word that nobody asked for
    worker.close()
    person.close()


async def test_what_was_judged_before_a_change_of_trust_is_not_said_after_it(
    served: Served,
) -> None:
    worker = await served.visit()
    served.assessor.gate = asyncio.Event()
    worker.send(ask(1))
    await until(lambda: bool(served.assessor.asked))
    after, gate = FakeAssessor(), served.assessor.gate
    after.text = "after"
    served.engine.assessor, served.engine.trust_epoch = after, 1  # type: ignore[assignment]
    served.server.void_forecasts()
    gate.set()
    assert (await worker.reply()).op == "forget"
    reply = await worker.reply()
    assert isinstance(reply, ForecastReply)
    assert reply.forecast.text == "after"
    worker.close()


async def test_where_nothing_is_known_yet_after_a_change_of_trust_it_is_unknown(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REASSESSMENT_TIMEOUT", 0.1)
    worker = await served.visit()
    served.assessor.gate = asyncio.Event()
    worker.send(ask(1))
    await until(lambda: bool(served.assessor.asked))
    after, gate = FakeAssessor(), served.assessor.gate
    after.gate = asyncio.Event()
    served.engine.assessor, served.engine.trust_epoch = after, 1  # type: ignore[assignment]
    gate.set()
    reply = await worker.reply()
    assert isinstance(reply, ForecastReply)
    assert reply.forecast.status == "unknown"
    worker.close()


async def test_a_client_that_leaves_takes_no_answer_of_another(served: Served) -> None:
    served.assessor.gate = asyncio.Event()
    leaver, stayer = await served.visit(), await served.visit()
    leaver.send(ask(1))
    stayer.send(ask(1))
    await until(lambda: len(served.assessor.asked) == 2)
    leaver.close()
    await until(lambda: served.server.connections == 1)
    served.assessor.gate.set()
    assert (await stayer.reply()).id == 1
    stayer.close()


async def test_what_a_reload_gives_up_is_answered_without_a_wait(served: Served) -> None:
    served.assessor.error = asyncio.CancelledError()
    visitor = await served.visit()
    visitor.send(EvidenceRequest(id=1, nexthop="example.org", refresh=True), ask(2))
    for number in (1, 2):
        reply = await visitor.reply()
        assert (reply.op, reply.id) == ("error", number)
        assert "configuration has changed" in reply.error
    served.assessor.error = None
    visitor.send(ask(3))
    assert (await visitor.reply()).op == "forecast"
    visitor.close()


async def test_a_mistake_of_ours_answers_the_request_and_harms_no_other(served: Served) -> None:
    visitor = await served.visit()
    served.assessor.error = RuntimeError("secret")
    visitor.send(ask(1))
    reply = await visitor.reply()
    assert isinstance(reply, ErrorReply)
    assert reply.error == "internal error"
    served.assessor.error = None
    visitor.send(ask(2))
    assert isinstance(await visitor.reply(), ForecastReply)
    visitor.close()


# ---------------------------------------------------------------- the socket


def mode_of(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def test_the_socket_is_for_our_user_alone_and_goes_when_the_door_closes(path: Path) -> None:
    before = os.umask(0)
    try:
        one = Served(path)
        await one.server.open()
        assert mode_of(path) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    await one.server.close()
    assert mode_of(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed to knock")
def test_another_user_is_turned_away_even_where_the_mode_lets_him_in(path: Path) -> None:
    """Whoever loosened the mode by mistake has not opened the served."""

    path.parent.chmod(0o755)

    async def scenario() -> int:
        one = Served(path)
        await one.server.open()
        os.chmod(path, 0o666)  # noqa: S103 - the mistake that is tried
        program = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "try:\n    sys.exit(0 if s.recv(1) == b'' else 3)\n"
            "except ConnectionResetError:\n    sys.exit(0)\n"
        )
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/env", "python3", "-c", program, str(path), user=65534
        )
        status = await asyncio.wait_for(process.wait(), 10)
        await one.server.close()
        return status

    assert asyncio.run(scenario()) == 0


# ---------------------------------------------------------------- the socket's file


@pytest.fixture
async def watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A server that looks for its file every 20 ms."""
    monkeypatch.setattr(server, "LOOK", 0.02)
    one = Served(path)
    await one.server.open()
    watch = asyncio.create_task(one.server.watch())
    yield one
    watch.cancel()
    await one.server.close()


async def test_a_socket_whose_file_is_removed_is_found_again_and_its_connections_go_on(
    watched: Served, path: Path
) -> None:
    visitor = await watched.visit()
    for losses in (1.0, 2.0):
        os.unlink(path)
        await until(lambda: mode_of(path) is not None)
        other = await watched.visit()
        other.send(ask(1))
        assert (await other.reply()).id == 1
        other.close()
        counted = watched.engine.counters.totals().counters
        assert ("sockets_lost_total", ("engine",), losses) in counted
    visitor.send(ask(2))
    assert (await visitor.reply()).id == 2
    visitor.close()


async def test_at_its_end_only_its_own_file_is_removed(served: Served, path: Path) -> None:
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        await served.server.close()
        assert mode_of(path) is not None


# ---------------------------------------------------------------- recipients


class FakeExpander:
    """Knows one alias."""

    async def expand(self, recipient: str) -> Expansion:
        if recipient != "<a@x.test>":
            raise ExpansionError("ldap:/x: gone " + "x" * 500)
        return Expansion("a@x.test", ("b@x.test",))


async def test_a_recipient_is_expanded(served: Served) -> None:
    served.engine.expander = FakeExpander()
    visitor = await served.visit()
    visitor.send(ExpandRequest(id=1, recipient="<a@x.test>"))
    assert await visitor.reply() == ExpandReply(id=1, given="a@x.test", addresses=("b@x.test",))
    visitor.send(ExpandRequest(id=2, recipient="<b@x.test>"))
    reply = await visitor.reply()
    assert reply.error.startswith("ldap:/x: gone")
    assert len(reply.error) == 200
    visitor.close()


async def test_an_engine_that_expands_nothing_says_so(served: Served) -> None:
    visitor = await served.visit()
    visitor.send(ExpandRequest(id=1, recipient="<a@x.test>"))
    assert "expands no recipients" in (await visitor.reply()).error
    visitor.close()


async def test_a_command_asks_what_a_recipient_becomes(served: Served) -> None:
    served.engine.expander = FakeExpander()
    path = str(served.path)
    found = await asyncio.to_thread(query.expand, path, "<a@x.test>")
    assert found.addresses == ("b@x.test",)
    with pytest.raises(ExpansionError, match="gone"):
        await asyncio.to_thread(query.expand, path, "<b@x.test>")
    served.engine.expander = None
    with pytest.raises(EngineUnavailable, match="expands no recipients"):
        await asyncio.to_thread(query.expand, path, "<a@x.test>")
