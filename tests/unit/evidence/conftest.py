from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.dnsserver import DnsServer


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """A certificate authority that nobody trusts."""
    return Authority(tmp_path, "Stranger CA")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server
