"""The values of labels: closed sets, so that no stranger can create a time series.

A set whose concept belongs to a lower layer is taken from there: requirements,
actions, reasons and features from :mod:`requiretls_milter.model`, statuses from
:mod:`requiretls_milter.syntax.status`. The sets below belong to modules that lie
above this one, which count with them; each docstring says what is counted.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from requiretls_milter.model import UNKNOWN_STATUS, Reason
from requiretls_milter.syntax.status import FORECAST_STATUSES, SUCCESS

if TYPE_CHECKING:
    from requiretls_milter.config import Config

OTHER_TEMPORARY = "4.other"
OTHER_PERMANENT = "5.other"

STATUSES = (*FORECAST_STATUSES, OTHER_TEMPORARY, OTHER_PERMANENT, UNKNOWN_STATUS)
"""The label ``status``: codes that servers choose are ``4.other`` and ``5.other``."""


def status_label(status: str) -> str:
    """One of :data:`STATUSES` for any status, including what a hostile server sent (R62)."""
    if status in STATUSES:
        return status
    if status.startswith("4."):
        return OTHER_TEMPORARY
    if status.startswith("5."):
        return OTHER_PERMANENT
    return SUCCESS if status.startswith("2.") else UNKNOWN_STATUS


REASONS = tuple(reason.value for reason in Reason)

OTHER_REASON = "other"
"""A reason of a newer version of this program, or of a log line that was damaged."""


def reason_label(reason: str) -> str:
    """One of :data:`REASONS`, or :data:`OTHER_REASON`, for any text of a log."""
    return reason if reason in REASONS else OTHER_REASON


def configured_domains(config: Config) -> tuple[str, ...]:
    """The label ``domain``: what has a rule by recipient or next hop; ``OTHER_DOMAIN`` besides."""
    return tuple(
        dict.fromkeys(
            pattern for section, pattern, _ in config.rules.by_domain() if section != "sender"
        )
    )


def named_domains(config: Config) -> tuple[str, ...]:
    """Those of them that can be asked about: a rule for subdomains names none of these."""
    return tuple(one for one in configured_domains(config) if not one.startswith("."))


class Stage(enum.StrEnum):
    """The libmilter callback, or the part of one, in which an exception was caught."""

    NEGOTIATE = "negotiate"
    CONNECT = "connect"
    MAIL = "mail"
    RCPT = "rcpt"
    HEADER = "header"
    EOH = "eoh"  # no callback: the header, judged at the end of the message
    EOM = "eom"
    ABORT = "abort"
    CLOSE = "close"


class AssessmentResult(enum.StrEnum):
    """How the engine answered a question: the forecast's outcome, or why there is none."""

    DELIVER = "deliver"
    BOUNCE = "bounce"
    DEFER = "defer"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"  # not a next hop in Postfix's syntax
    DEADLINE = "deadline"
    BUSY = "busy"  # more questions than the engine takes on at once
    ERROR = "error"  # a fault of this program


class ProbeResult(enum.StrEnum):
    """How a probe's SMTP session ended: at which step it failed, or well."""

    DONE = "completed"
    CONNECT = "connect_failed"
    BANNER = "banner_failed"
    EHLO = "ehlo_failed"
    STARTTLS = "starttls_failed"
    HANDSHAKE = "handshake_failed"
    EHLO_TLS = "ehlo_tls_failed"
    FORBIDDEN = "forbidden"


class MtaStsResult(enum.StrEnum):
    """What a lookup of a domain's MTA-STS policy found."""

    POLICY = "policy"
    NONE = "none"
    FAILED = "failed"


class Layer(enum.StrEnum):
    """A cache: forecasts in the workers; in the engine evidence by host and domain, and aliases."""

    FORECAST = "forecast"
    HOST = "host"
    DOMAIN = "domain"
    ALIAS = "alias"


class CacheResult(enum.StrEnum):
    """What a cache had."""

    HIT = "hit"
    MISS = "miss"
    JOINED = "in_progress"  # the same question was asked a moment ago: this one waits with it
    HELD = "recently_failed"  # the last attempt failed a moment ago: no new one is made
    STORED = "stored"  # the cache did not have it, but the store did
    STALE = "stale"  # its life is over: it is given out while a fresh one is made


class RefreshResult(enum.StrEnum):
    """What became of a cached MTA-STS policy that was fetched again."""

    RENEWED = "renewed"
    FAILED = "failed"
    VANISHED = "vanished"  # the domain publishes none any more, and never withdrew it


