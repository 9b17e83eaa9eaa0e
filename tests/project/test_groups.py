"""Tests of one group run in one process, so that what they share is made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GROUPED = """
import os

import pytest

pytestmark = pytest.mark.xdist_group("one")


@pytest.mark.parametrize("number", range(4))
def test_where(number):
    print("ran in", os.environ["PYTEST_XDIST_WORKER"])
"""


def test_a_group_has_one_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-rP"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    ran = [line for line in done.stdout.splitlines() if line.startswith("ran in")]
    assert len(ran) == 4
    assert len(set(ran)) == 1
