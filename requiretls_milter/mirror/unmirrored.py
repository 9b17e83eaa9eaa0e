"""Settings of Postfix that change what it delivers and have no key in ``[mta]``. Pure.

Each has values at which forecasts stay right, and a sentence that says what a
forecast gets wrong otherwise. docs/mta-import.md lists them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.mirror.postconf import Parameters
from requiretls_milter.mirror.wording import shown
from requiretls_milter.syntax.tables import split_list


@dataclass(frozen=True, slots=True)
class Unmirrored:
    """A parameter that forecasts do not know.

    ``harmless`` are the values at which they need not, in lower case with one
    blank for many. The empty value is always harmless: a Postfix may not have
    the parameter. If ``words`` are given, the value is a list, and only these
    words in it matter; if ``harmless_words`` are given, all but these. With
    ``own_default`` the default of the Postfix that is read is harmless too: it
    differs between versions. ``used_by`` names parameters, and a word, one of which
    must have that word for this one to have any effect.
    """

    name: str
    why: str
    harmless: frozenset[str] = frozenset({""})
    words: frozenset[str] = frozenset()
    harmless_words: frozenset[str] = frozenset()
    own_default: bool = False
    used_by: tuple[str, frozenset[str]] | None = None

    def matters(self, settings: Parameters, default: str = "") -> bool:
        """Whether a forecast could be wrong with these settings.

        *default* is the parameter's default of the Postfix that is read.
        """
        value = settings.get(self.name, "")
        if self.used_by is not None:
            word, users = self.used_by
            if all(settings.get(user, word).lower() != word for user in users):
                return False
        if self.words:
            return not self.words.isdisjoint(split_list(value.lower()))
        if self.harmless_words:
            return not self.harmless_words.issuperset(split_list(value.lower()))
        if self.own_default and _plain(value) == _plain(default):
            return False
        return _plain(value) not in self.harmless | {""}


def _plain(value: str) -> str:
    return " ".join(value.lower().split())


def _yes(name: str, why: str) -> Unmirrored:
    """Describe a boolean that matters if it is yes."""
    return Unmirrored(name, why, frozenset({"no"}))


def _no(name: str, why: str) -> Unmirrored:
    """Describe a boolean that matters if it is no."""
    return Unmirrored(name, why, frozenset({"yes"}))


def _changed(name: str, why: str) -> Unmirrored:
    """Describe a parameter that matters if it has not the default of the Postfix that is read."""
    return Unmirrored(name, why, own_default=True)


_HANDSHAKE = "a handshake may fail for Postfix and not for the probe, or the reverse"
_CLIENT_CERTIFICATE = (
    "Postfix shows servers a certificate, the probe none: a server may treat the two differently"
)
_TIMEOUT = "a slow server may be in time for the probe and not for Postfix, or the reverse"
_HEADER_ACTIONS = "a FILTER or REDIRECT in it sends mail elsewhere than the milter was told"

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
        words=frozenset({"starttls", "requiretls", "smtputf8", "size"}),
    ),
    Unmirrored(
        "smtp_discard_ehlo_keyword_address_maps",
        "Postfix ignores what some servers offer, possibly STARTTLS or REQUIRETLS",
    ),
    *(
        Unmirrored(name, "Postfix connects from this address, the probe possibly from another")
        for name in ("smtp_bind_address", "smtp_bind_address6")
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
    *(
        _changed(name, _TIMEOUT)
        for name in ("smtp_connect_timeout", "smtp_helo_timeout", "smtp_starttls_timeout")
    ),
    _yes("smtp_per_request_deadline", _TIMEOUT),
    _no(
        "smtp_always_send_ehlo",
        "Postfix sends EHLO and STARTTLS only to servers whose greeting says ESMTP",
    ),
    _changed(
        "smtp_pix_workarounds",
        "to servers whose greeting looks like that of a certain firewall, Postfix may send EHLO "
        "and STARTTLS, which the probe does not",
    ),
    Unmirrored(
        "smtp_pix_workaround_maps",
        "to some servers Postfix may send HELO, and no STARTTLS; the probe sends EHLO",
    ),
    _yes(
        "smtp_sasl_auth_enable",
        "Postfix authenticates to servers: a login that fails defers mail (4.7.x) that is forecast "
        "to be delivered",
    ),
    _yes(
        "smtp_tls_block_early_mail_reply",
        "Postfix gives up a server that answers before it is asked; the probe does not",
    ),
    *(
        Unmirrored(name, _CLIENT_CERTIFICATE, frozenset({"none"}))
        for name in (
            *("smtp_tls_chain_files", "smtp_tls_cert_file"),
            *("smtp_tls_eccert_file", "smtp_tls_dcert_file"),
        )
    ),
    _yes(
        "smtp_tls_connection_reuse",
        "Postfix may send over a TLS session that it opened, and verified, for earlier mail",
    ),
    _yes(
        "smtp_tls_enable_rpk",
        "Postfix takes a server's raw public key; the probe asks for a certificate",
    ),
    *(
        _changed(name, _HANDSHAKE)
        for name in (
            *("tls_disable_workarounds", "tls_config_file", "tls_config_name"),
            *("tls_eecdh_auto_curves", "tls_ffdhe_auto_groups"),
        )
    ),
    Unmirrored(
        "tls_ssl_options",
        _HANDSHAKE,
        # What these leave out is no part of a first handshake, or nobody needs it.
        harmless_words=frozenset(
            {"no_compression", "no_renegotiation", "no_ticket", "prioritize_chacha"}
        ),
    ),
    *(
        Unmirrored(
            f"tls_{grade}_cipherlist",
            _HANDSHAKE,
            own_default=True,
            used_by=(grade, frozenset({"smtp_tls_ciphers", "smtp_tls_mandatory_ciphers"})),
        )
        for grade in ("high", "medium")
    ),
    _no(
        "tls_wildcard_matches_multiple_labels",
        "Postfix lets *.example.org match one label only, the forecast any number",
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
    _no(
        "smtputf8_enable",
        "Postfix never looks for a server that offers SMTPUTF8; the forecast takes it that it does "
        "so for mail of sendmail(1)",
    ),
    _changed(
        "smtputf8_autodetect_classes",
        "the forecast takes it that of all mail of sendmail(1), and of no other, Postfix finds out "
        "itself whether it needs SMTPUTF8",
    ),
    *(
        Unmirrored(name, _HEADER_ACTIONS)
        for name in ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")
    ),
    Unmirrored(
        "masquerade_classes",
        "a recipient's domain may lose its first labels after the milter was told of it",
        words=frozenset({"envelope_recipient"}),
    ),
    Unmirrored(
        "luser_relay",
        "mail of users that this host does not know goes to this address, which may be elsewhere; "
        "the forecast is that it stays here",
    ),
    Unmirrored(
        "relocated_maps",
        "mail of sendmail(1) to users who have moved bounces (5.1.6), whatever is forecast",
    ),
    *(
        _no(
            name,
            "a local part that names another address (user%example.org) is not followed by "
            "Postfix; the forecast for mail of sendmail(1) follows it",
        )
        for name in ("allow_percent_hack", "swap_bangpath", "resolve_dequoted_address")
    ),
    _changed("known_tcp_ports", "names of ports in next hops may mean other ports than here"),
    _yes(
        "enable_idna2003_compatibility",
        "Postfix converts some internationalized domains to other names than the forecast",
    ),
    Unmirrored(
        "maximal_queue_lifetime",
        "a failure that is forecast to be temporary bounces at once",
        frozenset(),
        words=frozenset({"0", "0s", "0m", "0h", "0d", "0w"}),
    ),
    Unmirrored("fault_injection_code", "Postfix lets deliveries fail", frozenset({"0"})),
)
"""Parameters of the queue manager and of address resolution, in main.cf only."""


def unmirrored(
    known: tuple[Unmirrored, ...],
    settings: Parameters,
    main: Parameters | None = None,
    *,
    defaults: Parameters,
) -> Iterator[str]:
    """Write a sentence for each setting that could make a forecast wrong.

    Args:
        known: the parameters to look for.
        settings: the settings that the daemon sees.
        main: settings of main.cf that are already reported; equal ones are skipped.
        defaults: those of this Postfix.
    """
    told = set()
    for parameter in known:
        value, default = settings.get(parameter.name, ""), defaults.get(parameter.name, "")
        if not parameter.matters(settings, default):
            continue
        if (
            main is not None
            and main.get(parameter.name, "") == value
            and parameter.matters(main, default)
        ):
            continue
        # By default $header_checks is also the value of mime_header_checks.
        if (value, parameter.why) not in told:
            told.add((value, parameter.why))
            yield f"{parameter.name} = {shown(value)}: {parameter.why}"
