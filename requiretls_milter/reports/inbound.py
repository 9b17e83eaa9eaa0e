"""``check --inbound``: our own domains as those see them that send mail to them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from requiretls_milter.config import Config
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.engine.watched.inboundreport import domain_report
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.gathering import LATE, Gathering
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.evidence.turns import BusyError, on_behalf_of
from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness, judge_inbound
from requiretls_milter.forecast.inboundserver import Urgency
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HopKind,
    MxEvidence,
    NextHop,
    PublishedEvidence,
)
from requiretls_milter.reports.check_text import detail_lines
from requiretls_milter.reports.details import details_of
from requiretls_milter.reports.printing import bare_table, printed
from requiretls_milter.syntax.moments import day
from requiretls_milter.syntax.names import DomainNameError, to_alabel
from requiretls_milter.telemetry.counting import Counters

OK, BROKEN, UNSURE = 0, 1, 75
"""Exit statuses, as those of ``check``."""

_STYLES = {Urgency.BROKEN: "red", Urgency.ENDS: "yellow", Urgency.ADVICE: ""}
_HEADS = {Urgency.BROKEN: "broken", Urgency.ENDS: "ends", Urgency.ADVICE: "advice"}
_SAID = {
    ServerReadiness.READY: ("ready", "green"),
    ServerReadiness.NOT_READY: ("not ready", "red"),
    ServerReadiness.UNKNOWN: ("not known", "yellow"),
}


class NoDomainError(RequiretlsMilterError):
    """A text on the command line is no domain; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found out about each domain, and whether the resolver validates.

    ``evidence`` is that of each domain, in the order of the reports. ``silent`` says why nothing
    was looked up, if no name server answers us; otherwise it is "".
    """

    reports: tuple[InboundReport, ...]
    validates: bool
    evidence: tuple[DomainEvidence, ...] = ()
    silent: str = ""

    @property
    def exit_status(self) -> int:
        """1 if anything is broken, 75 if anything ends soon or is not known, else 0."""
        firsts = [report.breaks_first for report in self.reports]
        if any(first is not None and first.severity is Urgency.BROKEN for first in firsts):
            return BROKEN
        is_sure = not any(firsts) and not any(report.unseen for report in self.reports)
        return OK if is_sure else UNSURE

    def to_json(self) -> str:
        """An array with an object for each domain, in ASCII."""
        objects = [domain_report(one, validates=self.validates) for one in self.reports]
        return json.dumps(objects, indent=2)

    def to_lines(self) -> str:
        """JSON lines: an object for each domain."""
        objects = (domain_report(one, validates=self.validates) for one in self.reports)
        return "\n".join(json.dumps(one) for one in objects)

    def to_text(self, width: int | None = None) -> str:
        """Write what is wrong with each domain, the worst first."""
        parts = [_report(report) for report in self.reports]
        if self.silent:
            parts.insert(0, Text(f"{_SILENT}: nothing could be seen ({self.silent}).", "red"))
        elif not self.validates:
            text = "The resolver does not validate DNSSEC: nothing is said of signatures."
            parts.insert(0, Text(text, "red"))
        return printed(*parts, width=width).rstrip()

    def details(self) -> str:
        """Tell of each session with a server: certificate, cipher suite, dialogue."""
        lines: list[str] = []
        for evidence in self.evidence:
            for host in evidence.hosts:
                for probe in host.probes:
                    told = detail_lines(probe.address, probe.tls_version, details_of(probe))
                    lines.append(f"{evidence.nexthop.host}: {host.host}")
                    lines += [*(f"  {one}" for one in told), ""]
        return "\n".join(lines).rstrip()


# ---------------------------------------------------------------- looking


def look(domains: Sequence[str], config: Config) -> Looked:
    """Look at each domain once, from this process.

    Raises:
        NoDomainError: one of them is none.
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    names = [_name(domain) for domain in domains]
    trust = load_trust_store(config.probe.ca_file)
    return asyncio.run(_look(names, config, trust))


