"""Checks of this host: sockets, the running service, trust, the resolver, port 25."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import socket
import ssl
import stat
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.resolver

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.doctor.attachment import Attachment, path_of
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.sendmailcf import Sendmail
from requiretls_milter.evidence.authorities import TrustStoreError, load_trust_store
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.selftest import SelfTest, SelfTestOutcome, SelfTestResult
from requiretls_milter.ipc import query
from requiretls_milter.ipc.wire import Condition, ServiceStatus
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import SYSTEM_STORES, Mirror
from requiretls_milter.model import TlsLevel
from requiretls_milter.syntax.endpoint import DNS_PORT, Endpoint, Nameserver, parse_endpoint
from requiretls_milter.syntax.nexthop import KNOWN_PORTS
from requiretls_milter.syntax.text import error_text
from requiretls_milter.telemetry.catalogue import PREFIX

ANSWER_TIMEOUT = 5.0
"""Seconds for an answer of this program's own processes, which answer in milliseconds."""

MAX_METRICS_BYTES = 4 * 1024 * 1024
"""Size of the metrics that are read, enough for thousands of domains."""

MAX_BANNER = 512
"""Octets of a reply line (RFC 5321 section 4.5.3.1.5)."""

ASSESSED = frozenset({"mta", "dns", "probe"})
"""The sections in ``Config.assessment_digest``."""

NEGOTIATION = struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)
"""The first message of an MTA to a milter, as Postfix 3.11 sends it: version, actions, protocol."""

NEGOTIATED = b"O"
"""The command of the milter's answer to it."""


# ---------------------------------------------------------------- the milter's socket


def milter_answers(config: Config) -> Finding:
    """Check that a milter answers on the configured socket."""
    where = config.milter.socket
    try:
        answer = _negotiate(config)
    except TimeoutError:
        return error(
            "milter",
            f"{where}: the listener does not answer as a milter within {ANSWER_TIMEOUT:g} s",
            "Restart the service, and see its log.",
        )
    except OSError as problem:
        advice = {
            errno.EACCES: "Run doctor as root, or as a user who may use the socket.",
            errno.ENOENT: "Start the service: requiretls-milter serve.",
        }.get(problem.errno or 0, "Start the service: requiretls-milter serve.")
        return error("milter", f"{where}: {problem.strerror or problem}", advice)
    if answer != NEGOTIATED:
        return error(
            "milter",
            f"{where}: the listener is no milter",
            "Find out which program listens there, and give the milter a socket of its own.",
        )
    return ok("milter", f"the milter answers on {where}")


def _negotiate(config: Config) -> bytes:
    """Send the first message of the milter protocol and return the command of the answer."""
    parsed = config.milter.socket
    if parsed.family == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: str | tuple[str, int] = parsed.path
    else:
        family = socket.AF_INET6 if parsed.family == "inet6" else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        target = (parsed.host, parsed.port)
    with connection:
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(target)
        connection.sendall(NEGOTIATION)
        answer = b""
        while len(answer) < 5:
            chunk = connection.recv(5 - len(answer))
            if not chunk:
                break
            answer += chunk
        return answer[4:5]


READ, WRITE = 0o4, 0o2
PERMISSIONS = {READ: "read", WRITE: "write"}
"""What the bits of a mode permit."""


def socket_permissions(
    config: Config, postfix: Postfix, attachments: list[Attachment]
) -> Iterator[Finding]:
    """Check that Postfix's user may use the socket; root always may."""
    parsed = config.milter.socket
    if parsed.family != "unix" or not os.path.exists(parsed.path):
        return
    owner = postfix.settings.get("mail_owner", "postfix")
    identity = _identity(owner, postfix.root)
    if identity is None:
        yield warning(
            "socket_permissions",
            f"mail_owner = {owner}: there is no such user; its access to the socket is unknown",
            "Correct mail_owner.",
        )
        return
    seen: set[str] = set()
    for one in attachments:
        for ours in one.ours:
            path = path_of(ours.name.partition(":")[2], one.service, postfix)
            top = postfix.queue if one.service.chroot else postfix.root
            closed = closed_to(path, top, *identity, WRITE)
            if closed and closed not in seen:
                seen.add(closed)
                yield error(
                    "socket_permissions",
                    f"Postfix's user {owner} may not use the socket: {closed}",
                    'Set milter.socket_group = "postfix" and socket_mode = "0660", and let that '
                    "group search the directory (docs/attach.md).",
                )
    if not seen and any(one.ours for one in attachments):
        yield ok("socket_permissions", f"Postfix's user {owner} may use the socket")


