"""Checks of what Postfix does with REQUIRETLS, and where a recipe moves the mail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.run import examine_postfix
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import older, postfix, service

DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}


def matching(made: Postfix, **keys: Any) -> Config:
    """A configuration whose [mta] is what mta import writes, but for *keys*."""
    return Config.model_validate({"mta": {**mirror(made).mta, **keys}})


def found(config: Config, made: Postfix, check: str) -> list[Finding]:
    return [one for one in examine_postfix(config, made, mirror(made)) if one.check == check]


def one(config: Config, made: Postfix, check: str) -> Finding:
    (finding,) = found(config, made, check)
    return finding


def test_an_older_postfix_is_told() -> None:
    made = older(postfix())
    finding = one(matching(made), made, "requiretls")
    assert finding.severity is Severity.WARNING
    assert "3.7.11 does not know REQUIRETLS" in finding.found
    assert found(matching(made), made, "level") == []


def test_requiretls_switched_off_is_told() -> None:
    made = postfix(requiretls_enable="no")
    assert one(matching(made), made, "requiretls").severity is Severity.WARNING


@pytest.mark.parametrize(
    "settings",
    [
        {"smtpd_tls_security_level": ""},
        {"smtpd_tls_security_level": "none"},
        {"smtpd_tls_chain_files": ""},
        {"smtpd_discard_ehlo_keywords": "chunking, STARTTLS"},
        {"smtpd_discard_ehlo_keywords": "requiretls"},
    ],
)
def test_a_service_where_requiretls_cannot_be_requested_is_told(settings: dict[str, Any]) -> None:
    made = postfix(service("smtpd", "smtp", "inet", **settings))
    assert one(Config(), made, "starttls").severity is Severity.WARNING
    inner = postfix(service("smtpd", "127.0.0.1:10025", "inet", **settings))
    assert found(Config(), inner, "starttls") == []


@pytest.mark.parametrize(
    ("settings", "severity"),
    [
        (DANE, Severity.OK),
        ({"smtp_tls_security_level": "dane"}, Severity.WARNING),  # without DNSSEC
        ({"smtp_tls_security_level": "encrypt"}, Severity.WARNING),
        ({"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:postfix"}, Severity.OK),
        ({"smtp_requiretls_policy": "opportunistic"}, Severity.OK),
        ({"smtp_requiretls_policy": "nonsense"}, Severity.ERROR),
    ],
)
def test_a_postfix_that_can_deliver_no_requiretls_mail_is_told(
    settings: dict[str, str], severity: Severity
) -> None:
    made = postfix(**settings)
    assert one(matching(made), made, "level").severity is severity


def test_the_level_of_the_default_transport_counts() -> None:
    made = postfix(
        service("smtp"),
        service("smtp", "out", smtp_tls_security_level="secure"),
        default_transport="out:",
    )
    assert one(matching(made), made, "level").severity is Severity.OK


# ---------------------------------------------------------------- the recipe for older versions


def with_recipe(action: str = "FILTER smtp-strict:", level: str = "dane-only") -> Postfix:
    """A Postfix 3.7 with the recipe, or with a part of it that is not as it should be."""
    made = postfix(
        service("smtpd", "smtp", "inet"),
        service("smtp"),
        service(
            "smtp", "smtp-strict", smtp_tls_security_level=level, smtp_dns_support_level="dnssec"
        ),
    )
    return replace(older(made), tag_action=action)


def test_an_older_postfix_with_the_recipe_is_good() -> None:
    made = with_recipe()
    config = matching(made)
    assert config.mta.route_transport == "smtp-strict"
    assert one(config, made, "requiretls").severity is Severity.OK
    assert one(config, made, "route").found == (
        "mail with route=requiretls goes by smtp-strict, at level dane-only"
    )
    assert one(config, made, "mta").severity is Severity.OK


def test_the_field_of_a_front_mta_is_obeyed_by_way_of_the_recipe() -> None:
    assert matching(with_recipe()).mta.requiretls_esmtp_header
    assert not matching(with_recipe(action="")).mta.requiretls_esmtp_header


def test_a_transport_to_which_postfix_moves_no_mail_is_an_error() -> None:
    made = with_recipe(action="")
    config = matching(made, route_transport="smtp-strict")
    finding = one(config, made, "route")
    assert finding.severity is Severity.ERROR
    assert "but Postfix does not move it" in finding.found
    assert one(config, made, "requiretls").severity is Severity.WARNING


def test_another_transport_than_the_one_that_is_named_is_an_error() -> None:
    made = with_recipe()
    finding = one(matching(made, route_transport="smtp"), made, "route")
    assert finding.severity is Severity.ERROR
    assert "but Postfix moves it to smtp-strict" in finding.found
    assert 'mta.route_transport = "smtp-strict"' in finding.advice


def test_mail_that_is_moved_without_our_knowledge_is_a_warning() -> None:
    made = with_recipe()
    finding = one(matching(made, route_transport=""), made, "route")
    assert finding.severity is Severity.WARNING
    assert finding.advice.startswith('Set mta.route_transport = "smtp-strict".')


def test_a_route_over_a_transport_that_verifies_nothing_is_an_error() -> None:
    made = with_recipe(level="encrypt")
    finding = one(matching(made), made, "route")
    assert finding.severity is Severity.ERROR
    assert "at level encrypt Postfix verifies no certificate" in finding.found


def test_the_level_that_counts_in_3_11_is_that_of_the_route() -> None:
    strict = service(
        "smtp", "smtp-strict", smtp_tls_security_level="dane-only", smtp_dns_support_level="dnssec"
    )
    made = postfix(service("smtpd", "smtp", "inet"), service("smtp"), strict)
    assert one(matching(made), made, "level").severity is Severity.WARNING
    made = replace(made, tag_action="FILTER smtp-strict:")
    assert one(matching(made), made, "level").severity is Severity.OK
