"""What becomes of each look at a domain of ours: gauges, and what is told of changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from requiretls_milter.engine.parts import Parts
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.watched.inboundreport import Change, ChangeReport, change_report
from requiretls_milter.engine.watched.ownservers import (
    OwnServers,
    _Known,
    watched_domains,
    watched_status,
)
from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness, ServerState
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.ipc.wire import WatchedStatus
from requiretls_milter.model import InboundProblem
from requiretls_milter.store.base import Store
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.configured import configured

DOMAIN, MX = "example.org", "mx.example.org"
LOST = Problem(InboundProblem.STARTTLS_NOT_OFFERED, Urgency.BROKEN, MX, "STARTTLS is not offered")
ADVICE = Problem(InboundProblem.TLSRPT_MISSING, Urgency.ADVICE, "", "no TLSRPT record")
END = 1_900_000_000.0


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.changes: list[ChangeReport] = []

    def tell(self, change: Change) -> None:
        self.changes.append(change_report(change))


def no_parts() -> Parts:
    raise AssertionError("nothing is looked at")


class Kit:
    def __init__(self) -> None:
        self.gauges = Gauges()
        self.told = Told()
        self.own = OwnServers(no_parts, self.gauges, self.told.tell, records())
        self.known = _Known({})

    def take(
        self,
        *findings: Problem,
        readiness: ServerReadiness = ServerReadiness.READY,
        unseen: frozenset[str] = frozenset(),
        host: str = MX,
        certificate: float | None = END,
        policy: float | None = END,
    ) -> None:
        servers = (ServerState(host, readiness, certificate),) if host else ()
        report = InboundReport(DOMAIN, findings, servers, policy, unseen, 1.0)
        self.own.take(self.known, report, validates=True)

    def shown(self, metric: str) -> dict[tuple[str, ...], float]:
        return dict(self.gauges.by_metric().get(f"watched_{metric}", {}))


@pytest.fixture
def kit() -> Kit:
    return Kit()


def records(store: Store | None = None) -> RecordStore:
    return RecordStore(store or MemoryStore(), Counters())


def words(change: ChangeReport, key: Literal["appeared", "ended"]) -> list[str]:
    return [one["problem"] for one in change[key]]


def test_a_domain_in_good_order_is_shown_and_nothing_is_told(kit: Kit) -> None:
    kit.take()
    assert kit.shown("server_ready") == {(DOMAIN, MX): 1.0}
    assert kit.shown("certificate_expiry_timestamp_seconds") == {(DOMAIN, MX): END}
    assert kit.shown("policy_expiry_timestamp_seconds") == {(DOMAIN,): END}
    assert kit.shown("problem") == {}
    assert kit.told.changes == []


def test_a_problem_is_told_once_and_so_is_its_end(kit: Kit) -> None:
    kit.take()
    for _ in range(3):
        kit.take(LOST, readiness=ServerReadiness.NOT_READY)
    assert kit.shown("problem") == {(DOMAIN, "starttls_not_offered"): 1.0}
    assert kit.shown("server_ready") == {(DOMAIN, MX): 0.0}
    (change,) = kit.told.changes
    assert change["domain"] == DOMAIN
    assert words(change, "appeared") == ["starttls_not_offered"]
    first = change["report"]["breaks_first"]
    assert first is not None
    assert first["host"] == MX
    kit.take()
    assert kit.shown("problem") == {}
    assert words(kit.told.changes[1], "ended") == ["starttls_not_offered"]
    assert len(kit.told.changes) == 2


def test_what_status_shows_of_a_domain_is_what_breaks_first() -> None:
    def status(*findings: Problem) -> WatchedStatus:
        servers = (ServerState(MX, ServerReadiness.READY, END),)
        return watched_status(InboundReport(DOMAIN, findings, servers, None, frozenset(), 1.0))

    ends = replace(LOST, severity=Urgency.ENDS, at=END)
    broken = status(LOST, ends, ADVICE)
    assert (broken.severity, broken.problems) == ("broken", 2)
    assert broken.verdict == "Breaks first: starttls_not_offered of mx.example.org, now."
    assert status(ends, ADVICE).severity == "ends"
    good = status(ADVICE)
    assert (good.severity, good.problems) == (None, 0)
    assert good.verdict.endswith("Ends first: the certificate of mx.example.org, on 2030-03-17.")


def test_advice_is_no_problem_and_not_told(kit: Kit) -> None:
    kit.take(ADVICE)
    kit.take()
    assert kit.shown("problem") == {}
    assert kit.told.changes == []


def test_a_problem_that_gets_worse_is_told_by_its_word(kit: Kit) -> None:
    kit.take(replace(ADVICE, severity=Urgency.ENDS))
    assert words(kit.told.changes[0], "appeared") == ["tlsrpt_missing"]


def test_a_server_that_is_not_seen_keeps_its_problems_and_its_state(kit: Kit) -> None:
    kit.take(LOST, readiness=ServerReadiness.NOT_READY)
    kit.take(readiness=ServerReadiness.UNKNOWN, unseen=frozenset({MX}), certificate=None)
    assert kit.shown("problem") == {(DOMAIN, "starttls_not_offered"): 1.0}
    assert kit.shown("server_ready") == {(DOMAIN, MX): 0.0}
    assert kit.shown("certificate_expiry_timestamp_seconds") == {(DOMAIN, MX): END}
    assert len(kit.told.changes) == 1


def test_a_domain_whose_servers_are_not_known_now_keeps_all(kit: Kit) -> None:
    kit.take(LOST, readiness=ServerReadiness.NOT_READY)
    kit.take(host="", unseen=frozenset({""}), policy=None)
    assert kit.shown("problem") == {(DOMAIN, "starttls_not_offered"): 1.0}
    assert kit.shown("server_ready") == {(DOMAIN, MX): 0.0}
    assert kit.shown("policy_expiry_timestamp_seconds") == {(DOMAIN,): END}


def test_a_server_that_is_no_longer_named_is_forgotten(kit: Kit) -> None:
    kit.take(LOST, readiness=ServerReadiness.NOT_READY)
    kit.take(host="mx2.example.org", policy=None)
    assert kit.shown("server_ready") == {(DOMAIN, "mx2.example.org"): 1.0}
    assert list(kit.shown("certificate_expiry_timestamp_seconds")) == [(DOMAIN, "mx2.example.org")]
    assert kit.shown("policy_expiry_timestamp_seconds") == {}
    assert kit.shown("problem") == {}


def test_names_that_change_all_the_time_are_not_kept(kit: Kit) -> None:
    lost = (replace(LOST, host=f"mx{number}.example.org") for number in range(100))
    for one in lost:
        kit.take(one, host=one.host, readiness=ServerReadiness.NOT_READY, unseen=frozenset({""}))
    assert len(kit.shown("server_ready")) == 1
    assert len(kit.shown("certificate_expiry_timestamp_seconds")) == 1
    assert len(kit.known.problems) == 1


def test_watched_are_our_domains_and_those_whose_rule_says_so() -> None:
    config = configured(
        '[watch]\ndomains = ["Own.example"]\n'
        '[rules.recipient."partner.example"]\nwatch = true\n'
        '[rules.nexthop.".wild.example"]\nwatch = true\n'
        '[rules.nexthop."mx.wild.example"]\n'
        '[rules.recipient."other.example"]\n'
        '[rules.sender."sender.example"]\nwatch = true\n'
    )
    assert watched_domains(config) == ("own.example", "partner.example", "mx.wild.example")
