"""``export``: what it prints, and its exit statuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import call


def test_the_command_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[rules.recipient."bücher.example"]\nmode = "reject"\n'
        '[rules.sender."bank.example"]\nrequire = true\nmode = "defer"\n'
    )
    said = call(capsys, "export", "postfix-requiretls-policy", "--config", path)
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[-1] == "xn--bcher-kva.example\tenforce"
    assert all(line.startswith("#") for line in lines[:-1])
    assert said.err == (
        'warning: rules.sender."bank.example": Postfix has no policy by sender: left out\n'
    )


def test_a_bad_configuration_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[rules]\nmode = 'never'\n")
    said = call(capsys, "export", "postfix-requiretls-policy", "--config", path)
    assert said.status == 2
    assert "rules.mode" in said.err
