"""What the dashboard shows: rows of panels, each an answer to one question of an operator.

Queries are those of Grafana: ``$instance`` and ``$domain`` are chosen at the top of the dashboard,
``$__rate_interval`` and ``$__range`` follow from the time that is shown. Each query is put to a
real Prometheus by ``tests/lab/test_dashboard.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """How a panel is drawn."""

    STAT = "stat"
    GRAPH = "graph"
    STACKED = "stacked"
    TABLE = "table"
    TIMELINE = "timeline"
    HEATMAP = "heatmap"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what is seen, in a few words.
        asks: the question that it answers, shown when the pointer rests on the title.
        queries: expressions by legend.
        unit: one of Grafana's.
        width: of the 24 columns of a row.
        words: what values are called.
        bad: the value from which on it is red; below it if it is less than ``good``.
        good: the value from which on it is green.
    """

    title: str
    asks: str
    queries: Mapping[str, str]
    kind: Kind = Kind.GRAPH
    unit: str = "short"
    width: int = 8
    words: Mapping[int, str] = field(default_factory=dict)
    good: float | None = None
    bad: float | None = None


_INSTANCE = 'instance=~"$instance"'
_DOMAIN = 'domain=~"$domain"'
_ASKED = 'requirement="requiretls"'
_YES_NO = {1: "yes", 0: "NO"}


def _m(name: str, *labels: str) -> str:
    """A series of the chosen milters."""
    return f"requiretls_milter_{name}{{{','.join((_INSTANCE, *labels))}}}"


def _sum(what: str, by: str = "") -> str:
    return f"sum by ({by}) ({what})" if by else f"sum({what})"


def _rate(by: str, name: str, *labels: str) -> str:
    """How often a second."""
    return _sum(f"rate({_m(name, *labels)}[$__rate_interval])", by)


def _times(by: str, name: str, *labels: str, within: str = "$__rate_interval") -> str:
    """How often within a time."""
    return _sum(f"increase({_m(name, *labels)}[{within}])", by)


def _quantiles(name: str) -> Mapping[str, str]:
    buckets = _rate("le", f"{name}_bucket")
    return {
        "half": f"histogram_quantile(0.5, {buckets})",
        "nine of ten": f"histogram_quantile(0.9, {buckets})",
        "99 of 100": f"histogram_quantile(0.99, {buckets})",
    }


def _by_domain(name: str, least_or_most: str = "min") -> str:
    """A gauge of the chosen domains; with several milters the worse one."""
    return f"{least_or_most} by (domain) ({_m(name, _DOMAIN)})"


def _until(name: str) -> str:
    """The domains for which a moment comes next, and how many seconds are left."""
    return f"bottomk(20, {_by_domain(name)} - time())"


_ASSESSED = "domain_last_assessed_timestamp_seconds"

