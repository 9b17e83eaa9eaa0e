"""Each bound is a key of [limits], and each that is met is seen: who waited, who was refused.

That a bound holds with another value than its default, and is counted, is shown
where it is kept: test_assessor, test_cache, test_client, test_server here,
evidence/test_dns, test_mta_sts, test_probe, store/test_steady, milter/test_adapter.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from requiretls_milter.config import Config, Limits
from requiretls_milter.engine.cache import BusyError
from requiretls_milter.engine.process import _Engine, _look_alike
from requiretls_milter.engine.server import MAX_CONNECTIONS
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.gathering import MAX_HOSTS, MAX_PROBES
from requiretls_milter.ipc.child import Start
from requiretls_milter.ipc.control import pair
from requiretls_milter.telemetry.labels import Bound
from tests.support.paths import REPOSITORY
from tests.unit.engine.test_cache import Kit

PAGE = REPOSITORY / "docs" / "reliability.md"

CONSTANT = {
    Bound.ENGINE_CONNECTIONS: MAX_CONNECTIONS,
    Bound.ENGINE_REQUESTS: 2 * Limits().questions,
    Bound.HOSTS: MAX_HOSTS,
    Bound.SESSIONS: MAX_PROBES,
}
"""What no operator has a reason to touch: it follows from other settings, or from what MTAs do."""


def test_each_setting_is_a_bound_that_is_counted_and_but_for_some_the_reverse() -> None:
    assert set(Limits.model_fields) == set(Bound) - set(CONSTANT)


@pytest.mark.parametrize("bound", Bound)
def test_each_bound_is_documented_with_its_value(bound: Bound) -> None:
    row = re.search(rf"^\| `{bound}` \| ([0-9,]+)(?: s)? \|", PAGE.read_text("utf-8"), re.M)
    assert row is not None, bound
    value = CONSTANT[bound] if bound in CONSTANT else getattr(Limits(), bound)
    assert int(row[1].replace(",", "")) == value


def test_a_collector_keeps_the_limits_of_its_configuration() -> None:
    limits = Limits(
        lookups=3, fetches=4, fetch_timeout=5, probes=6, probes_per_host=7, probes_per_minute=8
    )
    made = Collector(Config(limits=limits))
    prober, policies = made._prober, made._mta_sts
    assert made.resolver._slots._value == 3
    assert (policies._slots._value, policies._timeout) == (4, 5)
    assert (prober._slots._value, prober._per_host, prober._pace._limit) == (6, 7, 8)


def test_other_limits_want_another_collector() -> None:
    assert _look_alike(Config(), Config())
    assert not _look_alike(Config(), Config(limits=Limits(probes=41)))


async def test_other_resolvers_of_the_system_want_another_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a reload, also where nothing of the configuration has changed."""
    named = [[("127.0.0.1", 9)]]
    monkeypatch.setattr("requiretls_milter.evidence.dns._system_nameservers", lambda: named[-1])
    config = Config.model_validate({"store": {"url": "memory:"}, "dns": {"timeout": 0.1}})
    channel, theirs = pair()
    engine = _Engine(Start("engine", config, 1, 1, channel), None)
    await engine._open_store(config)
    engine._heart = await engine._build(config, 1)
    assert (await engine._build(config, 2)).source is engine._heart.source
    named.append([("127.0.0.2", 9)])
    heart = await engine._build(config, 3)
    assert heart.source is not engine._heart.source
    assert heart.collector.resolver.nameservers == (("127.0.0.2", 9),)
    await asyncio.gather(*engine._tasks)
    channel.close()
    theirs.close()


async def test_one_entry_too_many_in_a_cache_is_counted() -> None:
    kit = Kit(limits=Limits().model_copy(update={"host_cache": 2, "domain_cache": 2}))
    for number in range(3):
        await kit.cache.mx(f"d{number}.example")
        await kit.cache.addresses(f"h{number}.example")
    assert kit.count("saturated_total", "domain_cache") == 1
    assert kit.count("saturated_total", "host_cache") == 1


async def test_one_flight_too_many_is_counted() -> None:
    kit = Kit(limits=Limits().model_copy(update={"flights": 0}))
    with pytest.raises(BusyError):
        await kit.cache.mx("a.example")
    assert kit.count("saturated_total", "flights") == 1
