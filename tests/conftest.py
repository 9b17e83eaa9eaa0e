"""What all tests share: the clause that a test's name tells, and property tests that repeat."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.testing import capture_logs
from structlog.typing import EventDict

from requiretls_milter.telemetry import log
from tests.conformance import clauses_of
from tests.support.authority import Authority
from tests.support.stores import Disk

# How long an example takes is a matter of what else the machine does.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", untimed)
settings.register_profile("ci", untimed, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


MAX_NAMED = 200
"""Characters of a parameter that are part of a test's name. The name is in the environment, and
the kernel starts no program with 128 KiB in one variable."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long text by its length."""
    if isinstance(val, str | bytes) and len(val) > MAX_NAMED:
        return f"{argname}-of-{len(val)}"
    return None


CONSOLE = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
"""By default structlog shows the lines around each frame in colours: half a second for each."""


def _log_to_developers() -> None:
    structlog.reset_defaults()
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], CONSOLE])


_log_to_developers()


@pytest.fixture(autouse=True)
def logging_as_at_the_start() -> Iterator[None]:
    """No test hears less because an earlier one told the log to be quiet."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    _log_to_developers()
    log._direct = None  # lines that go past structlog are part of what configure() sets
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the test with the clauses that its name tells, so that name and mark cannot part."""
    try:
        for number in clauses_of(item.name.partition("[")[0]):
            item.add_marker(pytest.mark.clause(number=number))
    except LookupError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def pytest_collection_finish() -> None:
    """Keep what was collected out of Python's garbage collection: it stays to the end.

    Ten thousand tests are a million objects. A test of memory collects the garbage several times,
    and looked at each of them each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


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
