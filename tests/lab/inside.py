"""What test_systemd.py has done inside a Debian that was booted, and what came of it.

It runs there as a unit, in the place of a shell's user: it starts the service and an MTA, sends
messages, and writes what it saw to ``report.json`` beside itself.  Standard library only.
"""

from __future__ import annotations

import json
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UNIT = "requiretls-milter.service"
AUDIT = "requiretls-milter-audit.service"
AUDIT_FILE = Path("/run/requiretls-milter-audit/requiretls-milter-audit.prom")
AUDIT_PORT = "http://127.0.0.1:9895/metrics"
CONFIG = Path("/etc/requiretls-milter/config.toml")
FIELDS = ("Uid", "Groups", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd")
PATIENCE = 20.0
"""Seconds for a change to be seen."""

SETTLED = 25.0
"""Seconds until ``audit --follow`` has decided a recipient and written that down, at most."""

EQUAL = 'requiretls_milter_audit_deliveries_total{result="equal"} 1.0\n'
"""One forecast that came true."""

MESSAGE = """\
From: <sender@example.org>
To: <someone@example.org>
Subject: {subject}
TLS-Required: No

Text.
"""

report: dict[str, Any] = {}


@dataclass(frozen=True)
class Mta:
    """How one is started here, where it looks for the milter, and where it puts its mail."""

    start: Callable[[], None]
    socket: Path
    mailbox: Path
    log: Path


def run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return {"status": done.returncode, "output": done.stdout + done.stderr}


def properties(unit: str = UNIT) -> dict[str, str]:
    """What systemd says of the unit."""
    names = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,User"
    output = run("systemctl", "show", "-p", names, unit)["output"]
    return dict(line.split("=", 1) for line in output.splitlines())


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def processes(unit: str = UNIT) -> dict[str, dict[str, str]]:
    """The kernel's view of each process of the service, by its name."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        if unit not in (status.parent / "cgroup").read_text():
            continue
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        found[fields["Name"].strip()] = {key: fields[key].strip() for key in FIELDS}
    return found


def send(mta: Mta, subject: str) -> str:
    """Hand a message to the MTA, and return what ends up in the mailbox, or the refusal."""
    before = mta.mailbox.stat().st_size if mta.mailbox.exists() else 0
    with smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE) as client:
        try:
            client.sendmail(
                "sender@example.org", ["someone@example.org"], MESSAGE.format(subject=subject)
            )
        except smtplib.SMTPResponseException as refusal:
            return f"{refusal.smtp_code} {refusal.smtp_error!r}"
    until(lambda: mta.mailbox.exists() and mta.mailbox.read_text()[before:].endswith("Text.\n\n"))
    return mta.mailbox.read_text()[before:] if mta.mailbox.exists() else ""


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
        f"transport_maps = inline:{{{{partner.example = smtp:[127.0.0.1]:{PORT}}}}}\n"
        "smtp_tls_security_level = may\n"
        "smtpd_milters = unix:requiretls-milter/milter.sock\n"
        "milter_default_action = accept\n"
        "milter_connect_timeout = 5s\n"
    )
    aliases = Path("/etc/postfix/virtual.regexp")
    aliases.write_text("/^alias@/ someone@example.org\n")
    shutil.chown(aliases, "root", "postfix")
    aliases.chmod(0o640)
    Path("/var/spool/mailboxes").mkdir(parents=True)
    shutil.chown("/var/spool/mailboxes", "nobody", "nogroup")
    report["mta"] = run("postfix", "start")


def start_sendmail() -> None:
    """By a unit of its name, which the variant has wait for us; with the filter of README.md."""
    for folder, mode in (
        ("/var/spool/mqueue", 0o700),
        ("/var/mail", 0o1777),
        ("/var/lib/sendmail/host_status", 0o755),
        ("/run/sendmail/mta", 0o755),
    ):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder).chmod(mode)
    with Path("/etc/passwd").open("a") as users:
        users.write("someone:x:1001:8::/var/mail:/bin/sh\n")
    mail = Path("/etc/mail")
    (mail / "local-host-names").write_text("example.org\n")
    (mail / "aliases").write_text("postmaster: someone\nmailer-daemon: someone\n")
    (mail / "service.switch").write_text("hosts files\naliases files\n")  # there is no DNS
    (mail / "sendmail.mc").write_text(SENDMAIL_MC)
    run("sh", "-c", "m4 /etc/mail/sendmail.mc >/etc/mail/sendmail.cf")
    run(SENDMAIL, "-bi")
    Path("/run/systemd/system/sendmail.service").write_text(
        f"[Service]\nExecStart={SENDMAIL} -bD -q1h -C/etc/mail/sendmail.cf\n"
    )
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", UNIT)
    report["mta"] = run("systemctl", "start", UNIT, "sendmail.service")
    show = ("systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic")
    report["begun"] = [int(run(*show, unit)["output"]) for unit in (UNIT, "sendmail.service")]
    until(listening)


def listening() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", 25)) == 0


SENDMAIL = "/usr/libexec/sendmail/sendmail"
SENDMAIL_MC = """\
divert(-1)
define(`_USE_ETC_MAIL_')
divert(0)dnl
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`debian')dnl
define(`confDOMAIN_NAME', `mail.example.net')dnl
define(`confTO_IDENT', `0s')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port=smtp')dnl
FEATURE(`use_cw_file')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`local_lmtp', `/usr/libexec/sendmail/mail.local')dnl
INPUT_MAIL_FILTER(`requiretls', `S=unix:/run/requiretls-milter/milter.sock, F=T, T=S:5s;R:5s')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""


PORT = 2525


def next_hop() -> None:
    """A server that speaks TLS and takes mail, for the engine to look at and for Postfix."""
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=take_mail, args=(client,), daemon=True).start()


def take_mail(client: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "server.pem")
    offered = "STARTTLS"
    client.sendall(b"220 mx ESMTP\r\n")
    lines = client.makefile("rb")
    while line := lines.readline():
        reply = b"250 2.0.0 Ok\r\n"
        match line.split()[:1]:
            case [b"EHLO"]:
                reply = f"250-mx\r\n250 {offered}\r\n".encode()
            case [b"STARTTLS"]:
                client.sendall(b"220 2.0.0 Ready\r\n")
                client = context.wrap_socket(client, server_side=True)
                lines, offered = client.makefile("rb"), "REQUIRETLS"
                continue
            case [b"DATA"]:
                client.sendall(b"354 Go on\r\n")
                while lines.readline() not in (b".\r\n", b""):
                    pass
        client.sendall(reply)


DNS_PORT = 5353


def no_such_domain() -> None:
    """A name server to which no domain exists (RFC 1035 section 4.1.1), over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", DNS_PORT))
        while True:
            query, client = server.recvfrom(4096)
            end = query.index(b"\0", 12) + 5  # of the question: name, type, class
            counts = b"\0\1\0\0\0\0\0\0"
            server.sendto(query[:2] + b"\x81\x83" + counts + query[12:end], client)


TELL = Path("/usr/local/sbin/tell-postmaster")
KEPT = Path("/var/lib/requiretls-milter/told.json")
ALLOWED = Path("/srv/allowed/told.json")
TELL_SCRIPT = f"""\
#!/bin/sh
# It may write below the service's state, and where the drop-in says; and nowhere else.
cat >{KEPT}
cp {KEPT} {ALLOWED}
: >/srv/forbidden
"""


def watch() -> None:
    """What watch.notify needs here: a domain that is broken, and the command."""
    threading.Thread(target=no_such_domain, daemon=True).start()
    TELL.parent.mkdir(parents=True, exist_ok=True)
    TELL.write_text(TELL_SCRIPT)
    TELL.chmod(0o755)
    ALLOWED.parent.mkdir(parents=True)
    shutil.chown(ALLOWED.parent, "requiretls-milter", "requiretls-milter")


MTAS = {
    "postfix": Mta(
        start_postfix,
        Path("/var/spool/postfix/requiretls-milter/milter.sock"),
        Path("/var/spool/mailboxes/someone"),
        Path("/var/log/postfix.log"),
    ),
    "sendmail": Mta(
        start_sendmail,
        Path("/run/requiretls-milter/milter.sock"),
        Path("/var/mail/someone"),
        Path("/var/log/mail.log"),
    ),
}


def trial(mta: Mta) -> None:
    watch()
    report["started"] = run("systemctl", "start", UNIT)
    report["running"] = properties()
    until(lambda: "python3" not in processes())  # the command of watch.notify has ended
    report["processes"] = processes()
    if mta.socket.exists():
        status = mta.socket.stat()
        report["socket"] = [mta.socket.owner(), mta.socket.group(), oct(status.st_mode & 0o777)]

    threading.Thread(target=next_hop, daemon=True).start()
    report["check"] = run("requiretls-milter", "check", f"[127.0.0.1]:{PORT}", "--format", "json")
    with urllib.request.urlopen("http://127.0.0.1:9894/metrics", timeout=10) as reply:
        report["metrics"] = reply.read().decode()

    until(lambda: "event=notify_failed" in journal(UNIT))
    report["told"] = [KEPT.read_text(), ALLOWED.read_text()] if ALLOWED.exists() else []
    report["doctor"] = run("requiretls-milter", "doctor", "--format", "json")

    mta.start()
    report["before reloads"] = properties()
    report["first message"] = send(mta, "first")

    if mta is MTAS["postfix"]:
        report["expanded"] = run(
            *("requiretls-milter", "simulate", "a@example.org", "alias@example.org"),
            *("--parameter", "REQUIRETLS", "--format", "json"),
        )
        audit()

    report["reload"] = run("systemctl", "reload", UNIT)
    until(lambda: "event=reloaded" in journal(UNIT))
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
        report[f"message after {how}"] = send(mta, how)

    report["audit"] = run("requiretls-milter", "audit")

    report["stop"] = run("systemctl", "stop", UNIT)
    report["stopped"] = properties()
    report["processes left"] = processes()
    report["socket left"] = mta.socket.exists()
    report["message without us"] = send(mta, "without")


def audit() -> None:
    """Follow forecasts and deliveries in the journal, with a file for node_exporter.

    Then those of Postfix in a log that group adm may read, with a port.
    """
    postfix_logs_to("")
    report["audit started"] = run("systemctl", "start", AUDIT)
    until(lambda: "journalctl" in processes(AUDIT))
    status = AUDIT_FILE.stat()
    report["audit file"] = [oct(status.st_mode & 0o777), AUDIT_FILE.read_text()]
    report["audit processes"] = processes(AUDIT)
    send_away()
    until(lambda: EQUAL in AUDIT_FILE.read_text(), PATIENCE + SETTLED)
    report["audit of the journal"] = AUDIT_FILE.read_text()
    run("systemctl", "stop", AUDIT)

    log = MTAS["postfix"].log
    postfix_logs_to(str(log))
    shutil.chown(log, "root", "adm")
    log.chmod(0o640)
    drop_ins = Path(f"/run/systemd/system/{AUDIT}.d")
    drop_ins.mkdir(parents=True)
    shutil.copy(HERE / "audit-port.conf", drop_ins / "port.conf")
    (drop_ins / "logs.conf").write_text(f'[Service]\nEnvironment="AUDIT_LOGS=journal: {log}"\n')
    run("systemctl", "daemon-reload")
    run("systemctl", "start", AUDIT)
    until(lambda: "journalctl" in processes(AUDIT))
    until(lambda: "audit_logs_unreadable 0.0" in audited())
    send_away()
    until(lambda: EQUAL in audited(), PATIENCE + SETTLED)
    report["audit port"] = audited()
    run("systemctl", "stop", AUDIT)
    report["audit journal"] = journal(AUDIT)


def postfix_logs_to(file: str) -> None:
    """ "" for syslog, which is the journal."""
    run("postconf", f"maillog_file={file}")
    run("postfix", "stop")
    run("postfix", "start")


def send_away() -> None:
    """A message that Postfix delivers to the next hop, as was forecast."""
    with smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE) as client:
        text = MESSAGE.format(subject="away")
        client.sendmail("sender@example.org", ["someone@partner.example"], text)


def audited() -> str:
    try:
        with urllib.request.urlopen(AUDIT_PORT, timeout=10) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def journal(unit: str) -> str:
    return str(run("journalctl", "--no-pager", "-o", "cat", "-u", unit)["output"])


if __name__ == "__main__":
    try:
        trial(tried := MTAS[sys.argv[1]])
    finally:
        report["journal"] = journal(UNIT)
        log = tried.log
        report["mail log"] = log.read_text() if log.exists() else journal("sendmail.service")
        (HERE / "report.json").write_text(json.dumps(report, indent=1))
