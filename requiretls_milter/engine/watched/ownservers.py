"""The watch of our own servers: each look at a domain becomes gauges, log lines and notifications.

What is not seen in a look keeps its last state: that a server cannot be reached from here for a
moment does not mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.config import Config
from requiretls_milter.engine.domains.record import KEPT, KEPT_AGAIN
from requiretls_milter.engine.parts import Parts
from requiretls_milter.engine.records import decode_watched, encode_watched
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.watched.inboundreport import Change, problem_report
from requiretls_milter.evidence.gathering import LATE
from requiretls_milter.evidence.mta_sts import FETCH_RETRY
from requiretls_milter.evidence.turns import BusyError, on_behalf_of
from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.ipc.wire import WatchedStatus
from requiretls_milter.model import HopKind, InboundProblem, NextHop, PublishedEvidence
from requiretls_milter.rules import RuleSet
from requiretls_milter.store.base import StoreKind
from requiretls_milter.syntax.text import bounded, printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Gauges
from requiretls_milter.telemetry.labels import OutboundService, configured_domains, named_domains

_log = log.get_logger("engine.watch")

MAX_VERDICT = 400
"""Characters of what breaks first: a name has 253."""

_NOTHING = PublishedEvidence()

Key = tuple[InboundProblem, str]
"""A problem and the host that has it, "" for the domain."""


def watched_domains(config: Config) -> tuple[str, ...]:
    """Our own domains, and those whose rule has ``watch = true``; a wildcard names none."""
    if not any(table.watch for _, _, table in config.rules.tables()) and not config.rules.watch:
        return config.watch.domains
    rules = RuleSet(config.rules)
    partners = (
        domain
        for domain in named_domains(config)
        if rules.of_nexthop(NextHop(HopKind.MX, domain)).watch
    )
    return tuple(dict.fromkeys([*config.watch.domains, *partners]))


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains that a configuration names, found once for each configuration.

    Attributes:
        configured: those with a rule by recipient or next hop.
        watched: see :func:`watched_domains`.
        shown: both, the values of the label ``domain`` of gauges.
        names: the same, to look them up.
    """

    configured: frozenset[str]
    watched: tuple[str, ...]
    shown: tuple[str, ...]
    names: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> Domains:
        """Find them."""
        configured, watched = configured_domains(config), watched_domains(config)
        shown = tuple(dict.fromkeys([*configured, *watched]))
        return cls(frozenset(configured), watched, shown, frozenset(shown))


@dataclass(slots=True)
class _Known:
    """What is known of one domain: its problems, its hosts, and what it published when."""

    problems: Mapping[Key, Problem]
    hosts: frozenset[str] = frozenset()
    report: InboundReport | None = None
    kept_at: float = float("-inf")
    published: PublishedEvidence = _NOTHING
    asked_at: float = float("-inf")


