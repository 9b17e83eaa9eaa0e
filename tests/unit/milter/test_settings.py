"""What is remembered of rules and next hops of recipients is what would be found anew."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.milter import hop
from requiretls_milter.milter.settings import MAX_LOOKUP_TEXT, Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import NextHop
from requiretls_milter.syntax.names import envelope_domain
from requiretls_milter.syntax.nexthop import NextHopError

RULES = {"recipient": {"example.org": {"mode": "off"}}, "sender": {".test": {"require": True}}}

ADDRESSES = st.sampled_from(
    [
        "<bob@example.org>",
        "<eve@example.org>",
        "bob@example.org",
        "<bob@EXAMPLE.org.>",
        "<bob>",
        "<@>",
        "",
        "<a@[192.0.2.1]>",
        '<"a@b"@example.net>',
        "<bob@ex ample>",
        "<bob@x>>",
        "a@ x ",
        f"<bob@{'x' * MAX_LOOKUP_TEXT}.example>",
    ]
)
HOSTS = st.sampled_from(
    ["", "example.org", "[mx.example.net]:26", "[broken", "a.example, b.example"]
)
MAILERS = st.sampled_from(["", "smtp", "local", "relay"])
SENDERS = st.sampled_from(["<>", "<a@x.test>", "<a@y.example>"])
CONFIGS = st.sampled_from([{}, {"rules": RULES}, {"mta": {"relayhost": "[relay.example]"}}])


@given(st.lists(st.tuples(MAILERS, HOSTS, ADDRESSES, SENDERS, st.booleans())), CONFIGS)
def test_a_lookup_gives_what_the_macros_and_rules_say(
    recipients: list[tuple[str, str, str, str, bool]], config: dict[str, Any]
) -> None:
    settings = Settings(Config.model_validate(config))
    for mailer, host, address, sender, postfix in [*recipients, *recipients]:
        known = settings.look_up(mailer, host, address, sender, postfix=postfix)
        domain = envelope_domain(address)
        assert known.domain == domain
        found: tuple[str, NextHop | None, str, str, str]
        try:
            way = hop.from_macros(
                mailer, host, address, sender, settings.config.mta, postfix=postfix
            )
            found = (way.transport, way.nexthop, str(way.nexthop), "", way.nexthop.host)
        except NextHopError as error:
            found = ("", None, (host or domain)[:1000], str(error), "")
        *way_of_it, name = found
        assert way_of_it == [
            known.transport,
            known.nexthop,
            known.nexthop_text,
            known.nexthop_error,
        ]
        sender_domain = envelope_domain(sender) if settings.rules.by_domain else ""
        assert known.rule == settings.rules.find(sender_domain, domain, name)


def test_recipients_of_one_domain_share_a_lookup() -> None:
    settings = Settings(Config())
    message = Transaction(settings, SmtpClient(postfix=True), "<a@x.test>", (b"REQUIRETLS",))
    one, other = (
        message.add_recipient(f"<{name}@example.org>", "smtp", "example.org")
        for name in ("bob", "eve")
    )
    assert one.nexthop is other.nexthop
    assert one.question is other.question


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_a_transport_that_hands_over_by_local_part_is_looked_up_for_each(name: str) -> None:
    hand_over = {"local": "smtp:[192.0.2.30]", "ann@local": "lmtp:unix:private/lmtp"}
    settings = Settings(Config.model_validate({"mta": {"hand_over": hand_over}}))
    settings.look_up("local", "", "<ann@example.org>", "", postfix=True)
    settings.look_up("local", "", "<bob@example.org>", "", postfix=True)
    known = settings.look_up("local", "", f"<{name}@example.org>", "", postfix=True)
    assert known.nexthop_text == ("local" if name == "ann" else "[192.0.2.30]")
