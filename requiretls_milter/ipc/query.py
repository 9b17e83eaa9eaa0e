"""One question to a running engine, for the command line: its status, or its evidence.

A worker keeps a connection open (:mod:`requiretls_milter.ipc.client`); a command connects,
asks one question, waits for the reply and leaves.
"""

from __future__ import annotations

import asyncio
import socket
import time

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.ipc.framing import Unframer, WireError
from requiretls_milter.ipc.wire import (
    EngineReply,
    ErrorReply,
    EvidenceReply,
    EvidenceRequest,
    ExpandReply,
    ExpandRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    ReportReply,
    ReportRequest,
    Request,
    StatusReply,
    StatusRequest,
    SuspendRequest,
    decode_reply,
    encode,
)
from requiretls_milter.model import DomainEvidence, Forecast, Question
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.syntax.expansion import Expansion, ExpansionError
from requiretls_milter.syntax.text import error_text

STATUS_TIMEOUT = 2.0
"""Seconds for the status if something else is done without one; a healthy engine takes
milliseconds."""

EVIDENCE_TIMEOUT = 60.0
"""Seconds for the evidence of a next hop: longer than the engine gathers by default."""

_CHUNK = 1 << 16


class EngineUnavailable(RequiretlsMilterError):
    """No engine answers there, or it refuses; the text says why.

    The caller concludes that it has to find out by itself, or to report that the service
    is not running. If it was *denied*, a service may run, and another user can ask it.
    """

    def __init__(self, text: str, *, denied: bool = False) -> None:
        super().__init__(text)
        self.denied = denied

    @classmethod
    def of(cls, error: OSError | WireError) -> EngineUnavailable:
        """Say what went wrong on the connection."""
        if isinstance(error, PermissionError):
            text = "permission denied: only root and the user of the service may ask it"
            return cls(text, denied=True)
        return cls(error_text(error))


def status(socket_path: str, timeout: float = 5.0, *, whole: bool = False) -> StatusReply:
    """Ask a running engine for its status; waits ``timeout`` seconds at most.

    Args:
        socket_path: the engine's socket.
        timeout: seconds.
        whole: with all that it knows of itself and of the configured domains.

    Raises:
        EngineUnavailable: there is none.
    """
    return _status(socket_path, StatusRequest(id=1, whole=whole), timeout)


def suspend(socket_path: str, suspended: bool, timeout: float = 5.0) -> StatusReply:
    """Order a running service to suspend its rules, or to have them act again.

    Args:
        socket_path: the engine's socket.
        suspended: whether no rule is to act.
        timeout: seconds.

    Returns:
        The status of the moment: the order is carried out a little later.

    Raises:
        EngineUnavailable: there is no engine.
    """
    return _status(socket_path, SuspendRequest(id=1, suspended=suspended), timeout)


def _status(socket_path: str, request: Request, timeout: float) -> StatusReply:
    reply = _call(socket_path, request, timeout)
    if not isinstance(reply, StatusReply):
        raise EngineUnavailable(f"a status was asked for, and {reply.op} came")
    return reply


async def evidence(socket_path: str, nexthop: str, *, refresh: bool = False) -> DomainEvidence:
    """What a running engine knows of a next hop, or finds out within EVIDENCE_TIMEOUT.

    Several may be asked for at once, each over a connection of its own.

    Args:
        socket_path: the engine's socket.
        nexthop: in Postfix's syntax.
        refresh: have the engine find everything anew.

    Raises:
        EngineUnavailable: there is no engine, or it gave no evidence.
    """
    request = EvidenceRequest(id=1, nexthop=nexthop, refresh=refresh)
    try:
        async with asyncio.timeout(EVIDENCE_TIMEOUT):
            reply = await _ask(socket_path, request)
    except TimeoutError:
        raise EngineUnavailable(f"no answer within {EVIDENCE_TIMEOUT:g} s") from None
    except (OSError, WireError) as error:
        raise EngineUnavailable.of(error) from error
    if not isinstance(reply, EvidenceReply):
        raise EngineUnavailable(f"evidence was asked for, and {reply.op} came")
    return reply.evidence


async def _ask(socket_path: str, request: Request) -> EngineReply:
    unframer = Unframer()
    reader, writer = await asyncio.open_unix_connection(socket_path)
    try:
        writer.write(encode(request))
        while data := await reader.read(_CHUNK):
            for payload in unframer.feed(data):
                return _checked(decode_reply(payload))
    finally:
        writer.close()
    raise EngineUnavailable("the engine closed the connection")


def _checked(reply: EngineReply) -> EngineReply:
    if isinstance(reply, ErrorReply):
        raise EngineUnavailable(reply.error)
    return reply


def forecast(socket_path: str, question: Question, *, timeout: float = 60.0) -> Forecast:
    """What a running engine answers to a worker that asks *question*.

    Args:
        socket_path: the engine's socket.
        question: of a message.
        timeout: seconds.

    Raises:
        EngineUnavailable: there is no engine, or it gave no forecast.
    """
    request = ForecastRequest(id=1, generation=0, question=question)
    reply = _call(socket_path, request, timeout)
    if not isinstance(reply, ForecastReply):
        raise EngineUnavailable(f"a forecast was asked for, and {reply.op} came")
    return reply.forecast


def expand(socket_path: str, recipient: str, *, timeout: float = 60.0) -> Expansion:
    """What a running engine says that the MTA makes of a recipient (``[mta] aliases = "ask"``).

    Args:
        socket_path: the engine's socket.
        recipient: as a client writes it.
        timeout: seconds.

    Raises:
        EngineUnavailable: there is no engine, or it expands no recipients.
        ExpansionError: it does not know.
    """
    reply = _call(socket_path, ExpandRequest(id=1, recipient=recipient), timeout)
    if not isinstance(reply, ExpandReply):
        raise EngineUnavailable(f"an expansion was asked for, and {reply.op} came")
    if reply.error:
        raise ExpansionError(reply.error)
    return Expansion(reply.given, reply.addresses)


def report(
    socket_path: str, source: MailSource, *, keep: Day | None = None, timeout: float = 5.0
) -> ReportReply:
    """What a running engine has of a report: the figures of earlier ones, and its counters.

    Args:
        socket_path: the engine's socket.
        source: what the report is about; each source has a history of its own.
        keep: the figures of today, which are kept in the place of earlier ones of the same day.
        timeout: seconds.

    Raises:
        EngineUnavailable: there is no engine.
    """
    reply = _call(socket_path, ReportRequest(id=1, source=source, keep=keep), timeout)
    if not isinstance(reply, ReportReply):
        raise EngineUnavailable(f"a report was asked for, and {reply.op} came")
    return reply


def _call(socket_path: str, request: Request, timeout: float) -> EngineReply:
    deadline = time.monotonic() + timeout
    unframer = Unframer()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(socket_path)
            connection.sendall(encode(request))
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                data = connection.recv(_CHUNK)
                if not data:
                    raise EngineUnavailable("the engine closed the connection")
                for payload in unframer.feed(data):
                    reply = decode_reply(payload)
                    if not isinstance(reply, ForgetReply):  # no forecast was kept here
                        return _checked(reply)
    except TimeoutError:
        raise EngineUnavailable(f"no answer within {timeout:g} s") from None
    except (OSError, WireError) as error:
        raise EngineUnavailable.of(error) from error
