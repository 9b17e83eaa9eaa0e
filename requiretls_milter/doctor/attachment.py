"""Which services of Postfix call this milter. No I/O but realpath(3)."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.mirror.postconf import Parameters, Postfix, Service
from requiretls_milter.mirror.wording import shown
from requiretls_milter.syntax.endpoint import MilterSocket, in_brackets, without_brackets
from requiretls_milter.syntax.tables import split_list, without_braces

OURS = "requiretls"
"""A part of the name of the milter's socket, most likely: finds a name that is misspelt."""

_ANY_ADDRESS = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class ListedMilter:
    """A milter in a list of Postfix: its name, and what overrides milter_* for it alone."""

    name: str
    overrides: dict[str, str] = field(default_factory=dict)

    def setting(self, settings: Parameters, name: str) -> str:
        """Return the value of ``milter_NAME`` that applies to this milter."""
        return self.overrides.get(name, settings.get(f"milter_{name}", "")).strip()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A service of Postfix, the entries of its list that are this milter, and the other entries."""

    service: Service
    parameter: str
    ours: tuple[ListedMilter, ...]
    others: tuple[ListedMilter, ...]


def examine(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    """Check that Postfix calls this milter for all mail."""
    yield from _attachment(config, postfix, attachments)
    yield from _local_mail(config, postfix, attachments)


def milters(text: str) -> list[ListedMilter]:
    """Parse a list as in smtpd_milters: names, or ``{ name, parameter=value ... }``."""
    found = []
    for item in split_list(text):
        words = split_list(without_braces(item)) if item.startswith("{") else [item]
        if not words:
            continue
        pairs = (word.strip("{} ").partition("=") for word in words[1:])
        overrides = {name.strip(): value.strip() for name, equals, value in pairs if equals}
        found.append(ListedMilter(words[0], overrides))
    return found


def attachments(config: Config, postfix: Postfix) -> Iterator[Attachment]:
    """Find each service that can call milters, with those that it does call."""
    socket = config.milter.socket
    for service in postfix.running("smtpd", "cleanup"):
        parameter = _parameter(service)
        text = service.settings.get(parameter, "")
        off = any(map(_without_milters, _entrances(service, postfix)))
        if off or text.strip().upper() == "DISABLE":
            text = ""
        listed = milters(text)
        ours = tuple(one for one in listed if is_ours(one.name, service, postfix, socket))
        others = tuple(one for one in listed if one not in ours)
        yield Attachment(service, parameter, ours, others)


def _entrances(service: Service, postfix: Postfix) -> Sequence[Service]:
    """The services that say whether *service* asks milters: for cleanup(8) it is pickup(8)."""
    pickups = list(postfix.running("pickup")) if service.program == "cleanup" else []
    return pickups or [service]


def _without_milters(service: Service) -> bool:
    return "no_milters" in split_list(service.settings.get("receive_override_options", ""))


def is_ours(name: str, service: Service, postfix: Postfix, socket: MilterSocket) -> bool:
    """Whether a milter's *name*, as *service* sees it, is the socket on which this one listens."""
    family, _, rest = name.partition(":")
    if family in ("unix", "local"):
        if socket.family != "unix":
            return False
        path = path_of(rest, service, postfix)
        return os.path.realpath(path) == os.path.realpath(socket.path)
    if family != "inet" or socket.family == "unix":
        return False
    host, _, port = rest.rpartition(":")
    return reaches(without_brackets(host).lower(), port, socket)


def reaches(host: str, port: str, socket: MilterSocket) -> bool:
    """Whether a client of *host* and *port* reaches a milter that listens on a TCP socket."""
    same = (
        host == socket.host
        or (socket.host in _ANY_ADDRESS)
        or (host in _LOOPBACK and socket.host in _LOOPBACK)
    )
    return same and port == str(socket.port)


