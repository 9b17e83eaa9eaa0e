"""Fixtures: a log that can be read, disks that are small or read-only, a real Redis."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.roots import REDIS, ensure
from tests.unit.store.kit import Disk
from tests.unit.store.redisserver import RedisServer


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of its own, of 512 KiB."""
    where = tmp_path / "disk"
    where.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", where],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no mounts here: {mounted.stderr.strip()}")
    try:
        yield Disk(where)
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


@pytest.fixture(scope="session")
def redis_root() -> Path:
    try:
        return ensure(REDIS)
    except LabUnavailable as reason:
        unavailable(reason)
        raise


@pytest.fixture(params=["redis", "valkey"])
def redis(redis_root: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of its own for each test."""
    with RedisServer(redis_root, request.param) as server:
        yield server
