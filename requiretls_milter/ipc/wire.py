"""The messages on the engine's socket: JSON in frames, decoded strictly.

Each message is a UTF-8 JSON object in one frame (:mod:`requiretls_milter.ipc.framing`). It names
its operation in ``op`` and the version of this format in ``v``. What does not fit the model is
an error and never a guess: an unknown key, a word outside a closed set, a number in the place
of a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from requiretls_milter.config import Config
from requiretls_milter.ipc.framing import WireError, frame
from requiretls_milter.model import (
    Capability,
    DomainEvidence,
    Forecast,
    Mode,
    Outcome,
    Question,
    Reason,
)
from requiretls_milter.readiness.days import MAX_COUNT, MAX_DAYS, Day, MailSource
from requiretls_milter.syntax.capability import MAX_VERSION
from requiretls_milter.syntax.strict import StrictModel, decoded
from requiretls_milter.syntax.text import bounded
from requiretls_milter.telemetry.counting import Totals

MAX_FORECAST_LIFE = 3600.0
"""Seconds that a forecast may be reused at most: the engine promises no more, a worker keeps it no
longer."""

MAX_ERROR = 200
"""Characters of an error's description."""

MAX_ID = (1 << 53) - 1
"""The largest integer that every JSON implementation keeps exactly (RFC 8259 section 6)."""

MAX_RECIPIENT = 4_000
"""Characters of a recipient: four for each octet of the address, if none of them is UTF-8."""

MAX_NAME = 320
"""Characters of a worker's name, a next hop or a transport."""


# ---------------------------------------------------------------- messages


class _Message(StrictModel):
    """What all messages share."""

    v: Literal[1] = 1


_Id = Annotated[int, Field(ge=0, le=MAX_ID)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]


class ForecastRequest(_Message):
    """A question; ``generation`` is that of the configuration that the worker runs with.

    ``may_be_stale`` says that a forecast past its life will do, if it does no harm: that of a
    message. ``uses`` is how often the worker gave out the answer that it had until now.
    """

    op: Literal["forecast"] = "forecast"
    id: _Id
    generation: _Id
    question: Question
    may_be_stale: bool = False
    uses: _Id = 0


class CountersRequest(_Message):
    """Cumulative totals of one worker since its start; has no reply.

    A message may carry a part of the series: each value is independent of the others.
    """

    op: Literal["counters"] = "counters"
    worker: _Name
    incarnation: _Id
    totals: Totals


class MtaRequest(_Message):
    """What the MTA says that it is (macro ``v``), as a worker heard it last; has no reply."""

    op: Literal["mta"] = "mta"
    version: Annotated[str, Field(max_length=MAX_VERSION)]


class EvidenceRequest(_Message):
    """The command line asks what is known of a next hop; ``refresh``: find it anew."""

    op: Literal["evidence"] = "evidence"
    id: _Id
    nexthop: _Name
    refresh: bool = False


class StatusRequest(_Message):
    """Asks for a :class:`StatusReply`; ``whole``: with :attr:`StatusReply.condition`."""

    op: Literal["status"] = "status"
    id: _Id
    whole: bool = False


class ExpandRequest(_Message):
    """Asks what the MTA makes of a recipient, as the client wrote it."""

    op: Literal["expand"] = "expand"
    id: _Id
    recipient: Annotated[str, Field(max_length=MAX_RECIPIENT)]


class SuspendRequest(_Message):
    """Orders that no rule acts until the next reload, or that rules act again.

    The reply is a :class:`StatusReply` of the moment: the order is carried out a little later.
    """

    op: Literal["suspend"] = "suspend"
    id: _Id
    suspended: bool


class ReportRequest(_Message):
    """Asks for a :class:`ReportReply`; ``keep``: the figures of today's report, to be kept."""

    op: Literal["report"] = "report"
    id: _Id
    source: MailSource
    keep: Day | None = None


class ForecastReply(_Message):
    """The answer to a question, judged under the configuration ``generation``."""

    op: Literal["forecast"] = "forecast"
    id: _Id
    generation: _Id
    forecast: Forecast


