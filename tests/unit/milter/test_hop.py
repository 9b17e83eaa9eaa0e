"""The way of a recipient's mail, from the MTA's macros or, if it sends none, from the routes."""

from __future__ import annotations

from typing import Any

import pytest

from requiretls_milter.config import Mta
from requiretls_milter.config.routes import Way
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.model import HopKind, MailProtocol, NextHop
from requiretls_milter.syntax.nexthop import LOCAL, NextHopError, UnusableNextHopError, parse

MX, HOST, ADDRESS = HopKind.MX, HopKind.HOST, HopKind.ADDRESS
MTA = Mta()


def told(mailer: str, host: str, domain: str, mta: Mta = MTA) -> NextHop:
    """The next hop of a recipient whose transport the MTA names."""
    address = f"user@{domain}" if domain else "user"
    return from_macros(mailer, host, address, "sender@example.org", mta).nexthop


def untold(recipient: str, sender: str = "sender@example.org", **mta: Any) -> Way:
    """The way of mail of sendmail(1), of which Postfix tells neither transport nor next hop."""
    return from_macros("", "", recipient, sender, Mta.model_validate(mta))


# ---------------------------------------------------------------- what the MTA tells


@pytest.mark.parametrize(
    ("mailer", "host", "domain", "expected"),
    [
        ("smtp", "remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "Remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "[relay.example]:587", "remote.test", NextHop(HOST, "relay.example", 587)),
        ("smtp-strict", "strict.test", "strict.test", NextHop(MX, "strict.test")),
        ("esmtp", "remote.test.", "remote.test", NextHop(MX, "remote.test")),
        ("esmtp", "[relay.example]", "remote.test", NextHop(HOST, "relay.example")),
        ("rtls", "remote.test:remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "[127.0.0.2]", "[127.0.0.2]", NextHop(ADDRESS, "127.0.0.2")),
        ("smtp", "a.example, b.example", "remote.test", NextHop(MX, "a.example")),
        ("smtp", "[a.example]:587,[b.example]", "remote.test", NextHop(HOST, "a.example", 587)),
    ],
)
def test_macros_name_the_next_hop_and_of_a_list_the_first(
    mailer: str, host: str, domain: str, expected: NextHop
) -> None:
    assert told(mailer, host, domain) == expected


@pytest.mark.parametrize(
    ("mailer", "host", "domain"),
    [
        ("local", "mta.mine.test", "mine.test"),
        ("virtual", "virt.test", "virt.test"),
        ("lmtp", "unix:private/dovecot-lmtp", "mine.test"),
        ("dovecot", "unix:private/dovecot-lmtp", "mine.test"),
        ("discard", "disc.test", "disc.test"),
        ("error", "5.1.2", "gone.test"),
        ("", "", ""),
    ],
)
def test_r19_local_transports_and_addresses_without_a_domain_are_local(
    mailer: str, host: str, domain: str
) -> None:
    assert told(mailer, host, domain) == LOCAL


def test_what_the_mta_tells_wins_over_local_domains() -> None:
    mta = Mta(local_domains=("mine.test", ".yours.test"))
    assert told("smtp", "[192.0.2.24]:24", "mine.test", mta) == NextHop(ADDRESS, "192.0.2.24", 24)
    assert told("smtp", "sub.yours.test", "sub.yours.test", mta) == NextHop(MX, "sub.yours.test")


def test_the_names_of_local_transports_are_the_operators() -> None:
    mta = Mta(local_transports=("maildrop",))
    assert told("maildrop", "x", "mine.test", mta) == LOCAL
    assert told("local", "x.test", "mine.test", mta) == NextHop(MX, "x.test")


@pytest.mark.parametrize(
    ("transport", "host", "expected"),
    [
        ("lmtp", "inet:[192.0.2.24]:2400", NextHop(ADDRESS, "192.0.2.24", 2400, MailProtocol.LMTP)),
        ("lmtp", "[192.0.2.24]", NextHop(ADDRESS, "192.0.2.24", 24, MailProtocol.LMTP)),
        ("lmtp", "inet:box.test", NextHop(HOST, "box.test", 24, MailProtocol.LMTP, "box.test")),
        ("boxes", "inet:[box.test]", NextHop(HOST, "box.test", 24, MailProtocol.LMTP)),
        ("lmtp", "unix:private/lmtp", LOCAL),
    ],
)
def test_lmtp_over_tcp_is_a_next_hop_and_over_a_unix_socket_local(
    transport: str, host: str, expected: NextHop
) -> None:
    mta = Mta.model_validate(
        {"local_transports": ["local"], "transport": {"boxes": {"protocol": "lmtp"}}}
    )
    found = told(transport, host, "mine.test", mta)
    assert found == expected
    assert found == LOCAL or parse(str(found)) == found


def test_a_host_that_is_none_is_an_error_and_no_local_delivery() -> None:
    with pytest.raises(NextHopError):
        told("smtp", "[broken", "remote.test")


def test_a_postfix_dies_of_what_only_sendmail_writes() -> None:
    for host in ("remote.test.", "a.example:b.example", "inet:[a.example]:25"):
        with pytest.raises(UnusableNextHopError):
            from_macros("smtp", host, "user@remote.test", "", MTA, postfix=True)


# ---------------------------------------------------------------- local(8) that hands over


def test_a_transport_that_hands_its_mail_over_is_not_local() -> None:
    mta = Mta(hand_over={"local": "smtp:[192.0.2.30]", "ann@local": "lmtp:unix:private/lmtp"})

    def way(user: str) -> Way:
        return from_macros("local", "mta.mine.test", f"{user}@mine.test", "", mta)

    assert way("bob") == Way("smtp", NextHop(ADDRESS, "192.0.2.30"))
    assert way("Ann").nexthop == LOCAL


def test_a_handover_without_a_next_hop_keeps_that_of_local() -> None:
    """deliver_pass() of Postfix: ``mailbox_transport = relay`` goes to $myhostname."""
    mta = Mta(hand_over={"local": "relay"})
    way = from_macros("local", "mta.mine.test", "bob@mine.test", "", mta)
    assert way == Way("relay", NextHop(MX, "mta.mine.test"))


# ---------------------------------------------------------------- mail of sendmail(1)


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("bob@remote.test", NextHop(MX, "remote.test")),
        ("<bob@Remote.test>", NextHop(MX, "remote.test")),
        ("bob@[192.0.2.1]", NextHop(ADDRESS, "192.0.2.1")),
        ("bob@[IPv6:2001:db8::1]", parse("[IPv6:2001:db8::1]")),
    ],
)
def test_without_a_route_the_recipients_domain_is_the_next_hop(
    recipient: str, expected: NextHop
) -> None:
    assert untold(recipient) == Way("smtp", expected)


