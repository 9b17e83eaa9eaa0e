"""What a delivery can end with if Postfix shuffles: against every order that there can be."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from requiretls_milter.forecast.attempt import (
    NOTHING_RECORDED,
    DeliveryAttempt,
    possible_results,
)
from requiretls_milter.forecast.reach import MailServer
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    AddressLookup,
    DnsOutcome,
    HostEvidence,
    ProbeEvidence,
    Reason,
)
from requiretls_milter.syntax import status
from tests.support.shuffling import balanced, orders

FAILURES = ("5.7.30", "5.7.10", "4.7.5", "4.4.1", "4.4.2")
ENDS = (status.SUCCESS, UNKNOWN_STATUS, "5.5.1")
V4, V6 = "192.0.2.1", "2001:db8::1"


def attempt(number: int, code: str, ends: bool, address: str = V4) -> DeliveryAttempt:
    """The attempt at one server, told from the others by its name and token."""
    host = HostEvidence(f"mx{number}.example.org", 10, AddressLookup(DnsOutcome.FOUND))
    server = MailServer(host, address, ProbeEvidence(address))
    return DeliveryAttempt(server, code, Reason.OK, str(number), tls=f"token{number}", ends=ends)


kinds = st.one_of(
    st.tuples(st.sampled_from(FAILURES), st.just(False)),
    st.tuples(st.sampled_from(ENDS), st.just(True)),
    st.just((NOTHING_RECORDED, False)),
)
Groups = tuple[tuple[DeliveryAttempt, ...], ...]


@st.composite
def group_lists(draw: st.DrawFn, largest: int = 3) -> Groups:
    """Servers in groups of equal preference."""
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=3))
    numbers = itertools.count(1)
    return tuple(
        tuple(
            attempt(next(numbers), *draw(kinds), draw(st.sampled_from((V4, V6))))
            for _ in range(size)
        )
        for size in sizes
    )


def tried(
    order: tuple[DeliveryAttempt, ...], limit: int, recorded: DeliveryAttempt
) -> DeliveryAttempt:
    """What remains of one order: smtp_connect_inet() of Postfix in six lines."""
    remaining = recorded
    for one in balanced(order, limit):
        if one.ends:
            return one
        passed_over = one.status == NOTHING_RECORDED
        remaining = remaining._replace(tls=one.tls) if passed_over else one
    return remaining


NOBODY = DeliveryAttempt(None, status.NO_SERVER_LEFT, Reason.MX_NOT_IN_MTA_STS_POLICY)
before = st.none() | st.sampled_from(("5.4.4", "4.4.3", "4.4.4")).map(
    lambda code: DeliveryAttempt(None, code, Reason.DNS_FAILURE)
)


@given(group_lists(), st.integers(0, 7), before)
@example(((attempt(1, "2.0.0", True), attempt(2, "5.7.30", False)),), 1, None)
@example(((attempt(1, "", False), attempt(2, "5.7.30", False)),), 1, None)
@example(((attempt(1, "4.4.1", False),), (attempt(2, "", False), attempt(3, "", False))), 0, None)
@example(  # of two servers of one family one is tried, since the other family gets its share
    (
        (
            attempt(1, "2.0.0", True),
            attempt(2, "5.7.30", False),
            attempt(3, "5.7.30", False, V6),
            attempt(4, "5.7.30", False, V6),
        ),
    ),
    2,
    None,
)
@example(  # the only one of the family that goes first cannot be the last one of its group
    (
        (attempt(1, "5.7.30", False), attempt(2, "4.7.5", False, V6)),
        (attempt(3, "", False), attempt(4, "4.4.1", False, V6)),
    ),
    3,
    None,
)
@example(  # but that of the next group may be
    (
        (attempt(1, "4.4.1", False),),
        (attempt(3, "5.7.30", False), attempt(4, "4.4.1", False, V6)),
        (attempt(5, "", False), attempt(6, "", False, V6), attempt(7, "", False, V6)),
    ),
    5,
    None,
)
def test_r11_all_that_some_order_ends_with_is_told_and_nothing_else(
    groups: Groups, limit: int, recorded: DeliveryAttempt | None
) -> None:
    ends = [tried(order, limit, recorded or NOBODY) for order in orders(groups)]
    told = possible_results(groups, limit, recorded)
    # Servers that can have the last word, and no others.
    assert {(one.server, one.status) for one in told} == {(one.server, one.status) for one in ends}
    assert {one.tls for one in told} <= {one.tls for one in ends}


@given(group_lists(largest=1), st.integers(0, 4), before)
def test_where_the_order_is_fixed_the_last_word_is_told_token_and_all(
    groups: Groups, limit: int, recorded: DeliveryAttempt | None
) -> None:
    (order,) = orders(groups)
    expected = tried(order, limit, recorded or NOBODY)
    (told,) = possible_results(groups, limit, recorded)
    assert (told.status, told.server, told.tls) == (expected.status, expected.server, expected.tls)


def test_the_worked_example_at_the_head_of_the_module() -> None:
    fails = attempt(1, "4.4.1", False)
    takes_it = attempt(2, "2.0.0", True, V6)
    assert possible_results(((fails, takes_it),), 1) == (takes_it, fails)
    assert possible_results(((fails, takes_it),), 2) == (takes_it,)


def test_the_worked_example_of_the_family_that_goes_first() -> None:
    one, two = attempt(1, "4.4.1", False), attempt(2, "4.4.2", False, V6)
    three, four = attempt(3, "4.7.5", False), attempt(4, "5.7.30", False, V6)
    assert set(possible_results(((one, two, three, four),), 3)) == {one, two, three, four}
    # The only one of its family that goes first is not the last one of its group.
    alone = ((one, two), (three,), (four, attempt(5, "", False, V6)))
    assert two not in possible_results(alone, 3)


def test_of_two_servers_of_the_family_that_goes_first_either_may_be_the_last() -> None:
    takes_it, fails = attempt(1, "2.0.0", True), attempt(2, "4.4.1", False)
    three, four = attempt(3, "4.4.2", False, V6), attempt(4, "4.7.5", False, V6)
    # If IPv4 went first, both of its servers would be tried, and one takes the message.
    assert set(possible_results(((takes_it, fails, three, four),), 3)) == {
        takes_it,
        fails,
        three,
        four,
    }
