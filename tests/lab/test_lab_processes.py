"""A lab that ends, however it ends, leaves nothing behind; and it runs without a namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import netns, roots
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.paths import REPOSITORY
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

_MARK = "REQUIRETLS_LAB_TEST_MARK"


@pytest.fixture(autouse=True)
def _available() -> None:
    try:
        with netns.outside():
            roots.ensure(roots.DNS)
            roots.ensure(roots.POSTFIX_3_11)
    except LabUnavailable as reason:
        unavailable(reason)


def _marked(mark: str) -> list[int]:
    """Processes of one lab: they inherited a variable, whoever their parent is by now.

    All but Postfix's: master gives its children a clean environment (see ``_chrooted``).
    """
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if f"{_MARK}={mark}".encode() in environment:
            found.append(int(path.name))
    return found


def _chrooted() -> set[int]:
    """Processes whose root is one of ours."""
    found = set()
    ours = {str(roots.cache_home() / item.name) for item in (roots.DNS, roots.POSTFIX_3_11)}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if os.readlink(path / "root") in ours:
                    found.add(int(path.name))
            except OSError:
                continue
    return found


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A lab in a process of its own, seen through the mark in its processes' environment."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "up"],
        cwd=REPOSITORY,
        env={**os.environ, _MARK: mark, netns.ENVIRONMENT: "always"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("stop with"):
                break
        else:
            assert process.stderr is not None
            pytest.skip(f"no namespaces: {process.stderr.read()}")
        yield process, mark
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_lab(
    running: tuple[subprocess.Popen[str], str], end: signal.Signals
) -> None:
    process, mark = running
    before = set(_marked(mark))

    def inside() -> set[int]:
        return {pid for pid in _chrooted() if _namespace(pid) == _namespace(process.pid)}

    assert len(before) > 5
    eventually(lambda: len(inside()) >= 4, "knotd, unbound, master and at least one child of it")
    mine = inside()
    process.send_signal(end)
    process.wait(90)
    eventually(lambda: not _marked(mark), lambda: f"{_marked(mark)} end")
    eventually(lambda: not mine & _chrooted(), lambda: f"{mine & _chrooted()} end")


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def test_lab_works_without_a_namespace_of_its_own() -> None:
    """As in a plain container: on the loopback as it is."""
    with netns.outside():
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.lab", "run-oracle", "--only"),
                *("a-ok", "a-noreq", "b-mx-self", "b-a-bogus", "a-blackhole", "e-new-wrongname"),
            ],
            cwd=REPOSITORY,
            env={**os.environ, netns.ENVIRONMENT: "never"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    if done.returncode == 69:
        unavailable(LabUnavailable(done.stderr.strip()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 scenarios equal" in done.stdout
