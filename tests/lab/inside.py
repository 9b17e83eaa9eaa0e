"""What test_systemd.py has done inside a Debian that was booted, and what came of it.

It runs there as a unit, in the place of a shell's user: it starts the service and a Postfix, sends
messages, and writes what it saw to ``report.json`` beside itself.  Standard library only.
"""

from __future__ import annotations

import json
import shutil
import smtplib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UNIT = "requiretls-milter.service"
CONFIG = Path("/etc/requiretls-milter/config.toml")
SOCKET = Path("/var/spool/postfix/requiretls-milter/milter.sock")
MAILBOX = Path("/var/spool/mailboxes/someone")
FIELDS = ("Uid", "Groups", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd")
PATIENCE = 20.0
"""Seconds for a change to be seen."""

MESSAGE = """\
From: <sender@example.org>
To: <someone@example.org>
Subject: {subject}
TLS-Required: No

Text.
"""

report: dict[str, Any] = {}


def run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return {"status": done.returncode, "output": done.stdout + done.stderr}


def properties() -> dict[str, str]:
    """What systemd says of the unit."""
    names = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,User"
    output = run("systemctl", "show", "-p", names, UNIT)["output"]
    return dict(line.split("=", 1) for line in output.splitlines())


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def processes() -> dict[str, dict[str, str]]:
    """The kernel's view of each process of the service, by its name."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        if UNIT not in (status.parent / "cgroup").read_text():
            continue
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        found[fields["Name"].strip()] = {key: fields[key].strip() for key in FIELDS}
    return found


def send(subject: str) -> str:
    """Hand a message to Postfix, and return what ends up in the mailbox."""
    before = MAILBOX.stat().st_size if MAILBOX.exists() else 0
    with smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE) as client:
        client.sendmail(
            "sender@example.org", ["someone@example.org"], MESSAGE.format(subject=subject)
        )
    until(lambda: MAILBOX.exists() and MAILBOX.read_text()[before:].endswith("Text.\n\n"))
    return MAILBOX.read_text()[before:] if MAILBOX.exists() else ""


def start_postfix() -> None:
    """A chrooted smtpd, as Debian has it, with the milter of README.md."""
    shutil.chown("/var/lib/postfix", "postfix")
    shutil.copy("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf")
    Path("/etc/postfix/main.cf").write_text(
        "compatibility_level = 3.6\n"
        "queue_directory = /var/spool/postfix\n"
        "command_directory = /usr/sbin\n"
        "daemon_directory = /usr/lib/postfix/sbin\n"
        "data_directory = /var/lib/postfix\n"
        "mail_owner = postfix\n"
        "setgid_group = postdrop\n"
        "myhostname = mail.example.net\n"
        "mydestination =\n"
        "inet_interfaces = loopback-only\n"
        "maillog_file = /var/log/postfix.log\n"
        "virtual_mailbox_domains = example.org\n"
        "virtual_mailbox_base = /var/spool/mailboxes\n"
        "virtual_mailbox_maps = inline:{{someone@example.org = someone}}\n"
        "virtual_uid_maps = static:65534\n"
        "virtual_gid_maps = static:65534\n"
        "virtual_mailbox_limit = 0\n"
        "smtpd_milters = unix:requiretls-milter/milter.sock\n"
        "milter_default_action = accept\n"
        "milter_connect_timeout = 5s\n"
    )
    Path("/var/spool/mailboxes").mkdir(parents=True)
    shutil.chown("/var/spool/mailboxes", "nobody", "nogroup")
    report["postfix"] = run("postfix", "start")


def trial() -> None:
    report["started"] = run("systemctl", "start", UNIT)
    report["running"] = properties()
    report["processes"] = processes()
    if SOCKET.exists():
        status = SOCKET.stat()
        report["socket"] = [SOCKET.owner(), SOCKET.group(), oct(status.st_mode & 0o777)]

    start_postfix()
    report["first message"] = send("first")

    report["reload"] = run("systemctl", "reload", UNIT)
    until(lambda: "event=reloaded" in journal())
    good = CONFIG.read_text()
    CONFIG.write_text("[milter]\nsocket = 7\n")
    report["reload of nonsense"] = run("systemctl", "reload", UNIT)
    CONFIG.write_text(good)
    report["after reloads"] = properties()

    for how, signal in (("killed", "KILL"), ("stopped dead", "STOP")):
        restarts = properties()["NRestarts"]
        run("systemctl", "kill", f"--signal={signal}", "--kill-who=main", UNIT)
        until(lambda: properties()["NRestarts"] != restarts)  # noqa: B023 # called at once
        until(lambda: properties()["ActiveState"] == "active")
        report[how] = properties()
        report[f"message after {how}"] = send(how)

    report["stop"] = run("systemctl", "stop", UNIT)
    report["stopped"] = properties()
    report["processes left"] = processes()
    report["socket left"] = SOCKET.exists()
    report["message without us"] = send("without")


def journal() -> str:
    return str(run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT)["output"])


if __name__ == "__main__":
    try:
        trial()
    finally:
        report["journal"] = journal()
        log = Path("/var/log/postfix.log")
        report["mail log"] = log.read_text() if log.exists() else ""
        (HERE / "report.json").write_text(json.dumps(report, indent=1))
