"""How the service is, in a line."""

from __future__ import annotations

import pytest

from requiretls_milter.engine.web.health import STARTING, Health
from tests.support.overviews import service_status

RESOLVER = "the resolver was not seen to validate DNSSEC"


@pytest.mark.parametrize(
    ("health", "validates", "reasons"),
    [
        (Health(True, "ok"), True, []),
        (Health(True, "ok"), False, [RESOLVER]),
        (Health(True, "degraded: worker-1 is not ready"), True, ["worker-1 is not ready"]),
        (
            Health(False, "failed: the service is stopping"),
            False,
            ["the service is stopping", RESOLVER],
        ),
        (STARTING, True, ["the service has not begun"]),
    ],
)
def test_ready_is_a_whole_service_with_a_resolver_that_validates(
    health: Health, validates: bool, reasons: list[str]
) -> None:
    assert health.unready(validates) == reasons


def test_the_health_is_what_the_supervisor_told_last() -> None:
    assert Health.of(None) is STARTING
    told = service_status(serves=False, health="failed: no worker is ready")
    assert Health.of(told) == Health(False, "failed: no worker is ready")
