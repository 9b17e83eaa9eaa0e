"""Every metric, declared once: name, help, labels and the closed sets they come from.

Three kinds of processes count. Workers and the supervisor count in plain
:class:`Counters` and hand *cumulative* totals on; the engine adds them up in an
:class:`Aggregate`, keeps those of processes that died, and shows the sum to
Prometheus (:mod:`requiretls_milter.engine.exposition`). This module imports
nothing but the model, so that a worker may use it.
"""

from __future__ import annotations

import enum
import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from requiretls_milter.model import UNKNOWN_STATUS, Action, Reason, Requirement, Source
from requiretls_milter.syntax.status import (
    OTHER_PERMANENT,
    OTHER_TEMPORARY,
    STATUSES,
    known_status,
)

if TYPE_CHECKING:
    from requiretls_milter.config import Config

PREFIX = "requiretls_milter_"
"""Before each name where Prometheus reads it; names within the program go without."""


class Kind(enum.StrEnum):
    """Of a metric, in Prometheus' terms."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricError(ValueError):
    """A metric or a label value that is not declared here: a mistake in the program."""


# ---------------------------------------------------------------- closed sets

OTHER = "other"

_NONCOMPLIANT = tuple(reason for reason in Reason if reason.value.startswith("noncompliant_"))

_REASONS_OF: Mapping[str, tuple[Reason, ...]] = {
    "2.0.0": (
        Reason.OK,
        *_NONCOMPLIANT,
        Reason.LOCAL,
    ),
    "4.3.0": (Reason.MX_NOT_IN_MTA_STS_POLICY,),
    "4.4.1": (Reason.UNREACHABLE,),
    "4.4.2": (Reason.UNREACHABLE,),
    "4.4.3": (Reason.DNS_FAILURE,),
    "4.4.4": (Reason.DNS_FAILURE, Reason.MAIL_LOOP),
    "4.4.6": (Reason.MAIL_LOOP,),
    "4.7.0": (Reason.STARTTLS_REFUSED,),
    "4.7.4": (Reason.STARTTLS_NOT_OFFERED,),
    "4.7.5": (
        Reason.TLS_HANDSHAKE_FAILED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        Reason.POLICY_LOOKUP_FAILED,
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
    ),
    "4.7.10": (Reason.MTA_POLICY_INVALID,),
    OTHER_TEMPORARY: (Reason.SERVER_REJECTS,),
    "5.1.0": (Reason.NULL_MX,),
    "5.4.4": (Reason.NO_SUCH_DOMAIN,),
    "5.4.6": (Reason.MAIL_LOOP,),
    "5.7.10": (
        Reason.STARTTLS_REFUSED,
        Reason.TLS_HANDSHAKE_FAILED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
        Reason.MX_LOOKUP_INSECURE,
    ),
    "5.7.30": (Reason.STARTTLS_NOT_OFFERED, Reason.REQUIRETLS_NOT_OFFERED),
    OTHER_PERMANENT: (Reason.SERVER_REJECTS,),
    UNKNOWN_STATUS: (Reason.UNKNOWN,),
}
"""Pairs that are known to occur, to start at 0; another pair appears when it occurs first."""


def configured_domains(config: Config) -> tuple[str, ...]:
    """The values of the label ``domain``: the keys of recipient and next-hop rules."""
    return tuple(dict.fromkeys([*config.rules.recipient, *config.rules.nexthop]))


STAGES = (
    "negotiate",
    "connect",
    "helo",
    "mail",
    "rcpt",
    "data",
    "header",
    "eoh",
    "body",
    "eom",
    "abort",
    "close",
    "unknown",
)
"""libmilter's callbacks."""


class AssessmentResult(enum.StrEnum):
    """How an assessment ended: the forecast's outcome, or why there was none."""

    DELIVER = "deliver"
    BOUNCE = "bounce"
    DEFER = "defer"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"  # no next hop of Postfix's syntax
    DEADLINE = "deadline"
    BUSY = "busy"  # more questions than the engine takes on at once
    ERROR = "error"  # a mistake of ours


