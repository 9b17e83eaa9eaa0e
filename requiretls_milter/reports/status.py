"""``status``: how the running service is, for people, scripts and monitoring. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.ipc.wire import (
    Condition,
    DomainStatus,
    ProcessStatus,
    ServiceStatus,
    StatusReply,
)
from requiretls_milter.syntax.moments import moment_if_any

WELL, DEGRADED = 0, 1
"""Exit statuses."""

_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class Found:
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

    def problems(self) -> Iterator[str]:
        """What keeps the service from being well, a sentence for each."""
        if self.service.health != "ok":
            yield self.service.health
        if not self.service.reload_succeeded:
            yield "the last reload failed: see reload_failed in the log"
        if self.mistakes:
            yield f"{self.service.config_path} cannot be used any more: a restart would fail"
        if self.service.suspended:
            yield "rules are suspended: nothing is enforced"
        if not self.reply.resolver_validates:
            yield "the resolver was not seen to validate DNSSEC: nothing is called secure"
        for name, reachable in self.condition.outbound.items():
            if not reachable:
                yield f"our own network appears to be down ({name})"
        if not self.condition.store_up:
            yield "the store does not work: memory stands in for it"

    def notes(self) -> Iterator[str]:
        """What an operator may want to know, though the service is well."""
        if self.differs_in:
            sections = ", ".join(f"[{name}]" for name in self.differs_in)
            yield f"the file differs in {sections} from what is in force: reload, or restart"
        if self.reply.version != __version__:
            yield f"this program is {__version__}: restart the service"


def exit_status(found: Found) -> int:
    """0 if the service is well, else 1."""
    return DEGRADED if any(found.problems()) else WELL


# ---------------------------------------------------------------- JSON


def as_json(found: Found) -> dict[str, Any]:
    """The status as one object; times are RFC 3339 in UTC."""
    service, condition, reply = found.service, found.condition, found.reply
    problems = list(found.problems())
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
            "file_differs": bool(found.differs_in or found.mistakes),
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
    }


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
    }


# ---------------------------------------------------------------- text


def as_text(found: Found) -> str:
    """The status for people: what is wrong comes first, a line for each thing."""
    service, condition, reply = found.service, found.condition, found.reply
    problems = list(found.problems())
    head = "degraded" if problems else "well"
    lines = [
        f"requiretls-milter {reply.version}, up {age(found.now - service.since)}: {head}",
        *(f"  ! {text}" for text in (*problems, *found.mistakes)),
        *(f"  - {text}" for text in found.notes()),
        "",
    ]
    rows = {
        "Configuration": f"{service.config_path}, generation {service.generation}, "
        f"in force for {age(found.now - service.config_since)}",
        "Processes": _processes(service.processes, found.now),
        "MTA": f"{reply.mta_version or 'has not called yet'}; carries {reply.carries}",
        "Resolver": f"{', '.join(condition.nameservers)}: "
        + ("validates" if reply.resolver_validates else "does not validate, as far as is known")
        + _tested(condition, found.now),
        "Outbound": ", ".join(
            f"{name} {'reachable' if up else 'NOT REACHABLE'}"
            for name, up in condition.outbound.items()
        ),
        "Store": f"{condition.store} {'works' if condition.store_up else 'DOES NOT WORK'}",
        "Waits": _waits(condition),
        "Limits met": ", ".join(f"{name} {count}" for name, count in condition.limits.items())
        or "none",
        "Domains": _domains(condition),
    }
    lines += [f"{name:14} {text}" for name, text in rows.items()]
    width = max((len(one.domain) for one in condition.domains), default=0)
    lines += [f"  {_domain(one, width, found.now)}" for one in condition.domains]
    return "\n".join(line.rstrip() for line in lines)


def _processes(processes: Sequence[ProcessStatus], now: float) -> str:
    """Each process that is not a worker, the workers together, and each that is not ready."""
    workers = [one for one in processes if one.name.startswith("worker-")]
    ready = sum(one.ready for one in workers)
    told = [
        f"{one.name} {one.pid} (up {age(now - one.since)})"
        for one in processes
        if one not in workers and one.pid
    ]
    told.append(f"{ready} of {len(workers)} workers ready")
    told.append(f"{sum(one.connections for one in workers)} connections")
    missing = [one.name for one in processes if not one.ready]
    if missing:
        told.append(f"NOT READY: {' '.join(missing)}")
    return ", ".join(told)


def _tested(condition: Condition, now: float) -> str:
    if not condition.resolver_tested_at:
        return ""
    return f", seen {age(now - condition.resolver_tested_at)} ago"


def _waits(condition: Condition) -> str:
    if not condition.waits:
        return "no message has needed a forecast yet"
    mean = condition.waited / condition.waits
    return (
        f"{condition.waits} forecasts, {mean:.3f} s each on average, "
        f"{condition.waited_long} of them more than a second"
    )


def _domains(condition: Condition) -> str:
    if not condition.domains_configured:
        return "none has a rule of its own"
    ready = sum(one.ready is True for one in condition.domains)
    known = len(condition.domains)
    text = f"{ready} of {known} ready"
    left = condition.domains_configured - known
    return f"{text}; {left} more are not shown, or not assessed yet" if left > 0 else text


def _domain(one: DomainStatus, width: int, now: float) -> str:
    word = {True: "ready", False: "NOT READY", None: "unknown"}[one.ready]
    verdict = one.status if one.status == one.reason else f"{one.status} {one.reason}"
    return (
        f"{one.domain:{width}}  {word:9}  {verdict}, "
        f"seen {age(now - one.assessed_at)} ago, like that for {age(now - one.since)}"
    )


def age(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    left = max(0, int(seconds))
    for unit, below, name, small in (
        (_DAY, _HOUR, "d", "h"),
        (_HOUR, _MINUTE, "h", "min"),
        (_MINUTE, 1, "min", "s"),
    ):
        if left >= unit:
            rest = left % unit // below
            return f"{left // unit} {name} {rest} {small}" if rest else f"{left // unit} {name}"
    return f"{left} s"


def not_running(errors: Sequence[str]) -> Mapping[str, Any]:
    """The object of JSON if no service answers."""
    return {"state": "not_running", "problems": list(errors)}
