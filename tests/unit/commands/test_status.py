"""``status``: which service it asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.commands.status import _socket_of
from tests.support.commandline import call


def test_the_socket_is_known_though_there_are_mistakes_elsewhere(tmp_path: Path) -> None:
    path, included = tmp_path / "config.toml", tmp_path / "a.toml"
    path.write_text('[engine]\nsocket = "/run/e.sock"\n[rules]\nmode = "x"\n')
    assert _socket_of(path) == "/run/e.sock"
    path.write_text('include = ["a.toml"]\n[rules]\nmode = "x"\n')
    included.write_text('[engine]\nsocket = "/run/f.sock"\n')
    assert _socket_of(path) == "/run/f.sock"
    path.write_text('include = ["a.toml"]\n[engine]\nsocket = "/run/e.sock"\n')
    included.write_text("[rules\n")
    assert _socket_of(path) == "/run/e.sock"
    path.write_text("[rules\n")
    assert _socket_of(path) == ""
    path.write_text('[engine]\nsocket = "/run/e.sock"\n[rules."x.test]\nmode = "off"\n')
    assert _socket_of(path) == "/run/e.sock"
    path.write_text('engine.socket = "/run/f.sock" # short\n[rules\n')
    assert _socket_of(path) == "/run/f.sock"
    assert _socket_of(tmp_path / "none.toml") == ""


def test_a_service_that_is_not_there_is_told_with_the_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'include = ["a.toml"]\n[engine]\nsocket = "{tmp_path}/e.sock"\n')
    done = call(capsys, "status", "--config", path)
    assert done.status == 2
    assert done.err.startswith(f"error: no service answers on {tmp_path}/e.sock: ")
    assert f"error: {path}:1:12: include[0]: {tmp_path}/a.toml cannot be read" in done.err