class ProbeResult(enum.StrEnum):
    """How an SMTP session of ours ended: at which step, or well."""

    DONE = "done"
    CONNECT = "connect_failed"
    BANNER = "banner_failed"
    EHLO = "ehlo_failed"
    STARTTLS = "starttls_failed"
    HANDSHAKE = "handshake_failed"
    EHLO_TLS = "ehlo_tls_failed"
    FORBIDDEN = "forbidden"


class MtaStsResult(enum.StrEnum):
    """How a look at a domain's MTA-STS ended."""

    POLICY = "policy"
    NONE = "none"
    FAILED = "failed"


class Layer(enum.StrEnum):
    """A cache: forecasts in the workers, evidence by host and by domain in the engine."""

    FORECAST = "forecast"
    HOST = "host"
    DOMAIN = "domain"


class CacheResult(enum.StrEnum):
    """What a cache had."""

    HIT = "hit"
    MISS = "miss"
    JOINED = "joined"  # somebody else was asking already
    HELD = "held"  # the last attempt failed a moment ago: no new one is made
    STORED = "stored"  # it was not here, but the store had it


class RefreshResult(enum.StrEnum):
    """What came of fetching an MTA-STS policy anew that was kept."""

    RENEWED = "renewed"
    FAILED = "failed"
    VANISHED = "vanished"  # the domain has none any more, and never withdrew it


class StoreOperation(enum.StrEnum):
    """What a store was to do when it failed."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    LIST = "list"
    CLAIM = "claim"
    DECODE = "decode"  # it gave something that we never wrote


class FleetResult(enum.StrEnum):
    """Who of a fleet found out what several wanted to know."""

    OURS = "ours"
    THEIRS = "theirs"
    IN_VAIN = "in_vain"  # we waited for another's result, and then looked ourselves


class OutboundService(enum.StrEnum):
    """What the engine needs of the world outside."""

    SMTP = "smtp"
    DNS = "dns"


class Bound(enum.StrEnum):
    """What is limited so that no stranger can make it grow: the keys of [limits], and some more."""

    CALLBACKS = "callbacks"
    QUESTIONS = "questions"
    FORECAST_CACHE = "forecast_cache"
    GATHERINGS = "gatherings"
    FLIGHTS = "flights"
    PROBES = "probes"
    PROBES_PER_HOST = "probes_per_host"
    PROBES_PER_MINUTE = "probes_per_minute"
    LOOKUPS = "lookups"
    FETCHES = "fetches"
    ASSESSMENT_TIMEOUT = "assessment_timeout"
    GATHERING_TIMEOUT = "gathering_timeout"
    FLIGHT_TIMEOUT = "flight_timeout"
    FETCH_TIMEOUT = "fetch_timeout"
    HOST_CACHE = "host_cache"
    DOMAIN_CACHE = "domain_cache"
    STORE_QUEUE = "store_queue"
    METRICS_CONNECTIONS = "metrics_connections"
    ENGINE_CONNECTIONS = "engine_connections"
    ENGINE_REQUESTS = "engine_requests"
    HOSTS = "hosts"
    SESSIONS = "sessions"


class Process(enum.StrEnum):
    """What the supervisor restarts."""

    ENGINE = "engine"
    WORKER = "worker"


DOWNGRADES = ("starttls", "requiretls", "tlsa", "mta_sts")
"""What a domain or host may stop to offer."""


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True, slots=True)
class Metric:
    """One declaration.

    ``labels`` are pairs (name, closed set of values); None for the set of
    configured domains, and ``other`` besides. ``start`` holds the combinations
    that start at 0 where these are fewer than all. ``buckets`` are upper
    bounds in seconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    start: tuple[tuple[str, ...], ...] | None = None
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """In the order in which values are given."""
        return tuple(name for name, _ in self.labels)

    def combinations(self, domains: Iterable[str] = ()) -> Iterator[tuple[str, ...]]:
        """The label values that are shown from the start, with value 0."""
        if self.start is not None:
            yield from self.start
            return
        configured = (*dict.fromkeys(domains), OTHER)
        yield from itertools.product(
            *(configured if values is None else values for _, values in self.labels)
        )

    def checked(self, labels: tuple[str, ...], domains: frozenset[str]) -> tuple[str, ...]:
        """``labels`` as they are counted.

        A status outside the list and a domain that is not configured, which
        come from outside, are folded; any other stray value is our mistake.

        Raises:
            MetricError: a stray value, or not as many as the metric has.
        """
        if len(labels) != len(self.labels):
            raise MetricError(f"{self.name} has the labels {self.label_names}, not {labels!r}")
        counted = []
        for (name, values), value in zip(self.labels, labels, strict=True):
            if values is None:
                counted.append(str(value) if value in domains else OTHER)
            elif values is STATUSES:
                counted.append(known_status(value))
            elif value in values:
                counted.append(str(value))
            else:
                raise MetricError(f"{self.name}: {name} is never {value!r}")
        return tuple(counted)


