"""When a certificate should have been renewed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.forecast.certificate import Certificate, parse
from requiretls_milter.forecast.inboundserver import ends_soon
from tests.support.build import NOW, certificate

DAY = 86_400.0


def valid_for(days: float) -> Certificate:
    """A certificate that was made for so many days, and ends now."""
    return replace(parse(certificate().chain[0]), not_before=NOW - days * DAY, not_after=NOW)


@pytest.mark.parametrize(
    ("validity", "soon"),
    [
        (365, 21),  # as most authorities give them out
        (90, 21),  # as ACME does: renewed 30 days before, so nine days late
        (63, 21),
        (60, 20),  # the last third
        (6, 2),
    ],
)
def test_a_certificate_ends_soon_if_its_renewal_is_late(validity: float, soon: float) -> None:
    found = valid_for(validity)
    assert ends_soon(found, NOW - soon * DAY + 1)
    assert not ends_soon(found, NOW - soon * DAY)
