"""``mta import``: the ``[mta]`` section that mirrors a running Postfix. Pure.

:func:`mirror` makes it from what :mod:`requiretls_milter.mirror.postconf` has
read, with a warning for each setting that changes what Postfix delivers and has
no key in ``[mta]``. If no key fits exactly, the mirror takes the less secure
value, and a warning says so.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomlkit
from tomlkit.items import Table

from requiretls_milter.config import Config
from requiretls_milter.config.fields import service as service_name
from requiretls_milter.config.fields import transport as transport_name
from requiretls_milter.mirror import parameters
from requiretls_milter.mirror.agents import Agents
from requiretls_milter.mirror.expansion import mirror_expansion
from requiretls_milter.mirror.moved import Moved, moved
from requiretls_milter.mirror.postconf import (
    TABLE_PARAMETERS,
    Parameters,
    Postfix,
    is_yes,
)
from requiretls_milter.mirror.requiretls_policy import Value, mirror_policy
from requiretls_milter.mirror.routing import mirror_routing
from requiretls_milter.mirror.tls_policy import mirror_mta_sts, mirror_policies, mirror_service
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL, unmirrored
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.model import (
    AddressPreference,
    Capability,
    MailProtocol,
    MtaSts,
    ProfileName,
    RequiretlsPolicy,
    TlsLevel,
)
from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.capability import capability
from requiretls_milter.syntax.names import DomainNameError, to_alabel
from requiretls_milter.syntax.tables import split_list
from requiretls_milter.syntax.text import LINE_WIDTH, one_line

DEFAULT_ADDRESS_LIMIT = 5
"""smtp_mx_address_limit of a Postfix that does not set it."""

MAX_LIMIT = 1000
"""The largest smtp_mx_address_limit that ``[mta]`` takes."""

SYSTEM_STORES = frozenset({"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"})
"""Files with the authorities of OpenSSL's own trust store: the same as an empty probe.ca_file."""

SMTP_PORTS = frozenset({"smtp", "25"})


_INSECURE_MX = ("may", "encrypt", "dane")
_APPENDS_DOMAIN = ("res_defnames", "res_dnsrch")


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