def path_of(path: str, service: Service, postfix: Postfix) -> Path:
    """Return the file that *service* opens as *path*, as this program sees it.

    A relative path counts from the queue directory. So does an absolute one if
    the service is chrooted.
    """
    if not path.startswith("/") or service.chroot:
        return postfix.queue / path.lstrip("/")
    return postfix.root / path.lstrip("/")


def name_for(config: Config, service: Service, postfix: Postfix) -> str:
    """Return the name in main.cf by which *service* finds this milter; "" if none does."""
    socket = config.milter.socket
    if socket.family != "unix":
        return f"inet:{in_brackets(socket.host)}:{socket.port}"
    path = Path(socket.path)
    if path.is_relative_to(postfix.queue):
        return f"unix:{path.relative_to(postfix.queue)}"
    if service.chroot or not path.is_relative_to(postfix.root):
        return ""
    return f"unix:/{path.relative_to(postfix.root)}"


def is_inner(service: Service) -> bool:
    """Whether an smtpd listens on the loopback only, as one behind a content filter does."""
    host = without_brackets(service.name.rpartition(":")[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _attachment(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    for one in attachments:
        yield from _misspelt(config, postfix, one)
    servers = [one for one in attachments if one.service.program == "smtpd"]
    calling = [one for one in servers if one.ours and not before_queue_filter(one.service)]
    blind = [one for one in servers if one.ours and before_queue_filter(one.service)]
    yield from _sees_no_message(blind, servers)
    if not servers:
        yield warning(
            "attached",
            "Postfix has no smtpd service: only mail of sendmail(1) can come in",
            "Nothing, if that is intended.",
        )
    elif not calling and not blind:
        yield error(
            "attached",
            "No smtpd service of Postfix calls this milter: no mail is forecast or tagged",
            _how_to_attach(config, postfix, servers[0].service),
        )
    elif calling:
        names = ", ".join(str(one.service) for one in calling)
        yield ok("attached", f"Postfix calls this milter on {names}")
        yield from _missing(config, postfix, servers)
    yield from _called_twice(attachments, calling)
    yield from _by_client(servers)


def _missing(config: Config, postfix: Postfix, servers: Sequence[Attachment]) -> Iterator[Finding]:
    """Find services that do not call the milter, though others do; inner ones need not."""
    is_behind = any(one.ours and is_inner(one.service) for one in servers)
    for one in servers:
        if one.ours or (is_inner(one.service) and not _looks_like_ours(one)):
            continue
        if is_behind and before_queue_filter(one.service):
            continue
        yield warning(
            "attached",
            f"Postfix does not call this milter on {one.service}: mail that comes in there is not "
            "forecast, and forged tags stay in it",
            _how_to_attach(config, postfix, one.service),
        )


def before_queue_filter(service: Service) -> str:
    """Return the filter to which an smtpd hands mail while it comes in; "" if there is none."""
    return service.settings.get("smtpd_proxy_filter", "").strip()


def _sees_no_message(
    blind: Sequence[Attachment], servers: Sequence[Attachment]
) -> Iterator[Finding]:
    """Find milters before a before-queue filter (MILTER_README, Limitations).

    The filter may be any program, so which service it gives mail back to is not known: one that
    listens on the loopback only, and has no such filter, can be it.
    """
    inner = [
        str(one.service)
        for one in servers
        if is_inner(one.service) and not before_queue_filter(one.service)
    ]
    back = f", which may be {' or '.join(inner)}" if inner else ""
    for one in blind:
        filtered = before_queue_filter(one.service)
        yield error(
            "attached",
            f"{one.service} has a before-queue filter (smtpd_proxy_filter = {shown(filtered)}): a "
            "milter there is shown neither the header nor the end of a message; nothing is tagged "
            "there, forged tags stay, and only what is known at RCPT TO is decided",
            f"List the milter on the service to which the filter gives mail back{back}, and for "
            f"{one.service} set -o smtpd_milters= in master.cf.",
        )


def _called_twice(
    attachments: Sequence[Attachment], calling: Sequence[Attachment]
) -> Iterator[Finding]:
    """Find a milter that is listed more than once, or called on both sides of a content filter."""
    for one in attachments:
        if len(one.ours) > 1:
            yield warning(
                "attached_twice",
                f"{one.parameter} of {one.service} lists this milter {len(one.ours)} times",
                "List it once.",
            )
    filtered = [one for one in calling if one.service.settings.get("content_filter")]
    again = [one for one in calling if is_inner(one.service) and one not in filtered]
    if filtered and again:
        yield warning(
            "attached_twice",
            f"Mail comes in on {filtered[0].service}, goes through a content filter, and comes in "
            f"again on {again[0].service}: this milter is called both times",
            f"For {again[0].service} set -o smtpd_milters= in master.cf, or list the milter only "
            "there.",
        )


def _by_client(servers: Sequence[Attachment]) -> Iterator[Finding]:
    """Find services that call other milters for some clients."""
    for one in servers:
        maps = one.service.settings.get("smtpd_milter_maps", "")
        if maps:
            yield warning(
                "attached_by_client",
                f"smtpd_milter_maps = {shown(maps)} on {one.service}: other milters are called for "
                "the clients in it",
                "Make sure that this milter is among them too.",
            )


def _looks_like_ours(one: Attachment) -> bool:
    return any(OURS in other.name.lower() for other in one.others)


def _misspelt(config: Config, postfix: Postfix, one: Attachment) -> Iterator[Finding]:
    """Find a listed milter that has this one's name, but not its socket."""
    if one.ours:
        return
    for other in one.others:
        if OURS not in other.name.lower():
            continue
        where = other.name
        if where.startswith(("unix:", "local:")):
            where = str(path_of(where.partition(":")[2], one.service, postfix))
        chrooted = " (it is chrooted)" if one.service.chroot else ""
        yield error(
            "socket_name",
            f"{one.parameter} of {one.service} is {other.name}: that is {where}{chrooted}; this "
            f"milter listens on {config.milter.socket}",
            _how_to_attach(config, postfix, one.service),
        )


def _parameter(service: Service) -> str:
    """The parameter that lists the milters of a service."""
    return "smtpd_milters" if service.program == "smtpd" else "non_smtpd_milters"


def _how_to_attach(config: Config, postfix: Postfix, service: Service) -> str:
    parameter = _parameter(service)
    name = name_for(config, service, postfix)
    if name:
        return f"In main.cf (or as -o of {service} in master.cf): {parameter} = {name}"
    queue = postfix.settings.get("queue_directory", "/var/spool/postfix")
    return (
        f"{service} sees nothing outside {queue}: set milter.socket = "
        f'"unix:{queue}/requiretls-milter/milter.sock" and {parameter} = '
        "unix:requiretls-milter/milter.sock"
    )


def _local_mail(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    for one in attachments:
        if one.service.program != "cleanup":
            continue
        if one.ours:
            yield ok(
                "local_mail",
                f"Mail of sendmail(1) is seen ({one.service}); Postfix sends no next hop for it, "
                "so the way that [mta] mirrors is forecast. It is decided at the end of the "
                "message, for all recipients at once, and never deferred: Postfix bounces what is "
                "refused",
            )
        elif any(map(_without_milters, _entrances(one.service, postfix))):
            yield warning(
                "local_mail",
                "Mail of sendmail(1) is not seen: receive_override_options of pickup has "
                "no_milters",
                "Nothing, if a filter brings such mail back by SMTP to a service that calls the "
                "milter; else take no_milters off.",
            )
        else:
            yield warning(
                "local_mail",
                f"Mail of sendmail(1) is not seen: non_smtpd_milters of {one.service} is "
                f"{shown(one.service.settings.get('non_smtpd_milters', '')) or 'empty'}",
                "non_smtpd_milters = $smtpd_milters in main.cf, if users of this host send mail: "
                "sendmail -O requiretls=yes requests REQUIRETLS.",
            )
