"""``doctor``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import call


def test_without_postfix_the_rest_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[milter]\nsocket = "unix:{tmp_path}/m.sock"\n[engine]\nsocket = "{tmp_path}/e.sock"\n'
        '[metrics]\nlisten = ""\n[dns]\nnameservers = ["127.0.0.1:1"]\ntimeout = 0.1\n'
    )
    arguments = ("doctor", "--config", path, "--postconf", tmp_path / "postconf")
    status, out, _ = call(capsys, *arguments)
    assert status == 1
    assert "the MTA could not be examined" in out
    assert "no engine answers" in out
    assert out.rstrip().endswith("2 errors, 2 warnings")
    status, out, _ = call(capsys, *arguments, "--format", "json")
    assert status == 1
    assert {"check", "severity", "found", "advice"} == set(json.loads(out)[0])


def test_a_bad_configuration_is_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[nonsense]\n")
    done = call(capsys, "doctor", "--config", path)
    assert done.status == 2
    assert "nonsense" in done.err