@pytest.mark.parametrize(
    ("recipient", "local"),
    [
        ("bob@mine.test", True),
        ("bob@MINE.test", True),
        ("bob@sub.mine.test", False),
        ("bob@sub.yours.test", True),
        ("bob@yours.test", False),
        ("bob@[192.0.2.1]", False),
        ("bob@[192.0.2.9]", True),
        ("bob", True),
        ("bob%remote.test@mine.test", False),
        ("bob%remote.test@[192.0.2.9]", False),
        ("bob%mine.test@mine.test", True),
        ("bob%remote.test@yours.test", False),
        ("<remote.test!bob@mine.test>", False),
        ('"bob@remote.test"@mine.test', False),
        ('"bob b"@mine.test', True),
        ("a%" * 99 + "b@mine.test", False),
    ],
)
def test_local_domains_and_own_addresses_are_local(recipient: str, local: bool) -> None:
    way = untold(recipient, local_domains=["mine.test", ".yours.test"], my_addresses=["192.0.2.9"])
    assert (way.nexthop == LOCAL) is local


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("bob%remote.test@mine.test", "smtp:remote.test"),
        ("bob%remote.test@box.test", "local:local"),
    ],
)
def test_only_in_mydestination_a_local_part_names_another_address(
    recipient: str, expected: str
) -> None:
    ours = ["mine.test"]
    way = untold(recipient, local_domains=[*ours, "box.test"], mydestination=ours)
    assert f"{way.transport or 'local'}:{way.nexthop}" == expected


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("owner-list@a.test", "smtp:a.test"),
        ("owner+list@a.test", "smtp:o.test"),
        ("list-request@a.test", "smtp:a.test"),
        ('"bob-x"@a.test', "smtp:b.test"),
    ],
)
def test_the_owner_of_a_list_has_no_extension(recipient: str, expected: str) -> None:
    routes = {
        "owner@a.test": "smtp:o.test",
        "list@a.test": "smtp:l.test",
        "bob@a.test": "smtp:b.test",
    }
    way = untold(recipient, routes=routes, recipient_delimiter="-+")
    assert f"{way.transport}:{way.nexthop}" == expected


