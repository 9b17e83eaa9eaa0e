"""The lab as a whole.

    with Lab(scenarios=load().scenarios) as lab:
        accepted = lab.send(lab.plan.scenarios["a-ok"])
        print(lab.deliveries(accepted.queue_id))

Everything that it starts ends with the ``with`` block, or with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import smtplib
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab import netns, roots, runs, submission, versions
from tests.lab.dns import Dns
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.log import Delivery
from tests.lab.postfix import (
    RESOLV_CONF,
    TIMEOUTS,
    Postfix,
    Tables,
    profile_services,
)
from tests.lab.processes import Server
from tests.support import addresses
from tests.support import scenario as scripted
from tests.support.paths import REPOSITORY
from tests.support.pki import Pki
from tests.support.scenario import Scenario, load
from tests.support.scenarioplan import Host, ScenarioPlan

MYDOMAIN = "sender.test"


@dataclass(frozen=True)
class Session:
    """One SMTP session that a scripted server saw."""

    address: str
    time: float
    client: str
    helo: str | None
    tls: str | None
    """``TLSv1.3`` or the like; None: no TLS."""
    commands: tuple[str, ...]
    mail: tuple[str, ...]
    """MAIL commands, verbatim."""
    rcpt: tuple[str, ...]
    messages: tuple[str, ...]
    end: str = ""


def _session(data: dict[str, Any]) -> Session:
    """Make a Session of its record; lists become tuples."""
    for name, value in data.items():
        data[name] = tuple(value) if isinstance(value, list) else value
    return Session(**data)


def write_once(path: Path, text: str) -> None:
    """Write a file that other labs may be reading, if it does not say so already."""
    if path.exists() and path.read_text() == text:
        return
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


class Lab:
    """All servers; see the attributes that ``__init__`` sets."""

    def __init__(
        self,
        scenarios: Iterable[Scenario] = (),
        *,
        profiles: Mapping[str, Mapping[str, str]] | None = None,
        front: bool = True,
        downstream: bool = False,
        front_parameters: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        """Plan a lab for *scenarios*; nothing is started before ``start`` or ``with``.

        *front* and *downstream* say which Postfix instances there are; *front_parameters* go to
        the front's main.cf (``smtpd_milters`` and the like), and may hold ``{milter}`` for the
        directory of ``lab.front.milter`` as Postfix sees it. *apart* puts each scripted server
        into a network of its own.
        """
        self._planned = tuple(scenarios)
        self._profiles = dict(profiles if profiles is not None else load().profiles)
        self._want_front = front
        self._apart = apart
        self._want_downstream = downstream
        self._front_parameters = dict(front_parameters or {})
        self._exit = contextlib.ExitStack()
        self._generation = 0
        self.isolated = False
        """Whether the lab has a network namespace of its own."""
        self.directory = Path()
        """Of this run: the CA file, records, logs of the scripted servers."""
        self.resolver = f"{addresses.RESOLVER}:53"
        self.policy_host = f"{addresses.POLICY_HOST}:443"
        self.credentials = submission.Credentials(f"user@{MYDOMAIN}", secrets.token_hex(8))
        self.timings: dict[str, float] = {}

    # Set by start().
    plan: ScenarioPlan
    dns: Dns
    servers: Server
    front: Postfix
    downstream: Postfix

    @property
    def ca_file(self) -> Path:
        """The certificate of the lab's CA, which clients should trust."""
        return self.plan.pki.ca_file

    def __enter__(self) -> Lab:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop()

    def start(self) -> None:
        """Start everything, or raise and leave nothing running."""
        # Postfix's unprivileged processes must be able to read what we write.
        umask = os.umask(0o022)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        finally:
            os.umask(umask)

    def stop(self) -> None:
        """Stop everything; harmless when nothing runs."""
        self._exit.close()

    def _start(self) -> None:
        began = time.monotonic()
        if os.geteuid() != 0:
            raise LabUnavailable("the lab needs root: chroot(2), ports below 1024, Postfix's users")
        # Roots first: packages are fetched over the network, which a namespace does not have.
        dns_root = roots.ensure(roots.DNS)
        mta_root = roots.ensure(roots.POSTFIX_3_11)
        self._step("roots", began)
        already = netns.entered()
        self.isolated = netns.enter()
        if self.isolated and not already:
            self._exit.callback(netns.leave)
        if not self.isolated:
            self._claim_loopback()
        # Not below the root: a milter that is not root must be able to read the CA file.
        own = runs.make_temporary()
        self._exit.callback(own.remove)
        self.directory = own.outside

        at = time.monotonic()
        self.plan = ScenarioPlan(
            Pki(self.directory / "pki"), mapped=not self.isolated, apart=self._apart
        )
        (self.directory / "pki").chmod(0o755)
        self.plan.add(self._planned)
        self._step("plan", at)

        at = time.monotonic()
        run = runs.make(dns_root)
        self._exit.callback(run.remove)
        self.dns = Dns(dns_root, run.inside)
        self._exit.callback(self.dns.stop)
        self.servers = self._start_servers()
        self._exit.callback(self.servers.stop)
        self.dns.start(self.plan.records)
        self._await_servers()
        self._step("dns and servers", at)

        at = time.monotonic()
        write_once(mta_root / "etc/resolv.conf", RESOLV_CONF)
        if self._want_downstream:
            self._start_downstream(mta_root)
        if self._want_front:
            self._start_front(mta_root)
        self._step("postfix", at)
        self._step("all", began)

    def _step(self, name: str, since: float) -> None:
        self.timings[name] = round(time.monotonic() - since, 3)

    def _claim_loopback(self) -> None:
        """Without a namespace only one lab can have the addresses: say so now, not later."""
        lock = os.open(
            roots.cache_home() / "loopback.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._exit.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabUnavailable("another lab uses the loopback addresses") from None
        for port, kind in ((25, "SMTP"), (53, "DNS"), (443, "HTTPS")):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((addresses.MILTER, port))
                except OSError as error:
                    raise LabUnavailable(
                        f"port {port} ({kind}) of the loopback is taken by a server of this "
                        f"machine, and it permits no network namespace: {error}"
                    ) from error

    # -- scripted servers ------------------------------------------------------------------

    def _write_servers(self) -> None:
        self._generation += 1
        for host in self.plan.hosts.values():
            if host.address6 and self.isolated:
                netns.add_address(host.address6)
        config = {
            "generation": self._generation,
            "record": str(self.directory / "sessions.jsonl"),
            "ready": str(self.directory / "servers.ready"),
            "listeners": self.plan.listeners,
            "blackholes": self.plan.blackholes,
            "silent_dns": [addresses.NAMESERVER_DEAD],
            "policy_host": addresses.POLICY_HOST,
            "policies": self.plan.policies,
        }
        path = self.directory / "servers.json"
        path.with_suffix(".new").write_text(json.dumps(config))
        path.with_suffix(".new").replace(path)

    def _start_servers(self) -> Server:
        self._write_servers()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return Server(
            "servers",
            [sys.executable, "-m", "tests.lab.servers", str(self.directory / "servers.json")],
            log=self.directory / "servers.log",
            environment=environment,
            grace=2.0,
        )

    def _await_servers(self) -> None:
        ready = self.directory / "servers.ready"

        def in_force() -> bool:
            try:
                return ready.read_text() == str(self._generation)
            except OSError:
                return False

        self.servers.wait_until(in_force, "listening")

    # -- Postfix ---------------------------------------------------------------------------

    def _tables(self) -> Tables:
        return Tables(
            transport={**self.plan.transport, MYDOMAIN: ("inbox", f"[{addresses.MAILBOX}]")},
            tls_policy=self.plan.tls_policy,
        )

    def _start_front(self, root: Path) -> None:
        name = f"mta.{MYDOMAIN}"
        front = Postfix(
            root,
            "front",
            addresses.FRONT,
            certificate=self.plan.pki.issue(name).path,
            ca_file=self.ca_file,
        )
        self._exit.callback(front.stop)
        self.front = front
        front.configure(
            {
                "myhostname": name,
                "mydomain": MYDOMAIN,
                "transport_maps": f"texthash:{front.inside('etc/transport')}",
                **TIMEOUTS,
                **{
                    key: value.replace("{milter}", front.milter.inside)
                    for key, value in self._front_parameters.items()
                },
            },
            profile_services(
                {**self._profiles, "inbox": {"smtp_tls_security_level": "none"}},
                front.inside("etc/tls_policy"),
            ),
        )
        front.start(self._tables(), {self.credentials.user: self.credentials.password})

    def _start_downstream(self, root: Path) -> None:
        certificate = self.plan.downstream
        assert certificate is not None
        downstream = Postfix(
            root,
            "downstream",
            addresses.DOWNSTREAM,
            certificate=certificate.path,
            ca_file=self.ca_file,
        )
        self._exit.callback(downstream.stop)
        self.downstream = downstream
        downstream.configure(
            {
                "myhostname": "downstream.sig.test",
                "mydomain": "sig.test",
                "virtual_mailbox_domains": "static:all",
                "virtual_mailbox_maps": "static:inbox/",
                "virtual_mailbox_base": downstream.inside("mail"),
                "virtual_uid_maps": f"static:{roots.UID_POSTFIX}",
                "virtual_gid_maps": f"static:{roots.GID_POSTFIX}",
                "virtual_minimum_uid": "1",
            },
            "",
        )
        downstream.start()

    # -- what a test does ------------------------------------------------------------------

    def add(self, scenarios: Iterable[Scenario]) -> None:
        """Add *scenarios* to the running lab."""
        self.plan.add(scenarios)
        self.update()

    def update(self) -> None:
        """Make the servers what ``plan`` now says; for a test that changed it by hand."""
        self.update_servers()
        self.dns.update(self.plan.records)
        if self._want_front:
            self.front.reload(self._tables())

    def update_servers(self) -> None:
        """The same for the scripted servers alone: DNS and MTA keep what they know of them."""
        self._write_servers()
        self.servers.hangup()
        self._await_servers()

    def plan_server(self, scenario: Scenario, server: scripted.Server | None) -> None:
        """Plan the last server of *scenario* to be this; ``update_servers`` makes it so."""
        host = self.hosts(scenario)[-1]
        assert host.certificate is not None
        listeners = self.plan.listeners
        listeners[:] = [item for item in listeners if item["address"] != host.address]
        if server is not None:
            listeners.append(
                {
                    "address": host.address,
                    "port": 25,
                    "name": host.name,
                    "pem": str(host.certificate.path),
                    "server": asdict(server),
                }
            )

    def add_transports(self, profiles: Mapping[str, Mapping[str, str]], **parameters: str) -> None:
        """Give the front MTA an smtp(8) for each of *profiles*; *parameters* go to main.cf."""
        self.front.configure({}, profile_services(profiles, self.front.inside("etc/tls_policy")))
        self.front.reload(self._tables(), parameters)

    def attach_milter(self, socket_name: str, **parameters: str) -> None:
        """Make the front MTA ask the milter at *socket_name*, as Postfix sees it ("" = none).

        A unix socket is ``unix:`` + ``lab.front.milter.inside`` + ``/name``; the milter makes it
        in ``lab.front.milter.outside``.  *parameters* go to main.cf with it, e.g.
        ``milter_default_action``.
        """
        self.front.reload(
            parameters={
                "smtpd_milters": socket_name,
                "non_smtpd_milters": socket_name,
                **parameters,
            }
        )

    def hosts(self, scenario: Scenario | str) -> list[Host]:
        """The MX hosts of a scenario."""
        return self.plan.hosts_of(self._scenario(scenario))

    def recipients(self, scenario: Scenario | str) -> list[str]:
        """The envelope recipients of a scenario."""
        return self.plan.recipients(self._scenario(scenario))

    def _scenario(self, scenario: Scenario | str) -> Scenario:
        return self.plan.scenarios[scenario] if isinstance(scenario, str) else scenario

    def send(
        self,
        scenario: Scenario | str,
        *,
        authenticated: bool = False,
        headers: Sequence[str] = (),
        recipients: Sequence[str] = (),
    ) -> submission.Accepted:
        """Send a scenario's message to the front MTA.

        By port 25, or *authenticated* by port 587; *recipients* instead of the scenario's own.
        """
        scenario = self._scenario(scenario)
        wanted = scenario.message
        recipients = recipients or self.recipients(scenario)
        extra = [*wanted.headers, *headers]
        if wanted.tls_required_no:
            extra.append("TLS-Required: no")
        text = submission.message(scenario.id, recipients, headers=extra, body=wanted.body)
        parameters = [*(("REQUIRETLS",) if wanted.requiretls else ()), *wanted.parameters]
        if wanted.declared:
            parameters.append(f"SIZE={len(text.encode())}")
        return submission.send(
            addresses.FRONT,
            recipients,
            text,
            ca_file=self.ca_file,
            port=587 if authenticated else 25,
            credentials=self.credentials if authenticated else None,
            sender=submission.SENDER if wanted.sender is None else wanted.sender,
            parameters=parameters,
            slow=wanted.slow,
        )

    def session(
        self, *, authenticated: bool = False, tls: bool = True, source: str = ""
    ) -> contextlib.AbstractContextManager[smtplib.SMTP]:
        """An SMTP session with the front MTA that is ready for MAIL.

        By port 25, or *authenticated* by port 587; *source* is the client's own address.
        """
        return submission.session(
            addresses.FRONT,
            ca_file=self.ca_file,
            port=587 if authenticated else 25,
            credentials=self.credentials if authenticated else None,
            tls=tls,
            source=source,
        )

    def deliveries(
        self, queue_id: str, recipients: int = 1, timeout: float = 60.0
    ) -> list[Delivery]:
        """Wait for *recipients* delivery lines of *queue_id* in the front's log."""
        return self.front.log.wait(queue_id, recipients, timeout)

    def sessions(self, address: str | None = None) -> list[Session]:
        """What the scripted servers saw, in the order in which sessions ended."""
        try:
            written = (self.directory / "sessions.jsonl").read_text()
        except FileNotFoundError:
            return []
        # The last line may still be on its way.
        lines = written[: written.rfind("\n") + 1].splitlines()
        everything = (_session(json.loads(line)) for line in lines)
        return [item for item in everything if address in (None, item.address)]

    def mailbox(self) -> list[str]:
        """Messages to the lab's own sender addresses, i.e. bounces."""
        return [text for item in self.sessions(addresses.MAILBOX) for text in item.messages]

    def processes(self) -> list[int]:
        """The keepers of all running servers (each one's tree holds all that it started)."""
        servers = [self.servers, *self.dns.servers]
        servers += [
            getattr(self, mta).server for mta in ("front", "downstream") if hasattr(self, mta)
        ]
        return [server.pid for server in servers]

    def summary(self) -> str:
        """Where everything is, for a human."""
        rows = {
            "network": "a namespace of its own" if self.isolated else "the machine's loopback",
            "resolver": self.resolver,
            "CA file": str(self.ca_file),
            "policy host": self.policy_host,
            "logs": str(self.directory),
        }
        if self._want_front:
            rows |= {
                "MTA": f"Postfix {versions.running('postfix-3.11')}, {addresses.FRONT}:25, "
                f"log {self.front.log.path}",
                "submission": f"{addresses.FRONT}:587, "
                f"{self.credentials.user} {self.credentials.password}",
                "milter sockets": f"{self.front.milter.outside} (Postfix: "
                f"{self.front.milter.inside}, group {self.front.postfix_gid})",
            }
        if self._want_downstream:
            rows["downstream"] = f"{addresses.DOWNSTREAM}:25, log {self.downstream.log.path}"
        if moved := versions.moved():
            rows["other versions"] = "; ".join(moved)
        return "\n".join(f"{key:15} {value}" for key, value in rows.items())


__all__ = ["Lab", "LabError", "LabUnavailable", "Session"]
