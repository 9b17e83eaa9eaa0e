"""Every metric, declared once: name, kind, help text and labels.

To add a metric, add a :class:`Metric` to ``_DECLARED`` (and a set of label values
to :mod:`.labels`), count it where it happens, and describe it in docs/metrics.md.
:class:`.counting.Counters` and :class:`.counting.Gauges` refuse what is not declared here.

Names, labels and label values are a contract: dashboards and alerts rely on them.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import (
    OTHER_DOMAIN,
    UNKNOWN_STATUS,
    Action,
    Feature,
    InboundProblem,
    Mode,
    Outcome,
    Reason,
    Requirement,
    Source,
)
from requiretls_milter.syntax import status as codes
from requiretls_milter.telemetry.labels import (
    OTHER_PERMANENT,
    OTHER_REASON,
    OTHER_TEMPORARY,
    REASONS,
    STATUSES,
    AssessmentResult,
    AuditResult,
    Bound,
    CacheResult,
    Expanded,
    FleetResult,
    GivenUp,
    Lane,
    Layer,
    MtaStsResult,
    NotifyResult,
    OutboundService,
    PostmapResult,
    ProbeResult,
    Process,
    RefreshResult,
    Socket,
    Stage,
    StoreOperation,
    WatchMailResult,
    status_label,
)

PREFIX = "requiretls_milter_"
"""Comes before each name when Prometheus reads it; names within the program have none."""


class MetricKind(enum.StrEnum):
    """A metric type of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricError(RequiretlsMilterError, ValueError):
    """A metric or label value that is not declared.

    In this process it is a fault of the program. In totals that another process
    sent it means that the message is not to be trusted: drop its connection.
    """


@dataclass(frozen=True, slots=True)
class Metric:
    """One declaration.

    Attributes:
        labels: pairs (name, closed set of values); the set of the label ``domain``, the first
            of them, is None, since it is that of the configured domains, and ``other``. So is that
            of ``host``: the MX hosts of a watched domain, as far as evidence is gathered for them.
        start: combinations of label values that start at 0, if not all of them do.
        buckets: of a histogram, the upper bounds in seconds.
        same_as: the metric that is counted, of which this one shows the values under another
            name: one of the two goes with the next release.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    start: tuple[tuple[str, ...], ...] | None = None
    buckets: tuple[float, ...] = ()
    same_as: str = ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names, in the order in which values are given."""
        return tuple(name for name, _ in self.labels)

    @property
    def domain_index(self) -> int | None:
        """The place of the label ``domain`` among the labels; None if there is none."""
        return next((n for n, (_, values) in enumerate(self.labels) if values is None), None)

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """Yield the label values that are shown from the start, with value 0.

        Those of configured domains are not among them: there may be thousands, and to most
        of them nothing ever happens.
        """
        if self.start is not None:
            yield from self.start
            return
        yield from itertools.product(
            *((OTHER_DOMAIN,) if values is None else values for _, values in self.labels)
        )

    def checked(self, labels: tuple[str, ...], domains: frozenset[str]) -> tuple[str, ...]:
        """The label values under which ``labels`` are counted.

        A status or a domain may come from a stranger; one that is not in the set
        is counted as "other" (R62). Any other stray value is a fault of the program.

        Raises:
            MetricError: a stray value, not as many values as the metric has labels, or a metric
                that only shows what another one counts.
        """
        if self.same_as:
            raise MetricError(f"{self.name} shows what is counted as {self.same_as}")
        if len(labels) != len(self.labels):
            raise MetricError(f"{self.name} has the labels {self.label_names}, not {labels!r}")
        counted = []
        for (name, values), value in zip(self.labels, labels, strict=True):
            if values is None:
                counted.append(str(value) if value in domains else OTHER_DOMAIN)
            elif values is STATUSES:
                counted.append(status_label(value))
            elif value in values:
                counted.append(str(value))
            else:
                raise MetricError(f"{self.name}: {name} is never {value!r}")
        return tuple(counted)


def _values(words: type[enum.StrEnum]) -> tuple[str, ...]:
    return tuple(word.value for word in words)


_NONCOMPLIANT = tuple(reason for reason in Reason if reason.value.startswith("noncompliant_"))

