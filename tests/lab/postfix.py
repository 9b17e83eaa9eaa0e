"""A Postfix of the lab: chrooted into a root, with queue, configuration and log of its own.

The root only holds the programs.  An instance's files are in a directory of its run below the
root's ``/lab``, so that several instances can share a root and nothing is left in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import runs
from tests.lab.errors import LabError
from tests.lab.log import MailLog
from tests.lab.processes import Server, accepts, run
from tests.lab.roots import GID_POSTDROP, GID_POSTFIX, UID_POSTFIX
from tests.support import addresses
from tests.support.processes import children
from tests.support.waiting import NotInTime, eventually

_QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("private", "saved", "trace"),
)

_MASTER = """\
@ADDRESS@:25 inet n     -       n       -       -       smtpd
@ADDRESS@:587 inet n    -       n       -       -       smtpd
        -o syslog_name=postfix/submission
        -o smtpd_tls_security_level=encrypt
        -o smtpd_sasl_auth_enable=yes
        -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
pickup    unix  n       -       n       2       1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""

_PATIENCE = 3.0
"""Seconds for services to end after a reload; one with an open session will not."""

SLOWEST = "5s"
"""Every timeout of the SMTP client: scenarios with a server that hangs must not take minutes."""


def transport_name(profile: str) -> str:
    """The service of master.cf for *profile*: such a name must match ``[a-z0-9-]+``."""
    return re.sub("[^a-z0-9]+", "-", profile.lower()).strip("-")


@dataclass(frozen=True)
class Shared:
    """A directory that the chrooted Postfix and processes outside both see."""

    outside: Path
    inside: str


@dataclass(frozen=True)
class Tables:
    """What a front MTA's lookup tables hold; ``scenarioplan.ScenarioPlan`` has these."""

    transport: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tls_policy: Mapping[str, str] = field(default_factory=dict)


