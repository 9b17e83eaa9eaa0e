"""What every store promises of its records."""

from __future__ import annotations

import pytest

from requiretls_milter.store.base import (
    CLOCK_SKEW,
    DIGEST,
    LONGEST,
    Record,
    StoreKind,
    alive,
    digest,
)


@pytest.mark.parametrize(
    ("record", "now", "good"),
    [
        (Record(b"", 1000, 2000), 1999, True),
        (Record(b"", 1000, 2000), 2000, False),
        (Record(b"", 1000, 2000), 1000 - CLOCK_SKEW, True),
        (Record(b"", 1000, 2000), 999 - CLOCK_SKEW, False),  # the clock was set back
        (Record(b"", 1000, 1e18), 999 + LONGEST, True),
        (Record(b"", 1000, 1e18), 1000 + LONGEST, False),  # whatever it says of itself
        (Record(b"", float("nan"), 2000), 1500, False),
        (Record(b"", 1000, float("nan")), 1500, False),
        (Record(b"", 1000, float("inf")), 1000 + LONGEST, False),
    ],
)
def test_r61_no_time_in_a_record_makes_it_live_longer(
    record: Record, now: float, good: bool
) -> None:
    assert alive(record, now) is good


def test_a_digest_is_that_of_all_that_a_record_says() -> None:
    record = Record(b"value", 1.0, 2.0)
    kept = digest(StoreKind.PROBE, "key", record)
    assert len(kept) == DIGEST
    assert kept == digest(StoreKind.PROBE, "key", Record(b"value", 1.0, 2.0))
    others = [
        digest(StoreKind.ATTEMPT, "key", record),
        digest(StoreKind.PROBE, "kez", record),
        digest(StoreKind.PROBE, "key", Record(b"valuf", 1.0, 2.0)),
        digest(StoreKind.PROBE, "key", Record(b"value", 1.5, 2.0)),
        digest(StoreKind.PROBE, "key", Record(b"value", 1.0, 2.5)),
    ]
    assert kept not in others
    assert len(set(others)) == len(others)
