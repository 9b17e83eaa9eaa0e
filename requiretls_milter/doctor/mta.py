"""Checks of Postfix's settings against the configuration. No I/O but realpath(3).

Three questions: Does Postfix call this milter for all mail, on the socket where it listens? Does
Postfix wait long enough for it, and what happens to mail while it is down? Does ``[mta]`` say how
this Postfix delivers? What it does with REQUIRETLS is checked in :mod:`.requirement`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requiretls_milter import config as configuration
from requiretls_milter.config import Config
from requiretls_milter.config.mistakes import dotted
from requiretls_milter.config.text import value_text
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.mirror.postconf import (
    Parameters,
    Postfix,
    Service,
    is_yes,
)
from requiretls_milter.mirror.section import Mirror
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import (
    Aliases,
    Capability,
    MtaProfile,
    ProfileName,
    RequiretlsPolicy,
)
from requiretls_milter.syntax.capability import capability
from requiretls_milter.syntax.endpoint import MilterSocket, in_brackets, without_brackets
from requiretls_milter.syntax.tables import split_list, without_braces

OURS = "requiretls"
"""A part of the name of the milter's socket, most likely: finds a name that is misspelt."""

PROTOCOL = 6
"""Version of the milter protocol since which milters choose their macros and skip replies."""

SEE_IMPORT = "Use the output of requiretls-milter mta import (docs/mta-import.md)."

_TIME = re.compile(r"\s*([0-9]+)\s*([smhdw]?)\s*", re.IGNORECASE)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ANY_ADDRESS = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

DEFAULT_ACTIONS = {
    "accept": (
        "while the milter is down, mail is accepted unseen: it has no forecast and no tag, forged "
        "tags stay in it, and no rule applies"
    ),
    "tempfail": (
        "while the milter is down, MAIL is answered 451 4.7.1 for the rest of each session, and "
        "STARTTLS 454 4.3.0: a client that goes on without TLS cannot request REQUIRETLS; mail of "
        "sendmail(1) waits in the maildrop queue"
    ),
    "shutdown": (
        "while the milter is down, clients are refused with 421 and try again; mail of sendmail(1) "
        "waits in the maildrop queue"
    ),
    "quarantine": (
        "while the milter is down, mail is accepted unseen and put on hold until it is released"
    ),
    "reject": "while the milter is down, clients are greeted with 554: their mail bounces",
}
"""The effect of each milter_default_action, measured with Postfix 3.11.7."""


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
    """Check that Postfix calls this milter, and how."""
    yield from _attachment(config, postfix, attachments)
    yield from _local_mail(config, postfix, attachments)
    yield from _time_limits(config, attachments)
    yield from _default_action(config, attachments)
    yield from _macros(config, postfix, attachments)


# ---------------------------------------------------------------- which services call the milter


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


def attached(config: Config, postfix: Postfix) -> Iterator[Attachment]:
    """Find each service that can call milters, with those that it does call."""
    socket = config.milter.socket
    for service in postfix.running("smtpd", "cleanup"):
        parameter = "smtpd_milters" if service.program == "smtpd" else "non_smtpd_milters"
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
    """Whether who connects to *host* and *port* reaches a milter that listens on a TCP socket."""
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


def _how_to_attach(config: Config, postfix: Postfix, service: Service) -> str:
    parameter = "smtpd_milters" if service.program == "smtpd" else "non_smtpd_milters"
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


# ---------------------------------------------------------------- how the milter is called


def seconds(text: str) -> int | None:
    """Parse a time of Postfix, such as ``30s`` or ``5m``, as seconds; None if it is none."""
    match = _TIME.fullmatch(text)
    return int(match[1]) * _UNITS[match[2].lower()] if match else None


def _values(attachments: Sequence[Attachment], name: str) -> dict[str, list[str]]:
    """Collect the values of a milter_* parameter that apply to this milter, with their services."""
    found: dict[str, list[str]] = {}
    for one in attachments:
        for ours in one.ours:
            value = ours.setting(one.service.settings, name)
            found.setdefault(value, []).append(str(one.service))
    return found


def _time_limits(config: Config, attachments: Sequence[Attachment]) -> Iterator[Finding]:
    limits = (
        ("command_timeout", "rules.decide_wait", config.rules.longest_decide_wait),
        ("content_timeout", "rules.tag_wait", config.rules.tag_wait),
    )
    for name, key, wait in limits:
        for value, services in _values(attachments, name).items():
            limit = seconds(value)
            where = ", ".join(services)
            if limit is None:
                yield error(
                    name,
                    f"milter_{name} = {shown(value)} on {where}: no time that Postfix knows",
                    f"Set milter_{name} = {'30s' if name == 'command_timeout' else '300s'}.",
                )
            elif limit <= wait:
                yield error(
                    name,
                    f"milter_{name} = {shown(value)} on {where} is not above {key} = {wait:g} s: "
                    "Postfix gives up on the milter before it has decided",
                    f"Raise milter_{name}, or lower {key}.",
                )
            else:
                yield ok(name, f"milter_{name} = {shown(value)} is above {key} = {wait:g} s")


