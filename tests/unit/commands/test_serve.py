"""``serve`` hands over to the supervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import call


def test_serve_hands_the_file_to_the_supervisor(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("milter.workers = -1\n")
    done = call(capfd, "serve", "--config", path)
    assert done.status == 2
    assert "milter.workers" in done.err
