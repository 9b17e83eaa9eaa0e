"""``[mta]``: the profile of each transport."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config, ConfigError
from requiretls_milter.model import (
    MtaProfile,
    MtaSts,
    ProfileName,
    Requirement,
    RequiretlsPolicy,
    TlsLevel,
)
from tests.support.configured import configured
from tests.support.mistakes import without_place


def test_the_default_profile_is_that_of_postfix() -> None:
    assert Config().mta.profile_for("smtp") == MtaProfile()


def test_a_transport_has_the_profile_of_the_mta_but_for_its_overrides() -> None:
    config = configured(
        """
        [mta]
        tls_security_level = "dane"
        mta_sts = "match"
        mydomain = "example.org"
        my_addresses = ["192.0.2.1"]
        [mta.transport.strict]
        tls_security_level = "dane-only"
        requiretls_policy = "opportunistic"
        insecure_mx_policy = "encrypt"
        mx_address_limit = 0
        inet_protocols = ["ipv6"]
        """
    )
    usual = MtaProfile(
        tls_security_level=TlsLevel.DANE,
        mta_sts=MtaSts.MATCH,
        mydomain="example.org",
        my_addresses=("192.0.2.1",),
    )
    assert config.mta.profile_for("smtp") == usual
    assert config.mta.profile_for("no such transport\n") == usual
    assert config.mta.profile_for("strict") == MtaProfile(
        tls_security_level=TlsLevel.DANE_ONLY,
        requiretls_policy=(("*", RequiretlsPolicy.OPPORTUNISTIC),),
        mta_sts=MtaSts.MATCH,
        insecure_mx_policy=TlsLevel.ENCRYPT,
        mydomain="example.org",
        mx_address_limit=0,
        inet_protocols=("ipv6",),
        my_addresses=("192.0.2.1",),
    )


def test_only_what_asks_for_requiretls_goes_by_the_transport_of_the_route() -> None:
    mta = configured('mta.route_transport = "strict"').mta
    assert mta.carrier("smtp", Requirement.REQUIRETLS) == "strict"
    assert mta.carrier("smtp", Requirement.TLS_REQUIRED_NO) == "smtp"
    assert mta.carrier("smtp", Requirement.NONE) == "smtp"
    assert Config().mta.carrier("smtp", Requirement.REQUIRETLS) == "smtp"


def test_the_profile_can_be_that_of_the_rfc() -> None:
    assert configured('mta.profile = "rfc8689"').mta.profile_for("").name is ProfileName.RFC8689


def test_r19_postfix_s_own_policy_list_is_left_to_the_judge() -> None:
    assert configured('mta.requiretls_policy = "default"').mta.profile_for("smtp") == MtaProfile()


@pytest.mark.parametrize("word", list(RequiretlsPolicy))
def test_one_policy_word_holds_for_all(word: RequiretlsPolicy) -> None:
    profile = configured(f'mta.requiretls_policy = "{word}"').mta.profile_for("smtp")
    assert profile.requiretls_policy == (("*", word),)


def test_a_policy_table_keeps_its_order_and_gets_canonical_keys() -> None:
    profile = configured(
        'mta.requiretls_policy = { "*" = "enforce", ".Bücher.example" = "invalid", '
        '"192.0.2.1" = "disable", "Example.org." = "opportunistic+starttls" }'
    ).mta.profile_for("smtp")
    assert profile.requiretls_policy == (
        ("*", RequiretlsPolicy.ENFORCE),
        (".xn--bcher-kva.example", RequiretlsPolicy.INVALID),
        ("192.0.2.1", RequiretlsPolicy.DISABLE),
        ("example.org", RequiretlsPolicy.OPPORTUNISTIC_STARTTLS),
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"enforced"', 'did you mean "enforce"?'),
        ("3", '("default" is Postfix\'s own list)'),
        ('{ "example.org" = "enforced" }', '."example.org": expected'),
        ('{ "example.org" = 3 }', '."example.org": expected'),
        ('{ "a b" = "enforce" }', "is not a domain name"),
        ('{ "a.example" = "enforce", "A.example" = "disable" }', '"a.example" is given twice'),
    ],
)
def test_a_policy_with_a_mistake_is_told(value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(f"mta.requiretls_policy = {value}")
    assert without_place(str(caught.value)).startswith("mta.requiretls_policy")
    assert said in str(caught.value)


def test_all_mistakes_of_a_policy_table_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        configured('mta.requiretls_policy = { "a.example" = "x", "b.example" = "y" }')
    assert [mistake.partition(": expected")[0] for mistake in caught.value.mistakes] == [
        'test:1:27: mta.requiretls_policy."a.example"',
        'test:1:46: mta.requiretls_policy."b.example"',
    ]
