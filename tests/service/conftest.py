"""Services, milters, next hops and Redis servers, started for a test and ended after it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab.debian import Packages
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.roots import REDIS, ensure
from tests.support.authority import Authority
from tests.support.dnsserver import DnsServer
from tests.support.domains import Domains
from tests.support.milterprocess import MilterProcess
from tests.support.processes import Process
from tests.support.redisserver import RedisServer
from tests.support.service import Service
from tests.support.waiting import PATIENCE

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


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., MilterProcess]]:
    """Starts milters: ``serve(config text, {next hop: forecast}, sabotage=…, workers=…)``."""
    started: list[MilterProcess] = []

    def start(
        config: str = "",
        script: Mapping[str, Any] | None = None,
        *,
        socket: str = "",
        expect_failure: bool = False,
        **more: Any,
    ) -> MilterProcess:
        directory = tmp_path / f"milter{len(started)}"
        directory.mkdir()
        where = socket or f"unix:{directory}/m.sock"
        text = config if "[milter]" in config else f"[milter]\n{config}"
        text = text.replace("[milter]", f'[milter]\nsocket = "{where}"', 1)
        if "[log]" not in text:
            text += '\n[log]\nformat = "json"\n'
        (directory / "config.toml").write_text(text)
        (directory / "script.json").write_text(json.dumps({**(script or {}), **more}))
        process = Process(
            [sys.executable, "-m", "tests.support.served", str(directory)],
            directory / "log",
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        address: str | tuple[str, int] = where.removeprefix("unix:")
        inet = re.fullmatch(r"inet:(\d+)@(.*)", where)
        if inet:
            address = (inet[2], int(inet[1]))
        milter = MilterProcess(directory, address, process)
        started.append(milter)
        if expect_failure:
            process.wait(PATIENCE)
            return milter
        workers = more.get("workers", 1)
        process.wait_until(lambda: len(milter.pids()) >= workers)
        return milter

    yield start
    for milter in started:
        # libmilter takes up to 5 s to end: only the tests of the end wait for it
        for pid in [*milter.pids(), milter.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        milter.process.wait()


@pytest.fixture(scope="session")
def redis_root() -> Path:
    try:
        return ensure(REDIS)
    except LabUnavailable as reason:
        unavailable(reason)
        raise


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Debian packages, and bare Debians for them."""
    return Packages(tmp_path_factory.mktemp("debian"))


@pytest.fixture(params=["redis", "valkey"])
def redis(redis_root: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of its own for each test."""
    with RedisServer(redis_root, request.param) as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path, authority: Authority) -> AsyncIterator[Domains]:
    async with DnsServer() as dns, Domains(tmp_path, dns, authority) as world:
        yield world