class ExpandReply(_Message):
    """What the MTA makes of a recipient; see :class:`.expansion.Expansion`.

    ``error`` says why that is not known; "" if it is.
    """

    op: Literal["expand"] = "expand"
    id: _Id
    given: str = ""
    addresses: tuple[str, ...] = ()
    error: Annotated[str, Field(max_length=MAX_ERROR)] = ""


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


class ProcessStatus(StrictModel):
    """A process of the service.

    Attributes:
        name: ``supervisor``, ``engine``, ``worker-1`` and so on.
        pid: its process id; 0 while it is being replaced.
        ready: whether it serves.
        since: when it was started, seconds since the epoch.
        connections: how many the MTA has open to it.
    """

    name: _Name
    pid: int = 0
    ready: bool = False
    since: float = 0.0
    connections: int = 0


def health_line(serves: bool, problems: Sequence[str]) -> str:
    """``ok``, or what is wrong: ``degraded: ...``, or ``failed: ...`` if it does not serve."""
    if not problems:
        return "ok"
    return f"{'degraded' if serves else 'failed'}: {', '.join(problems)}"


class ServiceStatus(StrictModel):
    """What only the supervisor knows.

    Attributes:
        since: when the service was started, seconds since the epoch.
        serves: whether the MTA has answers of it.
        problems: what keeps the service from being whole, a sentence for each.
        config_path: the file of its configuration.
        config_since: since when the configuration is in force, seconds since the epoch.
        config_digests: a digest of each section in force; see ``Config.digests``.
        generation: the number of the configuration in force.
        reload_succeeded: whether the last reload did.
        suspended: whether no rule acts.
        file_usable: whether the configuration file, as it is now, can be used.
        file_differs: whether it says something else than what is in force, or cannot be used.
        processes: all that a whole service has.
    """

    since: float
    serves: bool
    problems: tuple[str, ...]
    config_path: str
    config_since: float
    config_digests: dict[str, str]
    generation: _Id
    reload_succeeded: bool
    suspended: bool
    processes: tuple[ProcessStatus, ...]
    file_usable: bool = True
    file_differs: bool = False

    @property
    def health(self) -> str:
        """What is wrong, in a line; see :func:`health_line`."""
        return health_line(self.serves, self.problems)

    def differs_in(self, config: Config) -> list[str]:
        """The sections in which *config* says something else than what is in force.

        That rules were suspended by command is no difference: it is told apart.
        """
        compared = config.with_suspension(True) if self.suspended else config
        digests = compared.digests()
        return [name for name in digests if digests[name] != self.config_digests.get(name)]


class DomainStatus(StrictModel):
    """What was found out last about REQUIRETLS mail to a configured domain.

    Attributes:
        domain: the key of its table.
        outcome, status, reason, text: of the forecast.
        ready: the metric ``domain_ready``; None if the outcome is unknown.
        assessed_at: seconds since the epoch.
        since: when outcome, status and reason became these.
        mode: of its rule in force.
        reply: the codes that the rule answers to a client that authenticates, such as
            ``550 5.7.30``; "" if it accepts.
        nexthop: where mail to the domain goes, if not to the domain itself.
    """

    domain: _Name
    outcome: Outcome
    status: str
    reason: Reason
    text: str
    ready: bool | None
    assessed_at: float
    since: float
    mode: Mode = Mode.MONITOR
    reply: str = ""
    nexthop: _Name = ""


class WatchedStatus(StrictModel):
    """What was found out last about a watched domain.

    Attributes:
        domain: its name.
        severity: of what is broken or breaks first: ``broken`` or ``ends``; None for nothing.
        verdict: what breaks first and when, or what ends first, as a sentence.
        problems: how many there are that are no mere advice.
        observed_at: seconds since the epoch.
    """

    domain: _Name
    severity: Literal["broken", "ends"] | None
    verdict: str
    problems: int
    observed_at: float


class Failing(StrictModel):
    """A way of telling of watched domains that failed when it was used last.

    Attributes:
        since: the first failure in a row, seconds since the epoch.
        error: of the last one.
    """

    since: float
    error: str

    @classmethod
    def again(cls, before: Failing | None, error: str, now: float) -> Failing:
        """What is to be said after a further failure; *before* is None if it is the first one."""
        since = now if before is None else before.since
        return cls(since=since, error=bounded(error, MAX_ERROR))


