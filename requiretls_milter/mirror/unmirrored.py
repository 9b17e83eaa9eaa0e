"""Settings of Postfix that change what it delivers and that ``[mta]`` cannot say. Pure.

Each has a value at which it does no harm, and a sentence of what a forecast
then gets wrong. docs/mta-import.md lists them from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.mirror.postconf import Settings, split_list
from requiretls_milter.syntax.text import escaped

MAX_SHOWN = 120
"""Characters of a value of Postfix that are shown: a comment of one or two lines."""


@dataclass(frozen=True, slots=True)
class Unmirrored:
    """A parameter that the forecast does not know.

    ``harmless``: the values with which it needs not, in lower case, blanks
    made one; the empty one is always among them for a parameter that this
    Postfix does not have. ``words``: the value is a list, and only these words
    in it matter.
    """

    name: str
    why: str
    harmless: frozenset[str] = frozenset({""})
    words: frozenset[str] = frozenset()

    def matters(self, value: str) -> bool:
        """Whether a forecast could be wrong at this value."""
        if self.words:
            return not self.words.isdisjoint(split_list(value.lower()))
        return " ".join(value.lower().split()) not in self.harmless | {""}


def _yes(name: str, why: str) -> Unmirrored:
    """A boolean that does harm where it is yes."""
    return Unmirrored(name, why, frozenset({"no"}))


def _no(name: str, why: str) -> Unmirrored:
    """A boolean that does harm where it is no."""
    return Unmirrored(name, why, frozenset({"yes"}))


_HANDSHAKE = "a handshake may fail for Postfix and not for our probe, or the reverse"

CLIENT: tuple[Unmirrored, ...] = (
    _no(
        "smtp_skip_5xx_greeting",
        "a 5xx greeting bounces at once; the forecast goes on to the next server",
    ),
    Unmirrored(
        "smtp_fallback_relay",
        "where every server fails, Postfix tries this relay; the forecast is without it",
    ),
    Unmirrored(
        "smtp_tls_trust_anchor_file",
        "at the levels verify and secure (MTA-STS too) only these anchors count in Postfix",
    ),
    Unmirrored(
        "smtp_tls_scert_verifydepth",
        "longer certificate chains fail in Postfix",
        frozenset({"9"}),
    ),
    Unmirrored(
        "smtp_tls_verify_cert_match",
        "at level verify Postfix matches other names than the server's host name",
        frozenset({"hostname"}),
    ),
    Unmirrored(
        "smtp_tls_secure_cert_match",
        "at level secure Postfix matches other names than the next hop and its subdomains",
        frozenset({"nexthop, dot-nexthop", "nexthop,dot-nexthop", "nexthop dot-nexthop"}),
    ),
    _yes(
        "smtp_tls_wrappermode",
        "Postfix begins with TLS; the probe says STARTTLS",
    ),
    Unmirrored(
        "smtp_tls_servername",
        "Postfix sends this name as SNI where DANE is not in force, our probe the MX host's name",
        frozenset({"hostname"}),
    ),
    *(
        Unmirrored(name, _HANDSHAKE, frozenset({">=tlsv1", "!sslv2, !sslv3", "!sslv2,!sslv3"}))
        for name in ("smtp_tls_protocols", "smtp_tls_mandatory_protocols")
    ),
    *(
        Unmirrored(name, _HANDSHAKE, frozenset({"medium"}))
        for name in ("smtp_tls_ciphers", "smtp_tls_mandatory_ciphers")
    ),
    *(
        Unmirrored(name, _HANDSHAKE)
        for name in ("smtp_tls_exclude_ciphers", "smtp_tls_mandatory_exclude_ciphers")
    ),
    _yes(
        "smtp_tls_force_insecure_host_tlsa_lookup",
        "Postfix asks for TLSA records of unsigned hosts too",
    ),
    _yes(
        "smtp_defer_if_no_mx_address_found",
        "MX hosts without an address defer (4.4.x) in Postfix; the forecast is 5.4.4",
    ),
    _yes(
        "smtp_cname_overrides_servername",
        "Postfix matches a certificate against the name at the end of an MX host's alias",
    ),
    _no(
        "smtp_balance_inet_protocols",
        "Postfix may try other addresses of a host with many than the forecast",
    ),
    _yes("smtp_never_send_ehlo", "Postfix never says STARTTLS"),
    Unmirrored("smtp_dns_reply_filter", "Postfix drops or changes some of what DNS answers"),
    Unmirrored("smtp_reply_filter", "Postfix changes what servers reply, STARTTLS perhaps"),
    Unmirrored(
        "smtp_delivery_status_filter",
        "Postfix reports other status codes than those that are forecast",
    ),
    Unmirrored(
        "smtp_discard_ehlo_keywords",
        "Postfix does as if servers did not offer it",
        words=frozenset({"starttls", "requiretls"}),
    ),
    Unmirrored(
        "smtp_discard_ehlo_keyword_address_maps",
        "Postfix ignores what some servers offer, STARTTLS or REQUIRETLS perhaps",
    ),
    *(
        Unmirrored(name, "Postfix calls from this address, our probe from another, perhaps")
        for name in ("smtp_bind_address", "smtp_bind_address6")
    ),
    Unmirrored(
        "use_srv_lookup",
        "Postfix finds servers by SRV records",
        words=frozenset({"smtp"}),
    ),
    _yes(
        "ignore_mx_lookup_error",
        "after a failed MX lookup Postfix goes to the domain's address; the forecast is 4.4.3",
    ),
    _yes("soft_bounce", "Postfix defers whatever is forecast to bounce: the class is 4, not 5"),
    Unmirrored(
        "tls_dane_digests",
        "Postfix uses other digests of TLSA records",
        frozenset({"sha512 sha256", "sha512, sha256"}),
    ),
)
"""What smtp(8) acts on, in main.cf or as ``-o`` of one transport."""

GLOBAL: tuple[Unmirrored, ...] = (
    Unmirrored(
        "relayhost",
        "a smart host: forecasts are for that hop, not for what it does next; mail of "
        "sendmail(1) comes without a next hop and is forecast for the recipient's domain; "
        "ask check for the relay, in brackets where it has them",
    ),
    Unmirrored(
        "transport_maps",
        "routes: where mail goes to a smart host, forecasts are for that hop; mail of "
        "sendmail(1) comes without a next hop and is forecast for the recipient's domain",
    ),
    *(
        Unmirrored(
            name,
            "routes by sender: a smart host's own deliveries are not forecast, and mail of "
            "sendmail(1) comes without a next hop",
        )
        for name in ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
    ),
    Unmirrored(
        "best_mx_transport",
        "where this host is the best MX, Postfix delivers; the forecast is a mail loop",
    ),
    Unmirrored("defer_transports", "Postfix defers all mail over these transports"),
)
"""What the queue manager and the resolver of addresses act on; of main.cf only."""


def unmirrored(
    known: tuple[Unmirrored, ...], settings: Settings, main: Settings | None = None
) -> Iterator[str]:
    """A sentence for each setting that could make a forecast wrong.

    Args:
        known: what to look for.
        settings: what the daemon sees.
        main: what has been told already, of main.cf.
    """
    for parameter in known:
        value = settings.get(parameter.name, "")
        told = main is not None and main.get(parameter.name, "") == value
        if not told and parameter.matters(value):
            yield f"{parameter.name} = {shown(value)}: {parameter.why}"


def shown(value: str) -> str:
    """A value as it may stand in a comment: one line, printable ASCII, bounded."""
    return escaped(" ".join(value.split()), MAX_SHOWN)
