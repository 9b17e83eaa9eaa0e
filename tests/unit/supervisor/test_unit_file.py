"""The systemd unit fits what the service does."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from requiretls_milter import supervisor
from requiretls_milter.config import Config

UNIT = Path(__file__).parents[3] / "systemd" / "requiretls-milter.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    text = UNIT.read_text().replace("ExecStart=/usr/bin/requiretls-milter", "ExecStart=/bin/true")
    copy.write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert UNIT.name not in result.stderr, result.stderr
    assert result.returncode == 0


def test_the_time_to_stop_is_what_draining_takes_by_default(
    service: configparser.SectionProxy,
) -> None:
    drain = Config().milter.drain_timeout
    assert int(service["TimeoutStopSec"]) >= drain + supervisor.STOP_TIMEOUT


def test_the_watchdog_leaves_time_to_replace_a_single_process(
    service: configparser.SectionProxy,
) -> None:
    kill, back = supervisor.HEARTBEAT_LOST, supervisor.MAX_BACKOFF
    assert int(service["WatchdogSec"]) > kill + back + supervisor.HEARTBEAT_FRESH


def test_a_bad_configuration_is_not_tried_again(service: configparser.SectionProxy) -> None:
    assert int(service["RestartPreventExitStatus"]) == supervisor.EXIT_CONFIG
    assert service["Restart"] == "on-failure"


def test_the_supervisor_alone_is_told_to_stop(service: configparser.SectionProxy) -> None:
    assert service["KillMode"] == "mixed"
    assert service["NotifyAccess"] == "main"
    assert service["Type"] == "notify"


def test_the_directories_are_those_of_the_default_configuration(
    service: configparser.SectionProxy,
) -> None:
    config = Config()
    assert config.milter.socket == f"unix:/run/{service['RuntimeDirectory']}/milter.sock"
    assert config.engine.socket == f"/run/{service['RuntimeDirectory']}/engine.sock"
    assert config.store.url == f"sqlite:///var/lib/{service['StateDirectory']}/state.db"