class OwnServers:
    """Looks at watched domains and tells what has changed.

    Args:
        parts: gives what belongs to the configuration in force.
        gauges: where the domains are shown.
        tell: told of each change of what is broken or ends soon.
        records: where the problems are kept, so that they are not told again after a restart.
        clocks: wall time for records, monotonic time for what was asked when.
    """

    def __init__(
        self,
        parts: Callable[[], Parts],
        gauges: Gauges,
        tell: Callable[[Change], None],
        records: RecordStore,
        *,
        clocks: Clocks = SYSTEM_CLOCKS,
    ) -> None:
        self._parts = parts
        self._gauges = gauges
        self._tell = tell
        self._records = records
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
        self._known: dict[str, _Known] = {}

    def retain(self, watched: Iterable[str]) -> None:
        """Forget the domains that are not among the *watched* any more."""
        kept = frozenset(watched)
        self._known = {domain: one for domain, one in self._known.items() if domain in kept}

    async def look(self, domain: str) -> None:
        """Look at a domain anew, whatever is kept of it; never raises for what the network does."""
        parts = self._parts()
        known = self._known.get(domain)
        if known is None:
            known = self._known[domain] = _Known({})
            known.problems = await self._kept(domain)
        began = self._monotonic()
        try:
            evidence = await parts.assessor.evidence(NextHop(HopKind.MX, domain), refresh=True)
            if began >= known.asked_at + FETCH_RETRY:  # RFC 8461 section 3.3
                known.asked_at = began
                with on_behalf_of(domain):
                    known.published = await parts.collector.published(evidence)
        except (BusyError, TimeoutError) as error:
            _log.warning("watch_not_seen", domain=domain, error=str(error) or LATE)
            return
        if any(parts.source.outage.is_out(service) for service in OutboundService):
            _log.warning("watch_not_seen", domain=domain, error="an outage of our own")
            return
        validates = parts.resolver.validates
        report = await parts.assessor.inbound(evidence, known.published, validates=validates)
        if self._known.get(domain) is known:  # otherwise it is watched no more
            changed = self.take(known, report, validates=validates)
            await self._keep(domain, known, changed=changed)

    def reports(self) -> list[InboundReport]:
        """The last report of each domain that was seen."""
        return [known.report for known in self._known.values() if known.report is not None]

    def statuses(self) -> list[WatchedStatus]:
        """The last state of each domain that was seen, for ``status``: the worst first."""
        found = [watched_status(report) for report in self.reports()]
        return sorted(found, key=lambda one: (_RANK[one.severity], one.domain))

    def take(self, known: _Known, report: InboundReport, *, validates: bool) -> bool:
        """Show a report, and tell what has changed since the last one; whether anything has."""
        now = {(one.problem, one.host): one for one in report.problems}
        for key, finding in known.problems.items():
            if key not in now and _is_unseen(finding, report):
                now[key] = finding
        appeared = [one for key, one in now.items() if key not in known.problems]
        ended = [one for key, one in known.problems.items() if key not in now]
        known.problems = now
        known.report = replace(report, problems=tuple(now.values()))
        self._show(known, report)
        for one in appeared:
            _log_problem("watched_problem", report.domain, one)
        for one in ended:
            _log_problem("watched_problem_ended", report.domain, one)
        if any(one.severity is not Urgency.ADVICE for one in (*appeared, *ended)):
            self._tell(Change(report, tuple(appeared), tuple(ended), validates))
        return bool(appeared or ended)

    async def _kept(self, domain: str) -> dict[Key, Problem]:
        """What was wrong with a domain when an earlier engine looked at it last."""
        kept = await self._records.read(StoreKind.WATCHED, domain, decode_watched, self._wall())
        return {(one.problem, one.host): one for one in kept or ()}

    async def _keep(self, domain: str, known: _Known, *, changed: bool) -> None:
        now = self._wall()
        if not changed and now < known.kept_at + KEPT_AGAIN:
            return
        known.kept_at = now
        value = encode_watched(known.problems.values())
        await self._records.write(StoreKind.WATCHED, domain, value, now + KEPT, now)

    def _show(self, known: _Known, report: InboundReport) -> None:
        domain = report.domain
        serious = {
            one.problem for one in known.problems.values() if one.severity is not Urgency.ADVICE
        }
        for problem in InboundProblem:
            if problem in serious:
                self._gauges.set("watched_problem", 1.0, (domain, problem))
            else:
                self._gauges.drop("watched_problem", (domain, problem))
        hosts = frozenset(server.host for server in report.servers)
        if not _servers_unknown(report):
            for gone in known.hosts - hosts:
                self._gauges.drop("watched_server_ready", (domain, gone))
                self._gauges.drop("watched_certificate_expiry_timestamp_seconds", (domain, gone))
            known.hosts = hosts
        for server in report.servers:
            labels = (domain, server.host)
            if server.readiness is not ServerReadiness.UNKNOWN:
                ready = float(server.readiness is ServerReadiness.READY)
                self._gauges.set("watched_server_ready", ready, labels)
            if server.certificate_expires is not None:
                end = server.certificate_expires
                self._gauges.set("watched_certificate_expiry_timestamp_seconds", end, labels)
        if report.policy_expires is not None:
            end = report.policy_expires
            self._gauges.set("watched_policy_expiry_timestamp_seconds", end, (domain,))
        elif "" not in report.unseen:
            self._gauges.drop("watched_policy_expiry_timestamp_seconds", (domain,))


_RANK = {"broken": 0, "ends": 1, None: 2}
"""The order in which watched domains are shown, by severity."""


def watched_status(report: InboundReport) -> WatchedStatus:
    """What ``status`` shows of a domain."""
    first = report.breaks_first
    severity: Literal["broken", "ends"] | None = None
    if first is not None:
        severity = "broken" if first.severity is Urgency.BROKEN else "ends"
    return WatchedStatus(
        domain=report.domain,
        severity=severity,
        verdict=bounded(printable(report.verdict, MAX_VERDICT + 1), MAX_VERDICT),
        problems=sum(one.severity is not Urgency.ADVICE for one in report.problems),
        observed_at=report.observed_at,
    )


def _is_unseen(finding: Problem, report: InboundReport) -> bool:
    """Whether the report cannot tell that a problem has ended."""
    return finding.host in report.unseen or _servers_unknown(report)


def _servers_unknown(report: InboundReport) -> bool:
    """Whether not even the names are known: otherwise names that are gone are forgotten at once.

    A partner whose names change all the time must not fill our memory with them.
    """
    return not report.servers and "" in report.unseen


def _log_problem(event: str, domain: str, finding: Problem) -> None:
    is_bad = event == "watched_problem" and finding.severity is not Urgency.ADVICE
    write = _log.warning if is_bad else _log.info
    write(
        event,
        domain=domain,
        problem=finding.problem,
        severity=finding.severity,
        host=finding.host,
        text=finding.text,
        at=problem_report(finding)["at"] or "",
    )
