"""``mta import``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.support.commandline import call
from tests.support.postfixes import DEFAULTS_3_11


def test_without_postfix_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "mta", "import", "--postconf", tmp_path / "postconf")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: no Postfix found")


def test_the_section_goes_to_standard_output_and_warnings_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**DEFAULTS_3_11, "relayhost": "[relay.example]"}
    answer = "\n".join(json.dumps({name: value}) for name, value in settings.items())
    (tmp_path / "settings").write_text(answer)
    program = tmp_path / "postconf"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *-M*|*-P*) ;; *) cat '{tmp_path}/settings';; esac\n"
    )
    program.chmod(0o755)
    (tmp_path / "postmap").symlink_to("/bin/false")
    done = call(capsys, "mta", "import", "--postconf", program)
    assert done.status == 0
    assert tomllib.loads(done.out)["mta"]["mydomain"] == "example.org"
    assert "# warning: relayhost = [relay.example]: " in done.out
    assert "warning: relayhost = [relay.example]: " in done.err