def _default_action(config: Config, attachments: Sequence[Attachment]) -> Iterator[Finding]:
    for value, services in _values(attachments, "default_action").items():
        action = value.lower()
        where = ", ".join(services)
        what = DEFAULT_ACTIONS.get(action)
        text = f"milter_default_action = {shown(value)} on {where}: {what}"
        if what is None:
            yield error(
                "default_action",
                f"milter_default_action = {shown(value)} on {where}: Postfix has no such action",
                "Set milter_default_action = tempfail (Postfix 3.11: shutdown).",
            )
        elif action == "reject":
            yield error("default_action", text, "Set tempfail, or shutdown in Postfix 3.11.")
        elif action == "accept" and config.rules.acts:
            yield warning(
                "default_action",
                f"{text}, although your rules defer or refuse mail",
                "Set tempfail, or shutdown in Postfix 3.11, if the rules must always apply.",
            )
        elif action == "quarantine":
            yield warning("default_action", text, "Nothing, if the hold queue is watched.")
        else:
            yield ok("default_action", text)


def _macros(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    for value, services in _values(attachments, "protocol").items():
        where = ", ".join(services)
        versions = [int(word) for word in split_list(value) if word.isdecimal()]
        if max(versions, default=0) >= PROTOCOL:
            yield ok(
                "protocol",
                f"milter_protocol = {shown(value)}: the milter is called at connection, MAIL, "
                "RCPT, header and end of message, and chooses its macros itself; milter_*_macros "
                "do not matter",
            )
        else:
            yield warning(
                "protocol",
                f"milter_protocol = {shown(value)} on {where}: too old for the milter to choose "
                "its macros; whether it learns transport, next hop and authentication depends on "
                "milter_*_macros",
                "Leave milter_protocol at its default, 6.",
            )
    told = capability(Capability.AUTO, postfix.settings.get("milter_macro_v", ""))
    truth = _capability(postfix)
    if config.mta.carries is Capability.AUTO and told is not truth:
        yield warning(
            "carries",
            f"mta.carries = auto: by macro v ({shown(postfix.settings.get('milter_macro_v', ''))}) "
            f"Postfix would carry {told.value}, by its settings it carries {truth.value}",
            f'Set mta.carries = "{truth.value}".',
        )


def _capability(postfix: Postfix) -> Capability:
    if is_yes(postfix.settings, "requiretls_enable"):
        return Capability.REQUIRETLS
    if is_yes(postfix.settings, "tls_required_enable"):
        return Capability.TLS_REQUIRED
    return Capability.NOTHING


# ---------------------------------------------------------------- [mta]

_AT_LEAST = ("local_transports", "local_domains", "my_addresses")
"""Lists to which the configuration may add more than Postfix has."""

_ROUTING = (
    *("default_transport", "relayhost", "routes", "sender_transports", "sender_relayhosts"),
    *("recipient_delimiter", "hand_over"),
)
"""Keys that say where mail goes."""

_EXPANDING = (
    *("virtual_alias_maps", "recipient_canonical_maps", "canonical_maps", "myorigin"),
    *("mydestination", "append_dot_mydomain", "propagate_unmatched_extensions"),
    *("virtual_alias_expansion_limit", "virtual_alias_recursion_limit"),
    "virtual_alias_address_length_limit",
)
"""Keys that say what recipients become; they matter only if recipients are expanded."""


def differences(config: Config, postfix: Postfix, made: Mirror) -> Iterator[Finding]:
    """Compare ``[mta]`` with the mirror of Postfix; warn of what ``[mta]`` cannot express."""
    if config.mta.profile is not ProfileName.POSTFIX:
        yield warning(
            "mta",
            f'mta.profile = "{config.mta.profile}", but there is a Postfix: it is not forecast',
            'Set mta.profile = "postfix", if this Postfix is the one that calls the milter.',
        )
        return
    found = list(_different(config.mta, postfix, made))
    if not found:
        yield ok("mta", "[mta] agrees with Postfix")
    for text in found:
        yield warning("mta", text, SEE_IMPORT)
    aliases = config.mta.aliases
    solved = frozenset() if aliases is Aliases.OFF else made.while_off
    solved |= made.while_not_asked if aliases is Aliases.ASK else frozenset()
    for text in made.warnings:
        if text in solved:
            continue
        yield warning(
            "not_mirrored", f"not in [mta]: {text}", "See docs/mta-import.md for the consequences."
        )


def _different(mta: configuration.Mta, postfix: Postfix, made: Mirror) -> Iterator[str]:
    """Write a sentence for each key that differs from the mirror."""
    should = Config.model_validate({"mta": made.mta}).mta
    version = postfix.settings.get("milter_macro_v", "")
    if capability(mta.carries, version) is not capability(should.carries, version):
        yield _sentence("mta.carries", mta.carries.value, should.carries.value)
    plain_has, plain_should = mta.model_dump(mode="json"), should.model_dump(mode="json")
    for key in ("mydomain", "myhostname", "requiretls_esmtp_header"):
        if plain_has[key] != plain_should[key]:
            yield _sentence(f"mta.{key}", plain_has[key], plain_should[key])
    for key in _AT_LEAST:
        lacking = [item for item in plain_should[key] if item not in plain_has[key]]
        if lacking:
            yield f"mta.{key} lacks {value_text(lacking)}"
    yield from _called_local(mta, should, postfix)
    expands = mta.aliases is not Aliases.OFF
    keyed = any("@" in key for key in (*mta.routes, *mta.sender_transports, *mta.sender_relayhosts))
    for key in (*_ROUTING, *(_EXPANDING if expands else ())):
        if key == "recipient_delimiter" and not expands and not keyed:
            continue  # it separates nothing
        if plain_has[key] != plain_should[key]:
            yield _sentence(f"mta.{key}", plain_has[key], plain_should[key])
    # The mirror lacks keys of settings that this Postfix does not have.
    keys = [key for key in configuration.TransportOverrides.model_fields if key in made.mta]
    has, wanted = mta.profile_for(""), should.profile_for("")
    differing = [key for key in keys if _value(has, key) != _value(wanted, key)]
    for key in differing:
        yield _sentence(f"mta.{key}", _shown(has, key), _shown(wanted, key))
    for service in postfix.running("smtp"):
        if service.type == "unix":
            yield from _different_transport(service.name, mta, should, keys, differing)
    known = {service.name for service in postfix.services}
    for name in mta.transport:
        if name not in known:
            yield f"{dotted(('mta', 'transport', name))}: Postfix has no transport of that name"


def _called_local(
    mta: configuration.Mta, should: configuration.Mta, postfix: Postfix
) -> Iterator[str]:
    """Find what the configuration calls local although Postfix hands it on over the network."""
    for name in mta.local_transports:
        leaves = any(
            service.program in ("smtp", "lmtp") and service.type == "unix"
            for service in postfix.services
            if service.name == name
        )
        if name not in should.local_transports and (leaves or name in should.hand_over):
            yield (
                f"mta.local_transports has {name}, but in Postfix its mail leaves over the "
                "network: it gets no forecast"
            )
    for domain in mta.local_domains:
        if domain in should.local_domains:
            continue
        to = should.destination_of(f"postmaster@{domain.removeprefix('.')}", "")
        if to is not None and domain in should.routes:
            yield (
                f"mta.local_domains has {domain}, but Postfix sends its mail to "
                f"{to.transport}:{to.nexthop}"
            )


def _different_transport(
    name: str,
    mta: configuration.Mta,
    should: configuration.Mta,
    keys: Sequence[str],
    differing: Sequence[str],
) -> Iterator[str]:
    """Write a sentence for each key of a transport that differs for a reason of its own."""
    has, wanted = mta.profile_for(name), should.profile_for(name)
    base_has, base_wanted = mta.profile_for(""), should.profile_for("")
    for key in keys:
        if _value(has, key) == _value(wanted, key):
            continue
        inherited = all(
            _value(own, key) == _value(base, key)
            for own, base in ((has, base_has), (wanted, base_wanted))
        )
        if key not in differing or not inherited:
            where = dotted(("mta", "transport", name, key))
            yield _sentence(where, _shown(has, key), _shown(wanted, key))


def _sentence(key: str, has: Any, should: Any) -> str:
    return f"{key} is {value_text(has)}, but in Postfix it is {value_text(should)}"


def _value(profile: MtaProfile, key: str) -> Any:
    """Return a key's value in a form that is equal for all values with the same meaning."""
    value = getattr(profile, key)
    if value is None or key not in ("requiretls_policy", "tls_policy"):
        return value
    # The order has no meaning, and a REQUIRETLS policy without a match is enforce.
    return frozenset(pair for pair in value if pair != ("*", RequiretlsPolicy.ENFORCE))


def _shown(profile: MtaProfile, key: str) -> Any:
    """Return a key's value as it stands in TOML."""
    value = getattr(profile, key)
    if key == "requiretls_policy":
        if value is None:
            return "default"
        if [pattern for pattern, _ in value] == ["*"]:
            return value[0][1].value
        return {pattern: policy.value for pattern, policy in value}
    if key == "tls_policy":
        return {name: str(policy) for name, policy in value}
    return list(value) if isinstance(value, tuple) else value
