from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    """A configuration of all defaults, whatever this host has in /etc."""
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """All defaults, but for a service of this host, and a Postfix, which nobody asks."""
    path = tmp_path / "alone.toml"
    path.write_text(f'mta.carries = "requiretls"\nengine.socket = "{tmp_path}/engine.sock"\n')
    return path
