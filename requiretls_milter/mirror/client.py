"""How one smtp(8) delivers: the keys of ``[mta]`` that a transport can override. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from requiretls_milter.config.values import service as service_name
from requiretls_milter.mirror.postconf import (
    Parameters,
    Postfix,
    is_yes,
    used_protocols,
)
from requiretls_milter.mirror.requiretls_policy import Value, mirror_policy
from requiretls_milter.mirror.tls_policy import mirror_mta_sts, mirror_policies, mirror_service
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.model import (
    AddressPreference,
    MtaSts,
    RequiretlsPolicy,
    TlsLevel,
)
from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.names import DomainNameError, to_alabel
from requiretls_milter.syntax.tables import split_list

DEFAULT_ADDRESS_LIMIT = 5
"""smtp_mx_address_limit of a Postfix that does not set it."""

MAX_LIMIT = 1000
"""The largest smtp_mx_address_limit that ``[mta]`` takes."""

SMTP_PORTS = frozenset({"smtp", "25"})

_INSECURE_MX = ("may", "encrypt", "dane")

_APPENDS_DOMAIN = ("res_defnames", "res_dnsrch")


@dataclass(slots=True)
class Client:
    """How one smtp(8) delivers: the keys that a transport can override, and warnings."""

    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def mirror_client(settings: Parameters, postfix: Postfix) -> Client:
    """Mirror one smtp(8), with *settings*, or an lmtp(8) by the names that smtp(8) has for them."""
    made = Client()
    level = _tls_level(settings, made)
    made.values["tls_security_level"] = level.value
    if level is TlsLevel.DANE_ONLY and _no_dane(settings):
        made.values["requiretls_policy"] = RequiretlsPolicy.INVALID.value
    elif "smtp_requiretls_policy" in settings:
        made.values["requiretls_policy"] = _requiretls_policy(settings, postfix, made)
    made.values["tls_policy"], warnings = mirror_policies(
        settings, postfix.tables, _no_dane(settings)
    )
    made.warnings += warnings
    mta_sts, warnings = mirror_mta_sts(settings)
    made.values["mta_sts"] = mta_sts.value
    made.values["mta_sts_service"] = mirror_service(settings).value
    made.warnings += warnings
    made.values["insecure_mx_policy"] = _insecure_mx_policy(settings, made)
    made.values["mx_address_limit"] = _address_limit(settings, made)
    made.values["inet_protocols"] = _inet_protocols(settings, postfix, made)
    made.values["address_preference"] = _address_preference(settings, made)
    made.values["use_srv_lookup"] = _srv_services(settings, made)
    _warn_of_names_and_trust(settings, made)
    return made


def _tls_level(settings: Parameters, client: Client) -> TlsLevel:
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


def _requiretls_policy(settings: Parameters, postfix: Postfix, client: Client) -> Value:
    if not is_yes(settings, "requiretls_enable"):
        return RequiretlsPolicy.DISABLE.value  # smtp(8) then ignores the requirement
    value, warnings = mirror_policy(
        settings["smtp_requiretls_policy"],
        postfix.tables,
        mirror_domain(postfix.settings, "mydomain")[0],
    )
    client.warnings += (f"smtp_requiretls_policy: {text}" for text in warnings)
    return value


def _insecure_mx_policy(settings: Parameters, client: Client) -> str:
    word = settings.get("smtp_tls_dane_insecure_mx_policy", "dane").strip().lower()
    if word in _INSECURE_MX:
        return word
    client.warnings.append(
        f"smtp_tls_dane_insecure_mx_policy = {shown(word)}: Postfix does not know this "
        "level and delivers nothing; forecast as may"
    )
    return TlsLevel.MAY.value


def _address_limit(settings: Parameters, client: Client) -> int:
    text = settings.get("smtp_mx_address_limit", str(DEFAULT_ADDRESS_LIMIT)).strip()
    if not text.isdecimal():
        client.warnings.append(
            f"smtp_mx_address_limit = {shown(text)}: not a number; forecast as "
            f"{DEFAULT_ADDRESS_LIMIT}"
        )
        return DEFAULT_ADDRESS_LIMIT
    return min(int(text), MAX_LIMIT)


def _inet_protocols(settings: Parameters, postfix: Postfix, client: Client) -> list[str]:
    """Mirror inet_protocols without those that this host does not have (inet_proto_init())."""
    usable = used_protocols(settings, postfix.inet_protocols)
    if usable:
        return list(usable)
    client.warnings.append(
        f"inet_protocols = {shown(settings.get('inet_protocols', 'all'))}: this host has none of "
        "them: Postfix delivers nothing; forecast with ipv4"
    )
    return ["ipv4"]


def _srv_services(settings: Parameters, client: Client) -> list[str]:
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


def _address_preference(settings: Parameters, client: Client) -> str:
    word = settings.get("smtp_address_preference", "").strip().lower() or AddressPreference.ANY
    if word in tuple(AddressPreference):
        return str(word)
    client.warnings.append(
        f"smtp_address_preference = {shown(word)}: Postfix does not know this word and "
        "delivers nothing; forecast as any"
    )
    return AddressPreference.ANY.value


def verifies_by_authority(client: Client) -> bool:
    """Whether some certificate is verified by a chain to an authority, also for MTA-STS."""
    return _has_level_by_authority(client) or client.values["mta_sts"] != MtaSts.OFF.value


def _has_level_by_authority(client: Client) -> bool:
    levels = [
        client.values["tls_security_level"],
        *(tlspolicy.parse(entry).level for entry in client.values["tls_policy"].values()),
    ]
    return not {TlsLevel.VERIFY, TlsLevel.SECURE}.isdisjoint(levels)


def _warn_of_names_and_trust(settings: Parameters, client: Client) -> None:
    """Warn if Postfix verifies certificates with other names or authorities than the probe."""
    by_authority = _has_level_by_authority(client)
    if by_authority and not settings.get("smtp_tls_servername"):
        client.warnings.append(
            "smtp_tls_servername is empty: Postfix sends no SNI, the probe sends the MX host's "
            "name: a server with several certificates may present another one"
        )
    trusts = any(settings.get(name) for name in ("smtp_tls_CAfile", "smtp_tls_CApath"))
    trusts |= is_yes(settings, "tls_append_default_CA")
    trusts |= bool(settings.get("smtp_tls_trust_anchor_file"))
    if not trusts and verifies_by_authority(client):
        client.warnings.append(
            "smtp_tls_CAfile and smtp_tls_CApath are empty: Postfix trusts no authority, and no "
            "certificate verifies at the levels verify and secure (also for MTA-STS); the "
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


def mirror_domain(settings: Parameters, name: str) -> tuple[str, list[str]]:
    """Mirror a parameter that holds a domain; "" and a warning if it holds none."""
    text = settings.get(name, "")
    try:
        return (to_alabel(text) if text else ""), []
    except DomainNameError as error:
        return "", [f"{name}: {error}"]
