"""What is seen of servers is counted."""

from __future__ import annotations

import pytest

from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    MtaStsEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    ServerTarget,
)
from requiretls_milter.store.base import StoreKind
from tests.support.cachekit import RETRY_AFTER, CacheKit

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED), "connect_failed"),
        (ProbeEvidence("", ProbeStage.BANNER, ProbeFailure.TIMEOUT), "banner_failed"),
        (ProbeEvidence("", ProbeStage.EHLO, ProbeFailure.CLOSED), "ehlo_failed"),
        (ProbeEvidence("", ProbeStage.STARTTLS, ProbeFailure.CLOSED), "starttls_failed"),
        (ProbeEvidence("", ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL), "handshake_failed"),
        (ProbeEvidence("", ProbeStage.EHLO_TLS, ProbeFailure.REPLY), "ehlo_tls_failed"),
        (ProbeEvidence("", ProbeStage.DONE), "completed"),
        (ProbeEvidence("", failure=ProbeFailure.FORBIDDEN), "forbidden"),
    ],
)
async def test_probes_are_counted_by_where_they_ended(
    kit: CacheKit, found: ProbeEvidence, result: str
) -> None:
    kit.source.script["probe"] = found
    await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))
    assert kit.count("probes_total", result) == 1


async def test_a_probe_that_was_not_made_is_not_counted(kit: CacheKit) -> None:
    kit.source.script["probe"] = ProbeEvidence("", error="probe.enabled is false")
    await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))
    assert all(metric != "probes_total" for metric, _, _ in kit.counters.totals().counters)


async def test_what_another_name_of_the_address_met_is_not_counted_again(kit: CacheKit) -> None:
    kit.source.probed_ago = 1.0
    await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))
    assert all(metric != "probes_total" for metric, _, _ in kit.counters.totals().counters)