_REASONS_OF: Mapping[str, tuple[Reason, ...]] = {
    codes.SUCCESS: (
        Reason.OK,
        *_NONCOMPLIANT,
        Reason.LOCAL,
    ),
    codes.NO_SERVER_LEFT: (Reason.MX_NOT_IN_MTA_STS_POLICY, Reason.NEXTHOP_INVALID),
    codes.MTA_MISCONFIGURED: (
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
        Reason.NO_SUCH_DOMAIN,
        Reason.NULL_MX,
        Reason.MAIL_LOOP,
    ),
    codes.CONNECT_FAILURE: (Reason.UNREACHABLE,),
    codes.LOST_CONNECTION: (Reason.UNREACHABLE,),
    codes.DNS_FAILURE: (Reason.DNS_FAILURE,),
    codes.NO_ADDRESS_FOR_NOW: (Reason.DNS_FAILURE, Reason.MAIL_LOOP),
    codes.MAIL_LOOP_FOR_NOW: (Reason.MAIL_LOOP,),
    codes.POLICY_TEMPORARY: (Reason.STARTTLS_REFUSED,),
    codes.TLS_NOT_OFFERED: (Reason.STARTTLS_NOT_OFFERED,),
    codes.TLS_NOT_ESTABLISHED: (
        Reason.TLS_HANDSHAKE_FAILED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        Reason.POLICY_LOOKUP_FAILED,
        Reason.NO_TLSA_RECORDS,
        Reason.MX_UNSIGNED,
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
    ),
    codes.MTA_POLICY_INVALID: (Reason.MTA_POLICY_INVALID,),
    OTHER_TEMPORARY: (Reason.SERVER_REJECTS,),
    codes.NULL_MX: (Reason.NULL_MX,),
    codes.NO_ADDRESS: (Reason.NO_SUCH_DOMAIN,),
    codes.MAIL_LOOP: (Reason.MAIL_LOOP,),
    codes.ENCRYPTION_NEEDED: (
        Reason.STARTTLS_REFUSED,
        Reason.TLS_HANDSHAKE_FAILED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        Reason.TLS_LEVEL_DOES_NOT_VERIFY,
        Reason.MX_LOOKUP_INSECURE,
    ),
    codes.REQUIRETLS_NEEDED: (Reason.STARTTLS_NOT_OFFERED, Reason.REQUIRETLS_NOT_OFFERED),
    codes.SMTPUTF8_NEEDED: (Reason.SMTPUTF8_NOT_OFFERED,),
    codes.MESSAGE_TOO_LARGE: (Reason.MESSAGE_TOO_LARGE,),
    OTHER_PERMANENT: (Reason.SERVER_REJECTS,),
    UNKNOWN_STATUS: (Reason.UNKNOWN,),
}
"""Pairs that are known to occur and start at 0; any other pair appears when it first occurs."""

_REQUIREMENT = ("requirement", _values(Requirement))
_ACTION = ("action", _values(Action))
_STATUS = ("status", STATUSES)
_REASON = ("reason", REASONS)
_DOMAIN = ("domain", None)
_OF_PROCESS = (("process", ()),)  # supervisor, engine, worker-1...: as many as are configured

_WAITS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),  # what is kept: no network
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),  # DNS and a TLS handshake
    *(0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),  # far and slow servers; rules.tag_wait is 2 s
    *(6.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0),  # greylisting; the deadlines; the MTA gives up
)
"""Upper bounds of what is waited for, in seconds, dense where waits lie and at each deadline."""

