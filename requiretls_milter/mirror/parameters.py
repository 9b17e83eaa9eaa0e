"""What becomes of every parameter of Postfix: mirrored, warned of, or without effect.

The three together hold each parameter of Postfix 3.7, 3.10 and 3.11 once. Mirrored is what
:data:`MIRRORED` names, warned of what :mod:`.unmirrored` and :data:`WARNED_APART` name. The
parameters of lmtp(8) are, for LMTP over TCP, what those of smtp(8) are (:func:`of_lmtp`). The
others change no forecast, for a reason that a group shares (:func:`irrelevant`). A parameter of a
newer Postfix is in none of them: nothing is known about it, and :func:`unknown` says so.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from requiretls_milter.mirror.postconf import RESTRICTIONS, Postfix
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL

MIRRORED: Mapping[str, str] = {
    "requiretls_enable": "carries",
    "tls_required_enable": "carries",
    "mydomain": "mydomain",
    "myhostname": "myhostname",
    "smtp_tls_security_level": "tls_security_level",
    "smtp_enforce_tls": "tls_security_level",
    "smtp_tls_enforce_peername": "tls_security_level",
    "smtp_use_tls": "tls_security_level",
    "smtp_dns_support_level": "tls_security_level",
    "smtp_host_lookup": "tls_security_level",
    "smtp_dns_resolver_options": "tls_security_level",
    "smtp_requiretls_policy": "requiretls_policy",
    "smtp_tls_policy_maps": "tls_policy",
    "smtp_tls_enforce_sts_mx_patterns": "mta_sts",
    "smtp_tls_dane_insecure_mx_policy": "insecure_mx_policy",
    "requiretls_esmtp_header": "requiretls_esmtp_header",
    "smtp_mx_address_limit": "mx_address_limit",
    "inet_protocols": "inet_protocols",
    "smtp_address_preference": "address_preference",
    "use_srv_lookup": "use_srv_lookup",
    "inet_interfaces": "my_addresses",
    "proxy_interfaces": "my_addresses",
    "mydestination": "local_domains",
    "virtual_mailbox_domains": "local_domains",
    "virtual_alias_domains": "local_domains",
    "parent_domain_matches_subdomains": "local_domains",
    "relay_domains": "routes",
    "transport_maps": "routes",
    "local_transport": "routes",
    "relay_transport": "routes",
    "virtual_transport": "routes",
    "default_transport": "default_transport",
    "recipient_delimiter": "recipient_delimiter",
    "sender_dependent_default_transport_maps": "sender_transports",
    "sender_dependent_relayhost_maps": "sender_relayhosts",
    "empty_address_default_transport_maps_lookup_key": "sender_transports",
    "empty_address_relayhost_maps_lookup_key": "sender_relayhosts",
    "mailbox_transport": "hand_over",
    "mailbox_transport_maps": "hand_over",
    "fallback_transport": "hand_over",
    "fallback_transport_maps": "hand_over",
    "milter_header_checks": "route_transport",
    "default_filter_nexthop": "route_transport",
    "virtual_alias_maps": "virtual_alias_maps",
    "canonical_maps": "canonical_maps",
    "canonical_classes": "canonical_maps",
    "recipient_canonical_maps": "recipient_canonical_maps",
    "recipient_canonical_classes": "recipient_canonical_maps",
    "myorigin": "myorigin",
    "append_dot_mydomain": "append_dot_mydomain",
    "propagate_unmatched_extensions": "propagate_unmatched_extensions",
    "virtual_alias_expansion_limit": "virtual_alias_expansion_limit",
    "virtual_alias_recursion_limit": "virtual_alias_recursion_limit",
    "virtual_alias_address_length_limit": "virtual_alias_address_length_limit",
    "smtp_tls_CAfile": "probe.ca_file",
    "smtp_tls_CApath": "probe.ca_file",
    "tls_append_default_CA": "probe.ca_file",
    "smtp_helo_name": "probe.helo",
    "smtp_tcp_port": "probe.port",
}
"""Parameters that become a key of ``[mta]``, or of ``[probe]`` (a comment below the section)."""

WARNED_APART: Mapping[str, str] = {
    "smtp_tls_per_site": "the obsolete table is not mirrored",
    "content_filter": "mail goes there first",
    "allow_srv_lookup_fallback": "without SRV records Postfix goes by MX records",
    "ignore_srv_lookup_error": "after a failed SRV lookup Postfix goes by MX records",
    "disable_dns_lookups": "next hops are looked up by other means than DNS",
    "lmtp_requiretls_policy": "lmtp(8) may bounce for want of REQUIRETLS",
    **dict.fromkeys(RESTRICTIONS, "a FILTER or REDIRECT of an access(5) table moves mail"),
}
"""Parameters of which there is a warning that depends on more than their own value."""


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that change no forecast, and the reason that they share."""

    why: str
    names: tuple[str, ...]


def irrelevant() -> tuple[Group, ...]:
    """The parameters that change no forecast."""
    return tuple(Group(group["why"], tuple(group["names"])) for group in _data()["group"])


def of_lmtp() -> tuple[str, ...]:
    """The parameters of lmtp(8) that are what those of smtp(8) with the same name are."""
    return tuple(_data()["lmtp"]["names"])


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("irrelevant.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def accounted() -> Iterator[str]:
    """Yield every parameter of which something is known."""
    yield from MIRRORED
    yield from WARNED_APART
    yield from (parameter.name for parameter in (*CLIENT, *GLOBAL))
    yield from of_lmtp()
    for group in irrelevant():
        yield from group.names


def unknown(postfix: Postfix) -> Iterator[str]:
    """Write a sentence for each parameter of a Postfix that none of the tables has."""
    known = set(accounted())
    known |= {f"{service.name}_{suffix}" for service in postfix.services for suffix in _suffixes()}
    for name in sorted(set(postfix.defaults) - known):
        yield f"{name}: a parameter that is not known here; its effect is not mirrored"


def _suffixes() -> Iterator[str]:
    """Yield the ends of the names that the parameters of a single transport have.

    Postfix has them for each service of master.cf, most with the default of ``default_SUFFIX``.
    """
    yield from ("initial_destination_concurrency", "time_limit")
    for name in accounted():
        if name.startswith("default_"):
            yield name.removeprefix("default_")
