"""Where Postfix sends mail: its address classes and transport_maps as ``routes``. Pure.

Postfix tells the milter the way of mail that comes by SMTP. For mail of sendmail(1) ``[mta]`` has
to know it: this module makes one table of the address classes (mydestination,
virtual_alias_domains, virtual_mailbox_domains, relay_domains, each with its transport) and of
transport_maps, which go first, but not for virtual_alias_domains (resolve_addr() and
transport_lookup() of trivial-rewrite(8)). A domain is local only if the transport of its mail
delivers here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from requiretls_milter.config import Destination
from requiretls_milter.config.routes import ANY, LOCAL_TRANSPORT, NULL_SENDER
from requiretls_milter.config.values import destination, relay, route, route_key, sender_key
from requiretls_milter.mirror.agents import Agents
from requiretls_milter.mirror.domainlists import DomainList, covering, domain_list, origin_names
from requiretls_milter.mirror.postconf import Entries, Parameters, Postfix
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.syntax.names import patterns
from requiretls_milter.syntax.nexthop import SEPARATOR, NextHopError, parse
from requiretls_milter.syntax.tables import split_list, static_result

_NULL_SENDER_KEYS = {
    "sender_dependent_default_transport_maps": "empty_address_default_transport_maps_lookup_key",
    "sender_dependent_relayhost_maps": "empty_address_relayhost_maps_lookup_key",
}
"""The parameter that holds the key of the null sender, by the table's own."""


@dataclass(slots=True)
class Routing:
    """The keys of ``[mta]`` that say where mail goes, and warnings of what they cannot express."""

    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Class:
    """An address class: its domains as keys of transport(5), and the route of its mail.

    ``keeps`` says that transport_maps do not apply to it.
    """

    domains: DomainList
    route: str
    keeps: bool = False


@dataclass(slots=True)
class _Table:
    """transport_maps as one table; ``complete`` is false if a part of it could not be read."""

    entries: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    def find(self, key: str) -> str | None:
        """Look up a domain, or a pattern of subdomains, as Postfix does: itself, parents, ``*``."""
        for name in (*patterns(key), ANY):
            if name in self.entries:
                return self.entries[name]
        return None


def mirror_routing(postfix: Postfix, agents: Agents) -> Routing:
    """Make the keys; ``agents.over_tcp`` then has all LMTP over TCP that is in use."""
    main = postfix.settings_of("rewrite", "trivial-rewrite")  # which resolves addresses
    made = Routing()
    default = main.get("default_transport", "") or "smtp"
    made.values["default_transport"] = _valid(destination, default, "default_transport", made)
    if main.get("relayhost", ""):
        made.values["relayhost"] = _valid(relay, main["relayhost"], "relayhost", made)
    table = _transport_table(main, postfix.tables, made)
    classes = list(_classes(main, postfix, made))
    for text in (default, *(one.route for one in classes), *table.entries.values()):
        agents.note(text)
    own = [f"[ipv6:{one}]" if ":" in one else f"[{one}]" for one in postfix.own_addresses]
    classes[0].domains.members.update(dict.fromkeys(own, True))  # whatever mydestination says
    _add_routes(table, classes, agents, made, own, relay_differs=_relay_differs(main, postfix))
    ours = classes[0].domains.plain
    if ours and set(ours) != set(made.values["local_domains"]):
        made.values["mydestination"] = ours  # whose users may name another address
    for name, key, read in (
        ("sender_dependent_default_transport_maps", "sender_transports", destination),
        ("sender_dependent_relayhost_maps", "sender_relayhosts", relay),
    ):
        found = _by_sender(main, name, postfix, read, made)
        if found:
            made.values[key] = found
            for text in found.values():
                agents.note(text)
    keys = [
        key
        for name in ("routes", "sender_transports", "sender_relayhosts")
        for key in made.values.get(name, {})
    ]
    keys += agents.hand_over
    if main.get("recipient_delimiter", "") and any("@" in key for key in keys):
        made.values["recipient_delimiter"] = main["recipient_delimiter"][:16]
    hop = Destination.parse(default)
    usual = Destination(hop.transport, hop.nexthop or main.get("relayhost", ""))
    routes = map(Destination.parse, made.values.get("routes", {}).values())
    _warn_of_unusable((usual, *routes), agents, made)
    _warn_of_missing(made, default, classes, agents)
    return made


