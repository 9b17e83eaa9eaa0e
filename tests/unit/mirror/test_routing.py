"""Where Postfix sends mail: address classes and transport_maps as local_domains and routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.mirror.postconf import Entries, Postfix, Service
from requiretls_milter.mirror.section import Mirror, mirror
from tests.support.postfixes import DEFAULT_TABLES, mta_of, postfix, service, warned

RELAY = "relay.example"


def with_tables(made: Postfix, tables: Mapping[str, Entries | None]) -> Postfix:
    """The same Postfix, with what stands in tables, and in files of names."""
    domains = {
        item: entries if entries is None else tuple(key for key, _ in entries if "@" not in key)
        for item, entries in tables.items()
    }
    return replace(made, tables={**DEFAULT_TABLES, **tables}, domains=domains)


def reading(tables: Mapping[str, Entries | None], *services: Service, **main: str) -> Mirror:
    return mirror(with_tables(postfix(*services, **main), tables))


def goes(made: Mirror, recipient: str, sender: str = "ann@sender.example") -> str:
    """The way of mail of sendmail(1) by this mirror."""
    way = from_macros("", "", recipient, sender, mta_of(made))
    return f"{way.transport}:{way.nexthop}" if str(way.nexthop) != "local" else "local"


# ---------------------------------------------------------------- a class is local if its mail is


@pytest.mark.parametrize(
    ("route", "way"),
    [
        ("virtual", "local"),
        ("maildrop", "local"),
        ("lmtp:unix:private/dovecot", "local"),
        ("dovecot-lmtp:unix:private/dovecot", "local"),
        ("error:5.1.1 gone", "local"),
        ("smtp:[192.0.2.24]:24", "smtp:[192.0.2.24]:24"),
        ("relay:[box.example]", "relay:[box.example]"),
        ("smtp", "smtp:boxes.example"),
        ("smtp:", "smtp:boxes.example"),
        ("lmtp:inet:[192.0.2.24]", "lmtp:lmtp:inet:[192.0.2.24]"),
        ("lmtp:[192.0.2.24]:2400", "lmtp:lmtp:inet:[192.0.2.24]:2400"),
        ("dovecot-lmtp:inet:box.example", "dovecot-lmtp:lmtp:inet:box.example"),
    ],
)
@pytest.mark.parametrize(
    "parameters",
    [("virtual_mailbox_domains", "virtual_transport"), ("mydestination", "local_transport")],
)
def test_a_class_is_local_only_if_its_transport_is(
    route: str, way: str, parameters: tuple[str, str]
) -> None:
    domains, transport = parameters
    made = mirror(postfix(**{domains: "boxes.example", transport: route}))
    assert goes(made, "bob@boxes.example") == way
    assert ("boxes.example" in made.mta["local_domains"]) is (way == "local")


def test_relayhost_has_no_say_in_classes_of_this_host() -> None:
    made = mirror(
        postfix(
            virtual_mailbox_domains="boxes.example",
            virtual_transport="smtp",
            relayhost=f"[{RELAY}]",
        )
    )
    assert goes(made, "bob@boxes.example") == "smtp:boxes.example"
    assert goes(made, "bob@elsewhere.example") == f"smtp:[{RELAY}]"


def test_relay_domains_have_their_transport_and_their_subdomains_too() -> None:
    made = mirror(postfix(relay_domains="lists.example", relay_transport="smtp:[192.0.2.77]"))
    for domain in ("lists.example", "a.lists.example"):
        assert goes(made, f"bob@{domain}") == "smtp:[192.0.2.77]"
    assert goes(made, "bob@other.example") == "smtp:other.example"


def test_a_relay_transport_of_its_own_settings_follows_relayhost() -> None:
    strict = service("smtp", "strict", smtp_tls_security_level="secure")
    main = {"relay_domains": "lists.example", "relay_transport": "strict"}
    made = mirror(postfix(service("smtp"), service("local"), strict, **main))
    assert goes(made, "bob@lists.example") == "strict:lists.example"
    made = mirror(postfix(service("smtp"), service("local"), strict, **main, relayhost="x.example"))
    assert goes(made, "bob@lists.example") == "strict:x.example"


def test_a_relay_transport_like_the_default_one_needs_no_route() -> None:
    assert "routes" not in mirror(postfix(relay_domains="lists.example")).mta


def test_subdomains_are_relayed_only_if_postfix_matches_parents() -> None:
    main = {"relay_domains": "lists.example, .deep.example", "relay_transport": "smtp:[192.0.2.77]"}
    made = mirror(postfix(**main, parent_domain_matches_subdomains="mynetworks"))
    assert goes(made, "bob@a.lists.example") == "smtp:a.lists.example"
    assert goes(made, "bob@a.deep.example") == "smtp:[192.0.2.77]"


def test_domains_in_tables_that_can_be_read_are_domains_too() -> None:
    made = reading(
        {
            "hash:/etc/boxes": (("a.example", "x"), ("B.example", "y")),
            "/etc/own": (("c.example", ""),),
        },
        virtual_mailbox_domains="hash:/etc/boxes",
        mydestination="/etc/own",
    )
    assert made.mta["local_domains"] == ["c.example", "a.example", "b.example"]
    assert made.warnings == ()


def test_domains_in_tables_that_cannot_be_read_are_told() -> None:
    made = reading({"ldap:/etc/boxes": None}, virtual_mailbox_domains="ldap:/etc/boxes, a.example")
    assert "a.example" in made.mta["local_domains"]
    assert warned(made, "virtual_mailbox_domains: ldap:/etc/boxes")


def test_a_table_of_aliases_that_cannot_be_read_is_told_by_its_own_warning() -> None:
    """virtual_alias_domains are the keys of virtual_alias_maps unless they are set."""
    aliases = "mysql:/etc/aliases.cf"
    made = reading({}, virtual_alias_domains=aliases, virtual_alias_maps=aliases)
    assert not warned(made, "virtual_alias_domains")
    made = reading({}, virtual_alias_domains="mysql:/other.cf", virtual_alias_maps=aliases)
    assert warned(made, "virtual_alias_domains: mysql:/other.cf")


def test_this_host_s_addresses_are_no_domains_that_transport_maps_could_route_elsewhere() -> None:
    unread = {"transport_maps": "ldap:/t", "mydestination": ""}
    here = replace(postfix(**unread), own_addresses=("192.0.2.1",))
    assert not warned(mirror(here), "mydestination")
    here = replace(postfix(**unread | {"mydestination": "a.example"}), own_addresses=("192.0.2.1",))
    assert warned(mirror(here), "mydestination")


def test_domains_of_aliases_are_not_looked_up_as_next_hops() -> None:
    made = mirror(postfix(virtual_alias_domains="alias.example, hash:/etc/postfix/virtual"))
    assert goes(made, "bob@alias.example") == "local"


def test_the_domains_of_a_table_of_aliases_are_local_whatever_transport_maps_say() -> None:
    made = reading(
        {
            "hash:v": (("alias.example", "x"), ("bob@alias.example", "bob@remote.example")),
            "hash:t": (
                ("*", "smtp:[relay.example]"),
                ("ann@alias.example", "smtp:[other.example]"),
            ),
        },
        virtual_alias_domains="hash:v",
        transport_maps="hash:t",
    )
    assert goes(made, "bob@alias.example") == goes(made, "ann@alias.example") == "local"
    assert goes(made, "bob@sub.alias.example") == "smtp:[relay.example]"


def test_domains_of_aliases_are_local_also_behind_transport_maps_that_cannot_be_read() -> None:
    made = mirror(postfix(virtual_alias_domains="alias.example", transport_maps="ldap:/t"))
    assert made.mta["local_domains"] == ["alias.example"]


def test_an_excluded_domain_is_one_of_a_later_class_or_of_none() -> None:
    made = mirror(
        postfix(
            mydestination="!box.example !out.example static:all",
            local_transport="local",
            virtual_mailbox_domains="box.example other.example",
            virtual_transport="smtp:[box.example]",
            default_transport="smtp:[def.example]",
        )
    )
    assert goes(made, "bob@any.example") == goes(made, "bob@other.example") == "local"
    assert goes(made, "bob@box.example") == "smtp:[box.example]"
    assert goes(made, "bob@out.example") == "smtp:[def.example]"


def test_an_excluded_domain_is_one_of_a_class_that_has_all() -> None:
    made = mirror(
        postfix(
            mydestination="!a.example static:all",
            virtual_mailbox_domains="static:all",
            virtual_transport="smtp:[box.example]",
        )
    )
    assert goes(made, "bob@a.example") == "smtp:[box.example]"


def test_a_domain_of_an_earlier_class_is_none_of_aliases() -> None:
    made = reading(
        {"hash:t": (("a.example", "smtp:[a.example]"),)},
        mydestination="a.example",
        virtual_alias_domains="a.example",
        transport_maps="hash:t",
    )
    assert goes(made, "bob@a.example") == "smtp:[a.example]"


def test_an_excluded_subdomain_is_not_relayed_as_its_parent_is() -> None:
    made = mirror(
        postfix(relay_domains="!sub.a.example a.example", relay_transport="relay:[hub.example]")
    )
    assert goes(made, "bob@a.example") == goes(made, "bob@x.a.example") == "relay:[hub.example]"
    assert goes(made, "bob@sub.a.example") == "smtp:sub.a.example"
    assert goes(made, "bob@x.sub.a.example") == "smtp:x.sub.a.example"


# ---------------------------------------------------------------- addresses in brackets


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({}, "local"),
        ({"local_transport": "lmtp:inet:[192.0.2.24]"}, "lmtp:lmtp:inet:[192.0.2.24]"),
        ({"transport_maps": "static:smtp:[relay.example]"}, "smtp:[relay.example]"),
        ({"transport_maps": "hash:star"}, "smtp:[relay.example]"),
        ({"transport_maps": "hash:literal"}, "smtp:[literal.example]"),
        ({"transport_maps": "hash:user"}, "smtp:[user.example]"),
        (
            {"virtual_mailbox_domains": "static:all", "virtual_transport": "smtp:[x.example]"},
            "local",
        ),
    ],
)
def test_an_address_of_this_host_is_local_unless_a_table_leads_elsewhere(
    settings: dict[str, str], way: str
) -> None:
    made = reading(
        {
            "hash:star": (("*", "smtp:[relay.example]"),),
            "hash:literal": (
                ("[192.0.2.25]", "smtp:[literal.example]"),
                ("*", "smtp:[no.example]"),
            ),
            "hash:user": (("bob@[192.0.2.25]", "smtp:[user.example]"),),
        },
        **settings,
    )
    assert goes(made, "bob@[192.0.2.25]") == way


def test_a_key_for_an_address_may_keep_its_mail_here() -> None:
    made = reading(
        {
            "hash:t": (
                ("[192.0.2.25]", "local:"),
                ("[192.0.2.99]", "virtual:"),
                ("*", "smtp:[r.example]"),
            )
        },
        transport_maps="hash:t",
        parent_domain_matches_subdomains="transport_maps",
    )
    for address in ("192.0.2.25", "192.0.2.99"):
        assert goes(made, f"bob@[{address}]") == "local"


def test_an_address_of_this_host_needs_no_route_to_local() -> None:
    made = mirror(postfix(mailbox_transport="smtp:[192.0.2.30]"))
    assert "[192.0.2.25]" not in made.mta.get("routes", {})
    assert goes(made, "bob@[192.0.2.25]") == "smtp:[192.0.2.30]"


@pytest.mark.parametrize("parameter", ["mydestination", "relay_domains", "virtual_mailbox_domains"])
def test_a_domain_in_unicode_is_told(parameter: str) -> None:
    assert warned(mirror(postfix(**{parameter: "m\xfcller.example"})), f"{parameter}: m\\xfcller")
    assert not warned(mirror(postfix(**{parameter: "xn--mller-kva.example"})), "Unicode")


def test_a_route_in_unicode_is_told() -> None:
    tables: dict[str, Entries | None] = {"hash:t": (("m\xfcller.example", "smtp:[a.example]"),)}
    assert warned(reading(tables, transport_maps="hash:t"), "transport_maps: m\\xfcller.example")


def test_an_address_of_this_host_is_local_although_all_domains_are_ours() -> None:
    made = mirror(postfix(mydestination="static:all", local_transport="smtp:[hub.example]"))
    assert goes(made, "bob@[192.0.2.25]") == goes(made, "bob@x.example") == "smtp:[hub.example]"


def test_an_address_of_another_host_may_have_a_key_too() -> None:
    made = reading(
        {
            "hash:t": (
                ("[192.0.2.99]", "smtp:[a.example]"),
                ("[IPv6:2001:DB8::1]", "smtp:[b.example]"),
            )
        },
        transport_maps="hash:t",
    )
    assert goes(made, "bob@[192.0.2.99]") == "smtp:[a.example]"
    assert goes(made, "bob@[IPv6:2001:db8::1]") == "smtp:[b.example]"
    assert goes(made, "bob@[192.0.2.98]") == "smtp:[192.0.2.98]"


# ---------------------------------------------------------------- local(8) that hands over


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({"mailbox_transport": "smtp:[192.0.2.30]"}, "smtp:[192.0.2.30]"),
        ({"mailbox_transport": "lmtp:inet:[192.0.2.30]"}, "lmtp:lmtp:inet:[192.0.2.30]"),
        ({"mailbox_transport": "lmtp:unix:private/lmtp"}, "local"),
        ({"mailbox_transport": "maildrop"}, "local"),
        ({"mailbox_transport": "relay"}, "relay:mta.example.org"),
        ({"fallback_transport": "smtp:[192.0.2.30]"}, "smtp:[192.0.2.30]"),
        (
            {"mailbox_transport": "maildrop", "fallback_transport": "smtp:[192.0.2.30]"},
            "local",
        ),
    ],
)
def test_mail_that_local_hands_over_goes_where_it_hands_it(
    settings: dict[str, str], way: str
) -> None:
    made = mirror(postfix(**settings))
    assert goes(made, "bob@localhost") == way
    told = from_macros("local", "mta.example.org", "bob@localhost", "", mta_of(made))
    assert (str(told.nexthop) == "local") is (way == "local")
    assert ("local" in made.mta["local_transports"]) is (way == "local")


def test_a_fallback_for_unknown_users_is_told() -> None:
    made = mirror(postfix(fallback_transport="smtp:[192.0.2.30]"))
    assert warned(made, "fallback_transport = smtp:[192.0.2.30]", "does not know")


def test_users_may_be_handed_over_each_in_their_way() -> None:
    users = {"hash:/etc/users": (("ann", "smtp:[192.0.2.31]"), ("bob", "maildrop"))}
    made = reading(users, mailbox_transport_maps="hash:/etc/users")
    assert goes(made, "ann@localhost") == "smtp:[192.0.2.31]"
    assert goes(made, "bob@localhost") == "local"
    made = reading(
        users, mailbox_transport_maps="hash:/etc/users", mailbox_transport="smtp:[192.0.2.30]"
    )
    assert goes(made, "ann@localhost") == "smtp:[192.0.2.31]"
    assert goes(made, "bob@localhost") == "local"
    assert goes(made, "carl@localhost") == "smtp:[192.0.2.30]"


def test_users_are_handed_over_in_their_way_with_an_extension_too() -> None:
    users = {"hash:/etc/users": (("ann", "smtp:[192.0.2.31]"),)}
    maps = {"mailbox_transport_maps": "hash:/etc/users", "mailbox_transport": "smtp:[192.0.2.30]"}
    made = reading(users, recipient_delimiter="+-", **maps)
    assert goes(made, "Ann-box@localhost") == "smtp:[192.0.2.31]"
    without = reading(users, recipient_delimiter="", **maps)
    assert goes(without, "Ann-box@localhost") == "smtp:[192.0.2.30]"


@pytest.mark.parametrize("name", ["mailbox_transport", "fallback_transport"])
def test_a_static_table_hands_over_all_users_that_no_table_before_it_has(name: str) -> None:
    users = {"hash:/etc/users": (("ann", "smtp:[192.0.2.31]"),)}
    made = reading(
        users,
        **{f"{name}_maps": "hash:/etc/users, static:{smtp:[192.0.2.32]}, ldap:x"},
        **{name: "smtp:[192.0.2.30]"},
    )
    assert goes(made, "ann@localhost") == "smtp:[192.0.2.31]"
    assert goes(made, "carl@localhost") == "smtp:[192.0.2.32]"
    assert not warned(made, "cannot be read")


def test_what_is_handed_over_anyway_never_comes_to_the_fallback() -> None:
    users = {"hash:/etc/users": (("ann", "smtp:[192.0.2.31]"),)}
    made = reading(
        users,
        mailbox_transport="lmtp:unix:private/boxes",
        fallback_transport_maps="hash:/etc/users",
    )
    assert goes(made, "ann@localhost") == "local"


def test_users_in_a_table_that_cannot_be_read_are_told() -> None:
    made = reading({"ldap:x": None}, mailbox_transport_maps="ldap:x")
    assert warned(made, "mailbox_transport_maps: ldap:x", "forecast as local")


# ---------------------------------------------------------------- LMTP over TCP


def test_an_lmtp_over_tcp_has_its_own_settings() -> None:
    made = mirror(
        postfix(
            virtual_mailbox_domains="boxes.example",
            virtual_transport="lmtp:inet:[192.0.2.24]",
            smtp_tls_security_level="dane",
            smtp_dns_support_level="dnssec",
        )
    )
    assert "lmtp" not in made.mta["local_transports"]
    assert "dovecot-lmtp" in made.mta["local_transports"]
    own = made.mta["transport"]["lmtp"]
    assert own["protocol"] == "lmtp"
    assert own["tls_security_level"] == "none"
    assert own["requiretls_policy"] == "opportunistic"


def test_an_lmtp_over_a_unix_socket_needs_none() -> None:
    assert "transport" not in mirror(postfix(virtual_transport="lmtp:unix:private/lmtp")).mta


# ---------------------------------------------------------------- transport_maps


TRANSPORT: Entries = (
    ("bob@mixed.example", "smtp:[bobs.example]"),
    ("mine.example", "smtp:[moved.example]"),
    (".mine.example", ":[below.example]"),
    ("lists.example", "dovecot-lmtp:unix:private/x"),
    ("noop.example", ":"),
    ("*", "smtp:[all.example]"),
)


@pytest.fixture
def routed() -> Mirror:
    return reading(
        {"hash:/etc/transport": TRANSPORT},
        transport_maps="hash:/etc/transport",
        mydestination="mine.example, kept.example",
        virtual_mailbox_domains="deep.mine.example, mixed.example",
        relay_domains="noop.example",
    )


@pytest.mark.parametrize(
    ("recipient", "way"),
    [
        ("bob@mixed.example", "smtp:[bobs.example]"),
        ("ann@mine.example", "smtp:[moved.example]"),
        ("ann@a.mine.example", "smtp:[below.example]"),
        ("ann@lists.example", "local"),
        ("ann@noop.example", "relay:noop.example"),
        ("ann@elsewhere.example", "smtp:[all.example]"),
    ],
)
def test_transport_maps_go_before_classes(routed: Mirror, recipient: str, way: str) -> None:
    assert goes(routed, recipient) == way


def test_an_entry_without_a_transport_keeps_that_of_the_class(routed: Mirror) -> None:
    """``.mine.example  :[below.example]`` reaches a domain of virtual(8) too, and the wildcard
    all domains of this host: that is how Postfix reads such a table."""
    assert goes(routed, "ann@deep.mine.example") == "local"
    assert goes(routed, "ann@kept.example") == "smtp:[all.example]"
    assert "kept.example" not in routed.mta["local_domains"]


def test_of_several_tables_the_first_with_a_key_decides() -> None:
    made = reading(
        {
            "hash:a": (("x.example", "smtp:[first.example]"),),
            "hash:b": (("x.example", "smtp:[second.example]"), ("y.example", "smtp:[y.example]")),
        },
        transport_maps="hash:a, hash:b",
    )
    assert goes(made, "ann@x.example") == "smtp:[first.example]"
    assert goes(made, "ann@y.example") == "smtp:[y.example]"


def test_a_static_table_answers_for_all_but_addresses_before_it() -> None:
    made = reading(
        {"hash:a": (("x.example", "smtp:[first.example]"), ("bob@x.example", "smtp:[b.example]"))},
        transport_maps="hash:a, static:smtp:[all.example]",
    )
    assert goes(made, "ann@x.example") == "smtp:[all.example]"
    assert goes(made, "bob@x.example") == "smtp:[b.example]"
    assert goes(made, "bob@localhost") == "smtp:[all.example]"


def test_parents_match_subdomains_where_postfix_says_so() -> None:
    made = reading(
        {"hash:a": (("x.example", "smtp:[first.example]"),)},
        transport_maps="hash:a",
        parent_domain_matches_subdomains="transport_maps",
    )
    assert goes(made, "ann@a.x.example") == "smtp:[first.example]"


def test_a_table_that_cannot_be_read_leaves_no_domain_local() -> None:
    made = reading({"ldap:a": None}, transport_maps="ldap:a", mydestination="mine.example")
    assert made.mta["local_domains"] == []
    assert warned(made, "transport_maps: ldap:a", "sendmail(1)")
    assert warned(made, "transport_maps could route them elsewhere")


# ---------------------------------------------------------------- by sender


def test_tables_by_sender_are_mirrored_where_they_are_static() -> None:
    made = reading(
        {
            "hash:t": (("@sender.example", "strict:"), ("carl", "smtp"), ("<>", "bounces")),
            "hash:r": (("ann@sender.example", "[anns.example]"), ("@sender.example", "DUNNO")),
        },
        sender_dependent_default_transport_maps="hash:t",
        sender_dependent_relayhost_maps="hash:r",
        relayhost="[relay.example]",
    )
    assert goes(made, "x@remote.example") == "strict:[anns.example]"
    assert goes(made, "x@remote.example", "bob@sender.example") == "strict:[relay.example]"
    assert goes(made, "x@remote.example", "<>") == "bounces:[relay.example]"
    assert goes(made, "x@remote.example", "carl@mta.example.org") == "smtp:[relay.example]"
    assert goes(made, "x@remote.example", "carl@sender.example") == "strict:[relay.example]"
    assert not warned(made, "not mirrored")


def test_a_static_table_by_sender_is_for_any_whose_address_no_table_before_it_has() -> None:
    made = reading(
        {
            "hash:r": (
                ("ann@sender.example", "[anns.example]"),
                ("@sender.example", "[all.example]"),
                ("<>", "[bounces.example]"),
            )
        },
        sender_dependent_default_transport_maps="static:{strict:}",
        sender_dependent_relayhost_maps="hash:r, static:[any.example], ldap:x",
        relayhost="[relay.example]",
    )
    assert goes(made, "x@remote.example") == "strict:[anns.example]"
    for sender in ("bob@sender.example", "bob@other.example", "<>"):
        assert goes(made, "x@remote.example", sender) == "strict:[any.example]"
    assert not warned(made, "sender_dependent")


def test_an_asterisk_in_a_table_by_sender_is_no_key_of_postfix() -> None:
    made = reading({"hash:r": (("*", "[all.example]"),)}, sender_dependent_relayhost_maps="hash:r")
    assert goes(made, "x@remote.example") == "smtp:remote.example"
    assert warned(made, "sender_dependent_relayhost_maps: not mirrored: *")


@pytest.mark.parametrize(
    ("transport", "way"), [("smtp:[192.0.2.24]:24", "smtp:[192.0.2.24]:24"), ("virtual", "local")]
)
def test_a_class_of_all_domains_takes_those_that_no_class_before_it_has(
    transport: str, way: str
) -> None:
    made = mirror(
        postfix(
            mydestination="mine.example",
            virtual_mailbox_domains="static:all",
            virtual_transport=transport,
            relay_domains="relayed.example",
            relay_transport="relay:[192.0.2.77]",
            transport_maps="static:{:}",
        )
    )
    assert goes(made, "x@anything.example") == way
    assert goes(made, "x@relayed.example") == way
    assert goes(made, "x@mine.example") == "local"
    assert not warned(made, "virtual_mailbox_domains")


@pytest.mark.parametrize(
    "parameter", ["sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps"]
)
def test_tables_by_sender_that_cannot_be_read_are_told(parameter: str) -> None:
    made = reading({"ldap:x": None}, **{parameter: "ldap:x"})
    assert warned(made, f"{parameter}: ldap:x", "sendmail(1)")


def test_the_null_sender_may_have_a_key_of_its_own() -> None:
    made = reading(
        {"hash:r": (("nobody", "[bounces.example]"),)},
        sender_dependent_relayhost_maps="hash:r",
        empty_address_relayhost_maps_lookup_key="nobody",
    )
    assert made.mta["sender_relayhosts"] == {"<>": "[bounces.example]"}
    assert made.warnings == ()


def test_the_resolver_of_master_cf_may_have_settings_of_its_own() -> None:
    rewrite = service("trivial-rewrite", "rewrite", relayhost="[other.example]")
    made = mirror(postfix(service("smtp"), service("local"), rewrite))
    assert goes(made, "x@remote.example") == "smtp:[other.example]"


# ---------------------------------------------------------------- what cannot be


def test_a_transport_that_master_cf_does_not_have_is_told() -> None:
    made = mirror(postfix(default_transport="nowhere"))
    assert warned(made, "transport nowhere: master.cf has no such service", "4.3.0")


@pytest.mark.parametrize(
    ("main", "nexthop"),
    [
        ({"relayhost": "inet:[192.0.2.1]"}, "inet:[192.0.2.1]"),
        ({"relayhost": "2001:db8::25"}, "2001:db8::25"),
        ({"relayhost": "[a.example], b.example:nosuch"}, "b.example:nosuch"),
        ({"default_transport": "smtp:[a.example"}, "[a.example"),
        (
            {"relay_domains": "a.example", "relay_transport": "smtp:inet:b.example:25"},
            "inet:b.example:25",
        ),
    ],
)
def test_a_next_hop_that_smtp_cannot_use_is_told(main: dict[str, str], nexthop: str) -> None:
    assert warned(mirror(postfix(**main)), f"next hop {nexthop} of transport smtp", "cannot use")


def test_a_list_of_next_hops_is_told() -> None:
    """What comes of the others is not forecast: Postfix tries them if the first one fails."""
    made = mirror(postfix(relayhost="[a.example], [b.example]:587"))
    assert warned(made, "next hops [a.example], [b.example]:587 of transport smtp", "the others")
    assert not warned(mirror(postfix(relayhost="[a.example]")), "the others")


@pytest.mark.parametrize(
    "main",
    [
        {"virtual_transport": "lmtp:inet:[192.0.2.24]:24", "virtual_mailbox_domains": "a.example"},
        {"default_transport": "error:no mail: at all"},
        {"relayhost": "[a.example], b.example:submission"},
    ],
)
def test_what_postfix_takes_is_not_told(main: dict[str, str]) -> None:
    assert not warned(mirror(postfix(**main)), "cannot use")


@pytest.mark.parametrize(
    "main",
    [
        {"default_transport": "ü {"},
        {"default_transport": ":x"},
        {"relayhost": "a\nb"},
        {"virtual_transport": "ü {", "virtual_mailbox_domains": "a.example"},
        {"mailbox_transport": "ü {"},
        {"recipient_delimiter": "+" * 99},
    ],
)
def test_what_no_key_can_hold_is_told_and_left_out(main: dict[str, Any]) -> None:
    Config.model_validate({"mta": mirror(postfix(**main)).mta})


def test_the_key_of_the_null_sender_is_none_if_it_has_another() -> None:
    made = reading(
        {"hash:r": (("<>", "[no.example]"), ("null", "[null.example]"))},
        sender_dependent_relayhost_maps="hash:r",
        empty_address_relayhost_maps_lookup_key="null",
    )
    assert goes(made, "x@remote.example", "<>") == "smtp:[null.example]"


def test_a_local_part_is_the_key_of_users_of_this_host_behind_whole_addresses() -> None:
    made = reading(
        {
            "hash:a": (("root", "[roots.example]"), ("@own.example", "[own.example]")),
            "hash:b": (("root@own.example", "[whole.example]"),),
        },
        sender_dependent_relayhost_maps="hash:a, hash:b",
        mydestination="own.example",
        myorigin="mta.example.org",
        recipient_delimiter="+",
    )
    assert goes(made, "x@remote.example", "root@own.example") == "smtp:[whole.example]"
    assert goes(made, "x@remote.example", "root+x@mta.example.org") == "smtp:[roots.example]"
    assert goes(made, "x@remote.example", "bob@own.example") == "smtp:[own.example]"
    assert goes(made, "x@remote.example", "root@else.example") == "smtp:remote.example"


def test_behind_a_static_table_no_local_part_is_looked_up() -> None:
    made = reading(
        {"hash:a": (("root", "[roots.example]"),)},
        sender_dependent_relayhost_maps="hash:a static:[any.example]",
    )
    assert goes(made, "x@remote.example", "root@mta.example.org") == "smtp:[any.example]"


def test_a_static_table_behind_entries_for_users_is_told_if_there_are_extensions() -> None:
    tables: dict[str, Entries | None] = {"hash:t": (("bob@a.example", "smtp:[b.example]"),)}
    maps = {"transport_maps": "hash:t static:smtp:[c.example]"}
    assert warned(reading(tables, recipient_delimiter="+", **maps), "address with an extension")
    assert not warned(reading(tables, **maps), "address with an extension")


def test_a_blank_before_the_colon_is_a_part_of_the_transports_name() -> None:
    made = reading({"hash:t": (("a.example", "smtp :[b.example]"),)}, transport_maps="hash:t")
    assert warned(made, "transport_maps: not mirrored: a.example")
    assert goes(made, "x@a.example") == "smtp:a.example"
