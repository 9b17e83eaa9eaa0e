"""What is remembered by number alone, of names of the largest size that strangers can choose.

The figures are those of docs/reliability.md#memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from requiretls_milter import rules
from requiretls_milter.config import Config
from requiretls_milter.evidence.budgets import MAX_KEYS, Budget, Ledger
from requiretls_milter.forecast import profiles
from requiretls_milter.milter import account, transaction
from requiretls_milter.milter.settings import REMEMBERED_LOOKUPS, Settings
from requiretls_milter.milter.splitting import MAX_KEPT, PutOff
from requiretls_milter.model import HopKind, MtaProfile, Needs, NextHop, Requirement
from requiretls_milter.syntax import names, nexthop
from requiretls_milter.telemetry.labels import Bound
from tests.support.memory import long_name, measured

MIB = 1 << 20
PROFILE = MtaProfile(requiretls_policy=())
PUT_OFF = PutOff()
SETTINGS = Settings(Config())
REQUIRED = Requirement.REQUIRETLS
LEDGER = Ledger((Budget(10, 60.0, Bound.PROBES), Budget(10, 3_600.0, Bound.PROBES)))
RULES = rules.RuleSet(
    Config.model_validate({"rules": {"sender": {"example.org": {"require": True}}}}).rules
)

LARGEST: dict[str, tuple[Callable[[int], object], int, int]] = {
    "to_alabel": (lambda n: names.to_alabel(long_name(n).upper()), 4_096, 4 * MIB),
    "requiretls_policy": (
        lambda n: profiles.requiretls_policy(PROFILE, long_name(n)),
        4_096,
        2 * MIB,
    ),
    "tls_policy": (
        lambda n: profiles.tls_policy(PROFILE, NextHop(HopKind.MX, long_name(n))),
        4_096,
        3 * MIB,
    ),
    "rules": (lambda n: RULES.find(f"{n:01000}", f"{n:01000}", long_name(n)), 4_096, 14 * MIB),
    "routes": (
        lambda n: SETTINGS.look_up(f"{n:0259}", long_name(n, 1), "<a@x.test>", "", postfix=True),
        REMEMBERED_LOOKUPS,
        3 * MIB,
    ),
    "questions": (
        lambda n: transaction._question(long_name(n), f"{n}", REQUIRED, REQUIRED, Needs(size=n)),
        REMEMBERED_LOOKUPS,
        2 * MIB,
    ),
    "lines": (
        lambda n: account._known_words(
            f"{n:0100}", ("", "", "", "", f"{n:0250}", "", f"{n:0250}", ""), ("",) * 5
        ),
        account.MAX_SHARED,
        MIB,
    ),
    "next hops": (lambda n: nexthop.parse(f"[{long_name(n)}]:25"), nexthop.MAX_KEPT, 2 * MIB),
    "budgets": (lambda n: LEDGER.spend(long_name(n), 0.0), MAX_KEYS, 650 * MAX_KEYS),
    "put off": (lambda n: PUT_OFF.once_more(b"client", long_name(n)), MAX_KEPT, 3 * MIB),
}
"""What keeps, how many it keeps, and the octets of memory that they may take."""


@pytest.mark.parametrize(("put", "kept", "promised"), LARGEST.values(), ids=LARGEST)
def test_it_takes_no_more_memory_than_is_promised(
    put: Callable[[int], object], kept: int, promised: int
) -> None:
    with measured() as taken:
        for number in range(kept + 100):
            put(number)
        assert 0.4 * promised < taken() <= promised
