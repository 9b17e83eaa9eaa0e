"""Checks of this host: the milter's socket, the running MTA, port 25."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from requiretls_milter.config import Config
from requiretls_milter.doctor import permissions
from requiretls_milter.doctor.attachment import Attachment, path_of
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.syntax.endpoint import parse_endpoint
from requiretls_milter.syntax.nexthop import KNOWN_PORTS

ANSWER_TIMEOUT = 5.0
"""Seconds for an answer of this program's own processes, which answer in milliseconds."""

MAX_GREETING = 512
"""Octets of a reply line (RFC 5321 section 4.5.3.1.5)."""

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


def socket_permissions(
    config: Config, postfix: Postfix, attachments: list[Attachment]
) -> Iterator[Finding]:
    """Check that Postfix's user may use the socket; root always may."""
    parsed = config.milter.socket
    if parsed.family != "unix" or not os.path.exists(parsed.path):
        return
    owner = postfix.settings.get("mail_owner", "postfix")
    identity = permissions.identity(owner, postfix.root)
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
            closed = permissions.closed_to(path, top, *identity, permissions.WRITE)
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
        said = greeting((host, port), config.probe.connect_timeout, config.probe.command_timeout)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        return error("outside", f"{host}:{port} cannot be reached: {reason}", advice)
    text = said.split(b"\n")[0].decode("ascii", "replace").strip()
    if not said.startswith(b"220"):
        return error("outside", f"{host}:{port} does not greet as a mail server: {text}", advice)
    return ok("outside", f"{host}:{port} greets: {text}")


def greeting(server: tuple[str, int], connect_timeout: float, timeout: float) -> bytes:
    """Read the first octets that an SMTP server sends; raises OSError.

    Args:
        server: name or address, and port.
        connect_timeout: seconds until the connection stands.
        timeout: seconds for the greeting.
    """
    with socket.create_connection(server, connect_timeout) as connection:
        connection.settimeout(timeout)
        return connection.recv(MAX_GREETING)


def _host_and_port(target: str) -> tuple[str, int]:
    smtp = KNOWN_PORTS["smtp"]
    try:
        return parse_endpoint(target, smtp)
    except ValueError:
        host, colon, port = target.rpartition(":")
        return (host, int(port)) if colon and port.isdecimal() else (target, smtp)
