"""The simulation of a site and a fleet: nothing is lost in it, budgets hold, and the arithmetic
that goes beyond it says the same where both can be had."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from requiretls_milter.config import Limits
from tests.bench.estimate import estimate
from tests.bench.simulation import Counted, Setup, simulate
from tests.bench.sites import FLEET, LARGE, MONITOR, SITE, SMALL
from tests.bench.world import DAY, SERVERS, Kind, World, traffic
from tests.support.paths import REPOSITORY

MESSAGES, DAYS = 200, 2

pytestmark = [pytest.mark.xdist_group("scale"), pytest.mark.once]


@functools.cache
def site() -> Counted:
    return simulate(SITE, MONITOR, MESSAGES, DAYS)


def counts(counted: Counted, metric: str) -> int:
    return sum(n for name, n in counted.counts.items() if name.split()[0] == metric)


# ---------------------------------------------------------------- what must hold


def test_each_message_had_its_forecast_in_one_of_four_ways() -> None:
    day = site()
    came = sum(at >= (DAYS - 1) * DAY for at, _ in traffic(SITE, MESSAGES, DAYS, 1))
    assert day.messages == came == MESSAGES
    assert day.recalled + day.stale + day.at_once + day.waited == day.messages
    assert len(day.waits) == day.waited > 0
    assert day.seen_waited <= day.waited
    assert day.unknown == 0


def test_what_goes_out_is_what_the_service_counts() -> None:
    day = site()
    calls = day.calls
    assert calls.total["sessions"] == counts(day, "probes_total") > 0
    assert calls.total["lookups"] > calls.total["sessions"]
    for kind, number in calls.total.items():
        assert sum(calls.by_minute[kind].values()) == number


def test_it_is_the_same_each_time_and_another_with_another_seed() -> None:
    first, again, other = (simulate(SITE, MONITOR, 50, 1, seed=seed) for seed in (1, 1, 2))
    assert (first.calls.total, first.counts) == (again.calls.total, again.counts)
    assert first.waits == again.waits
    assert first.calls.total != other.calls.total


def test_no_address_network_or_zone_gets_more_than_its_budget() -> None:
    limits = {
        "address_per_minute": 2,
        "address_per_hour": 3,
        "network_per_minute": 3,
        "network_per_hour": 6,
        "zone_lookups_per_minute": 6,
        "zone_lookups_per_hour": 30,
    }
    day = simulate(SITE, replace(MONITOR, limits=limits), MESSAGES, 1)
    for what, key in (("address", "address"), ("network", "network"), ("zone", "zone_lookups")):
        for seconds, time in ((60, "minute"), (3_600, "hour")):
            most, _ = day.calls.busiest(what, seconds)
            assert 0 < most <= limits[f"{key}_per_{time}"], (what, time)
    assert counts(day, "saturated_total") > 0
    assert day.unknown > 0, "what may not be asked is not known"


def test_milters_with_one_store_call_each_server_once() -> None:
    one = simulate(SMALL, MONITOR, 120, 1)
    three = simulate(SMALL, replace(MONITOR, services=3), 120, 1)
    assert three.messages == one.messages == 120
    assert three.calls.total["sessions"] <= 1.1 * one.calls.total["sessions"]
    assert three.calls.total["lookups"] > one.calls.total["lookups"], "DNS is not shared"
    assert three.store["claim"] >= three.store["set probe"] > 0
    assert not one.store


def test_forecasts_of_failures_are_not_given_out_where_rules_act() -> None:
    monitors = site()
    acts = simulate(SITE, Setup(mode="reject"), MESSAGES, DAYS)
    assert 0 < acts.stale < 0.5 * monitors.stale
    assert acts.waited > monitors.waited


# ---------------------------------------------------------------- the world


def test_five_million_domains_lie_behind_fifty_thousand_servers() -> None:
    own = FLEET.domains * FLEET.kinds[Kind.OWN] * 4 / 3
    servers = SERVERS + FLEET.pool + 2 * FLEET.hosters + own
    assert servers == pytest.approx(50_000, rel=0.01)


@pytest.mark.parametrize("world", [SITE, FLEET])
def test_kinds_are_as_frequent_as_is_said(world: World) -> None:
    assert sum(world.kinds.values()) == pytest.approx(1.0)
    sample = [world.site(f"d{n}.example").kind for n in range(4_000)]
    for kind, part in world.kinds.items():
        assert sample.count(kind) / len(sample) == pytest.approx(part, abs=0.03)


def test_messages_come_by_day_and_go_to_the_popular() -> None:
    messages = list(traffic(SITE, 4_000, 1, 1))
    assert [at for at, _ in messages] == sorted(at for at, _ in messages)
    by_day = sum(7 * 3_600 <= at < 19 * 3_600 for at, _ in messages)
    assert by_day / len(messages) == pytest.approx(6 / 7, abs=0.03)
    first = sum(domain == "d0.example" for _, domain in messages)
    assert first / len(messages) == pytest.approx(0.078, abs=0.015)


# ---------------------------------------------------------------- the arithmetic


def test_the_arithmetic_says_what_the_simulation_says() -> None:
    day, found = site(), estimate(SITE, MONITOR, MESSAGES, days=DAYS)
    assert found.lookups == pytest.approx(day.calls.total["lookups"], rel=0.2)
    assert found.sessions == pytest.approx(day.calls.total["sessions"], rel=0.2)
    assert found.waited == pytest.approx(day.waited, rel=0.2)


def test_the_arithmetic_of_a_fleet_says_what_the_simulation_says() -> None:
    setup = replace(MONITOR, services=3)
    day, found = simulate(SMALL, setup, MESSAGES, DAYS), estimate(SMALL, setup, MESSAGES, days=DAYS)
    assert found.lookups == pytest.approx(day.calls.total["lookups"], rel=0.2)
    assert found.sessions == pytest.approx(day.calls.total["sessions"], rel=0.2)
    assert found.waited == pytest.approx(day.waited, rel=0.2)


def test_messages_are_neither_lost_nor_made_by_the_arithmetic() -> None:
    for services in (1, 100):
        found = estimate(FLEET, replace(MONITOR, services=services), 1e6)
        assert 0 < found.recalled < found.messages
        assert 0 < found.waited < found.messages
        assert found.seen_waited <= found.seen <= found.messages * (1 + 1e-6)
        assert found.recalled + found.waited <= found.messages


def test_larger_caches_forget_later_and_fewer_messages_wait() -> None:
    small = estimate(SITE, MONITOR, 1e6)
    large = estimate(SITE, replace(MONITOR, limits=LARGE), 1e6)
    for cache, seconds in small.room.items():
        assert seconds < large.room[cache]
    assert large.waited < 0.2 * small.waited
    assert large.sessions == pytest.approx(small.sessions), "the store has them"


def test_ten_times_the_mail_is_less_than_ten_times_the_work() -> None:
    few, many = estimate(SITE, MONITOR, 1e5), estimate(SITE, MONITOR, 1e6)
    assert few.sessions < many.sessions < 10 * few.sessions
    assert few.lookups < many.lookups < 10 * few.lookups


def test_the_busiest_zone_of_a_very_large_site_needs_a_larger_budget_than_is_installed() -> None:
    found = estimate(SITE, MONITOR, 1e6)
    assert found.tenant_lookups / 24 * 24 / 14 > Limits().zone_lookups_per_hour
    assert found.tenant_lookups / 24 * 24 / 14 < LARGE["zone_lookups_per_hour"]


# ---------------------------------------------------------------- the row


def test_the_row_simulates_estimates_and_asks_a_real_store() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json", "scale"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = json.loads(done.stdout)["rows"]
    simulated = [one for one in row["data"] if "simulated" in one]
    assert [one["case"] for one in simulated] == ["site", "3 milters"]
    assert any(one.get("asked") == 100_000_000 for one in row["data"])
    costs = {one["case"]: one["costs"] for one in row["data"] if "costs" in one}
    assert set(costs) == {"redis", "valkey"}
    for cost in costs.values():
        assert all(0 <= one["server"] < 5_000 > one["client"] for one in cost.values())
