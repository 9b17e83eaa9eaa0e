"""A host without a service manager, in mount and process namespaces of its own (needs root).

Its /etc, /run, /var, /dev and /usr/local/bin are directories of the test. The program lies where
every user may read it, and there is the user ``requiretls-milter``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.lab.errors import LabUnavailable
from tests.lab.syslog import Syslog
from tests.support.milterclient import MilterClient
from tests.support.paths import REPOSITORY
from tests.support.processes import Process
from tests.support.service import MACROS
from tests.support.waiting import PATIENCE

USER = "requiretls-milter"
NUMBER = 61_234
"""Of user and group."""

PLACES = ("etc", "run", "dev", "opt", "var/log", "var/lib", "usr/local/bin")
"""What is the test's own."""

OF_ETC = ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache")
"""Files of the test's host that are here as well."""

DEVICES = ("null", "zero", "full", "random", "urandom")

ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")

CONFIG = """
[milter]
workers = 2
[metrics]
listen = ""
[dns]
nameservers = ["127.0.0.1:9"]
timeout = 1
[rules]
tag_wait = 0.1
"""


class BareHost:
    """The host; :meth:`close` ends all that runs there."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise LabUnavailable("a host of its own needs root")
        self._started: list[Process] = []
        self.root = Path(tempfile.mkdtemp(prefix="bare-"))
        self.root.chmod(0o755)
        for place in PLACES:
            (self.root / place).mkdir(parents=True)
        self._fill()
        script = self._script()
        self._init = subprocess.Popen(
            [*ALONE, "sh", "-ec", script],
            stdout=subprocess.PIPE,
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"ready\n":
            self.close()
            raise LabUnavailable("no namespace can be made")
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        self._pid = children.split()[0]
        self.configure()

    def _fill(self) -> None:
        etc = self.root / "etc"
        for known in OF_ETC:
            shutil.copyfile(f"/etc/{known}", etc / known)
        (etc / "ssl").mkdir()
        for name, line in (
            ("passwd", f"{USER}:x:{NUMBER}:{NUMBER}::/var/lib/{USER}:/usr/sbin/nologin\n"),
            ("group", f"{USER}:x:{NUMBER}:\nmta:x:{NUMBER + 1}:{USER}\n"),
        ):
            with (etc / name).open("a") as file:
                file.write(line)
        (etc / USER).mkdir(exist_ok=True)
        (etc / "default").mkdir(exist_ok=True)
        for device in DEVICES:
            (self.root / "dev" / device).touch()
        for name in ("python", "source", "site"):
            (self.root / "opt" / name).mkdir()
        program = self.root / "usr/local/bin" / USER
        program.write_text(
            "#!/bin/sh\nexport PYTHONPATH=/opt/source:/opt/site PYTHONDONTWRITEBYTECODE=1\n"
            "export LD_LIBRARY_PATH=/opt/python/lib\n"  # of a Python that is a shared library
            f"exec /opt/python/bin/python3.{sys.version_info.minor} -m requiretls_milter "
            '"$@"\n'
        )
        program.chmod(0o755)

    def _script(self) -> str:
        binds = [(f"/dev/{device}", f"dev/{device}") for device in DEVICES]
        binds += [(sys.base_prefix, "opt/python"), (str(REPOSITORY), "opt/source")]
        binds += [(sysconfig.get_path("purelib"), "opt/site"), ("/etc/ssl", "etc/ssl")]
        lines = [f"mount --bind {source} {self.root}/{place}" for source, place in binds]
        lines += [f"mount --rbind {self.root}/{place} /{place}" for place in PLACES]
        return "\n".join([*lines, "mount -t proc proc /proc", "echo ready", "sleep 1000 & wait $!"])

    def configure(self, more: str = "") -> None:
        """Write the configuration file."""
        (self.root / "etc" / USER / "config.toml").write_text(CONFIG + more)

    def command(self, *words: str) -> list[str]:
        """What runs a command there, as root."""
        return ["nsenter", "--target", self._pid, "--mount", "--pid", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=2 * PATIENCE
        )

    def start(self, *options: str) -> Process:
        """Start ``serve`` with options; wait until it answers."""
        service = Process(self.command(USER, "serve", *options), self.root / "terminal")
        self._started.append(service)
        service.wait_until(lambda: self.run(USER, "status").returncode < 2)
        return service

    def processes(self) -> dict[str, str]:
        """The user of each process of the service, by what ps(1) shows of it."""
        lines = self.run("ps", "-eo", "uid=,args=").stdout.splitlines()
        found = (line.split(maxsplit=1) for line in lines)
        return {args: uid for uid, args in found if args.startswith(f"{USER}:")}

    def signal(self, number: signal.Signals, name: str = "supervisor") -> None:
        """Send a signal to a process of the service."""
        done = self.run("pkill", f"-{number.value}", "-f", f"^{USER}: {name}$")
        assert done.returncode == 0

    def syslog(self) -> Syslog:
        """A syslog daemon that writes to :attr:`syslog_file`; the caller stops it."""
        device = self.root / "dev/log"
        device.unlink(missing_ok=True)
        return Syslog(device, self.syslog_file)

    @property
    def syslog_file(self) -> Path:
        """What the daemon has written."""
        return self.root / "var/log/mail.log"

    @property
    def log(self) -> str:
        """The log file."""
        return (self.root / f"var/log/{USER}/{USER}.log").read_text()

    def send(self, recipient: str = "<bob@example.org>") -> None:
        """A message that asks for REQUIRETLS, through the milter."""
        address = str(self.root / "run" / USER / "milter.sock")
        with MilterClient(address, MACROS) as client:
            client.connect()
            client.helo()
            outcome = client.message("<alice@example.net>", [recipient], parameters=["REQUIRETLS"])
        assert outcome.end is not None
        assert outcome.end.passed

    def close(self) -> None:
        """End all that runs there and remove its directories."""
        self._init.kill()
        for process in [self._init, *self._started]:
            process.wait()
        if self._init.stdout is not None:
            self._init.stdout.close()
        shutil.rmtree(self.root)