def _name(domain: str) -> str:
    try:
        return to_alabel(domain)
    except DomainNameError as error:
        raise NoDomainError(f"--inbound takes domains: {error}") from error


async def _look(domains: Sequence[str], config: Config, trust: TrustStore) -> Looked:
    shares = AllShares.of(config.limits, Counters())
    live = Collector(config, trust, limiters=shares.limiters())
    watch = ResolverWatch(live.resolver, config)
    try:
        await watch.test_now()
        silent = "" if watch.validates else await _silence(live)
        seen = [
            _unseen(domain) if silent else await _look_at(domain, config, live)
            for domain in domains
        ]
        reports = (
            judge_inbound(evidence, published, trust, time.time(), validates=watch.validates)
            for evidence, published in seen
        )
        judged = tuple(reports)
        return Looked(judged, watch.validates, tuple(evidence for evidence, _ in seen), silent)
    finally:
        await live.close()


_SILENT = "No name server answers us"


async def _silence(live: Collector) -> str:
    """Why not even the root zone can be looked up; "" if it can.

    That is our own trouble, and says nothing of a domain.
    """
    root = await live.resolver.root()
    return root.error if root.outcome is DnsOutcome.ERROR else ""


def _unseen(domain: str) -> tuple[DomainEvidence, PublishedEvidence]:
    mx = MxEvidence(DnsOutcome.ERROR, error=_SILENT, unasked=True)
    return DomainEvidence(NextHop(HopKind.MX, domain), mx), PublishedEvidence()


async def _look_at(
    domain: str, config: Config, live: Collector
) -> tuple[DomainEvidence, PublishedEvidence]:
    nexthop = NextHop(HopKind.MX, domain)
    gathering = Gathering(nexthop, live, config, time.time())
    why = LATE
    with on_behalf_of(domain):
        try:
            async with asyncio.timeout(config.limits.gathering_timeout):
                await gathering.run()
        except TimeoutError:
            pass  # what is known by then is judged, and the rest is told as not seen
        except BusyError as error:
            why = str(error)
        mx = MxEvidence(DnsOutcome.ERROR, error=why, unasked=True)
        evidence = gathering.known() or DomainEvidence(nexthop, mx)
        return evidence, await live.published(evidence)


# ---------------------------------------------------------------- text


def _report(report: InboundReport) -> RenderableType:
    table = bare_table()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for server in report.servers:
        words, style = _SAID[server.readiness]
        end = server.certificate_expires
        certificate = "no certificate seen" if end is None else f"certificate until {day(end)}"
        table.add_row(server.host, Text(words, style), certificate)
    problems = bare_table()
    problems.add_column(no_wrap=True)
    problems.add_column(overflow="fold")
    problems.add_column(overflow="fold", ratio=1)
    for one in report.problems:
        where = f"{one.host}: " if one.host else ""
        head = Text(_HEADS[one.severity], _STYLES[one.severity])
        problems.add_row(head, one.problem.value, where + one.text)
    parts: list[RenderableType] = [Text(report.domain, "bold"), Padding(table, (0, 0, 0, 2))]
    if report.policy_expires is not None:
        text = (
            f"  MTA-STS policy: senders that have it now keep it until {day(report.policy_expires)}"
        )
        parts.append(Text(text))
    if report.policy_certificate_expires is not None:
        until = day(report.policy_certificate_expires)
        parts.append(Text(f"  MTA-STS policy host: certificate until {until}"))
    if report.problems:
        parts += ["", Padding(problems, (0, 0, 0, 2))]
    if unseen := sorted(host or report.domain for host in report.unseen):
        parts += ["", Text(f"  Not all could be seen of {', '.join(unseen)}.", "yellow")]
    return Group(*parts, "", Padding(Text(report.verdict), (0, 0, 0, 2)), "")
