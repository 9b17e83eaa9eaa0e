"""The messages on the engine's socket: JSON in frames, decoded strictly.

Each message is a UTF-8 JSON object in one frame (:mod:`requiretls_milter.ipc.framing`). It names
its operation in ``op`` and the version of this format in ``v``. What does not fit the model is
an error and never a guess: an unknown key, a word outside a closed set, a number in the place
of a string.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from requiretls_milter.ipc.framing import WireError, frame
from requiretls_milter.model import DomainEvidence, Forecast, Question
from requiretls_milter.syntax.strict import StrictModel, first_mistake
from requiretls_milter.telemetry.counting import Totals

MAX_FORECAST_LIFE = 3600.0
"""Seconds that a forecast may be reused at most: the engine promises no more, a worker keeps it no
longer."""

MAX_ERROR = 200
"""Characters of an error's description."""

MAX_ID = (1 << 53) - 1
"""The largest integer that every JSON implementation keeps exactly (RFC 8259 section 6)."""

MAX_NAME = 320
"""Characters of a worker's name, a next hop or a transport."""


# ---------------------------------------------------------------- messages


class _Message(StrictModel):
    """What all messages share."""

    v: Literal[1] = 1


_Id = Annotated[int, Field(ge=0, le=MAX_ID)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]


class ForecastRequest(_Message):
    """A worker's question; ``generation`` is that of the configuration that it runs with."""

    op: Literal["forecast"] = "forecast"
    id: _Id
    generation: _Id
    question: Question


class CountersRequest(_Message):
    """Cumulative totals of one worker since its start; has no reply.

    A message may carry a part of the series: each value is independent of the others.
    """

    op: Literal["counters"] = "counters"
    worker: _Name
    incarnation: _Id
    totals: Totals


class EvidenceRequest(_Message):
    """The command line asks what is known of a next hop; ``refresh``: find it anew."""

    op: Literal["evidence"] = "evidence"
    id: _Id
    nexthop: _Name
    refresh: bool = False


class StatusRequest(_Message):
    """Asks for a :class:`StatusReply`."""

    op: Literal["status"] = "status"
    id: _Id


class ForecastReply(_Message):
    """The answer to a question, judged under the configuration ``generation``."""

    op: Literal["forecast"] = "forecast"
    id: _Id
    generation: _Id
    forecast: Forecast


class ForgetReply(_Message):
    """Unasked: every forecast that was sent before this message is void.

    It goes to clients that have asked for forecasts. What follows it on a connection was
    judged afterwards.
    """

    op: Literal["forget"] = "forget"


class EvidenceReply(_Message):
    """All that the engine knows of a next hop."""

    op: Literal["evidence"] = "evidence"
    id: _Id
    evidence: DomainEvidence


class StatusReply(_Message):
    """What an engine reports of itself.

    ``assessment_digest`` is that of its configuration: a command with the same digest may
    use this engine's evidence. ``uptime`` is in seconds. ``resolver_validates`` is the gauge of
    that name. ``workers`` are those that are connected, of ``all_workers`` that there should be.
    """

    op: Literal["status"] = "status"
    id: _Id
    version: str
    pid: int
    generation: _Id
    assessment_digest: str
    uptime: float
    workers: tuple[str, ...]
    in_flight: int
    cache_entries: dict[str, int]
    resolver_validates: bool = False
    all_workers: int = 0


class ErrorReply(_Message):
    """A request that the engine understood well enough to refuse it."""

    op: Literal["error"] = "error"
    id: _Id
    error: Annotated[str, Field(max_length=MAX_ERROR)]


Request = ForecastRequest | CountersRequest | EvidenceRequest | StatusRequest
Answer = ForecastReply | EvidenceReply | StatusReply | ErrorReply
EngineReply = Answer | ForgetReply

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])
_REPLY: TypeAdapter[EngineReply] = TypeAdapter(Annotated[EngineReply, Field(discriminator="op")])


# ---------------------------------------------------------------- coding


def decode_request(payload: bytes) -> Request:
    """Decode a frame's content as a request.

    Raises:
        WireError: it is not a request; the text names the first mistake and its place.
    """
    try:
        return _REQUEST.validate_json(payload)
    except ValidationError as error:
        raise WireError(first_mistake(error, "message")) from error


def decode_reply(payload: bytes) -> EngineReply:
    """Decode a frame's content as a reply.

    Raises:
        WireError: it is not a reply; the text names the first mistake and its place.
    """
    try:
        return _REPLY.validate_json(payload)
    except ValidationError as error:
        raise WireError(first_mistake(error, "message")) from error


def encode(message: Request | EngineReply) -> bytes:
    """Encode a message as a frame, ready to be sent.

    Raises:
        WireError: it is too long, or holds text that UTF-8 cannot carry.
    """
    try:
        payload = message.model_dump_json().encode()
    except PydanticSerializationError as error:
        raise WireError(f"{message.op}: {str(error)[:MAX_ERROR]}") from error
    return frame(payload)


def error_reply(request_id: int, text: str) -> ErrorReply:
    """An :class:`ErrorReply` whose text fits."""
    return ErrorReply(id=request_id, error=text[:MAX_ERROR])
