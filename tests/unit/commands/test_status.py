"""``status``: what it says if there is no service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import call


def test_a_service_that_is_not_there_is_told_with_the_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'include = ["a.toml"]\n[engine]\nsocket = "{tmp_path}/e.sock"\n')
    done = call(capsys, "status", "--config", path)
    assert done.status == 2
    assert done.err.startswith(f"error: no service answers on {tmp_path}/e.sock: ")
    assert f"error: {path}:1:12: include[0]: {tmp_path}/a.toml cannot be read" in done.err