def closed_to(path: Path, top: Path, uid: int, gids: frozenset[int], bit: int) -> str:
    """Say what keeps a user from *path*, from directory *top* down; "" if nothing does.

    Args:
        path: a file or socket.
        top: a directory above it that is open to all.
        uid: of the user.
        gids: all groups of the user.
        bit: what is wanted: a key of :data:`PERMISSIONS`.
    """
    try:
        relative = path.relative_to(top)
        steps = [top.joinpath(*relative.parts[:n]) for n in range(1, len(relative.parts))]
    except ValueError:
        steps = []
    try:
        for directory in steps:
            if not _may(directory.stat(), uid, gids, 0o1):
                return f"no search permission on {directory}"
        if not _may(path.stat(), uid, gids, bit):
            mode = stat.S_IMODE(path.stat().st_mode)
            return f"no {PERMISSIONS[bit]} permission on {path} (mode {mode:04o})"
    except OSError as problem:
        return f"{problem.filename}: {problem.strerror}"
    return ""


def _may(status: os.stat_result, uid: int, gids: frozenset[int], bit: int) -> bool:
    """Whether the permissions of a file give *bit* (4 read, 2 write, 1 search) to a user."""
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in gids else 0
    return bool(status.st_mode >> shift & bit)


def _identity(user: str, root: Path) -> tuple[int, frozenset[int]] | None:
    """Look up a user's number and groups in the passwd(5) and group(5) that Postfix sees."""
    for fields in _colon_file(root / "etc/passwd", 4):
        if fields[0] == user:
            uid, gid = int(fields[2]), int(fields[3])
            break
    else:
        return None
    groups = {gid}
    for fields in _colon_file(root / "etc/group", 4):
        if user in fields[3].split(","):
            groups.add(int(fields[2]))
    return uid, frozenset(groups)


