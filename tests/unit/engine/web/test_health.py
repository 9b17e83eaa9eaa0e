"""How the service is, in a line."""

from __future__ import annotations

import pytest

from requiretls_milter.engine.web.health import STARTING, Health
from tests.support.overviews import service_status

RESOLVER = "the resolver was not seen to validate DNSSEC"


@pytest.mark.parametrize(
    ("health", "validates", "reasons"),
    [
        (Health(), True, []),
        (Health(), False, [RESOLVER]),
        (Health(problems=("worker-1 is not ready",)), True, ["worker-1 is not ready"]),
        (
            Health(False, problems=("worker-1 is not ready", "the service is stopping")),
            False,
            ["worker-1 is not ready", "the service is stopping", RESOLVER],
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
    whole = Health.of(service_status())
    assert (whole.serves, whole.text, whole.problems) == (True, "ok", ())
    one, two = "worker-1 is not ready", "worker-2 is not ready"
    degraded = Health.of(service_status(problems=(one,)))
    assert degraded == Health(True, (one,))
    assert degraded.text == f"degraded: {one}"
    failed = Health.of(service_status(serves=False, problems=(one, two)))
    assert failed == Health(False, (one, two))
    assert failed.text == f"failed: {one}, {two}"
    assert Health.of(None).text == "failed: the service has not begun"
