"""The service on a host without a service manager: its user, its log, its init script."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.service.bare import NUMBER, USER, BareHost
from tests.support.waiting import eventually, log_written

AS_USER = ("--user", USER, "--group", USER)
LOG_FILE = f"/var/log/{USER}/{USER}.log"
EVERYTHING = {f"{USER}: {name}" for name in ("supervisor", "engine", "worker 1", "worker 2")}


@pytest.fixture
def host() -> Iterator[BareHost]:
    try:
        host = BareHost()
    except LabUnavailable as reason:
        unavailable(reason)
        raise
    yield host
    host.close()


def script(host: BareHost, action: str) -> subprocess.CompletedProcess[str]:
    return host.run("/opt/source/packaging/sysv/requiretls-milter", action)


def test_the_init_script_starts_reloads_rotates_and_stops_the_service(host: BareHost) -> None:
    assert script(host, "status").returncode == 3
    started = script(host, "start")
    assert started.returncode == 0, started.stderr
    assert host.processes() == dict.fromkeys(EVERYTHING, str(NUMBER))
    status = script(host, "status")
    assert status.returncode == 0
    assert status.stdout.startswith("requiretls-milter ")
    assert script(host, "start").stdout.endswith("runs already\n")

    host.send("<one@example.org>")
    eventually(lambda: "to=<one@example.org>" in host.log)

    log = host.root / LOG_FILE.lstrip("/")
    log.rename(log.with_suffix(".log.1"))
    assert script(host, "reopen").returncode == 0
    eventually(lambda: log.exists() and "event=log_file_opened" in host.log)
    host.send("<two@example.org>")
    eventually(lambda: "to=<two@example.org>" in host.log)
    assert "two@example.org" not in log.with_suffix(".log.1").read_text()

    host.configure("typo = 1\n")
    refused = script(host, "reload")
    assert refused.returncode == 6
    assert "typo" in refused.stderr
    host.configure("[log]\nlevel = 'debug'\n")
    assert script(host, "reload").returncode == 0
    eventually(lambda: "event=reloaded" in host.log)

    assert script(host, "stop").returncode == 0
    assert host.processes() == {}
    assert script(host, "status").returncode == 3
    assert not (host.root / "run/requiretls-milter.pid").exists()


def test_the_init_script_tells_a_mistake_and_leaves_nothing_behind(host: BareHost) -> None:
    host.configure("typo = 1\n")
    done = script(host, "start")
    assert done.returncode == 6
    assert "typo" in done.stderr
    host.configure()
    (host.root / "etc/default/requiretls-milter").write_text("RUN_AS_USER=nosuch\n")
    done = script(host, "start")
    assert done.returncode == 1
    assert "there is no user nosuch" in done.stderr
    assert script(host, "status").returncode == 3


def test_root_becomes_the_user_for_good_and_owns_what_it_makes(host: BareHost) -> None:
    host.start(*AS_USER, "--log-file", LOG_FILE)
    status = host.run("pgrep", "-f", f"^{USER}: engine$").stdout.strip()
    lines = host.run("cat", f"/proc/{status}/status").stdout
    for field in ("Uid", "Gid"):
        assert re.search(rf"^{field}:(\t{NUMBER}){{4}}$", lines, re.MULTILINE)
    assert re.search(rf"^Groups:\t{NUMBER} {NUMBER + 1} $", lines, re.MULTILINE)
    for field in ("CapPrm", "CapEff", "CapAmb"):
        assert re.search(rf"^{field}:\t0+$", lines, re.MULTILINE)
    assert "NoNewPrivs:\t1" in lines
    for made, mode in (
        (f"run/{USER}", 0o755),
        (f"var/lib/{USER}", 0o750),
        (f"var/log/{USER}", 0o750),
        (LOG_FILE[1:], 0o640),
        (f"var/lib/{USER}/state.db", 0o600),
    ):
        found = (host.root / made).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (NUMBER, mode), made


def test_a_service_of_root_says_so_and_what_helps(host: BareHost) -> None:
    for place in ("run", "var/log", "var/lib"):
        (host.root / place / USER).mkdir()
    service = host.start("--log-file", LOG_FILE)
    eventually(lambda: "event=runs_as_root" in host.log)
    host.signal(signal.SIGTERM)
    assert service.wait(20) == 0
    assert "Start it with --user requiretls-milter --group" in service.last_words()


def test_what_the_user_may_not_do_is_told_with_exit_status_2(host: BareHost) -> None:
    """Mistakes that need no host are in tests/unit/commands/test_serve.py."""
    for options, told in (
        ([*AS_USER, "--log-file", "/etc/it.log"], "cannot open /etc/it.log: Permission denied"),
        ([*AS_USER, "--log-file", "/dev/null"], "/dev/null: it is not a regular file"),
    ):
        done = host.run(USER, "serve", *options)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    (host.root / "etc" / USER / "config.toml").chmod(0o600)
    done = host.run(USER, "serve", *AS_USER)
    assert done.returncode == 2
    assert "cannot be read: Permission denied" in done.stderr
    done = host.run("setpriv", "--reuid=1", "--regid=1", "--clear-groups", USER, "serve", *AS_USER)
    assert done.returncode == 2
    assert "only root can become requiretls-milter" in done.stderr


# ---------------------------------------------------------------- the log file


def test_a_full_disk_loses_lines_that_are_counted_and_no_mail(host: BareHost) -> None:
    (host.root / "var/log" / USER).mkdir()
    options = f"size=256k,uid={NUMBER}"
    done = host.run("mount", "-t", "tmpfs", "-o", options, "none", f"/var/log/{USER}")
    assert done.returncode == 0, done.stderr
    host.start(*AS_USER, "--log-file", LOG_FILE)
    host.run("sh", "-c", f"cat /dev/zero >/var/log/{USER}/filler")
    sent = 0

    def are_lost() -> bool:
        nonlocal sent
        for _ in range(10):
            host.send()
        sent += 10
        log_written()
        return host.run("grep", "-c", "event=recipient", LOG_FILE).stdout != f"{sent}\n"

    eventually(are_lost)
    host.run("rm", f"/var/log/{USER}/filler")

    def told() -> bool:
        host.send()
        return "event=log_lines_dropped" in host.run("cat", LOG_FILE).stdout

    eventually(told)


def test_a_directory_that_vanished_holds_no_mail_up_and_is_used_when_it_is_back(
    host: BareHost,
) -> None:
    host.start(*AS_USER, "--log-file", LOG_FILE)
    directory = host.root / "var/log" / USER
    shutil.rmtree(directory)
    for _ in range(3):
        host.send()
    directory.mkdir()
    os.chown(directory, NUMBER, NUMBER)

    def back() -> bool:
        host.send("<back@example.org>")
        file = host.root / LOG_FILE[1:]
        return file.exists() and "to=<back@example.org>" in file.read_text()

    eventually(back)


def test_a_new_file_is_noticed_without_a_signal(host: BareHost) -> None:
    host.start(*AS_USER, "--log-file", LOG_FILE)
    log = host.root / LOG_FILE[1:]
    log.rename(log.with_suffix(".log.1"))
    log.touch()
    os.chown(log, NUMBER, NUMBER)
    eventually(lambda: "event=log_file_opened" in host.log)


# ---------------------------------------------------------------- syslog


def test_the_syslog_daemon_gets_each_line_with_its_process_and_severity(host: BareHost) -> None:
    daemon = host.syslog()
    host.start(*AS_USER, "--syslog", "mail")
    host.send()
    eventually(lambda: "to=<bob@example.org>" in host.syslog_file.read_text())
    daemon.stop()
    lines = host.syslog_file.read_text().splitlines()
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert all(re.match(rf"{stamp} requiretls-milter\[\d+\]: level=", line) for line in lines)
    (recipient,) = (line for line in lines if "event=recipient" in line)
    (pid,) = re.findall(r"milter\[(\d+)\]", recipient)
    assert host.run("ps", "-o", "args=", pid).stdout.startswith(f"{USER}: worker")
    assert recipient in host.syslog_file.read_text()

    # The daemon is started again.
    daemon = host.syslog()
    host.send("<again@example.org>")
    eventually(lambda: "to=<again@example.org>" in host.syslog_file.read_text())
    daemon.stop()


def test_a_syslog_daemon_that_stands_still_or_is_missing_holds_no_mail_up(host: BareHost) -> None:
    service = host.start(*AS_USER, "--syslog", "local3")
    assert "no syslog daemon listens at /dev/log" in service.last_words()
    host.send()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread:
        path = host.root / "dev/log"
        unread.bind(str(path))
        Path(path).chmod(0o666)
        for _ in range(50):
            host.send()
        # It reads again: what was dropped is told.
        found = b""
        unread.settimeout(20)
        while b"event=log_lines_dropped" not in found:
            host.send()
            found = unread.recv(1 << 16)
    assert re.match(rb"<156>", found)  # local3, warning
