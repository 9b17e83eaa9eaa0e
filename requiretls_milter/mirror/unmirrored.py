"""Settings of Postfix that change what it delivers and have no key in ``[mta]``. Pure.

Each has values at which forecasts stay right, and a sentence that says what a
forecast gets wrong otherwise. docs/mta-import.md lists them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.mirror.postconf import Parameters, split_list
from requiretls_milter.mirror.wording import shown


@dataclass(frozen=True, slots=True)
class Unmirrored:
    """A parameter that forecasts do not know.

    ``harmless`` are the values at which they need not, in lower case with one
    blank for many. The empty value is always harmless: a Postfix may not have
    the parameter. If ``words`` are given, the value is a list, and only these
    words in it matter.
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
    """Describe a boolean that matters if it is yes."""
    return Unmirrored(name, why, frozenset({"no"}))


def _no(name: str, why: str) -> Unmirrored:
    """Describe a boolean that matters if it is no."""
    return Unmirrored(name, why, frozenset({"yes"}))


_HANDSHAKE = "a handshake may fail for Postfix and not for the probe, or the reverse"

CLIENT: tuple[Unmirrored, ...] = (
    _no(
        "smtp_skip_5xx_greeting",
        "a 5xx greeting bounces at once; the forecast goes on to the next server",
    ),
    Unmirrored(
        "smtp_fallback_relay",
        "if every server fails, Postfix tries this relay; the forecast does not",
    ),
    Unmirrored(
        "smtp_tls_trust_anchor_file",
        "at the levels verify and secure (also for MTA-STS) Postfix trusts these anchors only",
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
        "Postfix starts with TLS; the probe sends STARTTLS",
    ),
    Unmirrored(
        "smtp_tls_servername",
        "without DANE, Postfix sends this name as SNI; the probe sends the MX host's name",
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
        "Postfix also looks up TLSA records of unsigned hosts",
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
        "Postfix may try other addresses of a host with many addresses than the forecast",
    ),
    _yes("smtp_never_send_ehlo", "Postfix never sends STARTTLS"),
    Unmirrored("smtp_dns_reply_filter", "Postfix drops or changes some DNS records"),
    Unmirrored("smtp_reply_filter", "Postfix changes servers' replies, possibly to STARTTLS"),
    Unmirrored(
        "smtp_delivery_status_filter",
        "Postfix reports other status codes than the forecast",
    ),
    Unmirrored(
        "smtp_discard_ehlo_keywords",
        "Postfix acts as if servers did not offer it",
        words=frozenset({"starttls", "requiretls"}),
    ),
    Unmirrored(
        "smtp_discard_ehlo_keyword_address_maps",
        "Postfix ignores what some servers offer, possibly STARTTLS or REQUIRETLS",
    ),
    *(
        Unmirrored(name, "Postfix connects from this address, the probe possibly from another")
        for name in ("smtp_bind_address", "smtp_bind_address6")
    ),
    Unmirrored(
        "use_srv_lookup",
        "Postfix finds servers by SRV records",
        words=frozenset({"smtp"}),
    ),
    _yes(
        "ignore_mx_lookup_error",
        "after a failed MX lookup Postfix tries the domain's own address; the forecast is 4.4.3",
    ),
    _yes("soft_bounce", "Postfix defers what is forecast to bounce: the class is 4, not 5"),
    Unmirrored(
        "tls_dane_digests",
        "Postfix uses other digests of TLSA records",
        frozenset({"sha512 sha256", "sha512, sha256"}),
    ),
)
"""Parameters of smtp(8), in main.cf or as ``-o`` of one transport."""

GLOBAL: tuple[Unmirrored, ...] = (
    Unmirrored(
        "relayhost",
        "a smart host: forecasts are for that hop, not for its own deliveries",
    ),
    Unmirrored(
        "best_mx_transport",
        "if this host is the best MX, Postfix delivers; the forecast is a mail loop",
    ),
    Unmirrored("defer_transports", "Postfix defers all mail over these transports"),
)
"""Parameters of the queue manager and of address resolution, in main.cf only."""


def unmirrored(
    known: tuple[Unmirrored, ...], settings: Parameters, main: Parameters | None = None
) -> Iterator[str]:
    """Write a sentence for each setting that could make a forecast wrong.

    Args:
        known: the parameters to look for.
        settings: the settings that the daemon sees.
        main: settings of main.cf that are already reported; equal ones are skipped.
    """
    for parameter in known:
        value = settings.get(parameter.name, "")
        reported = main is not None and main.get(parameter.name, "") == value
        if not reported and parameter.matters(value):
            yield f"{parameter.name} = {shown(value)}: {parameter.why}"