NOW = (
    Panel(
        "Milters that answer",
        "Does Prometheus reach each milter?",
        {"{{instance}}": f'up{{job="requiretls-milter",{_INSTANCE}}}'},
        Kind.STAT,
        width=4,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Workers that serve the MTA",
        "Does the MTA find somebody? 0: mail is handled by milter_default_action.",
        {"{{instance}}": _m("workers_ready")},
        Kind.STAT,
        width=4,
        good=1,
    ),
    Panel(
        "Resolver validates DNSSEC",
        "NO: nothing is called secure, and REQUIRETLS mail fails.",
        {"{{instance}}": _m("resolver_validates")},
        Kind.STAT,
        width=4,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Way out",
        "Do we reach servers (smtp) and names (dns)? NO: it is our own network.",
        {"{{service}}": f"min by (service) ({_m('outbound_reachable')})"},
        Kind.STAT,
        width=4,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Store works",
        "NO: memory stands in, and what is learnt is lost at a restart.",
        {"{{instance}}": _m("store_up")},
        Kind.STAT,
        width=4,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Alerts",
        "How many alerts of the milter fire?",
        {
            "firing": 'count(ALERTS{alertname=~"RequiretlsMilter.*",alertstate="firing"}) '
            "or vector(0)"
        },
        Kind.STAT,
        width=4,
        good=0,
        bad=1,
    ),
    Panel(
        "Partners that are not ready",
        "To how many configured domains would REQUIRETLS mail not be delivered now?",
        {"domains": f"count({_m('domain_ready')}) - sum({_m('domain_ready')})"},
        Kind.STAT,
        width=4,
        good=0,
        bad=1,
    ),
    Panel(
        "Messages in the last hour",
        "Is there mail at all?",
        {"messages": _times("", "messages_total", within="1h")},
        Kind.STAT,
        width=4,
    ),
    Panel(
        "Refused or deferred in the last hour",
        "How many recipients did rules turn away?",
        {"recipients": _times("", "recipients_total", 'action=~"defer|reject"', within="1h")},
        Kind.STAT,
        width=4,
    ),
    Panel(
        "Longest waits",
        "For how long does one recipient of a hundred wait for us?",
        {"99 of 100": _quantiles("forecast_wait_seconds")["99 of 100"]},
        Kind.STAT,
        "s",
        width=4,
        good=0,
        bad=5,
    ),
    Panel(
        "Configuration is loaded",
        "NO: the last reload was refused, and the old configuration is in force.",
        {"{{instance}}": _m("config_last_reload_successful")},
        Kind.STAT,
        width=4,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Configuration's age",
        "Since when is it in force?",
        {"{{instance}}": f"time() - {_m('config_last_reload_success_timestamp_seconds')}"},
        Kind.STAT,
        "s",
        width=4,
    ),
)

_DELIVERED = 'status="2.0.0"'
_UNKNOWN = 'status="unknown"'
_ALL_FORECASTS = _rate("", "forecasts_total", _ASKED)

MAIL = (
    Panel(
        "Messages by requirement",
        "How much mail asks for REQUIRETLS, how much for TLS-Required: No?",
        {"{{requirement}}": _rate("requirement", "messages_total")},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "Where requirements come from",
        "Who asks: the sender (esmtp, header fields) or a rule?",
        {"{{source}}": _rate("source", "requirement_sources_total", 'source!="none"')},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "Recipients by what was done",
        "How much do rules refuse and defer?",
        {"{{action}}": _rate("action", "recipients_total", 'requirement="requiretls"')},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "Forecasts by reason",
        "What would become of REQUIRETLS mail, and what stands in the way?",
        {"{{status}} {{reason}}": _rate("status, reason", "forecasts_total", _ASKED) + " > 0"},
        Kind.STACKED,
        "cps",
        width=12,
    ),
    Panel(
        "Share that would be delivered",
        "Of the recipients for whom REQUIRETLS is asked: to how many can be delivered?",
        {
            "delivered": f"{_rate('', 'forecasts_total', _ASKED, _DELIVERED)} / {_ALL_FORECASTS}",
            "unknown": f"{_rate('', 'forecasts_total', _ASKED, _UNKNOWN)} / {_ALL_FORECASTS}",
        },
        unit="percentunit",
        width=6,
    ),
    Panel(
        "What should not happen",
        "Deliveries that violate RFC 8689, requirements that were lost on the way to us.",
        {
            "not compliant: {{reason}}": _times("reason", "noncompliant_deliveries_total"),
            "lost": _times("", "requirement_lost_total"),
        },
        width=6,
    ),
)

