"""make audit: what it says, and above all what it does not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import REPOSITORY

GOOD = {"name": "idna", "version": "3.20", "vulns": []}
BAD = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}],
}
UNKNOWN = {"name": "yarl", "skip_reason": "Dependency not found"}


def audit(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "audit", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


def told(directory: Path, *packages: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The audit with a pip-audit that found this."""
    report = directory / "report.json"
    report.write_text(json.dumps({"dependencies": packages, "fixes": []}))
    return audit("/bin/sh", "-c", f"cat {report}; exit 1")


def test_where_all_was_looked_up_and_nothing_is_known_all_is_well(tmp_path: Path) -> None:
    done = told(tmp_path, GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 packages were looked up" in done.stdout


def test_what_is_known_is_told_with_what_mends_it(tmp_path: Path) -> None:
    done = told(tmp_path, GOOD, BAD, UNKNOWN)
    assert done.returncode == 1
    assert "jinja2 2.10: PYSEC-2019-217, mended in 2.10.1" in done.stdout
    assert "told nothing of: yarl" in done.stderr


@pytest.mark.parametrize("packages", [(), (UNKNOWN,), (GOOD, UNKNOWN)])
def test_what_could_not_be_looked_up_is_not_called_good(
    tmp_path: Path, packages: tuple[dict[str, Any], ...]
) -> None:
    assert told(tmp_path, *packages).returncode == os.EX_UNAVAILABLE


def test_a_database_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    """With the real pip-audit, and a proxy that nobody is."""
    done = audit(
        str(Path(sys.prefix) / "bin" / "pip-audit"),
        f"--cache-dir={tmp_path}",
        HTTPS_PROXY="http://127.0.0.1:9",
    )
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.startswith("audit: not done: ")
    assert "127.0.0.1" in done.stderr


def test_all_lock_files_are_looked_up(tmp_path: Path) -> None:
    arguments = tmp_path / "arguments"
    audit("/bin/sh", "-c", f'printf "%s\\n" "$@" >{arguments}', "sh")
    asked = arguments.read_text().splitlines()
    named = [asked[n + 1] for n, word in enumerate(asked) if word == "--requirement"]
    tracked = subprocess.run(
        ["git", "ls-files", "*.lock"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sorted(named) == sorted(tracked)