class Postfix:
    """One instance."""

    def __init__(
        self,
        root: Path,
        name: str,
        address: str,
        *,
        certificate: Path,
        ca_file: Path,
    ) -> None:
        """Plan an instance; its certificate and the CA's are copied in when it starts.

        From here on ``stop`` must be called, also if it is never started.
        """
        self.root = root
        self.name = name
        self.address = address
        self._run = runs.make(root)
        self._inside = self._run.inside
        self.directory = self._run.outside
        self.queue_directory = self.directory / "queue"
        self.milter = Shared(self.directory / "m", f"{self._inside}/m")
        """For a milter's unix socket; group and mode let Postfix in (``postfix_gid``)."""
        self.postfix_gid = GID_POSTFIX
        self.log = MailLog(self.directory / "log/mail.log")
        self._parameters: dict[str, str] = {}
        self._services = ""
        self._certificate = certificate
        self._ca_file = ca_file
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The running master and its children."""
        assert self._server is not None
        return self._server

    def inside(self, path: str) -> str:
        """A path of this instance's directory, as Postfix sees it."""
        return f"{self._inside}/{path}"

    def configure(self, parameters: Mapping[str, str], services: str = "") -> None:
        """*parameters* go to main.cf, *services* to master.cf, both over what all have."""
        self._parameters |= parameters
        self._services += services

    def start(self, tables: Tables | None = None, users: Mapping[str, str] | None = None) -> None:
        """Make the instance's files and start it; return when it accepts connections."""
        self._make_directories()
        shutil.copyfile(self._certificate, self.directory / "etc/server.pem")
        shutil.copyfile(self._ca_file, self.directory / "etc/ca.pem")
        (self.directory / "etc/server.pem").chmod(0o600)
        self._write_tables(tables or Tables())
        self._make_users(users or {})
        self._write_configuration()
        self._server = Server(
            f"postfix-{self.name}",
            ["/usr/lib/postfix/sbin/master", "-s", "-c", self.inside("etc")],
            log=self.directory / "log/master.log",
            root=self.root,
            grace=5.0,
        )
        try:
            self._server.wait_until(self._started, "accepting mail")
        except LabError as error:
            self.log.read()
            raise LabError("\n".join([str(error), *self.log.lines[-20:]])) from error

    def reload(
        self, tables: Tables | None = None, parameters: Mapping[str, str] | None = None
    ) -> None:
        """Change tables or main.cf parameters; return when mail that comes now sees the new ones.

        With *parameters*, be they none, master.cf is written anew too.

        A service that is busy finishes what it does with the old ones.
        """
        if tables is not None:
            self._write_tables(tables)
        if parameters is not None:
            self._parameters |= parameters
            self._write_configuration()
        self.log.read()
        lines = len(self.log.lines)
        old = self._reloaded_services()
        self.server.hangup()
        reload = r"postfix/master\[\d+\]: reload "
        self.server.wait_until(lambda: any(self.log.grep(reload, lines)), "reloading")
        # Idle services end by themselves once master has reread its configuration.
        with contextlib.suppress(NotInTime):  # one that is busy ends when it is done
            eventually(lambda: not old & self._reloaded_services(), wait=_PATIENCE)

    def restore(self, parameters: Mapping[str, str]) -> None:
        """Reload with these main.cf parameters alone, as :attr:`parameters` had them before."""
        self._parameters = dict(parameters)
        self.reload(parameters={})

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in main.cf beside those that all instances have."""
        return dict(self._parameters)

    def _reloaded_services(self) -> set[int]:
        """The services that mail which comes now should find with the new configuration."""
        return self.processes("smtpd", "trivial-rewrite", "cleanup", "qmgr")

    def _started(self) -> bool:
        """Whether it accepts connections, and survives a SIGHUP: master minds signals last."""
        if not (accepts(self.address, 25) and accepts(self.address, 587)):
            return False
        return any(self.log.grep(r"postfix/master\[\d+\]: daemon started "))

    def processes(self, *names: str) -> set[int]:
        """The running services of this instance by these names: children of its master."""
        # The kernel keeps 15 characters of a process's name.
        kept = {name[:15] for name in names}
        return {pid for pid, name in children(self.server.main_pid).items() if name in kept}

    def defaults(self) -> dict[str, str]:
        """Every parameter that this Postfix knows, with its default."""
        lines = run(["/usr/sbin/postconf", "-c", self.inside("etc"), "-d"], root=self.root)
        return dict(line.split(" =", 1) for line in lines.splitlines() if " =" in line)

    def flush(self, queue_id: str = "") -> None:
        """Try deferred mail again now: all of it, or one message."""
        what = ["-i", queue_id] if queue_id else ["-f"]
        run(["/usr/sbin/postqueue", "-c", self.inside("etc"), *what], root=self.root)

    def discard(self, queue_id: str) -> None:
        """Take a message out of the queue, as an operator does with one that goes nowhere."""
        run(["/usr/sbin/postsuper", "-c", self.inside("etc"), "-d", queue_id], root=self.root)

    def sendmail(self, arguments: Sequence[str], message: str) -> None:
        """Submit *message* by sendmail(1), as a local user would: by pickup(8), not by SMTP."""
        run(
            ["/usr/sbin/sendmail", "-C", self.inside("etc"), *arguments],
            root=self.root,
            text=message,
        )

    def stop(self) -> None:
        """Stop it and remove its files."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._run.remove()

    def _make_directories(self) -> None:
        for name in ("etc", "etc/sasl", "log", "queue", "queue/pid"):
            (self.directory / name).mkdir()
        for name in _QUEUES:
            (self.directory / "queue" / name).mkdir(mode=0o700)
            os.chown(self.directory / "queue" / name, UID_POSTFIX, -1)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            path = self.directory / "queue" / name
            path.mkdir()
            os.chown(path, UID_POSTFIX, GID_POSTDROP)
            path.chmod(mode)
        (self.directory / "data").mkdir(mode=0o700)
        os.chown(self.directory / "data", UID_POSTFIX, GID_POSTFIX)
        (self.directory / "mail").mkdir()
        os.chown(self.directory / "mail", UID_POSTFIX, GID_POSTFIX)
        self.milter.outside.mkdir()
        os.chown(self.milter.outside, -1, GID_POSTFIX)
        # Anyone may put a socket here, whatever user the milter runs as; it is a lab.
        self.milter.outside.chmod(0o777)

    def _write_tables(self, tables: Tables) -> None:
        transport = {
            key: f"{transport_name(profile)}:{nexthop}"
            for key, (profile, nexthop) in tables.transport.items()
        }
        for name, table in (("transport", transport), ("tls_policy", tables.tls_policy)):
            text = "".join(f"{key}\t{value}\n" for key, value in table.items())
            _write(self.directory / "etc" / name, text)

    def _write_files(self, files: Mapping[str, str]) -> None:
        """Write files beside main.cf, as old as tables are that nobody has just changed."""
        past = time.time() - 60
        for name, text in files.items():
            path = self.directory / "etc" / name
            path.write_text(text)
            os.utime(path, (past, past))

    def _make_users(self, users: Mapping[str, str]) -> None:
        """Cyrus SASL's own database (sasldb) of users: no daemon needed."""
        database = self.inside("etc/sasl/users.db")
        (self.directory / "etc/sasl/smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
            f"mech_list: PLAIN LOGIN\nsasldb_path: {database}\n"
        )
        for user, password in users.items():
            name, _, realm = user.partition("@")
            run(
                ["/usr/sbin/saslpasswd2", "-c", "-p", "-f", database, "-u", realm, name],
                root=self.root,
                text=password,
            )
        if users:
            os.chown(self.directory / "etc/sasl/users.db", UID_POSTFIX, -1)

    def _write_configuration(self) -> None:
        main = {
            "compatibility_level": "3.6",
            "queue_directory": self.inside("queue"),
            "data_directory": self.inside("data"),
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "maillog_file": self.inside("log/mail.log"),
            "maillog_file_prefixes": "/lab",
            # inet_interfaces takes only addresses that an interface is configured with, and not
            # everybody may configure one: master.cf has our address, and that it is ours too
            # (a mail loop) Postfix knows by proxy_interfaces.
            "inet_interfaces": "loopback-only",
            "proxy_interfaces": self.address,
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "biff": "no",
            "smtpd_tls_chain_files": self.inside("etc/server.pem"),
            "smtpd_tls_security_level": "may",
            "smtpd_tls_session_cache_database": "",
            "smtp_tls_CAfile": self.inside("etc/ca.pem"),
            "cyrus_sasl_config_path": self.inside("etc/sasl"),
            "smtpd_sasl_local_domain": "sender.test",
            "smtp_dns_support_level": "dnssec",
            "default_process_limit": "200",
            "queue_run_delay": "1h",
            # Short ones come again (inode and microsecond): twice in 50,000 messages of a test.
            "enable_long_queue_ids": "yes",
            "tls_random_source": _random_source(self.root),
            **self._parameters,
        }
        text = "".join(f"{key} = {value}\n" for key, value in main.items())
        _write(self.directory / "etc/main.cf", text)
        services = _MASTER.replace("@ADDRESS@", self.address) + self._services
        _write(self.directory / "etc/master.cf", services)


