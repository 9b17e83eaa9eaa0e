"""Postfix instances as postconf would tell of them, without any Postfix."""

from __future__ import annotations

from dataclasses import replace

from requiretls_milter import config
from requiretls_milter.mirror.postconf import Entries, Postfix, Service
from requiretls_milter.mirror.section import Mirror
from requiretls_milter.mirror.text import to_toml

_OWN = (
    "inline:{{example.org=opportunistic}, {.example.org=opportunistic}, {localhost=opportunistic}}"
)
_ADDRESSES = "cidr:{{0.0.0.0/0 opportunistic}, {::/0 opportunistic}}"

DEFAULT_POLICY = f"{_OWN}, {_ADDRESSES}, enforce"
"""``postconf -x smtp_requiretls_policy`` of Postfix 3.11 with mydomain = example.org."""

DEFAULT_TABLES: dict[str, Entries | None] = {
    _OWN: (
        ("example.org", "opportunistic"),
        (".example.org", "opportunistic"),
        ("localhost", "opportunistic"),
    ),
    _ADDRESSES: (
        ("0.0.0.0/0", "opportunistic"),
        ("::/0", "opportunistic"),
    ),
}

DEFAULTS_3_11 = {
    "mail_version": "3.11.7",
    "mail_name": "Postfix",
    "milter_macro_v": "Postfix 3.11.7",
    "compatibility_level": "3.11",
    "queue_directory": "/var/spool/postfix",
    "mail_owner": "postfix",
    "myhostname": "mta.example.org",
    "mydomain": "example.org",
    "mydestination": "mta.example.org, localhost.example.org, localhost",
    "virtual_mailbox_domains": "",
    "inet_protocols": "all",
    "local_transport": "local:mta.example.org",
    "virtual_transport": "virtual",
    "relay_transport": "relay",
    "default_transport": "smtp",
    "relay_domains": "",
    "virtual_alias_domains": "",
    "relocated_maps": "",
    "luser_relay": "",
    "allow_percent_hack": "yes",
    "swap_bangpath": "yes",
    "resolve_dequoted_address": "yes",
    "parent_domain_matches_subdomains": "fast_flush_domains, relay_domains",
    "recipient_delimiter": "",
    "mailbox_transport": "",
    "mailbox_transport_maps": "",
    "fallback_transport": "",
    "fallback_transport_maps": "",
    "relayhost": "",
    "transport_maps": "",
    "sender_dependent_relayhost_maps": "",
    "sender_dependent_default_transport_maps": "",
    "requiretls_enable": "yes",
    "requiretls_esmtp_header": "yes",
    "tls_required_enable": "yes",
    "soft_bounce": "no",
    "defer_transports": "",
    "best_mx_transport": "",
    "ignore_mx_lookup_error": "no",
    "disable_dns_lookups": "no",
    "tls_append_default_CA": "no",
    "tls_dane_digests": "sha512 sha256",
    "use_srv_lookup": "",
    "smtp_tls_security_level": "may",
    "smtp_use_tls": "no",
    "smtp_enforce_tls": "no",
    "smtp_tls_enforce_peername": "yes",
    "smtp_requiretls_policy": DEFAULT_POLICY,
    "smtp_tls_policy_maps": "",
    "smtp_tls_per_site": "",
    "smtp_tls_enforce_sts_mx_patterns": "yes",
    "smtp_tls_dane_insecure_mx_policy": "dane",
    "smtp_dns_support_level": "",
    "smtp_host_lookup": "dns",
    "smtp_dns_resolver_options": "",
    "smtp_mx_address_limit": "5",
    "smtp_address_preference": "any",
    "smtp_tls_CAfile": "",
    "smtp_tls_CApath": "/etc/ssl/certs",
    "smtp_tls_trust_anchor_file": "",
    "smtp_tls_scert_verifydepth": "9",
    "smtp_tls_servername": "",
    "smtp_tls_verify_cert_match": "hostname",
    "smtp_tls_secure_cert_match": "nexthop, dot-nexthop",
    "smtp_tls_wrappermode": "no",
    "smtp_tls_protocols": ">=TLSv1",
    "smtp_tls_mandatory_protocols": ">=TLSv1",
    "smtp_tls_ciphers": "medium",
    "smtp_tls_mandatory_ciphers": "medium",
    "smtp_tls_exclude_ciphers": "",
    "smtp_tls_mandatory_exclude_ciphers": "",
    "smtp_tls_force_insecure_host_tlsa_lookup": "no",
    "smtp_skip_5xx_greeting": "yes",
    "smtp_fallback_relay": "",
    "smtp_defer_if_no_mx_address_found": "no",
    "smtp_cname_overrides_servername": "no",
    "smtp_balance_inet_protocols": "yes",
    "smtp_never_send_ehlo": "no",
    "smtp_dns_reply_filter": "",
    "smtp_reply_filter": "",
    "smtp_delivery_status_filter": "",
    "smtp_discard_ehlo_keywords": "",
    "smtp_discard_ehlo_keyword_address_maps": "",
    "smtp_tcp_port": "smtp",
    "smtp_helo_name": "mta.example.org",
    "smtp_bind_address": "",
    "smtp_bind_address6": "",
    "lmtp_requiretls_policy": "opportunistic",
    "tls_ssl_options": "",
    "tls_disable_workarounds": "",
    "tls_config_file": "default",
    "tls_config_name": "",
    "tls_wildcard_matches_multiple_labels": "yes",
    "header_checks": "",
    "mime_header_checks": "",
    "nested_header_checks": "",
    "body_checks": "",
    "canonical_maps": "",
    "recipient_canonical_maps": "",
    "virtual_alias_maps": "",
    "canonical_classes": "envelope_sender, envelope_recipient, header_sender, header_recipient",
    "recipient_canonical_classes": "envelope_recipient, header_recipient",
    "masquerade_classes": "envelope_sender, header_sender, header_recipient",
    "myorigin": "mta.example.org",
    "append_dot_mydomain": "no",
    "propagate_unmatched_extensions": "canonical, virtual",
    "virtual_alias_expansion_limit": "1000",
    "virtual_alias_recursion_limit": "1000",
    "virtual_alias_address_length_limit": "1000",
    "alias_maps": "hash:/etc/aliases",
    "known_tcp_ports": "lmtp=24, smtp=25, smtps=submissions=465, submission=587",
    "enable_idna2003_compatibility": "no",
    "maximal_queue_lifetime": "5d",
    "fault_injection_code": "0",
    "smtputf8_enable": "yes",
    "smtputf8_autodetect_classes": "sendmail, verify",
    "tls_high_cipherlist": "aNULL:-aNULL:HIGH:@STRENGTH",
    "tls_medium_cipherlist": "aNULL:-aNULL:HIGH:@STRENGTH",
    "tls_eecdh_auto_curves": "?X25519MLKEM768:DEFAULT",
    "tls_ffdhe_auto_groups": "",
    "smtp_connect_timeout": "30s",
    "smtp_helo_timeout": "300s",
    "smtp_starttls_timeout": "300s",
    "smtp_per_request_deadline": "no",
    "smtp_always_send_ehlo": "yes",
    "smtp_pix_workarounds": "disable_esmtp,delay_dotcrlf",
    "smtp_pix_workaround_maps": "",
    "smtp_sasl_auth_enable": "no",
    "smtp_tls_block_early_mail_reply": "no",
    "smtp_tls_connection_reuse": "no",
    "smtp_tls_chain_files": "",
    "smtp_tls_cert_file": "",
    "smtp_tls_eccert_file": "",
    "smtp_tls_dcert_file": "",
    "smtp_tls_enable_rpk": "no",
    "lmtp_tls_security_level": "",
    "lmtp_use_tls": "no",
    "lmtp_enforce_tls": "no",
    "lmtp_tls_policy_maps": "",
    "lmtp_tls_CApath": "/etc/ssl/certs",
    "lmtp_host_lookup": "dns",
    "smtpd_milters": "unix:requiretls-milter/milter.sock",
    "non_smtpd_milters": "unix:requiretls-milter/milter.sock",
    "smtpd_milter_maps": "",
    "milter_default_action": "shutdown",
    "milter_command_timeout": "30s",
    "milter_content_timeout": "300s",
    "milter_protocol": "6",
    "milter_connect_macros": "j {daemon_name} {daemon_addr} v _",
    "milter_mail_macros": "i {auth_type} {auth_authen} {auth_author} {mail_addr}",
    "milter_rcpt_macros": "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "receive_override_options": "",
    "content_filter": "",
    "smtpd_proxy_filter": "",
    "smtpd_tls_security_level": "may",
    "smtpd_use_tls": "no",
    "smtpd_enforce_tls": "no",
    "smtpd_tls_wrappermode": "no",
    "smtpd_discard_ehlo_keywords": "",
    "smtpd_tls_chain_files": "/etc/ssl/mta.pem",
    "smtpd_tls_cert_file": "",
}
"""What Debian's Postfix 3.11 says right after its installation, with TLS and a milter."""

