"""The [mta] section that mirrors a Postfix, and what is said where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.mirror.parameters import accounted
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import DEFAULT_TABLES, mta_of, older, postfix, service, warned

# ---------------------------------------------------------------- as it is installed


def test_an_installed_postfix_is_mirrored_without_a_warning() -> None:
    made = mirror(postfix())
    assert made.warnings == ()
    assert made.mta == {
        "profile": "postfix",
        "carries": "auto",
        "mydomain": "example.org",
        "myhostname": "mta.example.org",
        "tls_security_level": "may",
        "requiretls_policy": "default",
        "tls_policy": {},
        "mta_sts": "off",
        "mta_sts_service": "postfix-mta-sts-resolver",
        "insecure_mx_policy": "dane",
        "requiretls_esmtp_header": True,
        "mx_address_limit": 5,
        "inet_protocols": ["ipv4", "ipv6"],
        "address_preference": "any",
        "use_srv_lookup": [],
        "default_transport": "smtp",
        "local_transports": [
            *("error", "retry", "local", "virtual", "maildrop", "lmtp", "dovecot-lmtp"),
        ],
        "local_domains": ["mta.example.org", "localhost.example.org", "localhost"],
        "my_addresses": ["127.0.0.1", "192.0.2.25"],
    }


def test_an_older_postfix_has_no_policy_and_obeys_no_header_field() -> None:
    made = mirror(older(postfix()))
    assert made.version == "3.7.11"
    assert made.mta["carries"] == "auto"
    assert made.mta["requiretls_esmtp_header"] is False
    assert "requiretls_policy" not in made.mta


# ---------------------------------------------------------------- the TLS level


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "verify", "secure", "MAY"])
def test_a_level_that_needs_no_dns_is_taken_as_it_is(level: str) -> None:
    assert mirror(postfix(smtp_tls_security_level=level)).mta["tls_security_level"] == level.lower()


@pytest.mark.parametrize("level", ["dane", "dane-only"])
def test_dane_with_dnssec_is_dane(level: str) -> None:
    made = mirror(postfix(smtp_tls_security_level=level, smtp_dns_support_level="dnssec"))
    assert (made.mta["tls_security_level"], made.warnings) == (level, ())


WITHOUT_DANE = [
    {"smtp_dns_support_level": ""},
    {"smtp_dns_support_level": "enabled"},
    {"smtp_dns_support_level": "dnssec", "smtp_host_lookup": "native"},
    {"smtp_dns_support_level": "dnssec", "ignore_mx_lookup_error": "yes"},
    {"smtp_dns_support_level": "dnssec", "smtp_dns_resolver_options": "res_defnames"},
]


@pytest.mark.parametrize("settings", WITHOUT_DANE)
def test_dane_that_postfix_cannot_do_is_may(settings: dict[str, str]) -> None:
    made = mirror(postfix(smtp_tls_security_level="dane", **settings))
    assert made.mta["tls_security_level"] == "may"
    assert warned(made, "smtp_tls_security_level = dane, but", "so does the mirror")


@pytest.mark.parametrize("settings", WITHOUT_DANE)
def test_dane_only_that_postfix_cannot_do_defers(settings: dict[str, str]) -> None:
    made = mirror(postfix(smtp_tls_security_level="dane-only", **settings))
    assert made.mta["requiretls_policy"] == "invalid"
    assert warned(made, "dane-only, but", "4.7.5")


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "none"),
        ({"smtp_use_tls": "yes"}, "may"),
        ({"smtp_use_tls": "no", "smtp_enforce_tls": "yes"}, "verify"),
        ({"smtp_enforce_tls": "yes", "smtp_tls_enforce_peername": "no"}, "encrypt"),
    ],
)
def test_without_a_level_the_obsolete_parameters_decide(
    settings: dict[str, str], level: str
) -> None:
    made = mirror(postfix(smtp_tls_security_level="", **settings))
    assert made.mta["tls_security_level"] == level


def test_fingerprints_are_never_called_verified() -> None:
    made = mirror(postfix(smtp_tls_security_level="fingerprint"))
    assert made.mta["tls_security_level"] == "encrypt"
    assert warned(made, "fingerprint", "not mirrored")


def test_a_level_that_postfix_does_not_know_is_told() -> None:
    made = mirror(postfix(smtp_tls_security_level="best"))
    assert made.mta["tls_security_level"] == "none"
    assert warned(made, "smtp_tls_security_level = best", "delivers nothing")


# ---------------------------------------------------------------- what the MTA carries


@pytest.mark.parametrize(
    ("requiretls", "tls_required", "carries"),
    [
        ("yes", "yes", "auto"),
        ("no", "yes", "tls-required"),
        ("no", "no", "nothing"),
        ("yes", "no", "auto"),
    ],
)
def test_what_postfix_obeys_is_what_it_carries(
    requiretls: str, tls_required: str, carries: str
) -> None:
    made = mirror(postfix(requiretls_enable=requiretls, tls_required_enable=tls_required))
    assert made.mta["carries"] == carries
    told = warned(made, "tls_required_enable = no")
    assert told is (carries == "auto" and tls_required == "no")


def test_a_macro_v_that_says_nothing_is_made_up_for() -> None:
    assert mirror(postfix(milter_macro_v="Mailer 1")).mta["carries"] == "requiretls"


def test_a_postfix_with_requiretls_switched_off_never_enforces_it() -> None:
    made = mirror(postfix(requiretls_enable="no"))
    assert made.mta["requiretls_policy"] == "disable"
    assert made.mta["requiretls_esmtp_header"] is False


def test_the_header_field_is_obeyed_only_where_both_parameters_say_so() -> None:
    assert mirror(postfix(requiretls_esmtp_header="no")).mta["requiretls_esmtp_header"] is False


# ---------------------------------------------------------------- transports


def test_a_transport_has_the_keys_that_differ() -> None:
    strict = service(
        "smtp", "smtp-strict", smtp_tls_security_level="secure", smtp_mx_address_limit="0"
    )
    made = mirror(postfix(service("smtp"), strict, service("smtp", "relay")))
    assert made.mta["transport"] == {
        "smtp-strict": {"tls_security_level": "secure", "mx_address_limit": 0}
    }
    mta = mta_of(made)
    assert mta.profile_for("smtp-strict").mx_address_limit == 0
    assert mta.profile_for("smtp").mx_address_limit == 5


def test_the_transport_smtp_itself_may_differ_from_main_cf() -> None:
    made = mirror(postfix(service("smtp", smtp_tls_security_level="encrypt")))
    assert made.mta["tls_security_level"] == "may"
    assert made.mta["transport"] == {"smtp": {"tls_security_level": "encrypt"}}


def test_a_transport_that_never_enforces_is_disabled() -> None:
    made = mirror(postfix(service("smtp", "inner", requiretls_enable="no")))
    assert made.mta["transport"] == {"inner": {"requiretls_policy": "disable"}}


def test_an_smtp_service_that_is_no_transport_is_left_out() -> None:
    made = mirror(postfix(service("smtp", "10025", "inet", smtp_tls_security_level="none")))
    assert "transport" not in made.mta


def test_warnings_of_a_transport_name_it_and_are_not_repeated_for_others() -> None:
    odd = service("smtp", "odd", smtp_tls_wrappermode="yes", tls_required_enable="no")
    made = mirror(postfix(service("smtp"), service("local"), odd))
    assert [text.split(":")[0] for text in made.warnings] == ["transport odd"] * 2
    made = mirror(postfix(smtp_tls_wrappermode="yes"))
    assert len(made.warnings) == 1


def test_lmtp_is_local_and_told_only_where_it_may_bounce() -> None:
    assert "dovecot-lmtp" in mirror(postfix()).mta["local_transports"]
    assert warned(mirror(postfix(lmtp_requiretls_policy="enforce")), "lmtp_requiretls_policy")


# ---------------------------------------------------------------- domains, addresses, protocols


def test_local_domains_are_left_out_where_routes_could_lead_elsewhere() -> None:
    made = mirror(postfix(transport_maps="hash:/etc/postfix/transport"))
    assert made.mta["local_domains"] == []
    assert warned(made, "transport_maps could route them elsewhere")


def test_only_names_of_domains_are_local_domains() -> None:
    made = mirror(
        postfix(
            mydestination="a.example, hash:/etc/postfix/domains, /etc/postfix/more, .b.example",
            virtual_mailbox_domains="a.example c.example",
        )
    )
    assert made.mta["local_domains"] == ["a.example", "c.example"]
    assert warned(made, "mydestination: hash:/etc/postfix/domains, /etc/postfix/more: only")


def test_names_of_interfaces_without_an_address_are_told() -> None:
    made = mirror(replace(postfix(), unresolved=("nat.example.org",)))
    assert warned(made, "nat.example.org has no address")


@pytest.mark.parametrize(
    ("setting", "host", "protocols"),
    [
        ("all", ("ipv4", "ipv6"), ["ipv4", "ipv6"]),
        ("all", ("ipv4",), ["ipv4"]),
        ("ipv6, ipv4", ("ipv4", "ipv6"), ["ipv4", "ipv6"]),
        ("ipv6", ("ipv4", "ipv6"), ["ipv6"]),
        ("ipv6", ("ipv4",), ["ipv4"]),
    ],
)
def test_protocols_are_those_that_postfix_wants_and_the_host_has(
    setting: str, host: tuple[str, ...], protocols: list[str]
) -> None:
    made = mirror(replace(postfix(inet_protocols=setting), inet_protocols=host))
    assert made.mta["inet_protocols"] == protocols


@pytest.mark.parametrize(("value", "limit"), [("0", 0), ("7", 7), ("99999", 1000), ("x", 5)])
def test_limits_are_numbers(value: str, limit: int) -> None:
    made = mirror(postfix(smtp_mx_address_limit=value))
    assert made.mta["mx_address_limit"] == limit
    assert warned(made, "smtp_mx_address_limit = x") is (value == "x")


@pytest.mark.parametrize(
    ("value", "preference"), [("ipv6", "ipv6"), ("IPv4", "ipv4"), ("", "any"), ("ipv5", "any")]
)
def test_the_preferred_address_family_is_mirrored_for_each_transport(
    value: str, preference: str
) -> None:
    preferring = service("smtp", "smtp6", smtp_address_preference=value)
    made = mirror(postfix(service("smtp"), preferring))
    assert mta_of(made).profile_for("smtp6").address_preference == preference
    assert mta_of(made).profile_for("smtp").address_preference == "any"
    assert warned(made, "smtp_address_preference = ipv5") is (value == "ipv5")


# ---------------------------------------------------------------- what cannot be mirrored


def test_verifying_without_sni_or_authorities_is_told() -> None:
    made = mirror(postfix(smtp_tls_security_level="secure", smtp_tls_CApath=""))
    assert warned(made, "smtp_tls_servername is empty")
    assert warned(made, "Postfix trusts no authority")
    good = {"smtp_tls_servername": "hostname", "smtp_tls_CAfile": "/etc/ssl/ca.pem"}
    assert mirror(postfix(smtp_tls_security_level="secure", **good)).warnings == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"smtp_dns_support_level": "disabled"}, True),
        ({"disable_dns_lookups": "yes"}, True),
        ({"smtp_dns_support_level": "enabled", "disable_dns_lookups": "yes"}, False),
    ],
)
def test_a_postfix_without_dns_is_told(settings: dict[str, str], told: bool) -> None:
    assert warned(mirror(postfix(**settings)), "DNS lookups are disabled") is told


@pytest.mark.parametrize(
    ("value", "told"), [("dns", False), ("dns, native", True), ("native", True)]
)
def test_a_postfix_that_asks_hosts_as_well_is_told(value: str, told: bool) -> None:
    assert warned(mirror(postfix(smtp_host_lookup=value)), "smtp_host_lookup has native") is told


def test_a_content_filter_is_told_with_the_services_that_use_it() -> None:
    made = mirror(
        postfix(service("smtpd", "smtp", "inet", content_filter="smtp-amavis:[127.0.0.1]:10024"))
    )
    assert warned(made, "content_filter = smtp-amavis:[127.0.0.1]:10024 (smtp/inet)")


# ---------------------------------------------------------------- hints


def test_the_systems_own_store_needs_no_hint() -> None:
    path = "/etc/ssl/certs/ca-certificates.crt"
    assert "ca_file" not in mirror(postfix(smtp_tls_CAfile=path)).hints


def test_no_settings_at_all_are_mirrored_too() -> None:
    assert mirror(Postfix({})).mta["tls_security_level"] == "none"


# ---------------------------------------------------------------- SRV records


def test_services_of_use_srv_lookup_are_mirrored_for_each_transport() -> None:
    all_mail = service("smtp", "all", use_srv_lookup="smtp, submission")
    made = mirror(postfix(service("smtp"), service("local"), all_mail))
    assert mta_of(made).transport["all"].use_srv_lookup == ("smtp", "submission")
    made = mirror(postfix(use_srv_lookup="submission"))
    assert (made.mta["use_srv_lookup"], made.warnings) == (["submission"], ())


def test_what_is_no_name_of_a_service_is_told() -> None:
    made = mirror(postfix(use_srv_lookup="submission, hash:/etc/services, !smtp"))
    assert made.mta["use_srv_lookup"] == ["submission"]
    assert warned(made, "use_srv_lookup: hash:/etc/services, !smtp")


@pytest.mark.parametrize("parameter", ["allow_srv_lookup_fallback", "ignore_srv_lookup_error"])
def test_a_fallback_to_mx_records_is_told(parameter: str) -> None:
    made = mirror(postfix(use_srv_lookup="submission", **{parameter: "yes"}))
    assert warned(made, parameter, "MX records")
    assert mirror(postfix(**{parameter: "yes"})).warnings == ()


def test_an_access_table_that_moves_mail_is_told() -> None:
    lists = {
        "smtpd_sender_restrictions": "check_sender_access regexp:/tag, permit",
        "smtpd_recipient_restrictions": "check_recipient_access hash:/quiet reject",
    }
    made = postfix(service("smtpd", "smtp", "inet", main=lists), **lists)
    assert not warned(mirror(made), "FILTER")
    moving = mirror(replace(made, moving=frozenset({"regexp:/tag"})))
    assert warned(moving, "smtpd_sender_restrictions: regexp:/tag: a FILTER or REDIRECT")
    assert not warned(moving, "smtpd_recipient_restrictions")


def test_a_table_with_a_key_that_stands_twice_is_told() -> None:
    made = replace(
        postfix(transport_maps="inline:{a=b}, texthash:/etc/routes"),
        tables={**DEFAULT_TABLES, "inline:{a=b}": (), "texthash:/etc/routes": ()},
        doubled=frozenset({"texthash:/etc/routes"}),
    )
    assert warned(mirror(made), "transport_maps: texthash:/etc/routes: a key stands twice")


def test_without_the_header_field_nobody_sees_what_mail_of_sendmail_asks_for() -> None:
    made = mirror(postfix(requiretls_esmtp_header="no"))
    assert warned(made, "requiretls_esmtp_header = no", "sendmail(1)")
    assert not warned(mirror(postfix()), "requiretls_esmtp_header")


@pytest.mark.parametrize(
    "parameter",
    [
        *("mydestination", "smtp_requiretls_policy"),
        *(name for name in accounted() if name.endswith(("_maps", "_checks", "_domains"))),
    ],
)
def test_no_password_of_a_table_in_main_cf_is_told(parameter: str) -> None:
    for table in ("ldap:{{bind_pw=geheim}}", "proxy:mysql:{ {password = geheim}, {user = x} }"):
        assert "geheim" not in f"{mirror(postfix(**{parameter: table}))}"


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"smtp_tls_security_level": "secure"}, True),
        ({"smtp_tls_policy_maps": "socketmap:inet:h:1:postfix"}, True),
        ({"smtp_tls_security_level": "dane"}, False),
    ],
)
@pytest.mark.parametrize("name", ["smtp_tls_CAfile", "smtp_tls_CApath"])
def test_authorities_of_a_transports_own_are_told(
    own: dict[str, str], name: str, told: bool
) -> None:
    main = {"smtp_tls_CAfile": "/etc/ca.pem", "smtp_dns_support_level": "dnssec"}
    strict = service("smtp", "strict", main={**main, **own, name: "/etc/partner"})
    made = mirror(postfix(service("smtp", main=main), strict, **main))
    assert warned(made, f"transport strict: {name} = /etc/partner: the forecast verifies") is told
    same = service("smtp", "strict", main={**main, **own})
    assert not warned(mirror(postfix(service("smtp", main=main), same, **main)), "verifies cert")