def _values(words: type[enum.StrEnum]) -> tuple[str, ...]:
    return tuple(word.value for word in words)


_REQUIREMENT = ("requirement", _values(Requirement))
_ACTION = ("action", _values(Action))
_STATUS = ("status", STATUSES)
_REASON = ("reason", _values(Reason))
_DOMAIN = ("domain", None)

_DECLARED = (
    Metric(
        "messages_total",
        Kind.COUNTER,
        "Messages, counted at their end or when refused; aborted ones are not.",
        (_REQUIREMENT, _ACTION),
    ),
    Metric(
        "requirement_sources_total",
        Kind.COUNTER,
        "The same messages, by where what they ask was found: the source that won.",
        (("source", _values(Source)),),
    ),
    Metric(
        "recipients_total",
        Kind.COUNTER,
        "Recipients, by what was done with each.",
        (_REQUIREMENT, _ACTION),
    ),
    Metric(
        "forecasts_total",
        Kind.COUNTER,
        "Forecasts, once for each recipient, at its decision.",
        (_REQUIREMENT, _STATUS, _REASON),
        start=tuple(
            (requirement.value, status, reason.value)
            for requirement in Requirement
            for status, reasons in _REASONS_OF.items()
            for reason in reasons
        ),
    ),
    Metric(
        "domain_forecasts_total",
        Kind.COUNTER,
        "Forecasts by configured recipient or next-hop domain; the rest are other.",
        (_DOMAIN, _STATUS),
    ),
    Metric(
        "noncompliant_deliveries_total",
        Kind.COUNTER,
        "Deliveries forecast that the MTA makes but that RFC 8689 does not allow.",
        (_REASON,),
        start=tuple((reason.value,) for reason in _NONCOMPLIANT),
    ),
    Metric(
        "requirement_lost_total",
        Kind.COUNTER,
        "Messages that carried a requirement earlier on their path and no longer do.",
    ),
    Metric(
        "forecast_wait_seconds",
        Kind.HISTOGRAM,
        "How long SMTP waited for a forecast.",
        buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0),
    ),
    Metric(
        "assessments_total",
        Kind.COUNTER,
        "Questions that the engine answered, by how.",
        (("result", _values(AssessmentResult)),),
    ),
    Metric(
        "assessment_seconds",
        Kind.HISTOGRAM,
        "How long an assessment took in the engine.",
        buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0),
    ),
    Metric(
        "probes_total",
        Kind.COUNTER,
        "Looks at a server by SMTP, by the step at which the session ended.",
        (("result", _values(ProbeResult)),),
    ),
    Metric(
        "mta_sts_fetches_total",
        Kind.COUNTER,
        "Attempts to find and fetch the MTA-STS policy of a domain.",
        (("result", _values(MtaStsResult)),),
    ),
    Metric(
        "mta_sts_refreshes_total",
        Kind.COUNTER,
        "Attempts to fetch anew an MTA-STS policy that is kept, by what came of them.",
        (("result", _values(RefreshResult)),),
    ),
    Metric(
        "cache_requests_total",
        Kind.COUNTER,
        "Requests to a cache, by what it had.",
        (("layer", _values(Layer)), ("result", _values(CacheResult))),
        start=(
            (Layer.FORECAST.value, CacheResult.HIT.value),
            (Layer.FORECAST.value, CacheResult.MISS.value),
            (Layer.FORECAST.value, CacheResult.JOINED.value),
            *itertools.product(
                (Layer.HOST.value, Layer.DOMAIN.value),
                (word for word in _values(CacheResult) if word != CacheResult.STORED.value),
            ),
            (Layer.HOST.value, CacheResult.STORED.value),
        ),
    ),
    Metric(
        "cache_entries",
        Kind.GAUGE,
        "Entries in the engine's caches.",
        (("layer", (Layer.HOST.value, Layer.DOMAIN.value)),),
    ),
    Metric(
        "downgrades_total",
        Kind.COUNTER,
        "Times that a domain or host ceased to offer what it had offered.",
        (("kind", DOWNGRADES),),
    ),
    Metric(
        "store_up",
        Kind.GAUGE,
        "1 where the store is read and written, 0 where memory stands in for it.",
    ),
    Metric(
        "store_errors_total",
        Kind.COUNTER,
        "Operations that the store failed; memory stood in.",
        (("operation", _values(StoreOperation)),),
    ),
    Metric(
        "store_damaged_total",
        Kind.COUNTER,
        "Damaged files of the store that were set aside; it began with an empty one.",
    ),
    Metric(
        "store_evicted_total",
        Kind.COUNTER,
        "Records that had to make room before their time was over.",
    ),
    Metric(
        "fleet_flights_total",
        Kind.COUNTER,
        "Probes and policy fetches that were agreed upon in a fleet, by who made them.",
        (("result", _values(FleetResult)),),
    ),
    Metric(
        "domain_ready",
        Kind.GAUGE,
        "1 where REQUIRETLS mail to a configured domain would be delivered now.",
        (_DOMAIN,),
    ),
    Metric(
        "resolver_validates",
        Kind.GAUGE,
        "1 where the resolver was seen to validate DNSSEC.",
    ),
    Metric(
        "outbound_reachable",
        Kind.GAUGE,
        "0 where many servers, or many names, fail at once and none succeeds: it is we.",
        (("service", _values(OutboundService)),),
    ),
    Metric(
        "saturated_total",
        Kind.COUNTER,
        "Times that a bound was met: somebody waited, was refused, or made room.",
        (("bound", _values(Bound)),),
    ),
    Metric(
        "callback_errors_total",
        Kind.COUNTER,
        "Exceptions contained in a callback of the milter.",
        (("stage", STAGES),),
    ),
    Metric(
        "process_restarts_total",
        Kind.COUNTER,
        "Processes that died and were replaced.",
        (("process", _values(Process)),),
    ),
    Metric(
        "config_last_reload_successful",
        Kind.GAUGE,
        "1 where the last attempt to read the configuration succeeded.",
    ),
    Metric(
        "config_last_reload_success_timestamp_seconds",
        Kind.GAUGE,
        "When the configuration was last read with success.",
    ),
    Metric(
        "build_info",
        Kind.GAUGE,
        "Always 1; the versions are its labels.",
        (("version", ()), ("python", ()), ("pymilter", ()), ("openssl", ())),
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _DECLARED}
"""By name, without the prefix."""


