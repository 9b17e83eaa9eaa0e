"""A Sendmail of the lab: its own copy of a root, configuration made by m4 there, queue and log.

Sendmail has most of its paths compiled in and writes to ``/dev/log``.  So each instance has a root
to itself: a copy of hard links, made in a fraction of a second, in a directory of its run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import runs
from tests.lab.errors import LabError
from tests.lab.postfix import RESOLV_CONF, SLOWEST, Shared
from tests.lab.processes import Server, accepts, run
from tests.lab.syslog import Syslog
from tests.support.waiting import eventually

PROGRAM = "/usr/libexec/sendmail/sendmail"

_LINKED = ("bin", "sbin", "lib", "lib64", "usr", "etc")
"""What a copy of the root has of it."""

LOCAL_USER = "alice"
"""Who has a mailbox."""

_ALIASES = {"mailer-daemon": "postmaster", "postmaster": LOCAL_USER, "root": LOCAL_USER}

_MC = """\
divert(-1)
define(`_USE_ETC_MAIL_')
divert(0)dnl
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`debian')dnl
define(`confDOMAIN_NAME', `@NAME@')dnl
define(`confCW_FILE', `/etc/mail/local-host-names')dnl
define(`confLOG_LEVEL', `14')dnl
define(`confTO_IDENT', `0s')dnl
define(`confCACERT', `/etc/mail/ca.pem')dnl
define(`confCACERT_PATH', `/etc/mail')dnl
define(`confSERVER_CERT', `/etc/mail/server.pem')dnl
define(`confSERVER_KEY', `/etc/mail/server.pem')dnl
define(`confTLS_SRV_OPTIONS', `V')dnl
define(`confPID_FILE', `/run/sendmail.pid')dnl
define(`STATUS_FILE', `/var/lib/sendmail/statistics')dnl
define(`confHOST_STATUS_DIRECTORY', `/var/lib/sendmail/host_status')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
define(`confTO_CONNECT', `@SLOWEST@')dnl
define(`confTO_ICONNECT', `@SLOWEST@')dnl
define(`confMESSAGE_TIMEOUT', `5d/4h')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=@ADDRESS@, Port=smtp')dnl
FEATURE(`use_cw_file')dnl
FEATURE(`mailertable')dnl
FEATURE(`local_lmtp', `/usr/libexec/sendmail/mail.local')dnl
RELAY_DOMAIN(`127')dnl
@FEATURES@
MAILER(`local')dnl
MAILER(`smtp')dnl
@RULESETS@
"""

_DELIVERY = re.compile(
    r"(?:sendmail|sm-mta)\[\d+\]: (?P<queue_id>[0-9A-Za-z]+): to=(?P<to>.*?), (?P<rest>.*)$"
)
_FIELD = re.compile(r"([a-z]+)=(.*?)(?:, (?=[a-z]+=)|$)")


@dataclass(frozen=True)
class Delivery:
    """What was done for one recipient, once."""

    queue_id: str
    to: str
    mailer: str
    relay: str
    dsn: str
    stat: str
    """``Sent (...)``, ``Deferred: ...``, ``Service unavailable``, ..."""
    line: str = ""

    @property
    def status(self) -> str:
        """In Postfix's words: ``sent``, ``deferred``, ``bounced``."""
        return {"2": "sent", "4": "deferred"}.get(self.dsn[:1], "bounced")


def parse(line: str) -> Iterator[Delivery]:
    """Make Deliveries of a log line; none of one that reports no delivery."""
    match = _DELIVERY.search(line)
    if match is None:
        return
    fields = dict(_FIELD.findall(match["rest"]))
    if "stat" not in fields or "dsn" not in fields:
        return
    for to in match["to"].split(","):
        yield Delivery(
            queue_id=match["queue_id"],
            to=to.strip("<>"),
            mailer=fields.get("mailer", ""),
            relay=fields.get("relay", ""),
            dsn=fields["dsn"],
            stat=fields["stat"],
            line=line,
        )


class SendmailLog:
    """A log file that grows while it is read."""

    def __init__(self, path: Path) -> None:
        """*path* need not exist yet."""
        self.path = path

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def of(self, queue_id: str) -> list[str]:
        """The lines that name *queue_id*."""
        return [line for line in self.lines if f" {queue_id}: " in line]

    def grep(self, pattern: str) -> list[str]:
        """The lines that *pattern* is found in."""
        return [line for line in self.lines if re.search(pattern, line)]

    def deliveries(self, queue_id: str) -> list[Delivery]:
        """What was done for *queue_id* so far, in order."""
        return [item for line in self.of(queue_id) for item in parse(line)]

    def wait(self, queue_id: str, recipients: int = 1, timeout: float = 30.0) -> list[Delivery]:
        """Wait until *recipients* different recipients of *queue_id* have a delivery."""

        def served() -> int:
            return len({item.to for item in self.deliveries(queue_id)})

        def told() -> str:
            lines = "\n".join(self.of(queue_id))
            return f"{queue_id}: {served()} of {recipients} deliveries: {lines}"

        eventually(lambda: served() >= recipients, told, wait=timeout)
        return self.deliveries(queue_id)

    def wait_for_end(self, queue_id: str, timeout: float = 30.0) -> Delivery:
        """Wait until the only recipient of *queue_id* is served or given up."""

        def ends() -> list[Delivery]:
            return [item for item in self.deliveries(queue_id) if item.status != "deferred"]

        def told() -> str:
            return f"{queue_id} has left the queue: " + "\n".join(self.of(queue_id))

        found: list[Delivery] = eventually(ends, told, wait=timeout)
        return found[0]


class Sendmail:
    """One instance."""

    def __init__(
        self,
        root: Path,
        name: str,
        address: str,
        *,
        host: str,
        certificate: Path,
        ca_file: Path,
    ) -> None:
        """Plan an instance that calls itself *host* and listens at *address*:25.

        From here on ``stop`` must be called, also if it is never started.
        """
        self.name = name
        self.host = host
        self.address = address
        self._origin = root
        self._run = runs.make(root)
        self.root = self._run.outside
        """Its own root; all paths in its configuration are below it."""
        self.milter = Shared(self.root / "run/requiretls-milter", "/run/requiretls-milter")
        """For a milter's unix socket, where the recipe says."""
        self.log = SendmailLog(self.root / "var/log/mail.log")
        self._certificate = certificate
        self._ca_file = ca_file
        self._features = ""
        self._rulesets = ""
        self._installed: list[Path] = []
        self._server: Server | None = None
        self._syslog: Syslog | None = None

    def configure(self, features: str = "", rulesets: str = "") -> None:
        """*features* go before the mailers of sendmail.mc, *rulesets* to its end."""
        self._features += features
        self._rulesets += rulesets

    def install(self, path: Path) -> None:
        """Have a file in ``/etc/mail``, as an operator puts a recipe there."""
        self._installed.append(path)

    def start(
        self,
        local_domains: Sequence[str] = (),
        mailertable: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Make the instance's files, compile its configuration, and start it."""
        self._make_root()
        mail = self.root / "etc/mail"
        for path in self._installed:
            shutil.copyfile(path, mail / path.name)
        (mail / "local-host-names").write_text("".join(f"{name}\n" for name in local_domains))
        (mail / "aliases").write_text(
            "".join(f"{key}: {value}\n" for key, value in {**_ALIASES, **(aliases or {})}.items())
        )
        self.compile()
        run([PROGRAM, "-bi"], root=self.root)
        table = "".join(f"{key}\t{value}\n" for key, value in (mailertable or {}).items())
        run(
            ["/usr/libexec/sendmail/makemap", "hash", "/etc/mail/mailertable.db"],
            root=self.root,
            text=table,
        )
        self._syslog = Syslog(self.root / "dev/log", self.log.path)
        self._launch()

    def restart(self) -> None:
        """Stop the daemon and start it with the sendmail.cf that is there now."""
        if self._server is not None:
            self._server.stop()
        self._launch()

    def _launch(self) -> None:
        self._server = Server(
            f"sendmail-{self.name}",
            [PROGRAM, "-bD", "-q1h", "-C/etc/mail/sendmail.cf"],
            log=self.root / "var/log/sendmail.out",
            root=self.root,
            grace=5.0,
        )
        try:
            self._server.wait_until(lambda: accepts(self.address, 25), "accepting mail")
        except LabError as error:
            raise LabError("\n".join([str(error), *self.log.lines[-20:]])) from error

    def compile(self) -> str:
        """Make sendmail.cf of sendmail.mc; return what m4 had to complain of."""
        mail = self.root / "etc/mail"
        text = (
            _MC.replace("@NAME@", self.host)
            .replace("@ADDRESS@", self.address)
            .replace("@SLOWEST@", SLOWEST)
            .replace("@FEATURES@", self._features)
            .replace("@RULESETS@", self._rulesets)
        )
        (mail / "sendmail.mc").write_text(text)
        command = "exec m4 /etc/mail/sendmail.mc 2>&1 >/etc/mail/sendmail.cf"
        return run(["/bin/sh", "-c", command], root=self.root)

    def rewrite(self, ruleset: str, text: str) -> str:
        """What *ruleset* makes of *text* (``sendmail -bt``)."""
        return run([PROGRAM, "-bt"], root=self.root, text=f"{ruleset} {text}\n")

    def flush(self) -> None:
        """Run the queue once; return when that is done."""
        # Its exit status is that of the mail: it is not 0 where a message bounces.
        subprocess.run(
            ["chroot", str(self.root), PROGRAM, "-q"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    def submit(self, arguments: Sequence[str], text: str) -> str:
        """Run sendmail(1) with the daemon's configuration; what it prints."""
        done = subprocess.run(
            ["chroot", str(self.root), PROGRAM, "-Am", *arguments],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def mailbox(self, user: str = LOCAL_USER) -> str:
        """A local user's mail."""
        try:
            return (self.root / "var/mail" / user).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """Stop it and remove its files."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._syslog is not None:
            self._syslog.stop()
            self._syslog = None
        self._run.remove()

    def _make_root(self) -> None:
        run(["cp", "-al", "--", *(str(self._origin / name) for name in _LINKED), str(self.root)])
        for name, mode in (
            ("dev", 0o755),
            ("etc/mail", 0o755),
            ("proc", 0o755),
            ("run", 0o755),
            ("tmp", 0o1777),
            ("var/lib/sendmail/host_status", 0o755),
            ("var/log", 0o755),
            ("var/mail", 0o1777),
            ("var/spool/mqueue", 0o700),
        ):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            (self.root / name).chmod(mode)
        self.milter.outside.mkdir(parents=True, exist_ok=True)
        for path in sorted((self._origin / "dev").iterdir()):
            run(["cp", "-a", "--", str(path), str(self.root / "dev")])
        self._replace("etc/resolv.conf", RESOLV_CONF)
        passwd = (self._origin / "etc/passwd").read_text()
        self._replace("etc/passwd", f"{passwd}{LOCAL_USER}:x:1001:8::/var/mail:/bin/sh\n")
        # Sendmail wants no certificate file that others may read.
        for name, path in (("server.pem", self._certificate), ("ca.pem", self._ca_file)):
            shutil.copyfile(path, self.root / "etc/mail" / name)
            (self.root / "etc/mail" / name).chmod(0o600)

    def _replace(self, name: str, text: str) -> None:
        """Write a file anew: what is there is a hard link into the cache."""
        path = self.root / name
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        os.replace(new, path)
