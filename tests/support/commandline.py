"""Run a command of the program in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from requiretls_milter import cli


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Run the program with *arguments*."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, *capsys.readouterr())