def _valid(parse: Callable[[str], str], text: str, name: str, made: Routing) -> str:
    try:
        return parse(text)
    except ValueError:
        made.warnings.append(f"{name} = {shown(text)}: cannot be mirrored")
        return "" if name == "relayhost" else "smtp"


def _warn_of_unicode(parameter: str, keys: Iterable[str], made: Routing) -> None:
    names = tuple(keys)
    if names:
        made.warnings.append(
            f"{parameter}: {examples(names)}: Postfix finds a domain in Unicode only for addresses "
            "that are written so, not for xn--...; the forecast does for both"
        )


def _unread(parameter: str, table: str) -> str:
    return (
        f"{parameter}: {shown(table)}: a table that cannot be read: mail of sendmail(1), and what "
        "aliases become, is forecast as if it did not exist"
    )


def _warn_of_unusable(used: Sequence[Destination], agents: Agents, made: Routing) -> None:
    """Warn of next hops that smtp(8) or lmtp(8) cannot use: their mail stays in the queue."""
    for to in dict.fromkeys(used):
        protocol = agents.protocol_of(to.transport)
        if protocol is None or agents.is_local(f"{to.transport}:{to.nexthop}"):
            continue
        listed = [one for one in SEPARATOR.split(to.nexthop) if one]
        if len(listed) > 1:
            made.warnings.append(
                f"next hops {shown(to.nexthop)} of transport {to.transport}: forecasts are for the "
                "first one; if that fails, Postfix tries the others"
            )
        for one in listed:
            try:
                parse(one, protocol, postfix=True)
            except NextHopError as error:
                made.warnings.append(
                    f"next hop {shown(one)} of transport {to.transport}: Postfix cannot use "
                    f"it, and its mail stays in the queue: {error}"
                )


def _warn_of_missing(
    made: Routing, default: str, classes: Sequence[_Class], agents: Agents
) -> None:
    """Warn of transports in use that master.cf does not have: Postfix defers their mail."""
    used = [default, *(one.route for one in classes if one.domains.names)]
    names = dict.fromkeys(Destination.parse(text).transport for text in used)
    for name in names:
        if agents.services and name not in agents.services:
            made.warnings.append(
                f"transport {shown(name)}: master.cf has no such service: Postfix defers its mail "
                "(4.3.0)"
            )


# ---------------------------------------------------------------- classes and transport_maps


def _add_routes(
    table: _Table,
    classes: Sequence[_Class],
    agents: Agents,
    made: Routing,
    own: Sequence[str],
    *,
    relay_differs: bool,
) -> None:
    """Merge classes and transport_maps into ``routes`` and ``local_domains``."""
    by_class = _by_class(classes)
    of_class = {name: one.route for name, one in by_class.items()}
    kept = {name for name, one in by_class.items() if one.keeps}
    routes: dict[str, str] = {}
    local: list[str] = []
    unusable: list[str] = []
    for name in dict.fromkeys((*of_class, *table.entries)):
        is_kept = name.rpartition("@")[2] in kept
        if is_kept and "@" in name:
            continue
        found = of_class[name] if is_kept else _merged(name, table, of_class)
        if not _is_route(found):
            unusable.append(name)
        elif name in own and Destination.parse(found).transport == LOCAL_TRANSPORT:
            continue  # that is where its mail goes without being told
        elif not agents.keeps_all(found):
            plain_relay = ":" not in found and name not in table.entries
            if relay_differs or not plain_relay:
                routes[name] = found
        elif name in own:
            continue
        elif "@" in name or name == ANY or name.startswith("["):
            routes[name] = found
        elif table.complete or is_kept:
            local.append(name)
    if not table.complete and any(
        agents.is_local(one.route) and not one.keeps and not set(one.domains.names) <= set(own)
        for one in classes
    ):
        made.warnings.append(
            "mydestination, virtual_mailbox_domains: not mirrored, since transport_maps could "
            "route them elsewhere: list the domains that are local in local_domains"
        )
    if unusable:
        made.warnings.append(f"the transport of {examples(unusable)} cannot be mirrored")
    made.values["local_domains"] = local
    if routes:
        made.values["routes"] = routes


