"""``mta import``: the ``[mta]`` section that mirrors a running Postfix. Pure.

:func:`mirror` makes it from what :mod:`requiretls_milter.mirror.postconf` has
read, with a warning for each setting that changes what Postfix delivers and has
no key in ``[mta]``. If no key fits exactly, the mirror takes the less secure
value, and a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.config.values import transport as transport_name
from requiretls_milter.mirror import parameters
from requiretls_milter.mirror.agents import Agents
from requiretls_milter.mirror.client import (
    SMTP_PORTS,
    Client,
    mirror_client,
    mirror_domain,
    verifies_by_authority,
)
from requiretls_milter.mirror.expansion import mirror_expansion
from requiretls_milter.mirror.moved import Moved, moved
from requiretls_milter.mirror.postconf import (
    DOMAIN_LISTS,
    RESTRICTIONS,
    TABLE_PARAMETERS,
    Parameters,
    Postfix,
    access_tables,
    is_yes,
)
from requiretls_milter.mirror.routing import mirror_routing
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL, unmirrored
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import (
    Capability,
    MailProtocol,
    ProfileName,
)
from requiretls_milter.syntax.capability import capability
from requiretls_milter.syntax.tables import split_list
from requiretls_milter.syntax.text import one_line

SYSTEM_STORES = frozenset({"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"})
"""Files with the authorities of OpenSSL's own trust store: the same as an empty probe.ca_file."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Postfix as configuration.

    ``mta`` is the content of the section in plain values of TOML. ``hints`` are
    keys of ``[probe]`` that follow from Postfix's settings. ``warnings`` are
    sentences; those in ``while_off`` hold only if recipients are not expanded
    (``aliases``), those in ``while_not_asked`` only if no table is asked. ``notes``
    say what can be expanded, and what not.
    """

    mta: Mapping[str, Any]
    hints: Mapping[str, Any]
    warnings: tuple[str, ...]
    version: str
    while_off: frozenset[str] = frozenset()
    while_not_asked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def mirror(postfix: Postfix) -> Mirror:
    """Make the ``[mta]`` section; it is always a valid configuration."""
    main = postfix.settings
    base = mirror_client(main, postfix)
    warnings = [
        *parameters.unknown(postfix),
        *unmirrored(GLOBAL, main, defaults=postfix.defaults),
        *base.warnings,
        *unmirrored(CLIENT, main, defaults=postfix.defaults),
        *_content_filter_warnings(postfix),
        *_doubled_warnings(postfix),
        *_access_warnings(postfix),
    ]
    agents = Agents.of(postfix)
    routing = mirror_routing(postfix, agents)
    warnings += (*routing.warnings, *agents.warnings)
    expanding = mirror_expansion(postfix)
    warnings += (*expanding.while_off, *expanding.while_not_asked, *expanding.warnings)
    transports, more = _transports(postfix, base, agents)
    warnings += more
    warnings += (
        f"inet_interfaces, proxy_interfaces: {shown(name)} has no address"
        for name in postfix.unresolved
    )
    carries, more = _carries(main)
    warnings += more
    by_tag = moved(postfix)
    warnings += by_tag.warnings
    mydomain, more = mirror_domain(main, "mydomain")
    warnings += more
    myhostname, more = mirror_domain(main, "myhostname")
    warnings += more
    mta: dict[str, Any] = {
        "profile": ProfileName.POSTFIX.value,
        "carries": carries,
        "mydomain": mydomain,
        "myhostname": myhostname,
        "requiretls_esmtp_header": _obeys_header(main, by_tag),
        **routing.values,
        **expanding.values,
        "local_transports": [name for name in agents.local_transports() if _is_name(name)],
        "my_addresses": list(postfix.own_addresses),
        **base.values,
    }
    if _is_name(by_tag.transport):
        mta["route_transport"] = by_tag.transport
    if agents.hand_over:
        mta["hand_over"] = agents.hand_over
    if transports:
        mta["transport"] = transports
    Config.model_validate({"mta": mta})  # a mistake here is an internal error, not advice
    return Mirror(
        mta,
        _hints(main),
        tuple(dict.fromkeys(map(one_line, warnings))),
        postfix.version,
        frozenset(map(one_line, expanding.while_off)),
        frozenset(map(one_line, expanding.while_not_asked)),
        tuple(map(one_line, expanding.notes)),
    )


def _obeys_header(main: Parameters, by_tag: Moved) -> bool:
    """Whether the field Require-TLS-ESMTP has an effect; a recipe gives it one by the tag."""
    if not is_yes(main, "requiretls_enable"):
        return bool(by_tag.transport)
    return is_yes(main, "requiretls_esmtp_header")


def _transports(postfix: Postfix, base: Client, agents: Agents) -> tuple[dict[str, Any], list[str]]:
    """Mirror each transport that differs from main.cf, with the keys that differ."""
    found: dict[str, Any] = {}
    warnings: list[str] = []
    for service in postfix.running("smtp", "lmtp"):
        lmtp = service.program == "lmtp"
        if service.type != "unix" or (lmtp and service.name not in agents.over_tcp):
            continue
        settings = _as_smtp(service.settings) if lmtp else service.settings
        own = mirror_client(settings, postfix)
        new = [text for text in own.warnings if text not in base.warnings]
        new += unmirrored(CLIENT, settings, postfix.settings, defaults=postfix.defaults)
        new += _own_authorities(settings, postfix.settings, own)
        if is_yes(postfix.settings, "tls_required_enable") and not is_yes(
            settings, "tls_required_enable"
        ):
            new.append("tls_required_enable = no: TLS-Required: No is not obeyed here")
        if lmtp:
            new = [re.sub(r"\bsmtp_", "lmtp_", text) for text in new]
        warnings += (f"transport {service.name}: {text}" for text in new)
        differs = {key: value for key, value in own.values.items() if base.values.get(key) != value}
        if lmtp:
            differs["protocol"] = MailProtocol.LMTP.value
        if not differs:
            continue
        if _is_name(service.name):
            found[service.name] = differs
        else:
            warnings.append(f"transport {shown(service.name)}: such a name cannot be mirrored")
    warnings += _lmtp_warnings(postfix, agents)
    return found, warnings


def _own_authorities(settings: Parameters, main: Parameters, own: Client) -> Iterator[str]:
    """Warn of authorities of a transport's own, if certificates are verified by any."""
    if not verifies_by_authority(own):
        return
    for name in ("smtp_tls_CAfile", "smtp_tls_CApath"):
        value = settings.get(name, "")
        if value and value != main.get(name, ""):
            yield (
                f"{name} = {shown(value)}: the forecast verifies certificates by probe.ca_file, "
                "the same for all transports"
            )


