"""One question of the command line to an engine: an answer, or why there is none, in time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.ipc import query
from requiretls_milter.ipc.query import EngineUnavailable, evidence, status
from requiretls_milter.ipc.wire import ForecastReply, encode, error_reply
from tests.support.fakeengine import FakeEngine, answers, forecast, is_silent


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rtls-") as directory:
        yield Path(directory) / "e.sock"


@pytest.fixture
def engine(path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(path, answers()).start()
    yield fake
    fake.stop()


GOOD = ForecastReply(id=1, generation=0, forecast=forecast())


def test_a_call_without_an_engine_says_so(path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        status(str(path))


async def test_a_call_that_is_not_answered_ends_in_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.behaviour = is_silent
    with pytest.raises(EngineUnavailable, match=r"no answer within 0\.3 s"):
        status(str(engine.path), 0.3)
    monkeypatch.setattr(query, "EVIDENCE_TIMEOUT", 0.3)
    with pytest.raises(EngineUnavailable, match=r"no answer within 0\.3 s"):
        await evidence(str(engine.path), "example.org")


async def test_a_call_that_is_refused_says_why(engine: FakeEngine) -> None:
    engine.behaviour = lambda connection, _: connection.sendall(
        encode(error_reply(1, "next hop: malformed"))
    )
    with pytest.raises(EngineUnavailable, match="next hop: malformed"):
        await evidence(str(engine.path), "bad")


async def test_a_call_that_gets_something_else_says_so(engine: FakeEngine) -> None:
    engine.behaviour = lambda connection, _: connection.sendall(encode(GOOD))
    with pytest.raises(EngineUnavailable, match="forecast came"):
        status(str(engine.path))
    with pytest.raises(EngineUnavailable, match="forecast came"):
        await evidence(str(engine.path), "example.org")
    engine.behaviour = lambda connection, _: connection.sendall(b"\xff" * 100)
    with pytest.raises(EngineUnavailable):
        status(str(engine.path))
    with pytest.raises(EngineUnavailable):
        await evidence(str(engine.path), "example.org")