def _by_class(classes: Sequence[_Class]) -> dict[str, _Class]:
    """The class of each domain: the first one that has it.

    The class of a domain that is in none, although a class has its parent, or all domains, has the
    route ``:``.
    """
    names = dict.fromkeys(name for one in classes for name in one.domains.members)
    found: dict[str, _Class] = {}
    for name in names:
        first = next((one for one in classes if one.domains.matches(name)), None)
        if first is not None:
            found[name] = first
    for name in names:
        if name not in found and any(key in found for key in covering(name)):
            found[name] = _Class(DomainList(), ":")
    return found


def _is_route(text: str) -> bool:
    """Whether the configuration takes *text* for a route."""
    try:
        return bool(route(text))
    except ValueError:
        return False


def _merged(name: str, table: _Table, of_class: Mapping[str, str]) -> str:
    """Say where mail for a key goes: by transport_maps, which may keep the transport of its class.

    ``:`` stands for the default route, a transport without a colon for that of a class that
    relayhost may send elsewhere.
    """
    entry = table.entries.get(name) if "@" in name or name == ANY else table.find(name)
    domain = name.rpartition("@")[2]
    mine = next((of_class[key] for key in (*patterns(domain), ANY) if key in of_class), ":")
    if entry is None:
        return mine
    new = Destination.parse(entry)
    if new.transport:
        return f"{new.transport}:{new.nexthop}"
    if not new.nexthop:
        return mine
    return f"{Destination.parse(mine).transport}:{new.nexthop}"


def _relay_differs(main: Parameters, postfix: Postfix) -> bool:
    """Whether it matters that mail for relay_domains has a transport of its own.

    It does not if both transports run smtp(8) with the same settings, to the same next hop.
    """
    first, second = main.get("relay_transport", ""), main.get("default_transport", "")
    if main.get("sender_dependent_default_transport_maps", "") or ":" in first + second:
        return True
    services = {one.name: one for one in postfix.services if one.type == "unix"}
    relaying, sending = services.get(first), services.get(second)
    if relaying is None or sending is None:
        return first != second
    names = ("service_name", "syslog_name")
    alike = [
        {key: value for key, value in one.settings.items() if key not in names}
        for one in (relaying, sending)
    ]
    return relaying.program != sending.program or alike[0] != alike[1]


def _classes(main: Parameters, postfix: Postfix, made: Routing) -> Iterator[_Class]:
    """List the address classes in the order in which Postfix looks at them."""

    # By default these are the keys of virtual_alias_maps, of which there are warnings already.
    told = {"virtual_alias_domains": split_list(main.get("virtual_alias_maps", ""))}

    def domains(parameter: str) -> DomainList:
        found = domain_list(main, parameter, postfix)
        _warn_of_unicode(parameter, found.unicode, made)
        unknown = [item for item in found.unknown if item not in told.get(parameter, ())]
        if unknown:
            made.warnings.append(
                f"{parameter}: {examples(unknown)}: only names are mirrored, and tables that "
                "can be read: whether mail of sendmail(1) for others is local, and where it goes, "
                "is not known"
            )
        return found

    yield _Class(domains("mydestination"), _explicit(main.get("local_transport", "")))
    yield _Class(domains("virtual_alias_domains"), "error:", keeps=True)
    yield _Class(domains("virtual_mailbox_domains"), _explicit(main.get("virtual_transport", "")))
    relaying = main.get("relay_transport", "").removesuffix(":") or "relay"
    yield _Class(domains("relay_domains"), relaying)


