"""Configured domains as gauges: state, reason, when assessed, and what ends when."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.record import DomainRecord
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.domains.state import DomainStates
from requiretls_milter.forecast.certificate import parse
from requiretls_milter.model import (
    DomainEvidence,
    Forecast,
    HopKind,
    MtaStsEvidence,
    NextHop,
    Outcome,
    Question,
    Reason,
    Requirement,
    unknown_forecast,
)
from requiretls_milter.telemetry.counting import Gauges
from tests.support.build import NOW, certificate, domain, host, probe

HOP = NextHop(HopKind.MX, "example.org")
GOOD = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
LACKING = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED)


class Kit:
    def __init__(self) -> None:
        self.gauges = Gauges()
        self.configured = ConfiguredDomains(
            Config.model_validate(
                {"rules": {"recipient": {"example.org": {}, ".example.org": {}}}}
            ),
            ServedMta(),
        )
        self.states = DomainStates(self.gauges, self.configured, DomainRecord())

    def show(
        self,
        forecast: Forecast = GOOD,
        evidence: DomainEvidence | None = None,
        *,
        nexthop: NextHop = HOP,
        asked: Requirement = Requirement.REQUIRETLS,
        now: float = NOW,
    ) -> dict[str, object]:
        question = Question(str(nexthop), "smtp", asked, asked)
        about = self.configured.about(nexthop, question)
        asyncio.run(self.states.show(about, nexthop, forecast, evidence, now))
        return self.shown

    @property
    def shown(self) -> dict[str, object]:
        """The value of each gauge, or its word."""
        return {
            metric.removeprefix("domain_"): labels[1] if len(labels) > 1 else value
            for metric, labels, value in self.gauges.items()
            if value or metric == "domain_ready"
        }


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_a_domain_is_shown_with_state_reason_and_time(kit: Kit) -> None:
    assert kit.show(GOOD) == {
        "state": "deliver",
        "reason": "ok",
        "ready": 1.0,
        "last_assessed_timestamp_seconds": NOW,
    }


def test_of_states_and_reasons_only_the_last_one_is_there(kit: Kit) -> None:
    kit.show(GOOD)
    assert kit.show(LACKING, now=NOW + 5) == {
        "state": "bounce",
        "reason": "requiretls_not_offered",
        "ready": 0.0,
        "last_assessed_timestamp_seconds": NOW + 5,
    }


def test_a_delivery_that_violates_rfc_8689_is_no_readiness(kit: Kit) -> None:
    forecast = replace(GOOD, reason=Reason.NONCOMPLIANT_UNVERIFIED, compliant=False)
    shown = kit.show(forecast)
    assert (shown["state"], shown["ready"]) == ("deliver", 0.0)


def test_what_is_not_known_changes_only_state_and_reason(kit: Kit) -> None:
    kit.show(GOOD, domain(host()))
    before = kit.shown
    assert kit.show(unknown_forecast("not known"), now=NOW + 60) == {
        **before,
        "state": "unknown",
        "reason": "unknown",
    }


def test_of_a_domain_that_was_never_known_readiness_is_not_shown(kit: Kit) -> None:
    assert kit.show(unknown_forecast("not known")) == {"state": "unknown", "reason": "unknown"}


def test_the_certificate_that_ends_first_counts(kit: Kit) -> None:
    first, second = certificate("mx1.example.org"), certificate("mx2.example.org", "expired")
    one, two = host(seen=probe(presented=first)), host(seen=probe(presented=second))
    ends = [parse(presented.chain[0]).not_after for presented in (first, second)]
    assert ends[1] < ends[0]
    shown = kit.show(GOOD, domain(one, two))
    assert shown["certificate_expiry_timestamp_seconds"] == ends[1]
    shown = kit.show(GOOD, domain(one))
    assert shown["certificate_expiry_timestamp_seconds"] == ends[0]


@pytest.mark.parametrize("chain", [(), (b"no certificate",)])
def test_without_a_certificate_that_can_be_read_no_end_is_shown(
    kit: Kit, chain: tuple[bytes, ...]
) -> None:
    kit.show(GOOD, domain(host()))
    shown = kit.show(LACKING, domain(host(seen=replace(probe(), chain=chain))))
    assert "certificate_expiry_timestamp_seconds" not in shown


def test_the_end_of_a_policy_is_shown_as_long_as_there_is_one(kit: Kit) -> None:
    with_policy = domain(host(), sts=("mx1.example.org",))
    policy = replace(with_policy.mta_sts, fetched_at=NOW, expires=NOW + 60)
    shown = kit.show(GOOD, replace(with_policy, mta_sts=policy))
    assert shown["policy_expiry_timestamp_seconds"] == NOW + 86_400
    without = replace(with_policy, mta_sts=MtaStsEvidence(expires=NOW + 300))
    assert "policy_expiry_timestamp_seconds" not in kit.show(GOOD, without)


@pytest.mark.parametrize(
    ("nexthop", "asked"),
    [
        (NextHop(HopKind.MX, "elsewhere.example"), Requirement.REQUIRETLS),
        (NextHop(HopKind.HOST, "example.org"), Requirement.REQUIRETLS),
        (HOP, Requirement.NONE),
        (HOP, Requirement.TLS_REQUIRED_NO),
    ],
)
def test_r62_other_mail_and_other_domains_show_nothing(
    kit: Kit, nexthop: NextHop, asked: Requirement
) -> None:
    assert kit.show(nexthop=nexthop, asked=asked) == {}
