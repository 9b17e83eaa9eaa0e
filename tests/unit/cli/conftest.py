from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.cli.world import World
from tests.unit.evidence.dnsserver import DnsServer
from tests.unit.evidence.pki import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def world(tmp_path: Path, authority: Authority) -> AsyncIterator[World]:
    async with DnsServer() as dns, World(tmp_path, dns, authority) as world:
        yield world