def _explicit(text: str) -> str:
    """Return the transport of a class whose next hop is never relayhost."""
    return text if ":" in text else f"{text}:"


def _transport_table(
    main: Parameters, tables: Mapping[str, Entries | None], made: Routing
) -> _Table:
    """Merge transport_maps: the first table with a key decides, a static one decides for all."""
    merged = _Table()
    unusable: list[str] = []
    parents = split_list(main.get("parent_domain_matches_subdomains", ""))
    for item in split_list(main.get("transport_maps", "")):
        everyone = static_result(item)
        if everyone is not None:
            merged.entries = {key: to for key, to in merged.entries.items() if "@" in key}
            merged.entries[ANY] = everyone
            if main.get("recipient_delimiter", "") and len(merged.entries) > 1:
                made.warnings.append(
                    f"transport_maps: {shown(item)}: of an address with an extension Postfix "
                    "finds it, and not the entry for the user before it; the forecast is by that"
                )
            break
        entries = tables.get(item)
        if entries is None:
            merged.complete = False
            made.warnings.append(_unread("transport_maps", item))
            continue
        _warn_of_unicode("transport_maps", (key for key, _ in entries if not key.isascii()), made)
        for key, text in entries:
            try:
                merged.entries.setdefault(route_key(key), route(_explicit(text)))
            except ValueError:
                unusable.append(key)
    if unusable:
        made.warnings.append(f"transport_maps: not mirrored: {examples(unusable)}")
    if "transport_maps" in parents:
        merged.entries = {
            pattern: to
            for key, to in merged.entries.items()
            if not key.startswith(".")
            for pattern in ((key,) if "@" in key or key[0] in "*[" else (key, f".{key}"))
        }
    return merged


# ---------------------------------------------------------------- by sender


def _by_sender(
    main: Parameters,
    parameter: str,
    postfix: Postfix,
    parse: Callable[[str], str],
    made: Routing,
) -> dict[str, str]:
    """Merge tables by sender; the first one with a key decides, a static one for all senders.

    Postfix looks up the whole address first: a static table hides all entries for domains. It hides
    that of the null sender too, whose key Postfix first looks up in quotes (``"<>"``). A local part
    alone is the key of that user in each domain of ours, behind all whole addresses.
    """
    merged: dict[str, str] = {}
    users: dict[str, str] = {}
    unusable: list[str] = []
    null_sender = main.get(_NULL_SENDER_KEYS[parameter], "") or NULL_SENDER
    for item in split_list(main.get(parameter, "")):
        everyone = static_result(item)
        entries = ((ANY, everyone),) if everyone is not None else postfix.tables.get(item)
        if entries is None:
            made.warnings.append(_unread(parameter, item))
            continue
        if everyone is not None:
            merged = {key: to for key, to in merged.items() if key.rpartition("@")[0]}
        for key, text in entries:
            try:
                if everyone is not None:
                    merged.setdefault(ANY, parse(text))
                elif key == ANY:  # no special key in Postfix
                    raise ValueError
                elif key == null_sender:
                    merged.setdefault(NULL_SENDER, parse(text))
                elif "@" in key:
                    merged.setdefault(sender_key(key), parse(text))
                elif key != NULL_SENDER:
                    users.setdefault(key, parse(text))
            except ValueError:
                unusable.append(key)
        if everyone is not None:
            break
    else:  # a static table has an answer before the local part is looked up
        for user, domain in itertools.product(users, _ours(main, postfix) if users else ()):
            try:
                merged.setdefault(sender_key(f"{user}@{domain}"), users[user])
            except ValueError:
                unusable.append(user)
    if unusable:
        made.warnings.append(
            f"{parameter}: not mirrored: {examples(dict.fromkeys(unusable))}: keys are addresses, "
            "users of this host, @domain or <>"
        )
    return merged


def _ours(main: Parameters, postfix: Postfix) -> list[str]:
    """The domains whose users are looked up without a domain too: mydestination and myorigin."""
    return [*domain_list(main, "mydestination", postfix).names, *origin_names(main, postfix)]
