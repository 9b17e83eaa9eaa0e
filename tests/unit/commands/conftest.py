from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    """A configuration of all defaults, whatever this host has in /etc."""
    path = tmp_path / "config.toml"
    path.write_text("")
    return path
