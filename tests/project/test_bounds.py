"""Each bound is a key of [limits], and documented with its value.

That a bound holds with another value than its default, and is counted, is shown where it is
kept: unit/engine (shelf, flights, assessor, server, scrape), unit/evidence (dns, mta_sts, probe,
slots), unit/ipc/test_client, unit/store/test_steady, service/test_adapter.
"""

from __future__ import annotations

import re

import pytest

from requiretls_milter.config import Limits
from requiretls_milter.engine.server import MAX_CONNECTIONS
from requiretls_milter.engine.web.exposition import MAX_DOMAIN_OCTETS
from requiretls_milter.evidence.gathering import MAX_HOSTS, MAX_PROBES
from requiretls_milter.telemetry.labels import Bound
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"

CONSTANT = {
    Bound.ENGINE_CONNECTIONS: MAX_CONNECTIONS,
    Bound.ENGINE_REQUESTS: 2 * Limits().questions,
    Bound.DOMAIN_SERIES: MAX_DOMAIN_OCTETS,
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
