"""What goes over the engine's door: length-prefixed JSON, decoded strictly.

A frame is a length (4 bytes, big-endian, of what follows) and a UTF-8 JSON
object of at most :data:`MAX_FRAME` bytes. Each object names its operation in
``op`` and the version of this format in ``v``. What does not fit the model is
an error and never a guess: an unknown key, a word outside a closed set, a
number in the place of a string.

Nothing here does I/O or keeps state but :class:`Unframer`.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from requiretls_milter.model import DomainEvidence, Forecast, Question
from requiretls_milter.telemetry.counting import Totals

VERSION = 1
"""Of the format. Processes of one service are forks of one program, but the command line is not."""

MAX_FRAME = 1 << 20
"""Bytes in a frame's JSON: thirty MX hosts with chains of 8 KiB fit several times."""

MAX_ERROR = 200
"""Characters of an error's description."""

MAX_ID = (1 << 53) - 1
"""The largest integer that every JSON implementation keeps exactly (RFC 8259 section 6)."""

MAX_NAME = 255
"""Characters of a worker's name, a next hop or a transport."""

_LENGTH = struct.Struct(">I")


class WireError(ValueError):
    """Bytes from a peer that are no message of ours, or a message that cannot be sent."""


# ---------------------------------------------------------------- messages


class _Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    v: Literal[1] = 1


_Id = Annotated[int, Field(ge=0, le=MAX_ID)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]


class ForecastRequest(_Message):
    """A worker's question. ``generation`` is that of the configuration it runs with."""

    op: Literal["forecast"] = "forecast"
    id: _Id
    generation: _Id
    question: Question


class CountersRequest(_Message):
    """Cumulative totals of one worker's life; has no reply.

    A message may carry a part of the series: each value stands for its own.
    """

    op: Literal["counters"] = "counters"
    worker: _Name
    incarnation: _Id
    totals: Totals


class EvidenceRequest(_Message):
    """The command line asks what is known of a next hop; ``refresh``: look again now."""

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
    """Nobody has asked: what was judged before this message is not to be believed any more.

    Goes to those who ask for forecasts. What follows it on a connection was
    judged afterwards.
    """

    op: Literal["forget"] = "forget"


class EvidenceReply(_Message):
    """All that the engine knows of a next hop."""

    op: Literal["evidence"] = "evidence"
    id: _Id
    evidence: DomainEvidence


class StatusReply(_Message):
    """What an engine says of itself.

    ``assessment_digest`` is that of the configuration it runs with: whoever has
    the same may use this engine's evidence. ``uptime`` in seconds.
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


class ErrorReply(_Message):
    """A request that the engine understood well enough to refuse it."""

    op: Literal["error"] = "error"
    id: _Id
    error: Annotated[str, Field(max_length=MAX_ERROR)]


Request = ForecastRequest | CountersRequest | EvidenceRequest | StatusRequest
Answer = ForecastReply | EvidenceReply | StatusReply | ErrorReply
Reply = Answer | ForgetReply

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])
_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="op")])


# ---------------------------------------------------------------- coding


def decode_request(payload: bytes) -> Request:
    """A frame's content as a request.

    Raises:
        WireError: it is none; the text names the first mistake and its place.
    """
    try:
        return _REQUEST.validate_json(payload)
    except ValidationError as error:
        raise WireError(_first_mistake(error)) from error


def decode_reply(payload: bytes) -> Reply:
    """A frame's content as a reply.

    Raises:
        WireError: it is none; the text names the first mistake and its place.
    """
    try:
        return _REPLY.validate_json(payload)
    except ValidationError as error:
        raise WireError(_first_mistake(error)) from error


def encode(message: Request | Reply) -> bytes:
    """A message as a frame, ready to be sent.

    Raises:
        WireError: it is too long, or holds text that UTF-8 cannot carry.
    """
    try:
        payload = message.model_dump_json().encode()
    except PydanticSerializationError as error:
        raise WireError(f"{message.op}: {str(error)[:MAX_ERROR]}") from error
    return frame(payload)


def frame(payload: bytes, limit: int = MAX_FRAME) -> bytes:
    """``payload`` with its length before it.

    Raises:
        WireError: it is longer than ``limit`` bytes.
    """
    if len(payload) > limit:
        raise WireError(f"a message of {len(payload)} bytes is over the limit of {limit}")
    return _LENGTH.pack(len(payload)) + payload


def error_reply(request_id: int, text: str) -> ErrorReply:
    """An :class:`ErrorReply` whose text fits."""
    return ErrorReply(id=request_id, error=text[:MAX_ERROR])


class Unframer:
    """Cuts a stream of bytes into frames, whatever pieces it comes in."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that has not come in whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in, give the frames that are whole.

        Raises:
            WireError: a length of zero or over the limit. The stream is of no
                use after that: there is no telling where the next frame begins.
        """
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if not 0 < length <= self._limit:
                raise WireError(f"a frame of {length} bytes (1 to {self._limit} are allowed)")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return frames


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step)[:MAX_NAME] for step in first["loc"]) or "message"
    return f"{place}: {first['msg']}"[:MAX_ERROR]
