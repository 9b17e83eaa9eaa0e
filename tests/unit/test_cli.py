"""The group of commands, and what the program ends with if a command fails."""

from __future__ import annotations

import pytest

import requiretls_milter
from requiretls_milter import cli
from requiretls_milter import config as configuration
from tests.support.commandline import call


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "--version")
    assert done.status == 0
    assert done.out == f"requiretls-milter {requiretls_milter.__version__}\n"


def test_help_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "-h")
    assert done.status == 0
    for name in cli.commands.commands:
        assert f"\n  {name} " in done.out


@pytest.mark.parametrize("group", [[], ["config"], ["mta"], ["export"]])
def test_help_names_each_command_in_a_whole_sentence(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = call(capsys, *group, "--help").out.split("Commands:")[1].strip().splitlines()
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["config"], ["config", "explain", "a"], ["serve", "x"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, *arguments)
    assert done.status == 2
    assert "Usage: " in done.err


def test_a_crash_is_no_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("deliberate")

    monkeypatch.setattr(configuration, "load", crash)
    done = call(capsys, "check", "example.org")
    assert done.status == 70
    assert "ZeroDivisionError: deliberate" in done.err