def _lmtp_warnings(postfix: Postfix, agents: Agents) -> Iterator[str]:
    policy = postfix.settings.get("lmtp_requiretls_policy", "")
    lenient = ("", "opportunistic", "disable")
    over_sockets = (one for one in postfix.running("lmtp") if one.name not in agents.over_tcp)
    if policy.strip().lower() not in lenient and any(over_sockets):
        yield (
            f"lmtp_requiretls_policy = {shown(policy)}: may bounce REQUIRETLS mail to LMTP "
            "servers behind a unix socket, which is forecast as local delivery"
        )


def _is_name(name: str) -> bool:
    """Whether the configuration takes *name* for that of a transport."""
    try:
        return bool(transport_name(name))
    except ValueError:
        return False


_LMTP_DEFAULTS = {
    "lmtp_tcp_port": "24",
    "lmtp_tls_secure_cert_match": "nexthop",
    "lmtp_connect_timeout": "0s",
}
"""Defaults of lmtp(8) that differ from those of smtp(8) and need no warning."""


def _as_smtp(settings: Parameters) -> Parameters:
    """The settings of an lmtp(8) by the names that smtp(8) has for them."""
    own = {
        name.replace("lmtp_", "smtp_", 1): value
        for name, value in settings.items()
        if name.startswith("lmtp_") and _LMTP_DEFAULTS.get(name) != value
    }
    others = {name: value for name, value in settings.items() if not name.startswith("smtp_")}
    return {**others, **own}


def _carries(main: Parameters) -> tuple[str, list[str]]:
    """Mirror what Postfix acts on: ``auto`` if macro v implies the same, so that upgrades count."""
    honours_no = is_yes(main, "tls_required_enable")
    warnings = []
    if is_yes(main, "requiretls_enable"):
        truth = Capability.REQUIRETLS
        if not is_yes(main, "requiretls_esmtp_header"):
            warnings.append(
                "requiretls_esmtp_header = no: no milter sees that mail of sendmail(1) asks for "
                "REQUIRETLS; the forecast is that of ordinary mail"
            )
        if not honours_no:
            warnings.append(
                "tls_required_enable = no: Postfix does not obey TLS-Required: No; forecast as if "
                "it did"
            )
    else:
        truth = Capability.TLS_REQUIRED if honours_no else Capability.NOTHING
    by_macro = capability(Capability.AUTO, main.get("milter_macro_v", ""))
    return (Capability.AUTO if by_macro is truth else truth).value, warnings


def _content_filter_warnings(postfix: Postfix) -> Iterator[str]:
    """Warn of filters after the queue: each is the next hop of all mail, and no milter sees it."""
    filters: dict[str, list[str]] = {}
    for service in postfix.running("smtpd", "cleanup"):
        value = service.settings.get("content_filter", "")
        if value:
            filters.setdefault(value, []).append(str(service))
    for value, services in filters.items():
        yield (
            f"content_filter = {shown(value)} ({', '.join(services)}): mail goes there first; the "
            "forecast is for the delivery after the filter, and holds only if the filter keeps "
            "REQUIRETLS (requiretls_esmtp_header)"
        )


def _access_warnings(postfix: Postfix) -> Iterator[str]:
    """Warn of access(5) tables that move mail away from the next hop that the milter was told."""
    for parameter in RESTRICTIONS:
        values = (one.settings.get(parameter, "") for one in postfix.running("smtpd"))
        for item in dict.fromkeys(item for value in values for item in access_tables(value)):
            if item in postfix.moving:
                yield (
                    f"{parameter}: {shown(item)}: a FILTER or REDIRECT in it sends mail elsewhere "
                    "than the milter was told; if a filter brings it back, the forecast is for the "
                    "delivery behind that"
                )


def _doubled_warnings(postfix: Postfix) -> Iterator[str]:
    """Warn of tables that Postfix does not open; mail that needs one waits until it is mended."""
    everywhere = (postfix.settings, *(service.settings for service in postfix.services))
    for parameter in (*TABLE_PARAMETERS, *DOMAIN_LISTS):
        items = {one for settings in everywhere for one in split_list(settings.get(parameter, ""))}
        for item in sorted(items & postfix.doubled):
            yield (
                f"{parameter}: {shown(item)}: a key stands twice in it, so that Postfix does not "
                "open the table and defers the mail that needs it (4.3.0); the forecast uses it"
            )


def _hints(main: Parameters) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    ca_file = main.get("smtp_tls_CAfile", "")
    if ca_file and ca_file not in SYSTEM_STORES:
        hints["ca_file"] = ca_file
    helo = main.get("smtp_helo_name", "")
    if helo:
        hints["helo"] = helo
    port = main.get("smtp_tcp_port", "smtp")
    if port not in SMTP_PORTS and port.isdecimal():
        hints["port"] = int(port)
    return hints