def _declared(name: str, kind: Kind) -> Metric:
    metric = METRICS.get(name)
    if metric is None or metric.kind is not kind:
        raise MetricError(f"no {kind} is named {name!r}")
    return metric


# ---------------------------------------------------------------- counting

CounterTotal = tuple[str, tuple[str, ...], float]
"""(metric, label values, value)."""

HistogramTotal = tuple[str, tuple[int, ...], float]
"""(metric, observations in each bucket and over the last one, sum of the values)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a process has counted since it started; a part of it where it is cut in pieces."""

    counters: tuple[CounterTotal, ...] = ()
    histograms: tuple[HistogramTotal, ...] = ()

    def pieces(self, size: int) -> Iterator[Totals]:
        """The same in parts of at most ``size`` counters; the first has the histograms."""
        yield Totals(self.counters[:size], self.histograms)
        for start in range(size, len(self.counters), size):
            yield Totals(self.counters[start : start + size])


class Counters:
    """Counts, in plain Python and from any thread.

    Args:
        domains: the values of a ``domain`` label that are kept apart.
    """

    def __init__(self, domains: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._domains = frozenset(domains)
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self._checked: set[tuple[str, tuple[str, ...]]] = set()  # what counts as it is given
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def configure(self, domains: Iterable[str]) -> None:
        """Take the configured domains of a new configuration; what was counted stays."""
        with self._lock:
            self._domains = frozenset(domains)
            self._checked.clear()

    def inc(self, metric: str, labels: tuple[str, ...] = (), by: float = 1.0) -> None:
        """Add ``by`` to a counter. ``labels`` in the order of the declaration.

        Raises:
            MetricError: there is no such counter or label value, or ``by`` is negative.
        """
        if not by >= 0:
            raise MetricError(f"{metric} cannot fall: {by!r}")
        key = (metric, labels)
        with self._lock:
            if key not in self._checked:
                given = key
                key = (metric, _declared(metric, Kind.COUNTER).checked(labels, self._domains))
                if key == given:
                    self._checked.add(key)
            self._values[key] = self._values.get(key, 0.0) + by

    def observe(self, metric: str, value: float) -> None:
        """Put a duration in seconds into a histogram; a negative one counts as 0.

        Raises:
            MetricError: there is no such histogram.
        """
        bounds = _declared(metric, Kind.HISTOGRAM).buckets
        seconds = value if value >= 0 else 0.0
        with self._lock:
            counts = self._buckets.setdefault(metric, [0] * (len(bounds) + 1))
            counts[bisect_left(bounds, seconds)] += 1
            self._sums[metric] = self._sums.get(metric, 0.0) + seconds

    def totals(self) -> Totals:
        """All that was counted so far."""
        with self._lock:
            return Totals(
                tuple((metric, labels, value) for (metric, labels), value in self._values.items()),
                tuple(
                    (metric, tuple(counts), self._sums[metric])
                    for metric, counts in self._buckets.items()
                ),
            )


# ---------------------------------------------------------------- adding up


@dataclass(slots=True)
class _Series:
    """The totals of one process, or of all that are gone."""

    counters: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)
    histograms: dict[str, tuple[tuple[int, ...], float]] = field(default_factory=dict)

    def take(self, totals: Totals) -> None:
        """Later totals of the same process: no value ever falls."""
        for metric, labels, value in totals.counters:
            key = (metric, labels)
            self.counters[key] = max(value, self.counters.get(key, 0.0))
        for metric, counts, total in totals.histograms:
            held = self.histograms.get(metric)
            if held is None or sum(counts) >= sum(held[0]):
                self.histograms[metric] = (counts, total)

    def add(self, other: _Series) -> None:
        for key, value in other.counters.items():
            self.counters[key] = self.counters.get(key, 0.0) + value
        for metric, (counts, total) in other.histograms.items():
            held = self.histograms.get(metric)
            if held is not None:
                counts = tuple(a + b for a, b in zip(counts, held[0], strict=True))
                total += held[1]
            self.histograms[metric] = (counts, total)

    def totals(self) -> Totals:
        return Totals(
            tuple((metric, labels, value) for (metric, labels), value in self.counters.items()),
            tuple((metric, counts, total) for metric, (counts, total) in self.histograms.items()),
        )