NEW_IN_3_11 = frozenset(
    {
        "requiretls_enable",
        "requiretls_esmtp_header",
        "tls_required_enable",
        "smtp_requiretls_policy",
        "lmtp_requiretls_policy",
        "smtp_tls_enforce_sts_mx_patterns",
        "use_srv_lookup",
    }
)


def service(
    program: str,
    name: str = "",
    kind: str = "unix",
    *,
    chroot: bool = False,
    main: dict[str, str] | None = None,
    **overrides: str,
) -> Service:
    """A line of master.cf with *overrides* as ``-o``."""
    settings = {**DEFAULTS_3_11, **(main or {}), **overrides}
    return Service(name or program, kind, chroot, program, overrides, settings)


def postfix(*services: Service, **main: str) -> Postfix:
    """A Postfix 3.11 with these settings in main.cf; without services those of a usual one."""
    usual = (
        service("smtpd", "smtp", "inet", main=main),
        service("cleanup", main=main),
        service("smtp", main=main),
        service("smtp", "relay", main=main),
        service("error"),
        service("error", "retry"),
        service("local", main=main),
        service("virtual"),
        service("bounce", "defer"),
        service("pipe", "maildrop"),
        service("lmtp", main=main),
        service("lmtp", "dovecot-lmtp", main=main),
    )
    return Postfix(
        settings={**DEFAULTS_3_11, **main},
        defaults=DEFAULTS_3_11,
        services=services or usual,
        tables=DEFAULT_TABLES,
        own_addresses=("127.0.0.1", "192.0.2.25"),
    )


def older(made: Postfix) -> Postfix:
    """The same as a Postfix 3.7, which knows fewer parameters."""

    def known(settings: object) -> dict[str, str]:
        assert isinstance(settings, dict)
        kept = {name: value for name, value in settings.items() if name not in NEW_IN_3_11}
        return {**kept, "mail_version": "3.7.11", "milter_macro_v": "Postfix 3.7.11"}

    return replace(
        made,
        settings=known(made.settings),
        services=tuple(replace(one, settings=known(one.settings)) for one in made.services),
    )


# ---------------------------------------------------------------- what a mirror says


def warned(made: Mirror, *words: str) -> bool:
    """Whether one warning has all these words."""
    return any(all(word in warning for word in words) for warning in made.warnings)


def mta_of(made: Mirror) -> config.Mta:
    return config.parse(to_toml(made).encode(), "mirror").mta
