"""An operator who follows docs/partner.md on an MTA of the lab.

The commands are the page's own. Only names and paths are the lab's, and systemctl is ours: there
is no systemd here (``test_systemd.py`` has one).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.lab.lab import Lab
from tests.lab.labconfig import SELFTEST_NAMES
from tests.lab.milter import METRICS
from tests.lab.postfix import Postfix
from tests.lab.processes import Server, run
from tests.lab.recipes import LOCAL_RECIPIENT, postconf_of
from tests.lab.roots import GID_POSTFIX
from tests.lab.sendmail import LOCAL_USER, Sendmail
from tests.support import addresses
from tests.support.consolepage import Command
from tests.support.paths import REPOSITORY
from tests.support.waiting import eventually

DOCS = "/usr/share/doc/requiretls-milter"

_LATER = ("grep ", "journalctl ", "requiretls-milter status")
"""How commands begin that show what becomes of something: one looks again until it has come."""

_COMPILE = "m4 /etc/mail/sendmail.mc > /etc/mail/sendmail.cf"

_PROGRAM = """\
#!{python}
import os, sys
mta, config = {mta!r}, {config!r}
words = sys.argv[1:]
two = tuple(words[:2])
if two == ("config", "check"):
    words += [config]
elif two != ("mta", "import"):
    words += ["--config", config]
if two == ("mta", "import") or words[0] in ("check", "simulate", "doctor"):
    words += mta if words[0] == "doctor" or "--postconf" in mta else []
os.execv({python!r}, [{python!r}, "-m", "requiretls_milter", *words])
"""

_SUBMIT = """\
#!{python}
# As submit.cf has it: sendmail(1) hands the mail to the daemon by SMTP.
import smtplib, sys
_, option, sender, *recipients = sys.argv
assert option == "-f"
with smtplib.SMTP({address!r}) as smtp:
    smtp.sendmail(sender, recipients, sys.stdin.read())
