"""What needs a process of its own: what a command imports, and a closed pipe."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import PROGRAM
from tests.support.paths import REPOSITORY


def modules_of(*arguments: str) -> set[str]:
    """The top-level packages that a command has imported in the end."""
    code = (
        "import sys\nfrom requiretls_milter.cli import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"], ["config"]])
def test_help_costs_click_alone(arguments: list[str]) -> None:
    loaded = modules_of(*arguments)
    assert "click" in loaded
    assert not loaded & {"pydantic", "aiohttp", "OpenSSL", "dns", "rich", "structlog", "asyncio"}


def test_config_check_needs_no_network() -> None:
    loaded = modules_of("config", "check", os.devnull)
    assert "pydantic" in loaded
    assert not loaded & {"aiohttp", "OpenSSL", "dns", "asyncio"}


def test_a_closed_pipe_is_no_verdict_and_no_traceback() -> None:
    with subprocess.Popen(
        [*PROGRAM, "config", "show", "--defaults"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