@dataclass(slots=True)
class _Client:
    """How one smtp(8) delivers: the keys that a transport can override, and warnings."""

    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def mirror(postfix: Postfix) -> Mirror:
    """Make the ``[mta]`` section; it is always a valid configuration."""
    main = postfix.settings
    base = _client(main, postfix)
    warnings = [
        *parameters.unknown(postfix),
        *unmirrored(GLOBAL, main, defaults=postfix.defaults),
        *base.warnings,
        *unmirrored(CLIENT, main, defaults=postfix.defaults),
        *_content_filter_warnings(postfix),
        *_doubled_warnings(postfix),
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
    mydomain, more = _domain(main, "mydomain")
    warnings += more
    myhostname, more = _domain(main, "myhostname")
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


# ---------------------------------------------------------------- one smtp(8)


def _client(settings: Parameters, postfix: Postfix) -> _Client:
    client = _Client()
    level = _tls_level(settings, client)
    client.values["tls_security_level"] = level.value
    if level is TlsLevel.DANE_ONLY and _no_dane(settings):
        client.values["requiretls_policy"] = RequiretlsPolicy.INVALID.value
    elif "smtp_requiretls_policy" in settings:
        client.values["requiretls_policy"] = _requiretls_policy(settings, postfix, client)
    client.values["tls_policy"], warnings = mirror_policies(
        settings, postfix.tables, _no_dane(settings)
    )
    client.warnings += warnings
    mta_sts, warnings = mirror_mta_sts(settings)
    client.values["mta_sts"] = mta_sts.value
    client.values["mta_sts_service"] = mirror_service(settings).value
    client.warnings += warnings
    client.values["insecure_mx_policy"] = _insecure_mx_policy(settings, client)
    client.values["mx_address_limit"] = _address_limit(settings, client)
    client.values["inet_protocols"] = _inet_protocols(settings, postfix, client)
    client.values["address_preference"] = _address_preference(settings, client)
    client.values["use_srv_lookup"] = _srv_services(settings, client)
    _warn_of_names_and_trust(settings, level, client)
    return client


def _tls_level(settings: Parameters, client: _Client) -> TlsLevel:
    """Mirror smtp_tls_security_level, or the obsolete parameters (global_tls_level())."""
    word = settings.get("smtp_tls_security_level", "").strip().lower()
    if not word:
        if is_yes(settings, "smtp_enforce_tls"):
            verified = is_yes(settings, "smtp_tls_enforce_peername")
            return TlsLevel.VERIFY if verified else TlsLevel.ENCRYPT
        return TlsLevel.MAY if is_yes(settings, "smtp_use_tls") else TlsLevel.NONE
    if word == "fingerprint":
        client.warnings.append(
            "smtp_tls_security_level = fingerprint: fingerprints are not mirrored; forecast as "
            "encrypt, a level that verifies nothing: REQUIRETLS mail that Postfix may deliver is "
            "forecast to bounce (5.7.10), so let no rule act on it (mode monitor)"
        )
        return TlsLevel.ENCRYPT
    level = tlspolicy.LEVELS.get(word)
    if level is None:
        client.warnings.append(
            f"smtp_tls_security_level = {shown(word)}: Postfix does not know this level and "
            "delivers nothing; forecast as none"
        )
        return TlsLevel.NONE
    problem = _no_dane(settings) if level in (TlsLevel.DANE, TlsLevel.DANE_ONLY) else ""
    if problem and level is TlsLevel.DANE:
        client.warnings.append(
            f"smtp_tls_security_level = dane, but {problem}: Postfix delivers without DANE, as at "
            "level may, and so does the mirror"
        )
        return TlsLevel.MAY
    if problem:
        client.warnings.append(
            f"smtp_tls_security_level = dane-only, but {problem}: Postfix defers all mail "
            '(4.7.5); mirrored as requiretls_policy = "invalid", which defers REQUIRETLS mail '
            "(4.7.10)"
        )
    return level


def _no_dane(settings: Parameters) -> str:
    """Say why Postfix cannot do DANE for any domain (dane_init()); "" if it can."""
    support = settings.get("smtp_dns_support_level", "").strip().lower()
    if support != "dnssec":
        return "smtp_dns_support_level is not dnssec"
    if "dns" not in split_list(settings.get("smtp_host_lookup", "dns").lower()):
        return "smtp_host_lookup does not include dns"
    if is_yes(settings, "ignore_mx_lookup_error"):
        return "ignore_mx_lookup_error = yes"
    options = split_list(settings.get("smtp_dns_resolver_options", "").lower())
    if any(word in options for word in _APPENDS_DOMAIN):
        return "smtp_dns_resolver_options appends domains to names"
    return ""


def _requiretls_policy(settings: Parameters, postfix: Postfix, client: _Client) -> Value:
    if not is_yes(settings, "requiretls_enable"):
        return RequiretlsPolicy.DISABLE.value  # smtp(8) then ignores the requirement
    value, warnings = mirror_policy(
        settings["smtp_requiretls_policy"],
        postfix.tables,
        _domain(postfix.settings, "mydomain")[0],
    )
    client.warnings += (f"smtp_requiretls_policy: {text}" for text in warnings)
    return value


def _insecure_mx_policy(settings: Parameters, client: _Client) -> str:
    word = settings.get("smtp_tls_dane_insecure_mx_policy", "dane").strip().lower()
    if word in _INSECURE_MX:
        return word
    client.warnings.append(
        f"smtp_tls_dane_insecure_mx_policy = {shown(word)}: Postfix does not know this "
        "level and delivers nothing; forecast as may"
    )
    return TlsLevel.MAY.value


def _address_limit(settings: Parameters, client: _Client) -> int:
    text = settings.get("smtp_mx_address_limit", str(DEFAULT_ADDRESS_LIMIT)).strip()
    if not text.isdecimal():
        client.warnings.append(
            f"smtp_mx_address_limit = {shown(text)}: not a number; forecast as "
            f"{DEFAULT_ADDRESS_LIMIT}"
        )
        return DEFAULT_ADDRESS_LIMIT
    return min(int(text), MAX_LIMIT)


def _inet_protocols(settings: Parameters, postfix: Postfix, client: _Client) -> list[str]:
    """Mirror inet_protocols without those that this host does not have (inet_proto_init())."""
    words = split_list(settings.get("inet_protocols", "all").lower())
    wanted = ("ipv4", "ipv6") if "all" in words else tuple(words)
    known: tuple[str, ...] = ("ipv4", "ipv6")
    usable = [name for name in known if name in wanted and name in postfix.inet_protocols]
    if usable:
        return usable
    client.warnings.append(
        f"inet_protocols = {shown(' '.join(words))}: this host has none of them: Postfix "
        "delivers nothing; forecast with ipv4"
    )
    return ["ipv4"]


def _srv_services(settings: Parameters, client: _Client) -> list[str]:
    """Mirror use_srv_lookup as far as it lists services by name."""
    services, others = [], []
    for item in split_list(settings.get("use_srv_lookup", "")):
        try:
            services.append(service_name(item))
        except ValueError:
            others.append(item)
    if others:
        client.warnings.append(
            f"use_srv_lookup: {examples(others)}: only names of services are mirrored: forecasts "
            "use no SRV records for others"
        )
    fallbacks = ("allow_srv_lookup_fallback", "ignore_srv_lookup_error")
    if services and any(is_yes(settings, name) for name in fallbacks):
        client.warnings.append(
            "allow_srv_lookup_fallback, ignore_srv_lookup_error: without SRV records Postfix goes "
            "by MX records; the forecast is 5.4.4 or 4.4.3"
        )
    return services


def _address_preference(settings: Parameters, client: _Client) -> str:
    word = settings.get("smtp_address_preference", "").strip().lower() or AddressPreference.ANY
    if word in tuple(AddressPreference):
        return str(word)
    client.warnings.append(
        f"smtp_address_preference = {shown(word)}: Postfix does not know this word and "
        "delivers nothing; forecast as any"
    )
    return AddressPreference.ANY.value


def _warn_of_names_and_trust(settings: Parameters, level: TlsLevel, client: _Client) -> None:
    """Warn if Postfix verifies certificates with other names or authorities than the probe."""
    levels = [
        level,
        *(tlspolicy.parse(entry).level for entry in client.values["tls_policy"].values()),
    ]
    by_authority = not {TlsLevel.VERIFY, TlsLevel.SECURE}.isdisjoint(levels)
    if by_authority and not settings.get("smtp_tls_servername"):
        client.warnings.append(
            "smtp_tls_servername is empty: Postfix sends no SNI, the probe sends the MX host's "
            "name: a server with several certificates may present another one"
        )
    trusts = any(settings.get(name) for name in ("smtp_tls_CAfile", "smtp_tls_CApath"))
    if not trusts and not is_yes(settings, "tls_append_default_CA"):
        needed = by_authority or client.values["mta_sts"] != MtaSts.OFF.value
        if needed and not settings.get("smtp_tls_trust_anchor_file"):
            client.warnings.append(
                "smtp_tls_CAfile and smtp_tls_CApath are empty: Postfix trusts no authority, and "
                "no certificate verifies at the levels verify and secure (also for MTA-STS); the "
                "forecast uses probe.ca_file"
            )
    if settings.get("smtp_tls_CApath") and not settings.get("smtp_tls_CAfile"):
        path = settings["smtp_tls_CApath"]
        if path.rstrip("/") != "/etc/ssl/certs":
            client.warnings.append(
                f"smtp_tls_CApath = {shown(path)}: a directory of authorities; put them into one "
                "file for probe.ca_file"
            )
    if settings.get("smtp_tcp_port", "smtp") not in SMTP_PORTS:
        client.warnings.append(
            f"smtp_tcp_port = {shown(settings['smtp_tcp_port'])}: the port of a next hop that "
            "names none is probe.port here, the same for all transports"
        )
    support = settings.get("smtp_dns_support_level", "").strip().lower()
    if support == "disabled" or (not support and is_yes(settings, "disable_dns_lookups")):
        client.warnings.append(
            "DNS lookups are disabled: Postfix looks up no MX records; the forecast does"
        )
    elif "native" in split_list(settings.get("smtp_host_lookup", "").lower()):
        client.warnings.append(
            "smtp_host_lookup has native: Postfix asks hosts(5) too, where a name may have another "
            "address; a name without any ends with 5.3.0"
        )


# ---------------------------------------------------------------- the whole instance


def _obeys_header(main: Parameters, by_tag: Moved) -> bool:
    """Whether the field Require-TLS-ESMTP has an effect; a recipe gives it one by the tag."""
    if not is_yes(main, "requiretls_enable"):
        return bool(by_tag.transport)
    return is_yes(main, "requiretls_esmtp_header")


def _transports(
    postfix: Postfix, base: _Client, agents: Agents
) -> tuple[dict[str, Any], list[str]]:
    """Mirror each transport that differs from main.cf, with the keys that differ."""
    found: dict[str, Any] = {}
    warnings: list[str] = []
    for service in postfix.running("smtp", "lmtp"):
        lmtp = service.program == "lmtp"
        if service.type != "unix" or (lmtp and service.name not in agents.over_tcp):
            continue
        settings = _as_smtp(service.settings) if lmtp else service.settings
        own = _client(settings, postfix)
        new = [text for text in own.warnings if text not in base.warnings]
        new += unmirrored(CLIENT, settings, postfix.settings, defaults=postfix.defaults)
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


_LMTP_DEFAULTS = {"lmtp_tcp_port": "24", "lmtp_tls_secure_cert_match": "nexthop"}
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


def _domain(settings: Parameters, name: str) -> tuple[str, list[str]]:
    text = settings.get(name, "")
    try:
        return (to_alabel(text) if text else ""), []
    except DomainNameError as error:
        return "", [f"{name}: {error}"]


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


def _doubled_warnings(postfix: Postfix) -> Iterator[str]:
    """Warn of tables that Postfix does not open; mail that needs one waits until it is mended."""
    everywhere = (postfix.settings, *(service.settings for service in postfix.services))
    for parameter in TABLE_PARAMETERS:
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


# ---------------------------------------------------------------- as TOML

_OPTIONAL = ("hand_over", "transport")
"""Keys that come from Postfix, if there is something to say."""

_ORDER = ("profile", "carries", "mydomain", "tls_security_level", "requiretls_policy", "mta_sts")


def merged(made: Mirror, present: Mapping[str, Any]) -> dict[str, Any]:
    """The content that ``[mta]`` should have, with as little change of the present one as can be.

    A key that means the same already stays as it is written, or away; so does one that does not
    come from Postfix.

    Args:
        made: the mirror.
        present: the section as TOML has it; it is valid.
    """
    full = {key: value for key, value in made.mta.items() if value != {}}
    if not present:
        return _in_order(full)
    old = Config.model_validate({"mta": present}).mta
    new = Config.model_validate({"mta": made.mta}).mta
    content = dict(present)
    for key in (*made.mta, *_OPTIONAL):
        if getattr(old, key) == getattr(new, key):
            continue
        content.pop(key, None)
        if key in full:
            content[key] = full[key]
    return content


def value_text(value: object) -> str:
    """A value as TOML, as :func:`to_toml` writes it."""
    return tomlkit.item(value).as_string()


def to_toml(made: Mirror) -> str:
    """Write the section as TOML that ``config check`` accepts, warnings and hints as comments."""
    document = tomlkit.document()
    head = f"How Postfix {made.version} delivers, read by requiretls-milter mta import."
    document.add(tomlkit.comment(one_line(head)))
    for warning in made.warnings:
        for line in _wrapped(f"warning: {warning}"):
            document.add(tomlkit.comment(line))
    for note in made.notes:
        for line in _wrapped(f"aliases: {note}"):
            document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("mta", _table({key: value for key, value in made.mta.items() if value != {}}))
    if made.hints:
        document.add(tomlkit.nl())
        lines = ["Settings of Postfix that the probe should share:", "[probe]"]
        lines += (f"{key} = {tomlkit.item(value).as_string()}" for key, value in made.hints.items())
        for line in lines:
            document.add(tomlkit.comment(one_line(line)))
    return re.sub(r"\n{3,}", "\n\n", tomlkit.dumps(document)).rstrip("\n") + "\n"


def _table(values: Mapping[str, Any]) -> Table:
    """Write a table: plain values first, then the tables in it."""
    table = tomlkit.table()
    ordered = _in_order(values)
    for key, value in ordered.items():
        if not isinstance(value, Mapping):
            table.add(key, value)
    for key, value in ordered.items():
        if not isinstance(value, Mapping):
            continue
        if key == "transport":
            inner = tomlkit.table(is_super_table=True)
            for name, overrides in value.items():
                inner.add(tomlkit.key(name), _table(overrides))
            table.add(key, inner)
        else:
            table.add(key, _table(value))
    return table


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    known: Sequence[str] = [key for key in _ORDER if key in values]
    return {key: values[key] for key in (*known, *(k for k in values if k not in known))}


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        one_line(text),
        LINE_WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
