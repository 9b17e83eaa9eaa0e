from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.supervisor.service import Service

QUIET = """
[dns]
nameservers = ["127.0.0.1:9"]
timeout = 1
"""
"""A resolver that nobody is: every lookup fails at once, nothing leaves this host."""


@pytest.fixture
def make() -> Iterator[Callable[..., Service]]:
    """Makes services, and ends whatever is left of them."""
    made: list[Service] = []

    def one(config: str = QUIET, **options: Any) -> Service:
        made.append(Service(config, **options))
        return made[-1]

    yield one
    for service in made:
        service.destroy()
