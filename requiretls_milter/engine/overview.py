"""How the running service is, in sentences: for ``status`` and for the status page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from requiretls_milter.ipc.child import is_worker
from requiretls_milter.ipc.wire import (
    Condition,
    DomainStatus,
    Failing,
    ProcessStatus,
    ServiceStatus,
    StatusReply,
    WatchedStatus,
)

_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class FileState:
    """What the configuration file says by now, beside what is in force.

    Attributes:
        usable: whether it can be used.
        differs: whether it says something else.
        sections: those in which it does; empty if they are not known.
    """

    usable: bool = True
    differs: bool = False
    sections: Sequence[str] = ()

    @classmethod
    def told_by(cls, service: ServiceStatus) -> FileState:
        """As the supervisor saw it last.

        While rules are suspended by command, the file differs in any case, and is not told of.
        """
        return cls(service.file_usable, service.file_differs and not service.suspended)


@dataclass(frozen=True, slots=True)
class Row:
    """A part of the service.

    Attributes:
        name: of the part.
        text: how it is.
        is_well: whether it is as it should be.
    """

    name: str
    text: str
    is_well: bool = True


@dataclass(frozen=True, slots=True)
class Overview:
    """A running service at one moment.

    Attributes:
        reply: of the engine.
        service: what the supervisor told the engine.
        condition: of the engine.
        now: seconds since the epoch.
        file: the configuration file.
    """

    reply: StatusReply
    service: ServiceStatus
    condition: Condition
    now: float
    file: FileState = field(default_factory=FileState)

    def problems(self) -> Iterator[str]:
        """What keeps the service from being well, a sentence for each."""
        if self.service.problems:
            yield self.service.health
        if not self.service.reload_succeeded:
            yield "the last reload failed: see reload_failed in the log"
        if not self.file.usable:
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
        if (failing := self.condition.mail_failing) is not None:
            yield f"mail about watched domains is not taken {self._failing(failing)}"

    def notes(self) -> Iterator[str]:
        """What an operator may want to know, though the service is well."""
        if self.file.sections:
            sections = ", ".join(f"[{name}]" for name in self.file.sections)
            yield f"the file differs in {sections} from what is in force: reload, or restart"
        elif self.file.differs and self.file.usable:
            yield "the file differs from what is in force: reload, or restart"
        if (failing := self.condition.notify_failing) is not None:
            yield f"the command watch.notify failed {self._failing(failing)}"

    def _failing(self, failing: Failing) -> str:
        return f"since {age(self.now - failing.since)}: {failing.error}"

    def rows(self) -> Iterator[Row]:
        """The parts of the service but its domains."""
        service, condition, reply = self.service, self.condition, self.reply
        yield Row(
            "Configuration",
            f"{service.config_path}, generation {service.generation}, "
            f"in force for {age(self.now - service.config_since)}",
            service.reload_succeeded and self.file.usable,
        )
        yield Row(
            "Processes",
            _processes(service.processes, self.now),
            all(one.ready for one in service.processes),
        )
        carries = f"carries {reply.carries}"
        if reply.mta_version:
            yield Row("MTA", f"{reply.mta_version}; {carries}")
        else:
            yield Row("MTA", f"has not called yet; until then it counts as one that {carries}")
        yield Row(
            "Resolver",
            f"{', '.join(condition.nameservers)}: "
            + ("validates" if reply.resolver_validates else "does not validate, as far as is known")
            + _tested(condition, self.now),
            reply.resolver_validates,
        )
        outbound = condition.outbound.items()
        yield Row(
            "Outbound",
            ", ".join(f"{name} {'reachable' if up else 'NOT REACHABLE'}" for name, up in outbound),
            all(up for _, up in outbound),
        )
        yield Row(
            "Store",
            f"{condition.store} {'works' if condition.store_up else 'DOES NOT WORK'}",
            condition.store_up,
        )
        yield Row("Waits", _waits(condition))
        limits = (f"{name} {count}" for name, count in condition.limits.items())
        yield Row("Limits met", ", ".join(limits) or "none")


def _processes(processes: Sequence[ProcessStatus], now: float) -> str:
    """Each process that is not a worker, the workers together, and each that is not ready."""
    workers = [one for one in processes if is_worker(one.name)]
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


def word(one: DomainStatus) -> str:
    """Whether a domain is ready."""
    return {True: "ready", False: "NOT READY", None: "unknown"}[one.ready]


def verdict(one: DomainStatus) -> str:
    """The status of a domain with its reason."""
    return one.status if one.status == one.reason else f"{one.status} {one.reason}"


def ruled(one: DomainStatus) -> str:
    """What the rule of a domain does with such mail now."""
    does = f"answers {one.reply}" if one.reply else "accepts"
    return f"mode {one.mode} {does}"


def watched_summary(condition: Condition) -> str:
    """How many watched domains are in good order."""
    good = sum(one.severity is None for one in condition.watched)
    known = len(condition.watched)
    text = f"{good} of {known} in good order"
    left = condition.domains_watched - known
    return f"{text}; {left} more are not shown, or not seen yet" if left > 0 else text


def watched_word(one: WatchedStatus) -> str:
    """The state of a watched domain."""
    return {"broken": "BROKEN", "ends": "ENDS SOON", None: "good"}[one.severity]


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
