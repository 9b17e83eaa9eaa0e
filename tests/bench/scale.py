"""Row ``scale``: a busy site and a fleet, simulated as far as that can be had, else estimated.

Each line says how it was had: by the simulation (``sim.``) or by arithmetic (``arith.``). Where
both can be had one stands below the other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from requiretls_milter.engine.turns.spending import SAVE_INTERVAL
from requiretls_milter.evidence.budgets import KINDS
from tests.bench import storecost
from tests.bench.estimate import Estimate, estimate
from tests.bench.rows import Effort, Row, number
from tests.bench.simulation import Counted, simulate
from tests.bench.sites import (
    DAYS,
    ESTIMATED,
    QUICK,
    SIMULATED,
    Case,
)
from tests.bench.world import (
    BY_DAY,
    DAY,
    HOUR,
    TENANT_ADDRESSES,
)
from tests.lab.errors import LabUnavailable
from tests.lab.roots import REDIS, ensure

MONTH = 30
"""Days."""

OFFERED_FEATURES = 3
"""Features of a domain and its server of which it is remembered that they were offered."""

BUDGET_RECORDS, BUDGET_INTERVAL = len(KINDS), SAVE_INTERVAL
"""Records of what each milter has spent, and the seconds between two writes of them."""

COLUMNS = (
    "case",
    "by",
    "asked",
    "worker",
    "wait",
    "of seen",
    "DNS/s",
    "SMTP/s",
    "HTTPS/h",
    "address/h",
    "zone/h",
    "store/s",
)


@dataclass(frozen=True)
class Figures:
    """What a line says: parts of the messages; means of a day; most within an hour.

    Attributes:
        worker: the part whose forecast a worker has kept.
        wait: the part that waits for the network.
        seen: the same, of those for domains that had mail in the three days before.
        lookups, sessions: a second, of all services.
        fetches: an hour.
        address: sessions with one address of the tenants' provider in the busiest hour, of all.
        zone: lookups in the tenants' zone in the busiest hour, of one service.
        store: operations on the shared store a second; 0 if there is none.
    """

    worker: float
    wait: float
    seen: float
    lookups: float
    sessions: float
    fetches: float
    address: float
    zone: float
    store: float


def figures_of(counted: Counted, case: Case) -> Figures:
    """What the simulation says."""
    calls, whole = counted.calls, max(1, counted.messages)
    shared = case.setup.services > 1
    # What is looked through is not asked for one by one.
    looked_through = ("scanned", "listed")
    operations = sum(n for name, n in counted.store.items() if name not in looked_through)
    return Figures(
        worker=counted.recalled / whole,
        wait=counted.waited / whole,
        seen=counted.waiting,
        lookups=calls.total["lookups"] / DAY,
        sessions=calls.total["sessions"] / DAY,
        fetches=calls.total["fetches"] / DAY * HOUR,
        address=calls.busiest("address", int(HOUR))[0],
        zone=calls.busiest("zone", int(HOUR))[0] / case.setup.services,
        store=operations / DAY if shared else 0.0,
    )


def figures_by(found: Estimate, case: Case) -> Figures:
    """What the arithmetic says."""
    services, peak = case.setup.services, 24 / BY_DAY
    return Figures(
        worker=found.recalled / found.messages,
        wait=found.waited / found.messages,
        seen=found.seen_waited / found.seen,
        lookups=found.lookups / DAY,
        sessions=found.sessions / DAY,
        fetches=found.fetches / DAY * HOUR,
        address=found.tenant_sessions / case.world.pool * peak / 24,
        zone=found.tenant_lookups / services * peak / 24,
        store=sum(operations(found, services).values()) / DAY if services > 1 else 0.0,
    )


def operations(found: Estimate, services: int) -> dict[str, float]:
    """Operations on a shared store in a day, by what they are for; at most."""
    flights = found.sessions + found.fetches
    return {
        "policies read": found.policy_reads,
        "sessions read": found.session_reads + found.sessions,
        "claims, and their end": 2 * flights,
        "sessions and policies written": flights,
        "what was offered read": OFFERED_FEATURES * found.gatherings,
        "what was offered written": OFFERED_FEATURES * found.session_reads / TENANT_ADDRESSES,
        "budgets written": services * BUDGET_RECORDS * DAY / BUDGET_INTERVAL,
    }


def scale(effort: Effort) -> Row:
    """Simulate what can be simulated, and estimate that and more."""
    lines: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for case in QUICK if effort.quick else SIMULATED:
        counted = simulate(case.world, case.setup, case.messages, DAYS)
        simulated = figures_of(counted, case)
        estimated = figures_by(estimate(case.world, case.setup, case.messages, days=DAYS), case)
        lines += [_line(case, "sim.", simulated), _line(case, "arith.", estimated)]
        data.append(
            {
                "case": case.title,
                "asked": case.messages,
                "simulated": asdict(simulated),
                "estimated": asdict(estimated),
                **_details(counted),
            }
        )
    for case in ESTIMATED:
        found = estimate(case.world, case.setup, case.messages, days=MONTH)
        figures = figures_by(found, case)
        lines.append(_line(case, "arith.", figures))
        data.append(
            {
                "case": case.title,
                "asked": case.messages,
                "estimated": asdict(figures),
                "operations": operations(found, case.setup.services),
                **asdict(found),
            }
        )
    costs, notes = _store_costs(effort)
    return Row(
        "scale",
        "a site and a fleet for a day, in an internet with its usual faults",
        lines=tuple(lines),
        columns=COLUMNS,
        notes=notes,
        data=(*data, *costs),
    )


def _line(case: Case, by: str, one: Figures) -> tuple[str, ...]:
    return (
        case.title,
        by,
        f"{case.messages:,}",
        f"{one.worker:.1%}",
        f"{one.wait:.1%}",
        f"{one.seen:.1%}",
        number(one.lookups),
        number(one.sessions),
        number(one.fetches),
        number(one.address),
        number(one.zone),
        number(one.store) if one.store else "",
    )


def _details(counted: Counted) -> dict[str, Any]:
    """What the table has no room for."""
    names = ("messages", "recalled", "stale", "at_once", "waited", "seen", "seen_waited")
    return {
        **{name: getattr(counted, name) for name in (*names, "unknown", "wrong", "oldest")},
        "waits": {str(part): counted.wait(part) for part in (0.5, 0.9, 0.99, 1.0)},
        "calls": dict(counted.calls.total),
        "peak": {kind: counted.calls.peak(kind) for kind in counted.calls.total},
        "busiest": {
            f"{what} in {seconds} s": counted.calls.busiest(what, seconds)
            for what in ("address", "network", "zone")
            for seconds in (60, 3_600)
        },
        "entries": {str(name): value for name, value in counted.entries.items()},
        "counts": {name: value for name, value in counted.counts.items() if value},
        "store": dict(counted.store),
    }


def _store_costs(effort: Effort) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What the operations cost a real server, and a milter."""
    try:
        root = ensure(REDIS)
    except LabUnavailable as reason:
        return [], (f"operations on a store: not measured: {reason}",)
    data, notes = [], []
    for flavour in ("redis", "valkey"):
        costs = storecost.measured(root, flavour, 50 if effort.quick else 2_000)
        told = {name: asdict(one) for name, one in costs.items()}
        data.append({"case": flavour, "costs": told})
        words = (f"{name} {one.server:.0f} / {one.client:.0f}" for name, one in costs.items())
        notes.append(
            f"{flavour}, \u00b5s of processor time, server's / milter's: {', '.join(words)}"
        )
    return data, tuple(notes)
