from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.evidence.dnsserver import DnsServer
from tests.unit.evidence.pki import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """A certificate authority that nobody trusts."""
    return Authority(tmp_path, "Stranger CA")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server
