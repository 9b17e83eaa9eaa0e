"""The systemd unit fits what the service does."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.service import drain, restarts, spawn, startup
from tests.support.paths import REPOSITORY

SYSTEMD = REPOSITORY / "systemd"
UNIT = SYSTEMD / "requiretls-milter.service"
VARIANTS = sorted((SYSTEMD / "variants").glob("*.conf"))
AUDIT = SYSTEMD / "requiretls-milter-audit.service"
AUDIT_VARIANTS = sorted((SYSTEMD / "variants" / "audit").glob("*.conf"))

EXPOSURE = 1.5
"""What ``systemd-analyze security`` may find at most, of 10."""

AUDIT_EXPOSURE = 0.3
"""The same for the unit that takes part in no mail; 1.0 with a port."""

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


@pytest.fixture(params=[None, *VARIANTS], ids=lambda path: path.stem if path else "plain")
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as it is installed, alone or with a variant beside it."""
    return install(UNIT, "serve", request.param, tmp_path)


@pytest.fixture(params=[None, *AUDIT_VARIANTS], ids=lambda path: path.stem if path else "plain")
def audit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same of the unit of ``audit --follow``."""
    return install(AUDIT, "audit --follow $AUDIT_EXPORT $AUDIT_LOGS", request.param, tmp_path)


def install(unit: Path, command: str, variant: Path | None, directory: Path) -> Path:
    text = unit.read_text()
    # systemd-analyze wants the program to be there.
    assert f"ExecStart=/usr/local/bin/requiretls-milter {command}\n" in text
    installed = directory / unit.name
    installed.write_text(text.replace("=/usr/local/bin/requiretls-milter ", "=/bin/true "))
    if variant is not None:
        drop_ins = directory / f"{unit.name}.d"
        drop_ins.mkdir()
        (drop_ins / variant.name).write_text(variant.read_text())
    return installed


@analyze
def test_systemd_understands_every_line(installed: Path) -> None:
    assert_understood(installed)


@analyze
def test_systemd_understands_every_line_of_the_audit_unit(audit: Path) -> None:
    assert_understood(audit)


def assert_understood(installed: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False
    )
    assert str(installed.parent) not in result.stderr, result.stderr
    assert installed.name not in result.stderr, result.stderr
    assert result.returncode == 0


@analyze
def test_the_service_is_exposed_no_more_than_it_needs(installed: Path) -> None:
    assert exposure(installed) < EXPOSURE


@analyze
def test_audit_is_hardly_exposed_and_has_a_network_only_for_its_port(audit: Path) -> None:
    has_port = (audit.parent / f"{audit.name}.d" / "port.conf").exists()
    assert exposure(audit) < (1.1 if has_port else AUDIT_EXPOSURE)


def exposure(installed: Path) -> float:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", result.stdout)
    assert found is not None, result.stdout + result.stderr
    return float(found[1])


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd here")
def test_the_user_is_made_as_the_unit_names_him(
    service: configparser.SectionProxy, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (file,) = (SYSTEMD / "sysusers.d").glob("*.conf")
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", "--inline", *lines(file)], check=True)
    users = (tmp_path / "etc/passwd").read_text()
    assert re.search(rf"^{service['User']}:", users, re.M)
    assert re.search(rf"^{service['Group']}:", (tmp_path / "etc/group").read_text(), re.M)


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="no systemd here")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_chrooted_postfix_gets_a_directory_of_its_own(
    service: configparser.SectionProxy, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"{service['User']}:x:7777:7777::/:/bin/false\n")
    (tmp_path / "etc/group").write_text(f"{service['Group']}:x:7777:\npostfix:x:7778:\n")
    (file,) = (SYSTEMD / "tmpfiles.d").glob("*.conf")
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(file)], check=True)
    (path,) = re.findall(r"^ReadWritePaths=(\S+)$", chroot(), re.M)
    made = (tmp_path / path.removeprefix("/")).stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (7777, 7778, 0o2750)


def chroot() -> str:
    return (SYSTEMD / "variants/postfix-chroot.conf").read_text()


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def test_the_time_to_stop_is_what_draining_takes_by_default(
    service: configparser.SectionProxy,
) -> None:
    patience = Config().milter.drain_timeout
    assert int(service["TimeoutStopSec"]) >= patience + drain.STOP_TIMEOUT


def test_the_watchdog_leaves_time_to_replace_a_single_process(
    service: configparser.SectionProxy,
) -> None:
    kill, back = spawn.HEARTBEAT_LOST, restarts.MAX_BACKOFF
    assert int(service["WatchdogSec"]) > kill + back + spawn.HEARTBEAT_FRESH


def test_a_bad_configuration_is_not_tried_again(service: configparser.SectionProxy) -> None:
    assert int(service["RestartPreventExitStatus"]) == startup.EXIT_USAGE
    assert service["Restart"] == "on-failure"


def test_the_supervisor_alone_is_told_to_stop(service: configparser.SectionProxy) -> None:
    assert service["KillMode"] == "mixed"
    assert service["NotifyAccess"] == "main"
    assert service["Type"] == "notify"


def test_the_directories_are_those_of_the_default_configuration(
    service: configparser.SectionProxy,
) -> None:
    config = Config()
    assert str(config.milter.socket) == f"unix:/run/{service['RuntimeDirectory']}/milter.sock"
    assert config.engine.socket == f"/run/{service['RuntimeDirectory']}/engine.sock"
    assert str(config.store.url) == f"sqlite:///var/lib/{service['StateDirectory']}/state.db"