class Condition(StrictModel):
    """How the engine is.

    Attributes:
        nameservers: those that it asks.
        resolver_tested_at: when one of them last passed the test; 0.0 for never.
        outbound: for each kind of service, whether our own network lets us reach it.
        store: the kind of the store.
        store_up: whether it works; memory stands in for it otherwise.
        waits: how many times SMTP waited for a forecast.
        waited: seconds in all.
        waited_long: how many of the waits took more than a second.
        limits: how many times each limit was met; those that never were are left out.
        domains: the configured domains that were assessed, those that are not ready first.
        domains_configured: how many domains are configured, wildcards left out.
        watched: the watched domains that were looked at, the worst first.
        domains_watched: how many domains are watched.
        mail_failing: whether mail about them cannot be handed over; None if it can.
        notify_failing: whether the command that is told of them fails; None if it does not.
    """

    nameservers: tuple[str, ...]
    resolver_tested_at: float
    outbound: dict[str, bool]
    store: str
    store_up: bool
    waits: int
    waited: float
    waited_long: int
    limits: dict[str, int]
    domains: tuple[DomainStatus, ...]
    domains_configured: int
    watched: tuple[WatchedStatus, ...] = ()
    domains_watched: int = 0
    mail_failing: Failing | None = None
    notify_failing: Failing | None = None


class StatusReply(_Message):
    """What an engine reports of itself.

    ``assessment_digest`` is that of its configuration: a command with the same digest may
    use this engine's evidence. ``uptime`` is in seconds. ``resolver_validates`` is the gauge of
    that name. ``mta_version`` is what the MTA says that it is, "" if it has not called yet.
    ``carries`` is what the MTA carries. ``workers`` are those that are connected, of
    ``all_workers`` that there should be. ``service`` is None until the supervisor has told of
    itself, ``condition`` unless the whole was asked for.
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
    mta_version: str = ""
    carries: Capability = Capability.NOTHING
    all_workers: int = 0
    service: ServiceStatus | None = None
    condition: Condition | None = None


class ReportReply(_Message):
    """What only the engine has of a report.

    Attributes:
        days: the figures of earlier reports over the same source, the oldest first.
        mail: recipients for whom there was a forecast, by configured domain and ``other``, since
            the service was started; the domains with most if there are too many for a frame.
    """

    op: Literal["report"] = "report"
    id: _Id
    days: Annotated[tuple[Day, ...], Field(max_length=MAX_DAYS)]
    mail: dict[_Name, Annotated[int, Field(ge=0, le=MAX_COUNT)]]


class ErrorReply(_Message):
    """A request that the engine understood well enough to refuse it."""

    op: Literal["error"] = "error"
    id: _Id
    error: Annotated[str, Field(max_length=MAX_ERROR)]


Request = (
    ForecastRequest
    | CountersRequest
    | MtaRequest
    | EvidenceRequest
    | ExpandRequest
    | StatusRequest
    | SuspendRequest
    | ReportRequest
)
Unanswered = CountersRequest | MtaRequest
"""Requests that have no reply."""

Answer = ForecastReply | EvidenceReply | ExpandReply | StatusReply | ReportReply | ErrorReply
EngineReply = Answer | ForgetReply

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])
_REPLY: TypeAdapter[EngineReply] = TypeAdapter(Annotated[EngineReply, Field(discriminator="op")])


# ---------------------------------------------------------------- coding


def decode_request(payload: bytes) -> Request:
    """Decode a frame's content as a request.

    Raises:
        WireError: it is not a request; the text names the first mistake and its place.
    """
    return decoded(_REQUEST.validate_json, payload, WireError, "message")


def decode_reply(payload: bytes) -> EngineReply:
    """Decode a frame's content as a reply.

    Raises:
        WireError: it is not a reply; the text names the first mistake and its place.
    """
    return decoded(_REPLY.validate_json, payload, WireError, "message")


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
