"""What [mta] says, beside how Postfix delivers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Severity
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import older, postfix, service
from tests.unit.doctor.examined import DANE, configured, found, matching, one


def different(config: Config, made: Postfix) -> list[str]:
    return [one.found for one in found(config, made, "mta") if one.severity is Severity.WARNING]


def test_each_key_that_differs_is_named_with_both_values() -> None:
    made = postfix(smtp_mx_address_limit="7", mydomain="example.net", **DANE)
    config = configured(mta={**mirror(postfix()).mta, "my_addresses": ["192.0.2.25"]})
    assert different(config, made) == [
        'mta.mydomain is "example.org", but in Postfix it is "example.net"',
        'mta.my_addresses lacks ["127.0.0.1"]',
        'mta.tls_security_level is "may", but in Postfix it is "dane"',
        'mta.requiretls_policy is "default", but in Postfix it is '
        '{"example.org" = "opportunistic", ".example.org" = "opportunistic", '
        'localhost = "opportunistic", "*" = "enforce"}',
        "mta.mx_address_limit is 5, but in Postfix it is 7",
    ]


def test_a_tls_policy_that_differs_is_named() -> None:
    static = {"smtp_tls_policy_maps": "hash:/etc/postfix/tls"}
    table = {"hash:/etc/postfix/tls": (("a.example", "encrypt"), ("b.example", "may"))}
    base = postfix(**static)
    made = replace(base, tables={**base.tables, **table})
    has = {**mirror(postfix()).mta, "tls_policy": {"b.example": "may"}}
    assert different(configured(mta=has), made) == [
        'mta.tls_policy is {"b.example" = "may"}, but in Postfix it is '
        '{"a.example" = "encrypt", "b.example" = "may"}'
    ]
    has["tls_policy"] = {"b.example": "may", "a.example": "encrypt"}
    assert different(configured(mta=has), made) == []
    assert different(configured(mta=has), postfix()) == [
        'mta.tls_policy is {"b.example" = "may", "a.example" = "encrypt"}, but in Postfix it is {}'
    ]


@pytest.mark.parametrize("key", ["virtual_alias_maps", "canonical_maps"])
@pytest.mark.parametrize(
    "item", ["mysql:{ { password = geheim } }", "pgsql:postgresql://u:geheim@h"]
)
def test_a_table_that_differs_is_named_without_its_password(key: str, item: str) -> None:
    made = postfix(**{key: "hash:/etc/postfix/table"})
    config = configured(mta={**mirror(made).mta, "aliases": "ask", key: [item]})
    (told,) = different(config, made)
    assert told.startswith(f"mta.{key} is [")
    assert "geheim" not in told


def test_what_means_the_same_does_not_differ() -> None:
    made = postfix(smtp_requiretls_policy="enforce")
    for policy in ("enforce", {"*": "enforce"}, {}):
        config = configured(mta={**mirror(made).mta, "requiretls_policy": policy})
        assert different(config, made) == []
    more = {"my_addresses": ["127.0.0.1", "192.0.2.25", "192.0.2.99"], "carries": "requiretls"}
    assert different(configured(mta={**mirror(made).mta, **more}), made) == []


def test_what_an_older_postfix_does_not_have_is_not_compared() -> None:
    made = older(postfix())
    assert different(matching(made), made) == []


def test_a_transport_that_differs_is_named() -> None:
    strict = service("smtp", "strict", smtp_tls_security_level="secure")
    made = postfix(service("smtpd", "smtp", "inet"), service("smtp"), strict)
    config = configured(mta={**mirror(postfix()).mta, "transport": {"gone": {}}})
    assert different(config, made) == [
        'mta.transport.strict.tls_security_level is "may", but in Postfix it is "secure"',
        "mta.transport.gone: Postfix has no transport of that name",
    ]


def test_a_difference_of_mta_itself_is_not_told_again_for_each_transport() -> None:
    made = postfix(**DANE)
    config = configured(mta=dict(mirror(postfix()).mta))
    assert len(different(config, made)) == 1


def test_what_cannot_be_mirrored_is_told_too() -> None:
    made = postfix(relayhost="[relay.example]:587")
    (finding,) = found(matching(made), made, "not_mirrored")
    assert "relayhost" in finding.found


def test_another_profile_beside_a_postfix_is_told() -> None:
    made = postfix()
    assert (
        'mta.profile = "rfc8689"' in one(configured(mta={"profile": "rfc8689"}), made, "mta").found
    )


# ---------------------------------------------------------------- where mail goes


def test_a_domain_that_is_called_local_and_leaves_is_named() -> None:
    made = postfix(virtual_mailbox_domains="boxes.example", virtual_transport="smtp:[192.0.2.24]")
    should = mirror(made).mta
    config = configured(
        mta={**should, "local_domains": [*should["local_domains"], "boxes.example"]}
    )
    assert different(config, made) == [
        "mta.local_domains has boxes.example, but Postfix sends its mail to smtp:[192.0.2.24]"
    ]


@pytest.mark.parametrize(
    ("settings", "transport"),
    [
        ({"virtual_transport": "lmtp:inet:[192.0.2.24]"}, "lmtp"),
        ({"mailbox_transport": "smtp:[192.0.2.24]"}, "local"),
        ({}, "smtp"),
    ],
)
def test_a_transport_that_is_called_local_and_leaves_is_named(
    settings: dict[str, str], transport: str
) -> None:
    made = postfix(**settings)
    should = mirror(made).mta
    config = configured(
        mta={**should, "local_transports": [*should["local_transports"], transport]}
    )
    assert different(config, made) == [
        f"mta.local_transports has {transport}, but in Postfix its mail leaves over the network: "
        "it gets no forecast"
    ]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"default_transport": "relay:[gateway.example]"}, "default_transport"),
        ({"relayhost": "[relay.example]"}, "relayhost"),
        ({"relay_domains": "a.example", "relay_transport": "smtp:[192.0.2.77]"}, "routes"),
        ({"mailbox_transport": "smtp:[192.0.2.30]"}, "hand_over"),
    ],
)
def test_each_key_of_the_routes_that_differs_is_named(settings: dict[str, str], key: str) -> None:
    told = different(configured(mta=dict(mirror(postfix()).mta)), postfix(**settings))
    assert any(text.startswith(f"mta.{key} is ") for text in told)
