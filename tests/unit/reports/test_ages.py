"""How long ago something was seen, in words."""

from __future__ import annotations

import pytest

from requiretls_milter.reports.ages import ago

NOON = 1_798_804_800.0
"""2027-01-01T12:00:00Z."""


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (None, ""),
        ("2027-01-01T12:00:05Z", ""),
        ("2027-01-01T11:59:51Z", ""),
        ("2027-01-01T11:59:50Z", "10 s ago"),
        ("2027-01-01T11:58:01Z", "119 s ago"),
        ("2027-01-01T11:57:00Z", "3 min ago"),
        ("2027-01-01T09:00:00Z", "3 h ago"),
        ("2026-12-20T12:00:00Z", "12 days ago"),
    ],
)
def test_an_age_is_told_in_the_largest_unit_of_which_there_are_two(
    seen: str | None, said: str
) -> None:
    assert ago(seen, NOON) == said