MAX_PROCESSES = 1024
"""Names whose totals are kept apart: far more than there are workers."""

INCARNATIONS = 3
"""Lives of one process kept apart, for totals that arrive late; earlier ones are only a sum."""


class Aggregate:
    """The sum of what several processes counted, over all their lives.

    A process is a name and an incarnation, a number that grows from one life
    to the next. What a process has counted stays in the sum when it dies.
    """

    def __init__(self) -> None:
        self._lives: dict[str, dict[int, _Series]] = {}
        self._folded: dict[str, int] = {}
        self._retired = _Series()

    def update(self, process: str, incarnation: int, totals: Totals) -> None:
        """Take later totals of a process in; those of a life long gone are ignored.

        Raises:
            MetricError: a metric, a label or a number of buckets that is not
                declared, or too many processes. Nothing has been taken in then.
        """
        for metric, labels, _ in totals.counters:
            if len(labels) != len(_declared(metric, Kind.COUNTER).labels):
                raise MetricError(f"{metric} does not have {len(labels)} labels")
        for metric, counts, _ in totals.histograms:
            if len(counts) != len(_declared(metric, Kind.HISTOGRAM).buckets) + 1:
                raise MetricError(f"{metric} does not have {len(counts)} buckets")
        if process not in self._lives and len(self._lives) >= MAX_PROCESSES:
            raise MetricError(f"more than {MAX_PROCESSES} processes")
        if incarnation <= self._folded.get(process, -1):
            return
        lives = self._lives.setdefault(process, {})
        lives.setdefault(incarnation, _Series()).take(totals)
        while len(lives) > INCARNATIONS:
            oldest = min(lives)
            self._retired.add(lives.pop(oldest))
            self._folded[process] = oldest

    def totals(self) -> Totals:
        """The sum."""
        everything = _Series()
        everything.add(self._retired)
        for lives in self._lives.values():
            for series in lives.values():
                everything.add(series)
        return everything.totals()

    def snapshot(self) -> Snapshot:
        """All that :meth:`restore` needs to go on in another process."""
        return Snapshot(
            tuple(
                (process, incarnation, series.totals())
                for process, lives in self._lives.items()
                for incarnation, series in lives.items()
            ),
            tuple(self._folded.items()),
            self._retired.totals(),
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Aggregate:
        """An aggregate that goes on where another one stopped."""
        aggregate = cls()
        aggregate._retired.take(snapshot.retired)
        for process, incarnation, totals in snapshot.lives:
            aggregate.update(process, incarnation, totals)
        aggregate._folded.update(snapshot.folded)
        return aggregate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An :class:`Aggregate` at one moment; the supervisor keeps it for the next engine."""

    lives: tuple[tuple[str, int, Totals], ...] = ()
    folded: tuple[tuple[str, int], ...] = ()
    retired: Totals = Totals()


class Gauges:
    """Present values, each set whenever it changes."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}

    def set(self, metric: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Give a gauge a value.

        Raises:
            MetricError: there is no such gauge, or it has other labels.
        """
        declared = _declared(metric, Kind.GAUGE)
        if len(labels) != len(declared.labels):
            raise MetricError(f"{metric} has the labels {declared.label_names}, not {labels!r}")
        self._values[metric, labels] = value

    def clear(self, metric: str) -> None:
        """Forget a gauge's values: those of domains that are no longer configured."""
        for key in [key for key in self._values if key[0] == metric]:
            del self._values[key]

    def items(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """All that were set: (metric, label values, value)."""
        for (metric, labels), value in self._values.items():
            yield metric, labels, value