_DECLARED = (
    Metric(
        "messages_total",
        MetricKind.COUNTER,
        "Messages that reached their end or were refused; aborted messages do not count.",
        (_REQUIREMENT, _ACTION),
    ),
    Metric(
        "requirement_sources_total",
        MetricKind.COUNTER,
        "The same messages, by the place where their requirement was found.",
        (("source", _values(Source)),),
    ),
    Metric(
        "recipients_total",
        MetricKind.COUNTER,
        "Recipients, by requirement and by what was done with each.",
        (_REQUIREMENT, _ACTION),
    ),
    Metric(
        "forecasts_total",
        MetricKind.COUNTER,
        "Forecasts, counted once for each recipient when its decision is final.",
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
        MetricKind.COUNTER,
        "Forecasts by configured recipient or next-hop domain; all other domains are other.",
        (_DOMAIN, _STATUS),
    ),
    Metric(
        "noncompliant_deliveries_total",
        MetricKind.COUNTER,
        "Recipients accepted although the forecast delivery violates RFC 8689.",
        (_REASON,),
        start=tuple((reason.value,) for reason in _NONCOMPLIANT),
    ),
    Metric(
        "requirement_lost_total",
        MetricKind.COUNTER,
        "Messages that carried a requirement earlier on their path and no longer do.",
    ),
    Metric(
        "alias_lookups_total",
        MetricKind.COUNTER,
        "Recipients that were looked up in the tables of aliases, by what became of them.",
        (("result", _values(Expanded)),),
    ),
    Metric(
        "alias_queries_total",
        MetricKind.COUNTER,
        "Runs of postmap(1) that looked up keys of aliases, by result.",
        (("result", _values(PostmapResult)),),
    ),
    Metric(
        "forecast_wait_seconds",
        MetricKind.HISTOGRAM,
        "Time that SMTP waited for a forecast.",
        buckets=_WAITS,
    ),
    Metric(
        "assessments_total",
        MetricKind.COUNTER,
        "Questions that the engine answered, by result.",
        (("result", _values(AssessmentResult)),),
    ),
    Metric(
        "assessment_seconds",
        MetricKind.HISTOGRAM,
        "Time that the engine took to answer a question.",
        buckets=_WAITS,
    ),
    Metric(
        "probes_total",
        MetricKind.COUNTER,
        "SMTP probes of mail servers, by the step at which the session ended.",
        (("result", _values(ProbeResult)),),
    ),
    Metric(
        "mta_sts_fetches_total",
        MetricKind.COUNTER,
        "Lookups of the MTA-STS policy of a domain, by result.",
        (("result", _values(MtaStsResult)),),
    ),
    Metric(
        "mta_sts_refreshes_total",
        MetricKind.COUNTER,
        "Attempts to fetch a cached MTA-STS policy again, by result.",
        (("result", _values(RefreshResult)),),
    ),
    Metric(
        "cache_requests_total",
        MetricKind.COUNTER,
        "Cache requests, by what the cache had.",
        (("layer", _values(Layer)), ("result", _values(CacheResult))),
        start=(
            (Layer.FORECAST.value, CacheResult.HIT.value),
            (Layer.FORECAST.value, CacheResult.MISS.value),
            (Layer.FORECAST.value, CacheResult.JOINED.value),
            (Layer.FORECAST.value, CacheResult.STALE.value),
            *itertools.product(
                (Layer.HOST.value, Layer.DOMAIN.value),
                (
                    word
                    for word in _values(CacheResult)
                    if word not in (CacheResult.STORED.value, CacheResult.STALE.value)
                ),
            ),
            (Layer.HOST.value, CacheResult.STORED.value),
            (Layer.ALIAS.value, CacheResult.HIT.value),
            (Layer.ALIAS.value, CacheResult.MISS.value),
            (Layer.ALIAS.value, CacheResult.JOINED.value),
            (Layer.ALIAS.value, CacheResult.HELD.value),
        ),
    ),
    Metric(
        "cache_entries",
        MetricKind.GAUGE,
        "Entries in the engine's caches.",
        (("layer", (Layer.HOST.value, Layer.DOMAIN.value, Layer.ALIAS.value)),),
    ),
    Metric(
        "downgrades_total",
        MetricKind.COUNTER,
        "Times that a domain or host stopped offering a feature that it had offered.",
        (("kind", _values(Feature)),),
    ),
    Metric(
        "store_up",
        MetricKind.GAUGE,
        "1 while the store works, 0 while memory stands in for it.",
    ),
    Metric(
        "store_errors_total",
        MetricKind.COUNTER,
        "Store operations that failed; memory stood in for the store.",
        (("operation", _values(StoreOperation)),),
    ),
    Metric(
        "store_damaged_total",
        MetricKind.COUNTER,
        "Store files that were set aside as damaged and replaced by an empty one.",
    ),
    Metric(
        "store_evicted_total",
        MetricKind.COUNTER,
        "Records removed before their end of life to make room in the store.",
    ),
    Metric(
        "fleet_flights_total",
        MetricKind.COUNTER,
        "Probes and policy fetches coordinated in a fleet, by the engine that made them.",
        (("result", _values(FleetResult)),),
    ),
    Metric(
        "domain_ready",
        MetricKind.GAUGE,
        "1 if REQUIRETLS mail to the configured domain would be delivered now.",
        (_DOMAIN,),
        start=(),
    ),
    Metric(
        "domain_state",
        MetricKind.GAUGE,
        "What would become of REQUIRETLS mail to the configured domain: one of the outcomes is 1.",
        (_DOMAIN, ("outcome", _values(Outcome))),
        start=(),
    ),
    Metric(
        "domain_reason",
        MetricKind.GAUGE,
        "Always 1; the label tells the reason for the state of the configured domain.",
        (_DOMAIN, _REASON),
        start=(),
    ),
    Metric(
        "domain_last_assessed_timestamp_seconds",
        MetricKind.GAUGE,
        "When the configured domain was last assessed with a result.",
        (_DOMAIN,),
        start=(),
    ),
    Metric(
        "domain_certificate_expiry_timestamp_seconds",
        MetricKind.GAUGE,
        "End of the certificate of the configured domain's servers that ends first.",
        (_DOMAIN,),
        start=(),
    ),
    Metric(
        "domain_policy_expiry_timestamp_seconds",
        MetricKind.GAUGE,
        "End of the MTA-STS policy of the configured domain, if it is not renewed.",
        (_DOMAIN,),
        start=(),
    ),
    Metric(
        "watched_server_ready",
        MetricKind.GAUGE,
        "1 if REQUIRETLS mail to the watched domain gets to this server now.",
        (_DOMAIN, ("host", None)),
        start=(),
    ),
    Metric(
        "watched_certificate_expiry_timestamp_seconds",
        MetricKind.GAUGE,
        "End of the certificate that the watched domain's server presents.",
        (_DOMAIN, ("host", None)),
        start=(),
    ),
    Metric(
        "watched_policy_expiry_timestamp_seconds",
        MetricKind.GAUGE,
        "When senders that fetch the watched domain's MTA-STS policy now will have lost it.",
        (_DOMAIN,),
        start=(),
    ),
    Metric(
        "watched_problem",
        MetricKind.GAUGE,
        "1 while the watched domain has the problem: something is broken, or ends soon.",
        (_DOMAIN, ("problem", _values(InboundProblem))),
        start=(),
    ),
    Metric(
        "watch_notifications_total",
        MetricKind.COUNTER,
        "Changes of watched domains that watch.notify was to be told of.",
        (("result", _values(NotifyResult)),),
    ),
    Metric(
        "watch_mails_total",
        MetricKind.COUNTER,
        "Mails to watch.mail_to, by result; dropped counts changes that no mail told.",
        (("result", _values(WatchMailResult)),),
    ),
    Metric(
        "rules_suspended",
        MetricKind.GAUGE,
        "1 while rules.suspended, or the command suspend, keeps every rule from acting.",
    ),
    Metric(
        "resolver_validates",
        MetricKind.GAUGE,
        "1 if the resolver was seen to validate DNSSEC, else 0: then nothing is called secure.",
    ),
    Metric(
        "resolver_selftest_last_success_timestamp_seconds",
        MetricKind.GAUGE,
        "When the resolver last passed the DNSSEC self-test; 0 for never.",
    ),
    Metric(
        "engine_longest_turn_seconds",
        MetricKind.GAUGE,
        "The longest time within the last minute for which the engine did nothing else.",
    ),
    Metric(
        "outbound_reachable",
        MetricKind.GAUGE,
        "0 while our own network or resolver appears to be down.",
        (("service", _values(OutboundService)),),
    ),
    Metric(
        "limit_reached_total",
        MetricKind.COUNTER,
        "Times that a limit was reached: work waited, was refused, or an old entry was dropped.",
        (("limit", _values(Bound)),),
        same_as="saturated_total",
    ),
    Metric(
        "saturated_total",
        MetricKind.COUNTER,
        "The former name of limit_reached_total; it goes with the next release.",
        (("bound", _values(Bound)),),
    ),
    Metric(
        "waiting_for_turn",
        MetricKind.GAUGE,
        "Sessions, lookups and fetches that wait for their turn, with what is prompt or slow.",
        (
            ("resource", (Bound.PROBES.value, Bound.LOOKUPS.value, Bound.FETCHES.value)),
            ("lane", _values(Lane)),
        ),
    ),
    Metric(
        "callback_errors_total",
        MetricKind.COUNTER,
        "Exceptions caught in a milter callback; each is a fault of this program.",
        (("stage", _values(Stage)),),
    ),
    Metric(
        "log_lines_dropped_total",
        MetricKind.COUNTER,
        "Log lines that were dropped, since standard error was not read or could not be written.",
    ),
    Metric(
        "process_restarts_total",
        MetricKind.COUNTER,
        "Processes that died and were replaced.",
        (("process", _values(Process)),),
    ),
    Metric(
        "milter_connections",
        MetricKind.GAUGE,
        "Connections that the MTA holds open to the workers.",
    ),
    Metric(
        "milter_threads",
        MetricKind.GAUGE,
        "Threads of the workers. Each has some ten, and one for each callback or event under way.",
    ),
    Metric(
        "workers_ready",
        MetricKind.GAUGE,
        "Workers that serve the MTA. While there is none, /healthz answers 503.",
    ),
    Metric(
        "sockets_lost_total",
        MetricKind.COUNTER,
        "Times that the file of a unix socket was gone while the service ran; it is made anew.",
        (("socket", _values(Socket)),),
    ),
    Metric(
        "config_last_reload_successful",
        MetricKind.GAUGE,
        "1 if the last attempt to load the configuration succeeded.",
    ),
    Metric(
        "config_last_reload_success_timestamp_seconds",
        MetricKind.GAUGE,
        "Unix time at which the configuration was last loaded successfully.",
    ),
    Metric(
        "config_file_differs",
        MetricKind.GAUGE,
        "1 if the configuration file says something else than what is in force, or has mistakes.",
    ),
    Metric(
        "rules",
        MetricKind.GAUGE,
        "Rules by mode: the section [rules], each table of a domain and each domain of a list.",
        (("mode", _values(Mode)),),
    ),
    Metric(
        "process_cpu_seconds_total",
        MetricKind.COUNTER,
        "Processor time of a process of the service, of user and system.",
        _OF_PROCESS,
    ),
    Metric(
        "process_resident_memory_bytes",
        MetricKind.GAUGE,
        "Memory of a process that is resident, with what it shares with the others.",
        _OF_PROCESS,
    ),
    Metric(
        "process_virtual_memory_bytes",
        MetricKind.GAUGE,
        "Address space of a process.",
        _OF_PROCESS,
    ),
    Metric(
        "process_open_fds",
        MetricKind.GAUGE,
        "File descriptors that a process has open.",
        _OF_PROCESS,
    ),
    Metric(
        "process_max_fds",
        MetricKind.GAUGE,
        "File descriptors that a process may have open.",
        _OF_PROCESS,
    ),
    Metric(
        "process_start_time_seconds",
        MetricKind.GAUGE,
        "Unix time at which a process was started.",
        _OF_PROCESS,
    ),
    Metric(
        "build_info",
        MetricKind.GAUGE,
        "Always 1; the labels hold the versions.",
        (("version", ()), ("python", ()), ("pymilter", ()), ("openssl", ())),
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _DECLARED}
"""The catalogue of the service, by name without the prefix."""

_DECLARED_BY_AUDIT = (
    Metric(
        "audit_deliveries_total",
        MetricKind.COUNTER,
        "Recipients whose first delivery attempt was compared with its forecast, by result.",
        (("result", _values(AuditResult)),),
    ),
    Metric(
        "audit_differences_total",
        MetricKind.COUNTER,
        "Forecasts that did not come true, by the reason that they gave.",
        (("reason", (*REASONS, OTHER_REASON)),),
    ),
    Metric(
        "audit_recipients_in_flight",
        MetricKind.GAUGE,
        "Recipients with a forecast that were not compared yet.",
    ),
    Metric(
        "audit_given_up_total",
        MetricKind.COUNTER,
        "Recipients that were no longer followed, since they were too old or too many.",
        (("bound", _values(GivenUp)),),
    ),
    Metric(
        "audit_lines_total",
        MetricKind.COUNTER,
        "Lines that were read from the logs.",
    ),
    Metric(
        "audit_logs_unreadable",
        MetricKind.GAUGE,
        "Logs that are not there or cannot be read; they are waited for.",
    ),
)

AUDIT_METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _DECLARED_BY_AUDIT}
"""The catalogue of ``audit --follow``, which is a process of its own."""


def declared(name: str, kind: MetricKind) -> Metric:
    """Look a declaration up.

    Raises:
        MetricError: no metric of this kind has this name.
    """
    metric = METRICS.get(name)
    if metric is None or metric.kind is not kind:
        raise MetricError(f"no {kind} is named {name!r}")
    return metric