def _colon_file(path: Path, at_least: int) -> Iterator[list[str]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= at_least and fields[2].isdecimal():
            yield fields


# ---------------------------------------------------------------- the running MTA


def postfix_runs(postfix: Postfix) -> Iterator[Finding]:
    """Find out whether its master(8) runs, which then has a lock on its file: as ``master -t``."""
    path = postfix.queue / "pid" / "master.pid"
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except OSError:  # the lock is held; or it is not for us to know
        return
    yield warning(
        "postfix_stopped",
        "Postfix does not run: nothing calls the milter",
        "Start it: systemctl start postfix, or postfix start.",
    )


# ---------------------------------------------------------------- the running service


def service(config: Config) -> Iterator[Finding]:
    """Check that the engine answers, has this version, and runs with this configuration."""
    try:
        status = query.status(config.engine.socket, ANSWER_TIMEOUT, whole=True)
    except query.EngineUnavailable as problem:
        yield error(
            "service",
            f"no engine answers on {config.engine.socket}: {problem}",
            "Run doctor as root."
            if problem.denied
            else "Start the service: requiretls-milter serve; see its log.",
        )
        return
    if status.version != __version__:
        yield warning(
            "service",
            f"the running service is version {status.version}, this program {__version__}",
            "Restart the service.",
        )
    if status.assessment_digest != config.assessment_digest(_authorities_now(config)):
        yield warning(
            "service",
            "the running service has another [mta], [dns] or [probe] than this configuration, or "
            "other certification authorities than their file has now",
            "Reload it (SIGHUP), or name the file that it runs with by --config.",
        )
    yield from _in_force(config, status.service)
    if len(status.workers) < status.all_workers:
        yield warning(
            "service",
            f"{len(status.workers)} of {status.all_workers} workers are connected to the engine",
            "See the service's log: a worker that cannot start says why.",
        )
    if not status.resolver_validates:
        yield warning(
            "service",
            "nothing has shown the running service that its resolver validates DNSSEC: nothing "
            "counts as secure there",
            'See the check "resolver", and the service\'s log: resolver_not_tested says why.',
        )
    if (condition := status.condition) is not None:
        yield from _watch_failing(condition)
    yield ok("service", f"the service runs (process {status.pid}, version {status.version})")


def _in_force(config: Config, service: ServiceStatus | None) -> Iterator[Finding]:
    """Compare what is in force with this configuration: all but what the digest compares."""
    if service is None:
        return
    if service.suspended:
        yield warning(
            "rules_suspended",
            "the rules of the running service are suspended: no mail is deferred or refused",
            "requiretls-milter resume, or take suspended = true out of [rules] and reload.",
        )
    differing = [name for name in service.differs_in(config) if name not in ASSESSED]
    if differing:
        sections = ", ".join(f"[{name}]" for name in differing)
        yield warning(
            "config_differs",
            f"the running service has another {sections} than this configuration",
            "Reload it (SIGHUP), or restart it if its log says needs_restart; or name the file "
            f"that it runs with by --config: {service.config_path}.",
        )


def _watch_failing(condition: Condition) -> Iterator[Finding]:
    """Tell of mails and commands of the watch that failed when they were used last."""
    if (failing := condition.mail_failing) is not None:
        yield warning(
            "watch_mail",
            f"the MTA does not take mail about watched domains: {failing.error}",
            "Correct watch.mail_server, mail_from or mail_to, or let the MTA accept such mail. It "
            "is tried again every five minutes.",
        )
    if (failing := condition.notify_failing) is not None:
        yield warning(
            "watch_notify",
            f"the command watch.notify failed when it was run last: {failing.error}",
            "See docs/watch.md: it runs as the service's user, within what the unit allows.",
        )


def watch(config: Config) -> Iterator[Finding]:
    """Check what tells of watched domains: it is used only when something breaks."""
    command = config.watch.command
    if command and not os.access(command[0], os.X_OK):
        yield error(
            "watch_notify",
            f"watch.notify: {command[0]} is no program that can be run here",
            "Install it, and let the service's user read and run it.",
        )
    if not config.watch.mail_to:
        return
    server = config.watch.mail_server
    try:
        with socket.create_connection(server, timeout=ANSWER_TIMEOUT) as connection:
            banner = connection.recv(MAX_BANNER)
    except OSError as problem:
        banner, why = b"", str(problem.strerror or problem)
    else:
        why = "no banner of an SMTP server"
    if banner.startswith(b"220"):
        yield ok("watch_mail", f"{server} takes connections for mail about watched domains")
    else:
        advice = "Start that MTA, or correct the key."
        yield error("watch_mail", f"watch.mail_server {server}: {why}", advice)


def _authorities_now(config: Config) -> str:
    """The digest of the authorities; "" if they cannot be read, which :func:`authorities` tells."""
    try:
        return load_trust_store(config.probe.ca_file).digest
    except TrustStoreError:
        return ""


def metrics(config: Config) -> Finding:
    """Check that the metrics can be read, over TLS with the configured certificate."""
    listen = config.metrics.listen
    if listen is None:
        return ok("metrics", "metrics are switched off (metrics.listen is empty)")
    tls = bool(config.metrics.tls_certificate)
    url = f"{'https' if tls else 'http'}://{listen}/metrics"
    advice = "Start the service; make sure that no other program uses that port (metrics.listen)."
    if tls:
        try:
            presented = _presented(listen)
        except OSError as problem:
            return error("metrics", f"{url}: {error_text(problem)}", advice)
        if presented != _first_certificate(config.metrics.tls_certificate):
            return error(
                "metrics",
                f"{url}: the certificate there is not that of {config.metrics.tls_certificate}",
                "If it was renewed: reload the service (SIGHUP), and see its log.",
            )
        if config.metrics.tls_client_ca:
            return ok("metrics", f"metrics are served on {url} to those with a client certificate")
    try:
        # no proxy: it is a socket of this host
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_unverified())
        )
        with opener.open(url, timeout=ANSWER_TIMEOUT) as response:
            text = response.read(MAX_METRICS_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as problem:
        problem.close()  # it holds the connection
        return error("metrics", f"{url}: status {problem.code}", advice)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        why = error_text(reason) if isinstance(reason, Exception) else reason
        return error("metrics", f"{url}: {why}", advice)
    if f"{PREFIX}build_info" not in text:
        return error("metrics", f"{url}: the answer there is not this program's metrics", advice)
    return ok("metrics", f"metrics are served on {url}")


def _unverified() -> ssl.SSLContext:
    """Make a context that verifies nothing: the certificate is compared with the file instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _presented(listen: Endpoint) -> bytes | None:
    """Return the certificate that the server at an address presents; raises OSError."""
    with (
        socket.create_connection(listen, timeout=ANSWER_TIMEOUT) as connection,
        _unverified().wrap_socket(connection) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def _first_certificate(path: str) -> bytes:
    """Return the first certificate of a PEM file, the server's own; b"" if there is none."""
    try:
        found = re.search(
            "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
            Path(path).read_text(encoding="ascii", errors="replace"),
            re.DOTALL,
        )
        return ssl.PEM_cert_to_DER_cert(found[0]) if found else b""
    except (OSError, ValueError):
        return b""


# ---------------------------------------------------------------- certification authorities


class MtaAuthorities(NamedTuple):
    """The certification authorities of an MTA: a file; "" if it has none of its own."""

    mta: str
    setting: str
    file: str
    root: Path

    @classmethod
    def of_postfix(cls, postfix: Postfix, made: Mirror) -> MtaAuthorities:
        """Those of Postfix."""
        return cls("Postfix", "smtp_tls_CAfile", made.hints.get("ca_file", ""), postfix.root)

    @classmethod
    def of_sendmail(cls, sendmail: Sendmail) -> MtaAuthorities:
        """Those of Sendmail."""
        file = sendmail.option("CACertFile")
        return cls("Sendmail", "CACertFile", "" if file in SYSTEM_STORES else file, sendmail.root)


def authorities(config: Config, mta: MtaAuthorities | None) -> Iterator[Finding]:
    """Check that the certification authorities can be read, and are the same as the MTA's."""
    path = config.probe.ca_file
    try:
        load_trust_store(path)
    except TrustStoreError as problem:
        yield error("ca_file", str(problem), "Correct probe.ca_file.")
        return
    what = path or "the system's trust store"
    if path and not os.stat(path).st_mode & stat.S_IROTH:
        yield warning(
            "ca_file",
            f"{path} is not readable by all users, so the service may not be able to read it",
            f"chmod o+r {path}, or make sure that the service's user may read it.",
        )
    if mta is None:
        yield ok("ca_file", f"certificates are verified with {what}")
        return
    theirs = mta.file
    if _same_store(path, theirs, mta.root):
        yield ok("ca_file", f"certificates are verified with {what}, in {mta.mta} too")
        return
    yield warning(
        "ca_file",
        f"probe.ca_file is {path or 'empty'}, {mta.setting} is "
        f"{theirs or 'empty or the system store'}: one may trust a certificate that the other "
        "does not",
        f'Set probe.ca_file = "{theirs}".' if theirs else "Let both name the same file.",
    )


def _same_store(ours: str, theirs: str, root: Path) -> bool:
    """Whether two files of authorities have the same content; "" stands for the system's."""
    if not theirs or not ours:
        return (ours in SYSTEM_STORES or not ours) and not theirs
    try:
        return Path(ours).read_bytes() == (root / theirs.lstrip("/")).read_bytes()
    except OSError:
        return False


# ---------------------------------------------------------------- resolvers


def resolvers(config: Config, postfix: Postfix | None, made: Mirror | None) -> Iterator[Finding]:
    """Check that the resolver is trusted and validates, and so does Postfix's if it is another."""
    ours = Resolver(config.dns.nameservers, config.dns.timeout)
    names = _names(ours.nameservers)
    if not ours.path_trusted:
        yield error(
            "resolver_trusted",
            f"{names} (/etc/resolv.conf) is not on this host: its AD bit is not trusted, and "
            "nothing counts as secure",
            "Run a validating resolver such as Unbound on this host, and name it in "
            "dns.nameservers.",
        )
    else:
        yield ok("resolver_trusted", f"{names}: the path to it counts as trusted")
    yield from _tested("resolver", config, ours.nameservers)
    if postfix is None or made is None:
        return
    for service, path in _resolv_confs(postfix):
        servers = _nameservers(path)
        if not servers:
            yield warning(
                "mta_resolver",
                f"{path}, which {service} reads, names no resolver",
                "Copy /etc/resolv.conf there, as Postfix's init script does for a chroot.",
            )
        elif set(servers) != set(ours.nameservers):
            yield warning(
                "mta_resolver",
                f"{service} of Postfix uses resolver {_names(servers)} ({path}), this program uses "
                f"{names}: their answers may differ",
                "Let both use the same resolver.",
            )
            if _wants_dane(made):
                yield from _tested("mta_resolver", config, servers)


def _tested(check: str, config: Config, servers: Sequence[Nameserver]) -> Iterator[Finding]:
    """Test each server by itself, as the service does."""
    results = asyncio.run(SelfTest.of(config).run_each(servers, config.dns.timeout))
    effect = ". Nothing that it says counts as secure" if check == "resolver" else ""
    for server, result in results.items():
        yield _of_test(check, _names([server]), result, effect)


def _of_test(check: str, names: str, result: SelfTestResult, effect: str) -> Finding:
    why = "; ".join(result.problems)
    if result.outcome is SelfTestOutcome.PASSED:
        return ok(check, f"{names} validates DNSSEC" + (f" ({why})" if why else ""))
    if result.outcome is SelfTestOutcome.FAILED:
        return error(
            check,
            f"{names} does not validate DNSSEC: {why}{effect}",
            "Switch validation on (Unbound: auto-trust-anchor-file, and no val-permissive-mode), "
            "or use another resolver.",
        )
    return warning(
        check,
        f"nothing shows that {names} validates DNSSEC: {why}{effect}",
        "Make sure that it answers; without the public DNS set dns.selftest_secure and "
        "dns.selftest_insecure or selftest_bogus to names of your own.",
    )


def _wants_dane(made: Mirror) -> bool:
    mta = Config.model_validate({"mta": made.mta}).mta
    profiles = [mta.profile_for(name) for name in ("", *mta.transport)]
    levels = {profile.tls_security_level for profile in profiles}
    levels |= {policy.level for profile in profiles for _, policy in profile.tls_policy}
    return bool(levels & {TlsLevel.DANE, TlsLevel.DANE_ONLY})


def _resolv_confs(postfix: Postfix) -> Iterator[tuple[str, Path]]:
    """Find each resolv.conf(5) that an smtp(8) reads, in a chroot or not, with its service."""
    seen: set[Path] = set()
    for one in postfix.running("smtp"):
        path = (postfix.queue if one.chroot else postfix.root) / "etc/resolv.conf"
        if path not in seen:
            seen.add(path)
            yield str(one), path


def _nameservers(path: Path) -> tuple[Nameserver, ...]:
    try:
        read = dns.resolver.Resolver(str(path), configure=True)
    except (OSError, dns.exception.DNSException):
        return ()
    return tuple(Nameserver(str(address), DNS_PORT) for address in read.nameservers)


def _names(servers: Sequence[Nameserver]) -> str:
    return ", ".join(map(str, servers))


# ---------------------------------------------------------------- port 25


def outside(target: str, config: Config) -> Finding:
    """Check that an SMTP server on another network can be reached.

    Args:
        target: ``HOST`` or ``HOST:PORT``; "" for none.
        config: the configuration with the probe's limits.
    """
    if not target:
        return ok("outside", "port 25 outside was not tried (--outside HOST names a server)")
    host, port = _host_and_port(target)
    advice = (
        "Many networks block port 25: ask the operator of yours. Without it every probe fails, and "
        "all forecasts are temporary failures (4.4.1)."
    )
    try:
        with socket.create_connection((host, port), config.probe.connect_timeout) as connection:
            connection.settimeout(config.probe.command_timeout)
            banner = connection.recv(MAX_BANNER)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        return error("outside", f"{host}:{port} cannot be reached: {reason}", advice)
    text = banner.split(b"\n")[0].decode("ascii", "replace").strip()
    if not banner.startswith(b"220"):
        return error("outside", f"{host}:{port} does not greet as a mail server: {text}", advice)
    return ok("outside", f"{host}:{port} greets: {text}")


def _host_and_port(target: str) -> tuple[str, int]:
    smtp = KNOWN_PORTS["smtp"]
    try:
        return parse_endpoint(target, smtp)
    except ValueError:
        host, colon, port = target.rpartition(":")
        return (host, int(port)) if colon and port.isdecimal() else (target, smtp)