class StoreOperation(enum.StrEnum):
    """The operation that a store failed."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    LIST = "list"
    CLAIM = "claim"
    DECODE = "decode"  # the store returned something that this program never wrote


class FleetResult(enum.StrEnum):
    """Which engine of a fleet made a probe or fetch that several wanted."""

    OURS = "ours"
    THEIRS = "theirs"
    IN_VAIN = "ours_after_waiting"  # another engine's result did not come: this one made its own


class NotifyResult(enum.StrEnum):
    """What became of a change that ``watch.notify`` was to be told of."""

    TOLD = "told"
    FAILED = "failed"  # the command could not be started, or ended with another status than 0
    TIMEOUT = "timed_out"
    DROPPED = "dropped"  # too many were waiting


class WatchMailResult(enum.StrEnum):
    """What became of a mail about watched domains, or of a change that it was to tell of."""

    SENT = "sent"
    FAILED = "failed"  # the MTA did not take it; it is tried again
    DROPPED = "dropped"  # too many changes were waiting


class OutboundService(enum.StrEnum):
    """What the engine needs to reach outside of this host."""

    SMTP = "smtp"
    DNS = "dns"


class AuditResult(enum.StrEnum):
    """How a delivery compares with its forecast."""

    EQUAL = "equal"
    DIFFERENT = "different"
    LATER = "later"
    """It failed behind all that a probe sees, or at a content filter before the next hop."""
    UNKNOWN = "unknown"
    """The forecast was ``unknown``, or the line of the attempt was cut before its status."""
    WAITING = "waiting"
    """There is a forecast, and no attempt was found in the logs."""


class GivenUp(enum.StrEnum):
    """Why ``audit --follow`` no longer waits for what becomes of a recipient."""

    AGE = "age"
    NUMBER = "number"


class Bound(enum.StrEnum):
    """A limit on work or memory that strangers can cause: the keys of [limits], and some more."""

    CALLBACKS = "callbacks"
    MESSAGE_WAIT = "message_wait"
    MTA_SILENCE = "mta_silence"
    QUESTIONS = "questions"
    TAGS = "tags"
    EXPANSIONS = "expansions"
    ALIAS_ENTRIES = "alias_entries"
    ALIAS_PROCESSES = "alias_processes"
    ALIAS_TIMEOUT = "alias_timeout"
    ALIAS_KEYS = "alias_keys"
    ALIAS_ANSWERS = "alias_answers"
    FORECAST_CACHE = "forecast_cache"
    GATHERINGS = "gatherings"
    FLIGHTS = "flights"
    PROBES = "probes"
    PROBES_PER_HOST = "probes_per_host"
    PROBES_PER_MINUTE = "probes_per_minute"
    ADDRESS_PER_MINUTE = "address_per_minute"
    ADDRESS_PER_HOUR = "address_per_hour"
    NETWORK_PER_MINUTE = "network_per_minute"
    NETWORK_PER_HOUR = "network_per_hour"
    ZONE_LOOKUPS_PER_MINUTE = "zone_lookups_per_minute"
    ZONE_LOOKUPS_PER_HOUR = "zone_lookups_per_hour"
    LOOKUPS = "lookups"
    FETCHES = "fetches"
    SLOW_AFTER = "slow_after"
    EVIDENCE_WAIT = "evidence_wait"
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
    DOMAIN_SERIES = "domain_series"
    HOSTS = "hosts"
    SESSIONS = "sessions"


class Expanded(enum.StrEnum):
    """What became of a recipient that was looked up in the tables of aliases."""

    ALIAS = "alias"  # the message goes to other addresses
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"  # a table cannot be read, or Postfix would not take the message
    TOO_MANY = "too_many"  # beyond limits.expansions


class PostmapResult(enum.StrEnum):
    """What came of a run of postmap(1), which looks up many keys in one table."""

    ANSWERED = "answered"
    FAILED = "failed"  # it cannot be run, it says that the table fails, or it answers nonsense
    TIMEOUT = "timeout"  # it was killed


class Lane(enum.StrEnum):
    """What a lookup, fetch or session waits with for its turn."""

    PROMPT = "prompt"
    SLOW = "slow"


class Process(enum.StrEnum):
    """A kind of process that the supervisor replaces."""

    ENGINE = "engine"
    WORKER = "worker"


class Socket(enum.StrEnum):
    """A unix socket on which the service listens."""

    MILTER = "milter"
    ENGINE = "engine"
