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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--user", "nosuch"], "there is no user nosuch"),
        (["--user", "nobody", "--group", "nosuch"], "there is no group nosuch"),
        (["--user", "root"], "name a user without privileges"),
        (["--user", "nobody", "--group", "root"], "name another one with --group"),
        (["--group", "nobody"], "--group needs --user"),
        (["--log-file", "x", "--syslog", "mail"], "exclude each other"),
        (["--syslog", "male"], "'male' is not one of 'mail'"),
        (["--log-file", "/"], "is a directory"),
        (["--log-file", "/nowhere/it.log"], "cannot open /nowhere/it.log: No such file"),
    ],
)
def test_a_mistake_in_an_option_is_told_with_exit_status_2(
    options: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = call(capfd, "serve", *options)
    assert done.status == 2
    assert told in done.err
