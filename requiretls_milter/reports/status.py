"""``status``: how the running service is, for people, scripts and monitoring. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.engine.overview import (
    FileState,
    Overview,
    Row,
    age,
    ruled,
    verdict,
    watched_summary,
    watched_word,
    word,
)
from requiretls_milter.ipc.wire import (
    Condition,
    DomainStatus,
    Failing,
    ServiceStatus,
    StatusReply,
    WatchedStatus,
)
from requiretls_milter.reports.printing import on_terminal
from requiretls_milter.syntax.moments import moment_if_any

WELL, DEGRADED = 0, 1
"""Exit statuses."""


@dataclass(frozen=True, slots=True)
class StatusFound:
    """What a running service says of itself, and what its configuration file says by now.

    Attributes:
        reply: of the engine.
        service: what the supervisor told the engine.
        condition: of the engine.
        file: the file's configuration; None if it cannot be used.
        mistakes: why it cannot.
        now: seconds since the epoch.
    """

    reply: StatusReply
    service: ServiceStatus
    condition: Condition
    file: Config | None
    mistakes: Sequence[str]
    now: float

    @property
    def differs_in(self) -> list[str]:
        """The sections in which the file says something else than what is in force."""
        return [] if self.file is None else self.service.differs_in(self.file)

    @property
    def overview(self) -> Overview:
        """The service, in sentences."""
        sections = self.differs_in
        file = FileState(not self.mistakes, bool(sections or self.mistakes), sections)
        return Overview(self.reply, self.service, self.condition, self.now, file)

    def notes(self) -> Iterator[str]:
        """What an operator may want to know, though the service is well."""
        yield from self.overview.notes()
        if self.reply.version != __version__:
            yield f"this program is {__version__}: restart the service"


def exit_status(found: StatusFound) -> int:
    """0 if the service is well, else 1."""
    return DEGRADED if any(found.overview.problems()) else WELL


# ---------------------------------------------------------------- JSON


def as_json(found: StatusFound) -> dict[str, Any]:
    """The status as one object; times are RFC 3339 in UTC."""
    service, condition, reply = found.service, found.condition, found.reply
    problems = list(found.overview.problems())
    return {
        "state": "degraded" if problems else "well",
        "problems": problems,
        "notes": list(found.notes()),
        "version": reply.version,
        "started_at": moment_if_any(service.since),
        "uptime": round(found.now - service.since),
        "config": {
            "path": service.config_path,
            "generation": service.generation,
            "in_force_since": moment_if_any(service.config_since),
            "age": round(found.now - service.config_since),
            "reload_succeeded": service.reload_succeeded,
            "file_differs": found.overview.file.differs,
            "differs_in": found.differs_in,
            "mistakes": list(found.mistakes),
        },
        "rules_suspended": service.suspended,
        "mta": {"version": reply.mta_version or None, "carries": reply.carries.value},
        "processes": [
            {
                "name": one.name,
                "pid": one.pid or None,
                "ready": one.ready,
                "started_at": moment_if_any(one.since),
                "connections": one.connections,
            }
            for one in service.processes
        ],
        "resolver": {
            "validates": reply.resolver_validates,
            "nameservers": list(condition.nameservers),
            "tested_at": moment_if_any(condition.resolver_tested_at),
        },
        "outbound": dict(condition.outbound),
        "store": {"kind": condition.store, "up": condition.store_up},
        "waits": {
            "count": condition.waits,
            "seconds": round(condition.waited, 3),
            "long": condition.waited_long,
        },
        "limits_met": dict(condition.limits),
        "domains": [_domain_json(one) for one in condition.domains],
        "domains_configured": condition.domains_configured,
        "watched": [_watched_json(one) for one in condition.watched],
        "domains_watched": condition.domains_watched,
        "watch_mail_failing": _failing_json(condition.mail_failing),
        "watch_notify_failing": _failing_json(condition.notify_failing),
    }


def _watched_json(one: WatchedStatus) -> dict[str, Any]:
    return {
        "domain": one.domain,
        "severity": one.severity,
        "verdict": one.verdict,
        "problems": one.problems,
        "observed_at": moment_if_any(one.observed_at),
    }


def _failing_json(failing: Failing | None) -> dict[str, Any] | None:
    if failing is None:
        return None
    return {"since": moment_if_any(failing.since), "error": failing.error}


def _domain_json(one: DomainStatus) -> dict[str, Any]:
    return {
        "domain": one.domain,
        "ready": one.ready,
        "state": one.outcome.value,
        "status": one.status,
        "reason": one.reason.value,
        "text": one.text,
        "assessed_at": moment_if_any(one.assessed_at),
        "since": moment_if_any(one.since),
        "nexthop": one.nexthop or one.domain,
        "mode": one.mode.value,
        "reply": one.reply or None,
    }


# ---------------------------------------------------------------- text


def as_text(found: StatusFound) -> str:
    """The status for people: what is wrong comes first, a line for each thing."""
    condition, overview = found.condition, found.overview
    problems = list(overview.problems())
    head = "degraded" if problems else "well"
    lines = [
        f"requiretls-milter {found.reply.version}, up {age(found.now - found.service.since)}: "
        f"{head}",
        *(f"  ! {text}" for text in (*problems, *found.mistakes)),
        *(f"  - {text}" for text in found.notes()),
        "",
    ]
    rows = [*overview.rows(), Row("Domains", _domains(condition))]
    lines += [f"{row.name:14} {row.text}" for row in rows]
    width = max((len(one.domain) for one in condition.domains), default=0)
    lines += [f"  {_domain(one, width, found.now)}" for one in condition.domains]
    if condition.domains_watched:
        lines.append(f"{'Watched':14} {watched_summary(condition)}")
        width = max((len(one.domain) for one in condition.watched), default=0)
        lines += [f"  {_watched(one, width, found.now)}" for one in condition.watched]
    return on_terminal("\n".join(line.rstrip() for line in lines), hang=15)


def _domains(condition: Condition) -> str:
    if not condition.domains_configured:
        return "none has a rule of its own"
    ready = sum(one.ready is True for one in condition.domains)
    known = len(condition.domains)
    text = f"{ready} of {known} ready"
    left = condition.domains_configured - known
    return f"{text}; {left} more are not shown, or not assessed yet" if left > 0 else text


def _domain(one: DomainStatus, width: int, now: float) -> str:
    return (
        f"{one.domain:{width}}  {word(one):9}  {verdict(one)}; {ruled(one)}; "
        f"seen {age(now - one.assessed_at)} ago, like that for {age(now - one.since)}"
        + (f"; by {one.nexthop}" if one.nexthop else "")
    )


def _watched(one: WatchedStatus, width: int, now: float) -> str:
    seen = f"seen {age(now - one.observed_at)} ago"
    return f"{one.domain:{width}}  {watched_word(one):9}  {one.verdict} ({seen})"


def not_running(errors: Sequence[str]) -> Mapping[str, Any]:
    """The object of JSON if no service answers."""
    return {"state": "not_running", "problems": list(errors)}
