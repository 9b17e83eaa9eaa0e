"""Budgets: in no span of time more than its number, for each address, network and zone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Limits
from requiretls_milter.evidence.budgets import MAX_DEBTS, Budget, Budgets, Debt, Ledger, zone_of
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound
from tests.support.stores import saturated

BUDGETS = st.builds(
    Budget,
    st.integers(1, 40),
    st.sampled_from([60.0, 3600.0]),
    st.just(Bound.ADDRESS_PER_MINUTE),
)
GAPS = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 30), st.floats(0, 5_000)), min_size=1, max_size=120
)


OURS = [name for name in Limits.model_fields if name.startswith(("address_", "network_", "zone_"))]
"""The keys of [limits] that are budgets."""


def starts(ledger: Ledger, times: list[float], key: str = "a") -> list[float]:
    """The times at which a start was allowed, of those at which one was tried."""
    made = []
    for now in times:
        if ledger.exhausted(key, now) is None:
            ledger.spend(key, now)
            made.append(now)
    return made


@given(st.lists(BUDGETS, min_size=1, max_size=2), GAPS)
def test_no_span_has_more_starts_than_its_budget(budgets: list[Budget], gaps: list[float]) -> None:
    made = starts(Ledger(budgets), list(itertools.accumulate(gaps, initial=1e6)))
    for budget in budgets:
        for begin in made:
            within = [at for at in made if begin <= at < begin + budget.seconds - 0.001]
            assert len(within) <= budget.starts


@given(BUDGETS, st.floats(0, 1e6))
def test_half_of_it_may_start_at_once_and_again_after_its_time(budget: Budget, now: float) -> None:
    ledger = Ledger([budget])
    half = -(-budget.starts // 2)
    assert len(starts(ledger, [now] * 100)) == half
    assert len(starts(ledger, [now + budget.seconds] * 100)) == half


@given(BUDGETS, st.integers(1, 100))
def test_half_as_many_as_it_allows_are_never_refused_if_they_are_spread(
    budget: Budget, tries: int
) -> None:
    pause = 2 * budget.seconds / (budget.starts + 1)
    times = [pause * number for number in range(tries)]
    assert starts(Ledger([budget]), times) == times


@given(BUDGETS, GAPS, st.lists(st.sampled_from("abc"), min_size=1))
def test_each_key_has_a_budget_of_its_own(
    budget: Budget, gaps: list[float], keys: list[str]
) -> None:
    together = Ledger([budget])
    apart = {key: Ledger([budget]) for key in keys}
    times = itertools.accumulate(gaps)
    for now, key in zip(times, itertools.cycle(keys), strict=False):
        allowed = together.exhausted(key, now) is None
        assert allowed == (apart[key].exhausted(key, now) is None)
        if allowed:
            together.spend(key, now)
            apart[key].spend(key, now)


@given(BUDGETS, GAPS)
def test_a_restart_changes_nothing_of_a_debt_that_lasts(budget: Budget, gaps: list[float]) -> None:
    first = Ledger([budget])
    times = list(itertools.accumulate(gaps))
    starts(first, times)
    now, down = times[-1], 7.0
    second = Ledger([budget])
    second.restore(first.debts(now), down, 100.0)  # another clock: that of another process
    if any(debt.key == "a" for debt in first.debts(now)):
        later = [down + 11.0 * number for number in range(50)]
        went_on = starts(first, [now + seconds for seconds in later])
        restarted = starts(second, [100.0 - down + seconds for seconds in later])
        assert [round(at - now, 3) for at in went_on] == [
            round(at - 100.0 + down, 3) for at in restarted
        ]


@given(BUDGETS, st.floats(0, 1e12), st.floats(-1e12, 1e12))
def test_whatever_a_store_says_no_budget_is_gone_for_longer_than_its_time(
    budget: Budget, debt: float, elapsed: float
) -> None:
    ledger = Ledger([budget])
    ledger.restore([Debt("a", (debt,)), Debt("b", (debt, debt))], elapsed, 50.0)
    assert ledger.exhausted("a", 50.0 + budget.seconds) is None
    assert ledger.exhausted("b", 50.0) is None


def test_what_has_its_budget_back_is_forgotten_first() -> None:
    ledger = Ledger([Budget(4, 60.0, Bound.ADDRESS_PER_MINUTE)], max_keys=100)
    starts(ledger, [0.0, 0.0], "victim")
    for number in range(1_000):
        # Each address is called once, and has its budget back after 20 s.
        starts(ledger, [number * 0.25], f"other {number}")
        if number * 0.25 < 19:
            assert ledger.exhausted("victim", number * 0.25) is not None
    assert len(ledger) <= 100


def test_no_more_is_kept_over_a_restart_than_a_record_can_hold() -> None:
    ledger = Ledger([Budget(2, 3600.0, Bound.ADDRESS_PER_HOUR)])
    for number in range(MAX_DEBTS + 50):
        starts(ledger, [float(number)], str(number))
    kept = ledger.debts(float(MAX_DEBTS + 50))
    assert len(kept) == MAX_DEBTS
    assert str(MAX_DEBTS + 49) in {debt.key for debt in kept}  # the largest ones


# ---------------------------------------------------------------- addresses, networks, zones


class Kit:
    def __init__(self, **limits: int) -> None:
        self.now = 1000.0
        self.counters = Counters()
        whole = dict.fromkeys(OURS, 1_000_000)
        self.budgets = Budgets(
            Limits(**(whole | limits)), self.counters, monotonic=lambda: self.now
        )

    def connections(self, tries: int, address: str = "192.0.2.1", name: str = "mx.a.test") -> int:
        return sum(not self.budgets.connection(address, name) for _ in range(tries))


def test_the_names_of_one_zone_get_half_and_leave_the_rest_to_others() -> None:
    kit = Kit(address_per_minute=40)
    assert kit.connections(100) == 10  # half of the half that may begin at once
    assert kit.connections(100, name="mx2.b.a.test") == 0
    assert kit.connections(100, name="mx.b.test") == 10
    assert kit.connections(100, name="mx.c.test") == 0
    assert set(saturated(kit.counters)) == {"address_per_minute"}


def test_an_hour_has_a_budget_beside_that_of_its_minutes() -> None:
    kit = Kit(address_per_minute=40, address_per_hour=60)
    made = 0
    for _ in range(60):
        made += kit.connections(100)
        kit.now += 60
    assert made <= 30
    assert saturated(kit.counters)["address_per_hour"] > 0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "64:ff9b::c000:2fe", True),  # the same network behind NAT64
    ],
)
def test_a_network_is_a_24_of_ipv4_or_a_64_of_ipv6(one: str, other: str, together: bool) -> None:
    kit = Kit(network_per_minute=40)
    assert kit.connections(100, one) == 10
    assert kit.connections(100, other) == (0 if together else 10)


@pytest.mark.parametrize("other", ["64:ff9b::c000:201", "::ffff:192.0.2.1"])
def test_behind_nat64_or_mapped_it_is_the_same_host(other: str) -> None:
    kit = Kit(address_per_minute=40)
    assert kit.connections(100) == 10
    assert kit.connections(100, other) == 0


def test_what_is_refused_is_not_spent() -> None:
    kit = Kit(address_per_minute=40, network_per_minute=48)
    assert kit.connections(1_000) == 10
    assert kit.connections(100, "192.0.2.2") == 2


def test_the_lookups_of_a_zone_are_bounded() -> None:
    kit = Kit(zone_lookups_per_minute=40)
    made = [not kit.budgets.lookup(f"r{number}.victim.co.uk") for number in range(100)]
    assert sum(made) == 20
    assert not kit.budgets.lookup("mx.other.co.uk")
    assert saturated(kit.counters) == {"zone_lookups_per_minute": 80}


def test_the_refusal_says_which_budget_of_what_is_spent() -> None:
    kit = Kit(address_per_minute=2)
    kit.connections(1)
    why = kit.budgets.connection("192.0.2.1", "mx.a.test")
    assert why.startswith("over budget: limits.address_per_minute")
    assert "192.0.2.1" in why


def test_other_limits_count_at_once_and_what_was_spent_stays_spent() -> None:
    kit = Kit(address_per_hour=40)
    assert kit.connections(100) == 10
    kit.budgets.configure(Limits(address_per_hour=80))
    assert kit.connections(100) == 10


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("mx.example.org", "example.org"),
        ("a.b.c.example.org", "example.org"),
        ("MX.Example.ORG.", "example.org"),
        ("example.org", "example.org"),
        ("org", "org"),
        ("", ""),
        ("mx.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("a.mx.example.com.br", "example.com.br"),
        ("mx.co.example", "co.example"),
        ("r1.abc.de", "abc.de"),
    ],
)
def test_a_zone_is_what_one_organisation_has(name: str, zone: str) -> None:
    assert zone_of(name) == zone


def test_by_default_a_provider_with_a_thousand_tenants_is_probed_within_a_quarter_of_an_hour() -> (
    None
):
    """Each tenant has its own MX name, which leads to four of twenty addresses."""
    kit = Kit()
    kit.budgets = Budgets(Limits(), kit.counters, monotonic=lambda: kit.now)
    addresses = [f"192.0.2.{n}" if n % 2 else f"198.51.100.{n}" for n in range(20)]
    refused = 0
    for tenant in range(1_000):
        kit.now += 0.9
        for one in range(4):
            address = addresses[(tenant * 7 + one) % 20]
            refused += bool(kit.budgets.connection(address, f"t{tenant}.mail.provider.example"))
    assert not refused