"""

_AUTHORITIES = {
    "/etc/ssl/certs/ca-certificates.crt": "/etc/mail/ca.pem",
    "/etc/ssl/certs": "/etc/mail",
}
"""Those of the lab, where its Sendmail has them."""


class Operator:
    """Runs the commands of one section of the page."""

    def __init__(self, lab: Lab, mta: Postfix | Sendmail, partner: str) -> None:
        """Give the operator an MTA without a milter; *partner* is the partner's domain."""
        self._lab, self._mta = lab, mta
        self._directory = lab.directory / f"operator-{mta.name}"
        self._config = self._directory / "config.toml"
        self._log = self._directory / "log"
        self._service: Server | None = None
        self._errors = ""
        for folder in (self._directory, self._directory / "bin"):
            folder.mkdir()
        names = {
            "/etc/requiretls-milter": str(self._directory),
            "you@example.org": LOCAL_RECIPIENT,
            "partner.example": partner,
        }
        if isinstance(mta, Postfix):
            # By short names: the path of a unix socket has 107 bytes.
            (self._directory / "spool").symlink_to(mta.queue_directory)
            (mta.queue_directory / "requiretls-milter").mkdir()
            names |= {
                "/var/spool/postfix": str(self._directory / "spool"),
                "/var/log/mail.log": str(mta.log.path),
                "/var/mail/you": str(mta.directory / "mail"),
            }
        else:
            (self._directory / "run").symlink_to(mta.milter.outside)
            names |= {
                "/run/requiretls-milter": str(self._directory / "run"),
                "/var/log/mail.log": str(mta.log.path),
                "/var/mail/you": str(mta.root / "var/mail" / LOCAL_USER),
            }
        self._names = names
        self._special: dict[str, Callable[[], None]] = {
            "systemctl enable --now requiretls-milter": self._start,
            "systemctl reload requiretls-milter": self._reload,
        }
        self._make_programs()

    # ------------------------------------------------------------ following

    def follow(self, command: Command) -> None:
        """Run a command and see what the page says."""
        if special := self._special.get(command.text):
            special()
            return
        if command.text.startswith(_LATER):
            output = ""

            def came() -> bool:
                nonlocal output
                output = self._run(command.text)
                return command.is_seen(output)

            eventually(came, lambda: self._told(command, output))
            return
        output = self._run(command.text, must=not command.seen)
        assert not command.seen or command.is_seen(output), self._told(command, output)

    def _told(self, command: Command, output: str) -> str:
        seen = f"--- must be seen:\n{command.seen}--- was seen:\n{output}"
        return f"{command}\n{seen}--- errors:\n{self._errors}"

    def _run(self, text: str, *, must: bool = False) -> str:
        """Run a command of the page; what it prints, in the page's names."""
        done = subprocess.run(
            ["bash", "-c", self._ours(text)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **os.environ,
                "PATH": f"{self._directory / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "COLUMNS": "100",
            },
        )
        assert not must or done.returncode == 0, f"{text}: {done.stdout}{done.stderr}"
        self._errors = done.stderr
        return self._theirs(done.stdout)

    def _ours(self, text: str) -> str:
        """A command in the names of the lab."""
        command, end, file = text.replace(DOCS, str(REPOSITORY)).partition("\n")
        if "config.toml <<" in command:
            file = _replaced(file, self._sections())
        elif isinstance(self._mta, Postfix):
            inside = command.startswith("postconf")
            etc = self._mta.inside("etc") if inside else str(self._mta.directory / "etc")
            command = command.replace("/etc/postfix", etc)
        else:
            # What is in a file is read in the root of Sendmail, the command here.
            command = command.replace(" /etc/mail", f" {self._mta.root}/etc/mail")
            file = _replaced(file, _AUTHORITIES)
        return _replaced(command + end + file, self._names)

    def _theirs(self, output: str) -> str:
        for name, ours in self._names.items():
            output = output.replace(ours, name)
        return output

    def _sections(self) -> dict[str, str]:
        """What the lab's configuration has beside the page's: resolver, probe, sockets."""
        selftest = "".join(f'\n{key} = "{value}"' for key, value in SELFTEST_NAMES.items())
        more = (
            f'[probe]\nca_file = "{self._lab.ca_file}"\n'
            f"allow_networks = {[*addresses.NETWORKS]!r}\n"
            f'[engine]\nsocket = "{self._directory}/engine.sock"\n'
            f'[metrics]\nlisten = "{METRICS}"\n[store]\nurl = "memory:"\n'
        )
        return {
            'nameservers = ["127.0.0.1"]': f'nameservers = ["{self._lab.resolver}"]{selftest}',
            'socket_group = "postfix"': f'socket_group = "{GID_POSTFIX}"',
            "[dns]\n": f"{more}[dns]\n",
        }

    # ------------------------------------------------------------ programs and services

    def _make_programs(self) -> None:
        mta, python = self._mta, sys.executable
        if isinstance(mta, Postfix):
            options: Sequence[str] = postconf_of(mta)
            inside = mta.inside("etc")
            self._program("postconf", f'exec chroot {mta.root} /usr/sbin/postconf -c {inside} "$@"')
            self._program("sendmail", f'exec chroot {mta.root} /usr/sbin/sendmail -C {inside} "$@"')
            self._special["postfix reload"] = mta.reload
        else:
            options = ["--sendmail-cf", str(mta.root / "etc/mail/sendmail.cf")]
            self._write("sendmail", _SUBMIT.format(python=python, address=mta.address))
            self._special["systemctl restart sendmail"] = mta.restart
            self._special[_COMPILE] = self._compile
        self._program("journalctl", f"exec cat {self._log}")
        self._write(
            "requiretls-milter",
            _PROGRAM.format(python=python, mta=list(options), config=str(self._config)),
        )

    def _program(self, name: str, script: str) -> None:
        self._write(name, f"#!/bin/sh\n{script}\n")

    def _write(self, name: str, text: str) -> None:
        path = self._directory / "bin" / name
        path.write_text(text)
        path.chmod(stat.S_IRWXU)

    def _compile(self) -> None:
        run(["/bin/sh", "-c", _COMPILE], root=self._mta.root)

    def _start(self) -> None:
        self._service = Server(
            f"service-{self._mta.name}",
            [sys.executable, "-m", "requiretls_milter", "serve", "--config", str(self._config)],
            log=self._log,
            environment={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            grace=20.0,
        )
        self._service.wait_until(lambda: self._has("event=serving"), "serving")

    def _reload(self) -> None:
        assert self._service is not None
        self._service.hangup()
        self._service.wait_until(lambda: self._has("event=reloaded"), "reloaded")

    def _has(self, event: str) -> bool:
        return event in self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Stop the service."""
        if self._service is not None:
            self._service.stop()


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for name, ours in names.items():
        text = text.replace(name, ours)
    return text