PARTNERS = (
    Panel(
        "Ready for REQUIRETLS",
        "Which configured domains were ready, and since when not?",
        {"{{domain}}": _by_domain("domain_ready")},
        Kind.TIMELINE,
        width=12,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "State and reason now",
        "Why is a domain not ready?",
        {
            "": f"max by (instance, domain, outcome) ({_m('domain_state', _DOMAIN)} == 1)"
            " * on (instance, domain) group_left (reason)"
            f" max by (instance, domain, reason) ({_m('domain_reason', _DOMAIN)})"
        },
        Kind.TABLE,
        width=12,
    ),
    Panel(
        "Forecasts by domain",
        "How much mail goes to which configured domain, with which status?",
        {
            "{{domain}} {{status}}": "topk(20, "
            + _times("domain, status", "domain_forecasts_total", _DOMAIN, within="$__range")
            + " > 0)"
        },
        Kind.TABLE,
    ),
    Panel(
        "Certificates that end first",
        "Which partner's certificate has to be renewed next?",
        {"{{domain}}": _until("domain_certificate_expiry_timestamp_seconds")},
        Kind.TABLE,
        "s",
    ),
    Panel(
        "MTA-STS policies that end first",
        "Whose policy is not renewed?",
        {"{{domain}}": _until("domain_policy_expiry_timestamp_seconds")},
        Kind.TABLE,
        "s",
    ),
    Panel(
        "Last assessed",
        "How old is what is shown of each domain?",
        {"{{domain}}": f"topk(20, time() - {_by_domain(_ASSESSED)})"},
        unit="s",
        width=12,
    ),
    Panel(
        "Downgrades",
        "Did anybody stop offering what was offered before?",
        {"{{kind}}": _times("kind", "downgrades_total")},
        width=12,
    ),
)

SPEED = (
    Panel(
        "How long SMTP waits",
        "What do half, nine of ten and 99 of a hundred recipients wait at most?",
        _quantiles("forecast_wait_seconds"),
        unit="s",
    ),
    Panel(
        "Waits, all of them",
        "Where do waits lie, and are there islands?",
        {"{{le}}": _times("le", "forecast_wait_seconds_bucket")},
        Kind.HEATMAP,
    ),
    Panel(
        "How long the engine takes",
        "The same for questions, with and without a need for the network.",
        _quantiles("assessment_seconds"),
        unit="s",
    ),
    Panel(
        "Waiting for their turn",
        "Do sessions, lookups or fetches queue up, and is it slow ones?",
        {"{{resource}} {{lane}}": f"sum by (resource, lane) ({_m('waiting_for_turn')})"},
    ),
    Panel(
        "Limits that were met",
        "Which limit keeps us from more?",
        {"{{limit}}": _times("limit", "limit_reached_total")},
    ),
    Panel(
        "Connections and threads",
        "How busy is the MTA with us?",
        {
            "connections": f"sum({_m('milter_connections')})",
            "threads": f"sum({_m('milter_threads')})",
        },
    ),
)

EVIDENCE = (
    Panel(
        "Answers by result",
        "How do assessments end, and how many without an answer?",
        {"{{result}}": _rate("result", "assessments_total")},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "Probes by result",
        "At which step do SMTP sessions with servers end?",
        {"{{result}}": _rate("result", "probes_total")},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "MTA-STS",
        "What do lookups of policies find, and are kept ones renewed?",
        {
            "{{result}}": _rate("result", "mta_sts_fetches_total"),
            "renewal: {{result}}": _rate("result", "mta_sts_refreshes_total"),
        },
        unit="cps",
    ),
    Panel(
        "Answers that need no network",
        "Which share of requests do the caches answer?",
        {
            "{{layer}}": _rate("layer", "cache_requests_total", 'result=~"hit|stored|stale"')
            + " / "
            + _rate("layer", "cache_requests_total", 'result!="stale"')
        },
        unit="percentunit",
    ),
    Panel(
        "Entries of the caches",
        "How much is kept?",
        {"{{layer}}": f"sum by (layer) ({_m('cache_entries')})"},
    ),
    Panel(
        "Fleet: who did the work",
        "Do milters that share a store spare each other work?",
        {"{{result}}": _rate("result", "fleet_flights_total")},
        Kind.STACKED,
        "cps",
    ),
    Panel(
        "Resolver's last passed self-test",
        "How long ago was it seen to validate?",
        {"{{instance}}": f"time() - {_m('resolver_selftest_last_success_timestamp_seconds')}"},
        unit="s",
        width=12,
    ),
    Panel(
        "Store",
        "Does it fail, and does it make room too early?",
        {
            "failed: {{operation}}": _times("operation", "store_errors_total"),
            "made room": _times("", "store_evicted_total"),
        },
        width=12,
    ),
)

