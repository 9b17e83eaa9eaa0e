"""Where a recipe moves mail with the tag's route=requiretls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.mirror.moved import moved, tag_field
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import mta_of, postfix, service, warned


def test_the_tag_that_is_looked_up_is_one_that_the_milter_writes() -> None:
    assert tag_field("X-RequireTLS") == (
        "X-RequireTLS: requirement=requiretls; source=rule; forecast=2.0.0; reason=ok; "
        "route=requiretls; by=mail.example.net"
    )


def with_action(action: str) -> Postfix:
    made = postfix(service("smtpd"), service("smtp"), service("smtp", "smtp-strict"))
    return replace(made, tag_action=action)


@pytest.mark.parametrize(
    ("action", "transport"),
    [
        ("FILTER smtp-strict:", "smtp-strict"),
        ("filter  smtp-strict:[mx.example.net]:25", "smtp-strict"),
        ("", ""),
        ("HOLD", ""),
        ("FILTER", ""),
        ("FILTER :", ""),
    ],
)
def test_only_a_filter_moves_mail(action: str, transport: str) -> None:
    made = with_action(action)
    assert moved(made).transport == transport
    assert mta_of(mirror(made)).route_transport == transport
    assert not warned(mirror(made), "no transport of smtp(8)")


@pytest.mark.parametrize("transport", ["gone", "smtpd", "\x1b[2J\N{SNOWMAN}", "x" * 5000])
def test_a_transport_that_is_not_one_of_smtp_is_told(transport: str) -> None:
    made = with_action(f"FILTER {transport}:")
    assert mta_of(mirror(made)).route_transport == ""
    assert warned(mirror(made), "no transport of smtp(8)")
    assert all(len(warning) < 400 and warning.isprintable() for warning in mirror(made).warnings)


def test_a_next_hop_other_than_the_recipients_own_is_told() -> None:
    base = replace(postfix(service("smtp"), service("smtp", "strict")), tag_action="FILTER strict:")
    assert moved(base).warnings == ()

    def with_main(**main: str) -> tuple[str, ...]:
        return moved(replace(base, settings={**base.settings, **main})).warnings

    relay = {"relayhost": "[relay.example]"}
    assert with_main(**relay, default_filter_nexthop="[relay.example]") == ()
    (warning,) = with_main(**relay)
    assert "set default_filter_nexthop = $relayhost" in warning
    (warning,) = with_main(transport_maps="hash:/etc/postfix/transport")
    assert "goes past transport_maps" in warning
    (warning,) = moved(replace(base, tag_action="FILTER strict:[gateway.example]")).warnings
    assert "to that next hop" in warning
