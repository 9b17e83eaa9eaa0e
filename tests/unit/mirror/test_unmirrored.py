"""Each setting that changes a delivery and has no key leads to a warning."""

from __future__ import annotations

import pytest

from requiretls_milter.mirror.postconf import PARAMETERS
from requiretls_milter.mirror.section import mirror
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL, Unmirrored
from tests.support.postfixes import DEFAULTS_3_11, postfix, warned


def test_every_parameter_that_is_told_of_is_asked_for() -> None:
    assert {one.name for one in (*CLIENT, *GLOBAL)} <= set(PARAMETERS)


@pytest.mark.parametrize("parameter", [*CLIENT, *GLOBAL], ids=lambda one: one.name)
def test_a_setting_that_would_change_a_forecast_is_told(parameter: Unmirrored) -> None:
    value = (
        next(iter(parameter.words))
        if parameter.words
        else {"yes": "no", "no": "yes"}.get(DEFAULTS_3_11[parameter.name], "5something")
    )
    word, users = parameter.used_by or ("", frozenset())
    assert not warned(mirror(postfix()), f"{parameter.name} = ")
    made = mirror(postfix(**dict.fromkeys(users, word), **{parameter.name: value}))
    assert warned(made, f"{parameter.name} = {value}: ")


@pytest.mark.parametrize("parameter", [*CLIENT, *GLOBAL], ids=lambda one: one.name)
def test_a_parameter_that_postfix_does_not_have_does_not_matter(parameter: Unmirrored) -> None:
    assert not parameter.matters({})


def test_a_list_matters_by_its_words() -> None:
    keywords = Unmirrored("x", "why", words=frozenset({"starttls"}))
    assert keywords.matters({"x": "chunking, STARTTLS"})
    assert not keywords.matters({"x": "chunking"})


def test_a_list_matters_by_each_word_that_is_not_known_as_harmless() -> None:
    options = Unmirrored("x", "why", harmless_words=frozenset({"no_ticket"}))
    assert not options.matters({"x": "NO_TICKET"})
    assert options.matters({"x": "NO_TICKET, 0x10"})


def test_ciphers_matter_where_their_grade_is_used() -> None:
    told = "tls_high_cipherlist = AES"
    assert not warned(mirror(postfix(tls_high_cipherlist="AES")), told)
    used = {"tls_high_cipherlist": "AES", "smtp_tls_mandatory_ciphers": "high"}
    assert warned(mirror(postfix(**used)), told)


def test_case_and_blanks_do_not_matter() -> None:
    digests = Unmirrored("x", "why", frozenset({"sha512 sha256"}))
    assert not digests.matters({"x": " SHA512   sha256 "})
    assert digests.matters({"x": "sha256 sha512"})


def test_what_is_not_at_the_default_of_this_version_is_told() -> None:
    ciphers = Unmirrored("x", "why", own_default=True)
    assert not ciphers.matters({"x": "HIGH:MEDIUM"}, "high:medium")
    assert ciphers.matters({"x": "HIGH"}, "high:medium")


def test_a_value_that_stands_in_for_another_parameter_too_is_told_once() -> None:
    checks = "regexp:/etc/postfix/header_checks"
    made = mirror(postfix(header_checks=checks, mime_header_checks=checks))
    assert warned(made, f"header_checks = {checks}")
    assert not warned(made, f"mime_header_checks = {checks}")
    assert warned(mirror(postfix(mime_header_checks=checks)), f"mime_header_checks = {checks}")
