"""The scripts for init systems and logrotate are of one mind with the program and the unit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from requiretls_milter.commands.serve import serve
from requiretls_milter.config import Config
from requiretls_milter.reports.logs.usual import OWN
from tests.support.paths import REPOSITORY

SYSV, OPENRC, LOGROTATE = (
    REPOSITORY / "packaging" / kind / "requiretls-milter"
    for kind in ("sysv", "openrc", "logrotate")
)
SCRIPTS = (SYSV, OPENRC)
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@each
def test_the_shell_understands_a_script_and_it_may_be_run(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111 == 0o111


@each
def test_a_script_gives_serve_options_that_it_has(script: Path) -> None:
    known = {option for parameter in serve.params for option in parameter.opts}
    used = set(re.findall(r"--(?:user|group|config|log-file|syslog)\b", text(script)))
    assert {"--user", "--group", "--config", "--log-file"} <= used <= known


@each
def test_limits_are_those_of_the_unit(script: Path) -> None:
    unit = text(REPOSITORY / "systemd/requiretls-milter.service")
    (descriptors,) = re.findall(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert f"-n {descriptors}" in text(script)
    assert "ulimit -c 0" in text(script)
    (seconds,) = re.findall(r"^STOP_SECONDS=(\d+)|TERM/(\d+)/KILL", text(script), re.MULTILINE)
    assert int("".join(seconds)) > Config().milter.drain_timeout


@each
def test_the_log_is_where_audit_looks_for_it(script: Path) -> None:
    assert f"--log-file /{OWN[0]}" in text(script)
    assert text(LOGROTATE).splitlines()[2] == f"/{Path(OWN[0]).parent}/*.log {{"


def test_the_directory_of_the_unit_and_the_user_are_the_same_everywhere() -> None:
    unit = text(REPOSITORY / "systemd/requiretls-milter.service")
    (user,) = re.findall(r"^User=(\S+)$", unit, re.MULTILINE)
    assert f"\nRUN_AS_USER={user}\nRUN_AS_GROUP={user}\n" in text(SYSV)
    assert f'"${{requiretls_user:={user}}}"' in text(OPENRC)
    assert f"create 0640 {user} {user}" in text(LOGROTATE)


def test_the_header_of_the_script_is_as_lsb_has_it() -> None:
    header = re.search(r"^### BEGIN INIT INFO\n(.*)^### END INIT INFO$", text(SYSV), re.M | re.S)
    assert header is not None
    for field in ("Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop"):
        assert f"\n# {field}:" in f"\n{header[1]}"
