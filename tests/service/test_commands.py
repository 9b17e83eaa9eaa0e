"""What needs a process of its own: what a command imports, a closed pipe, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "show", "--defaults"],
        ["config", "check", os.devnull],
        ["export", "postfix-requiretls-policy", "--config", os.devnull],
        ["audit", "tests/data/logs/multi.log"],
        ["report", "--would-have", "tests/data/logs/report.log", "--config", os.devnull],
        ["report", "--config", os.devnull],
        ["check", "--config", os.devnull, "--format", "json", "[127.0.0.1]:9"],
        ["doctor", "--config", os.devnull],
        ["--version"],
        ["check", "--help"],
    ],
    ids=" ".join,
)
def test_output_for_which_the_disk_has_no_room_is_told_and_is_no_verdict(
    arguments: list[str],
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, cwd=REPOSITORY, timeout=60
        )
    assert done.returncode == 74
    assert done.stderr.endswith(b"error: the output cannot be written: No space left on device\n")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_half_a_table_ends_as_an_error(tmp_path: Path, unbuffered: str) -> None:
    """A limit on the size of files is as a full disk, and ulimit -f does exist."""
    config = tmp_path / "config.toml"
    rules = (f'[rules.recipient."d{n}.example"]\nmode = "reject"\n' for n in range(500))
    config.write_text("".join(rules))
    limit = ["prlimit", "--fsize=4096", "--"]
    with (tmp_path / "table").open("wb") as table:
        done = subprocess.run(
            [*limit, *PROGRAM, "export", "postfix-requiretls-policy", "--config", config],
            stdout=table,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 74
    assert b"File too large" in done.stderr


@pytest.mark.parametrize("arguments", [["no-such-command"], ["config", "check", "/etc/passwd"]])
def test_an_error_for_which_the_disk_has_no_room_is_no_verdict(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stderr=full, stdout=subprocess.PIPE, cwd=REPOSITORY, timeout=60
        )
    assert done.returncode == 74
    assert done.stdout == b""


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