@pytest.mark.parametrize(
    ("mta", "expected"),
    [
        ({"default_transport": "strict"}, "strict:remote.test"),
        ({"default_transport": "relay:[gateway.example]"}, "relay:[gateway.example]"),
        ({"relayhost": "[relay.example]:587"}, "smtp:[relay.example]:587"),
        (
            {"default_transport": "strict", "relayhost": "relay.example"},
            "strict:relay.example",
        ),
        (
            {"default_transport": "smtp:[gateway.example]", "relayhost": "relay.example"},
            "smtp:[gateway.example]",
        ),
        ({"default_transport": "smtp:", "relayhost": "relay.example"}, "smtp:relay.example"),
    ],
)
def test_default_transport_and_relayhost_are_followed(mta: dict[str, Any], expected: str) -> None:
    way = untold("bob@remote.test", **mta)
    assert f"{way.transport}:{way.nexthop}" == expected


ROUTES = {
    "remote.test": "strict:",
    ".remote.test": ":[gateway.example]",
    "relayed.test": "relay",
    "bob@remote.test": "smtp:[bobs.example]:26",
    "open.test": ":",
    "*": "smtp:[all.example]",
}


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("ann@remote.test", "strict:remote.test"),
        ("bob@remote.test", "smtp:[bobs.example]:26"),
        ("Bob+box@remote.test", "smtp:[bobs.example]:26"),
        ("ann@a.b.remote.test", "out:[gateway.example]"),
        ("ann@relayed.test", "relay:[relay.example]"),
        ("ann@open.test", "out:[relay.example]"),
        ("ann@elsewhere.test", "smtp:[all.example]"),
    ],
)
def test_the_most_specific_route_decides(recipient: str, expected: str) -> None:
    way = untold(
        recipient,
        routes=ROUTES,
        default_transport="out",
        relayhost="[relay.example]",
        recipient_delimiter="+",
    )
    assert f"{way.transport}:{way.nexthop}" == expected


def test_a_route_to_a_local_transport_is_local() -> None:
    assert untold("bob@remote.test", routes={"remote.test": "local:"}).nexthop == LOCAL


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("ann@mine.test", "anns:[anns.example]"),
        ("bob@mine.test", "mine:[mine.example]"),
        ("carl@mine.test", "out:remote.test"),
        ("<>", "bounces:remote.test"),
        ("", "bounces:remote.test"),
        ("x@other.test", "out:remote.test"),
    ],
)
def test_the_sender_may_choose_transport_and_relay(sender: str, expected: str) -> None:
    way = untold(
        "bob@remote.test",
        sender,
        default_transport="out",
        sender_transports={
            "ann@mine.test": "anns",
            "@mine.test": "mine",
            "carl@mine.test": "DUNNO",
            "<>": "bounces:",
        },
        sender_relayhosts={
            "ann@mine.test": "[anns.example]",
            "@mine.test": "[mine.example]",
            "carl@mine.test": "dunno",
        },
    )
    assert f"{way.transport}:{way.nexthop}" == expected


@pytest.mark.parametrize(
    ("sender", "transport"),
    [("ann@mine.test", "anns"), ("ann+x@mine.test", "all"), ("<>", "all"), ("eve@a.test", "all")],
)
def test_a_static_table_of_senders_answers_before_an_extension_is_cut_off(
    sender: str, transport: str
) -> None:
    way = untold(
        "bob@remote.test",
        sender,
        sender_transports={"ann@mine.test": "anns", "*": "all"},
        recipient_delimiter="+",
    )
    assert way.transport == transport


# ---------------------------------------------------------------- SRV records


@pytest.mark.parametrize(
    ("transport", "host", "expected"),
    [
        ("smtp", "example.net:submission", "srv:example.net:submission"),
        ("smtp", "example.net:587", "example.net:587"),
        ("smtp", "[example.net]:submission", "[example.net]:submission"),
        ("smtp", "example.net", "example.net"),
        ("all", "example.net", "srv:example.net"),
        ("all", "example.net:submission", "example.net:submission"),
        ("all", "192.0.2.1", "srv:192.0.2.1"),
    ],
)
def test_a_service_of_use_srv_lookup_is_looked_up_by_srv(
    transport: str, host: str, expected: str
) -> None:
    mta = Mta.model_validate(
        {"use_srv_lookup": ["submission"], "transport": {"all": {"use_srv_lookup": ["smtp"]}}}
    )
    found = told(transport, host, "x.example", mta)
    assert str(found) == expected
    assert parse(str(found)) == found