SERVICE = (
    Panel(
        "Processor time",
        "Which process is busy? 1 is one processor.",
        {"{{instance}} {{process}}": f"rate({_m('process_cpu_seconds_total')}[$__rate_interval])"},
    ),
    Panel(
        "Memory",
        "Does any process grow? (What they share counts for each.)",
        {"{{instance}} {{process}}": _m("process_resident_memory_bytes")},
        unit="bytes",
    ),
    Panel(
        "File descriptors",
        "Is there room for more connections?",
        {"{{instance}} {{process}}": f"{_m('process_open_fds')} / {_m('process_max_fds')}"},
        unit="percentunit",
    ),
    Panel(
        "Deaths and faults",
        "Do processes die, do callbacks fail, are sockets or log lines lost?",
        {
            "died: {{process}}": _times("process", "process_restarts_total"),
            "callback failed": _times("", "callback_errors_total"),
            "socket lost": _times("", "sockets_lost_total"),
            "log lines dropped": _times("", "log_lines_dropped_total"),
        },
    ),
    Panel(
        "Rules by mode",
        "What are the rules allowed to do?",
        {"{{mode}}": f"sum by (mode) ({_m('rules')})"},
    ),
    Panel(
        "Versions",
        "Which milter runs which version?",
        {"": _m("build_info")},
        Kind.TABLE,
    ),
)

OWN = (
    Panel(
        "Own servers that take REQUIRETLS mail",
        "Does mail that insists on security get through to us?",
        {"{{domain}} {{host}}": f"min by (domain, host) ({_m('watched_server_ready', _DOMAIN)})"},
        Kind.TIMELINE,
        width=12,
        words=_YES_NO,
        good=1,
    ),
    Panel(
        "Problems of own domains",
        "What is broken, or ends soon? requiretls-milter check --inbound says more.",
        {"{{domain}} {{problem}}": f"max by (domain, problem) ({_m('watched_problem', _DOMAIN)})"},
        Kind.TABLE,
        width=12,
    ),
    Panel(
        "Own certificates that end first",
        "Which certificate of ours has to be renewed next?",
        {
            "{{domain}} {{host}}": "bottomk(20, min by (domain, host) ("
            + _m("watched_certificate_expiry_timestamp_seconds", _DOMAIN)
            + ") - time())"
        },
        Kind.TABLE,
        "s",
    ),
    Panel(
        "Own MTA-STS policies",
        "How long do senders keep the policy that they fetched last?",
        {"{{domain}}": _until("watched_policy_expiry_timestamp_seconds")},
        Kind.TABLE,
        "s",
    ),
    Panel(
        "Notifications",
        "Are the command of watch.notify and the addresses of watch.mail_to told of changes?",
        {
            "command: {{result}}": _times("result", "watch_notifications_total"),
            "mail: {{result}}": _times("result", "watch_mails_total"),
        },
    ),
)

ROWS: Mapping[str, tuple[Panel, ...]] = {
    "Now": NOW,
    "Mail": MAIL,
    "Partners": PARTNERS,
    "Own servers": OWN,
    "Speed": SPEED,
    "Evidence": EVIDENCE,
    "Service": SERVICE,
}

EVENTS: Mapping[str, str] = {
    "Configuration loaded": (
        f"changes({_m('config_last_reload_success_timestamp_seconds')}[2m]) > 0"
    ),
    "Process died": _times("instance, process", "process_restarts_total", within="2m") + " > 0",
    "Downgrade": _times("instance, kind", "downgrades_total", within="2m") + " > 0",
}
"""What is drawn into every graph, at its time."""
