from __future__ import annotations

import pickle
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from requiretls_milter.config import Config, ConfigError, parse
from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.model import (
    EnforceFor,
    MtaProfile,
    MtaSts,
    ProfileName,
    Requirement,
    RequiretlsPolicy,
    TlsLevel,
)
from tests.support.mistakes import without_place
from tests.unit.config.generated import CONFIG

CONTRACT = (Path(__file__).parent / "contract.toml").read_bytes()
"""The keys and defaults that operators were promised, with an example of each table."""


def configured(text: str) -> Config:
    return parse(text.encode(), "test")


def test_the_promised_configuration_is_accepted() -> None:
    config = parse(CONTRACT, "contract.toml")
    assert config.rules.recipient["example.org"].mode == "reject"
    assert config.rules.nexthop[".example.net"].require is True
    assert config.rules.nexthop[".example.net"].enforce_for is None
    assert config.mta.transport["smtp-strict"].tls_security_level is TlsLevel.DANE_ONLY


def test_the_promised_defaults_are_the_defaults() -> None:
    raw = tomllib.loads(CONTRACT.decode())
    del raw["mta"]["transport"]
    for section in ("recipient", "nexthop", "sender"):
        del raw["rules"][section]
    defaults = Config().model_dump(mode="json")
    for section, keys in raw.items():
        for key, value in keys.items():
            shown = defaults[section][key]
            assert shown == value, f"{section}.{key}"


def test_a_configuration_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.milter.workers = 3  # type: ignore[misc]


def every_field(schema: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    tables = tables_of(schema)
    for key, field in schema.model_fields.items():
        if key in tables:
            yield from every_field(tables[key][0], f"{above}{key}.")
        if above:
            yield f"{above}{key}", field.description or ""


@pytest.mark.parametrize(("key", "description"), list(every_field(Config)))
def test_every_key_is_described(key: str, description: str) -> None:
    assert description.endswith((".", ")")), key
    assert description.isascii(), key


# ---------------------------------------------------------------- the MTA's profile


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


# ---------------------------------------------------------------- rules


def test_rules_of_domains_come_in_order_of_precedence() -> None:
    config = configured(
        '[rules.sender."a.example"]\n[rules.recipient."b.example"]\n[rules.nexthop."c.example"]\n'
    )
    assert [(section, pattern) for section, pattern, _ in config.rules.tables()] == [
        ("recipient", "b.example"),
        ("nexthop", "c.example"),
        ("sender", "a.example"),
    ]


def test_every_key_of_rules_but_those_of_whole_messages_can_stand_in_a_rule_of_a_domain() -> None:
    tables, whole = (
        {"recipient", "nexthop", "sender", "list"},
        {"suspended", "tag_wait", "on_mixed"},
    )
    rules = set(type(Config().rules).model_fields) - tables - whole
    assert set(tables_of(type(Config().rules))["sender"][0].model_fields) == rules


def test_what_a_rule_of_a_domain_leaves_out_is_none() -> None:
    rule = configured('[rules.sender."a.example"]\nenforce_for = "all"').rules.sender["a.example"]
    assert rule.enforce_for is EnforceFor.ALL
    assert rule.mode is None
    assert rule.require is None
    assert rule.decide_wait is None


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("", False),
        ('rules.mode = "off"', False),
        ('rules.mode = "defer"', True),
        ('[rules.sender."a.example"]\nmode = "reject"', True),
        ('[rules.sender."a.example"]\nrequire = true', False),
    ],
)
def test_rules_act_if_any_of_them_does(text: str, acts: bool) -> None:
    assert configured(text).rules.acts is acts


def test_the_longest_wait_is_that_of_any_rule() -> None:
    table = '[rules.nexthop."a.example"]\ndecide_wait = {}\n'
    assert configured("rules.decide_wait = 7").rules.longest_decide_wait == 7
    assert configured("rules.decide_wait = 7\n" + table.format(3)).rules.longest_decide_wait == 7
    assert configured("rules.decide_wait = 7\n" + table.format(9)).rules.longest_decide_wait == 9


# ---------------------------------------------------------------- passed on, compared


@given(CONFIG)
def test_a_configuration_can_be_handed_to_another_process(raw: dict[str, object]) -> None:
    config = Config.model_validate(raw)
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("milter.workers = 3", True),
        ('[rules]\nmode = "reject"', True),
        ('store.url = "memory:"', True),
        ('mta.tls_security_level = "dane"', False),
        ('[mta.transport.x]\ntls_security_level = "dane"', False),
        ("dns.timeout = 4", False),
        ("probe.port = 26", False),
    ],
)
def test_configurations_assess_alike_where_mta_dns_and_probe_are_the_same(
    change: str, same: bool
) -> None:
    assert (configured(change).assessment_digest("ab") == Config().assessment_digest("ab")) is same


def test_under_other_authorities_the_same_configuration_assesses_otherwise() -> None:
    assert Config().assessment_digest("ab") != Config().assessment_digest("cd")


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("", ()),
        ('[rules]\nmode = "reject"', ()),
        ("milter.drain_timeout = 5", ()),
        ("milter.workers = 3", ("milter.workers",)),
        (
            'milter.socket = "unix:/x"\nmetrics.listen = ""\nstore.url = "memory:"',
            ("milter.socket", "metrics.listen", "store.url"),
        ),
    ],
)
def test_what_waits_for_a_restart_is_told(change: str, keys: tuple[str, ...]) -> None:
    assert Config().changes_at_restart(configured(change)) == keys