def _write(path: Path, text: str) -> None:
    """Write a file that Postfix reads, seemingly some time ago.

    Postfix waits up to two seconds for a file that was just modified, lest it read half of it.
    """
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    past = time.time() - 60
    os.utime(new, (past, past))
    new.replace(path)


def _random_source(root: Path) -> str:
    """Postfix's seed: the device, or what stands in for it (``roots._devices``)."""
    return "dev:/dev/urandom" if (root / "dev/urandom").is_char_device() else "/dev/urandom"


def profile_services(profiles: Mapping[str, Mapping[str, str]], tls_policy: str) -> str:
    """One smtp(8) service of master.cf for each profile, with its parameters as ``-o``.

    *tls_policy* stands for the policy table of the profiles that use one; a policy service
    stands for itself.
    """
    lines = []
    for profile, parameters in profiles.items():
        name = transport_name(profile)
        lines.append(f"{name} unix - - n - - smtp")
        lines.append(f"  -o syslog_name=postfix/{name}")
        for key, value in parameters.items():
            if key == "smtp_tls_policy_maps" and value.startswith("texthash:"):
                value = f"texthash:{tls_policy}"
            lines.append(f"  -o {{ {key} = {value} }}")
    return "\n".join(lines) + "\n"


TIMEOUTS = dict.fromkeys(
    (
        "smtp_connect_timeout",
        "smtp_helo_timeout",
        "smtp_starttls_timeout",
        "smtp_mail_timeout",
        "smtp_rcpt_timeout",
        "smtp_data_init_timeout",
        "smtp_data_xfer_timeout",
        "smtp_data_done_timeout",
        "smtp_quit_timeout",
        "smtp_rset_timeout",
    ),
    SLOWEST,
)

RESOLV_CONF = f"nameserver {addresses.RESOLVER}\noptions trust-ad edns0 timeout:5 attempts:2\n"
"""For the root: without ``trust-ad`` glibc hides from Postfix that an answer is authentic."""
