"""Rules that can refuse nothing, or everything, with the MTA that ``[mta]`` describes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.judge import judge
from requiretls_milter.model import (
    Action,
    Capability,
    Decision,
    DomainEvidence,
    Forecast,
    Reason,
    Requirement,
    Standing,
)
from requiretls_milter.reports import effect
from requiretls_milter.rules import RuleSet, Why, decide
from tests.support.build import NOW
from tests.support.paths import REPOSITORY
from tests.support.pki import Pki
from tests.support.scenario import load
from tests.support.scenarioevidence import evidence_of
from tests.support.scenarioplan import ScenarioPlan


def warnings(text: str) -> list[str]:
    return list(effect.warnings(config.parse(text.encode(), "c.toml")))


REJECT = '[rules.recipient."a.example"]\nmode = "reject"\n'


@pytest.mark.parametrize(
    ("mta", "why"),
    [
        ("", 'at tls_security_level = "may" the MTA verifies no certificate'),
        ('tls_security_level = "encrypt"', 'at tls_security_level = "encrypt"'),
        ('carries = "nothing"', 'at tls_security_level = "may" the MTA verifies no certificate'),
    ],
)
def test_at_a_level_that_verifies_nothing_a_rule_refuses_everything(mta: str, why: str) -> None:
    (warning,) = warnings(f"[mta]\n{mta}\n{REJECT}")
    assert warning.startswith(
        'rules.recipient."a.example": mode = "reject" refuses all mail that asks for REQUIRETLS: '
    )
    assert why in warning
    assert 'tls_security_level = "dane"' in warning


@pytest.mark.parametrize(
    "mta",
    [
        'tls_security_level = "dane"',
        'mta_sts = "match"',
        'tls_policy = { "b.example" = "secure" }',
        'transport = { strict = { tls_security_level = "dane-only" } }',
        'profile = "rfc8689"\ncarries = "requiretls"',
    ],
)
def test_where_some_mail_may_be_verified_there_is_nothing_to_warn_of(mta: str) -> None:
    assert warnings(f"[mta]\n{mta}\n{REJECT}") == []


@pytest.mark.parametrize(
    ("mta", "keys", "what"),
    [
        (
            'requiretls_policy = "opportunistic+starttls"',
            "",
            "nothing but mail for servers that do not offer STARTTLS or refuse it",
        ),
        ('requiretls_policy = "opportunistic"', "", "nothing"),
        ('requiretls_policy = { "a.example" = "disable" }', "", "nothing"),
        ('mydomain = "example"', "", "nothing"),  # Postfix's default policy exempts it
        ('carries = "nothing"', 'on_noncompliant = "accept"', "nothing"),
        ("", 'require = true\non_noncompliant = "accept"', "nothing"),
    ],
)
def test_what_the_mta_lets_through_a_rule_does_not_refuse(mta: str, keys: str, what: str) -> None:
    head = f'[mta]\ntls_security_level = "dane"\n{mta}\n'
    (warning,) = warnings(f"{head}{REJECT}{keys}\n")
    assert f'mode = "reject" refuses {what}: with ' in warning
    assert warning.endswith('write on_noncompliant = "refuse"')
    if "require" not in keys and "on_noncompliant" not in keys:
        assert warnings(f'{head}{REJECT}{keys}\non_noncompliant = "refuse"\n') == []


@pytest.mark.parametrize(
    "rules",
    [
        '[rules]\nmode = "monitor"\n',
        f"[rules]\nsuspended = true\n{REJECT}",
        '[rules.recipient."a.example"]\nwatch = true\n',
        '[rules.recipient."a.example"]\nmode = "defer"\non_noncompliant = "accept"\nrequire = true',
    ],
)
def test_a_rule_that_does_not_refuse_is_not_warned_of(rules: str) -> None:
    level = '[mta]\ntls_security_level = "dane"\nrequiretls_policy = "opportunistic"\n'
    assert warnings(level + rules) == []


def test_what_a_table_inherits_from_a_list_counts() -> None:
    rules = {
        "recipient": {"a.example": {"require": True}},
        "list": {"p": {"domains_file": DomainList("p.txt", ("a.example",)), "mode": "defer"}},
    }
    loaded = config.Config.model_validate({"rules": rules})
    assert [warning.partition(": mode")[0] for warning in effect.warnings(loaded)] == [
        'rules.recipient."a.example"',
        "rules.list.p",
    ]


def test_each_rule_that_decides_is_told_and_the_base() -> None:
    text = '[rules]\nmode = "defer"\n[rules.sender."s.example"]\nrequire = true\n' + REJECT
    assert [warning.partition(": mode")[0] for warning in warnings(text)] == [
        "rules",
        'rules.recipient."a.example"',
        'rules.sender."s.example"',
    ]
    assert 'mode = "defer" defers all mail' in warnings(text)[0]


RECIPES = sorted([*REPOSITORY.glob("docs/recipes/*/*.toml"), *REPOSITORY.glob("examples/*.toml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recipes_and_examples_have_nothing_to_warn_of(path: Path) -> None:
    assert list(effect.warnings(config.load(path))) == []


# ---------------------------------------------------------------- against the judge

STARTTLS = {Reason.STARTTLS_NOT_OFFERED, Reason.STARTTLS_REFUSED}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ScenarioPlan:
    """Recorded scenarios, with certificates, but no server."""
    planned = ScenarioPlan(Pki(tmp_path_factory.mktemp("effect") / "pki", NOW))
    planned.add(load().scenarios)
    return planned


@pytest.fixture(scope="module")
def seen(world: ScenarioPlan) -> list[DomainEvidence]:
    """What some recorded deliveries met."""
    return [evidence_of(scenario, scenario.domains[0], world) for scenario in load().scenarios[::6]]


def decisions(
    loaded: config.Config, world: ScenarioPlan, seen: list[DomainEvidence]
) -> list[tuple[Forecast, Decision]]:
    """What the rule of a.example makes of mail that asks, whoever the server is."""
    rule = RuleSet(loaded.rules).find("", "a.example", "a.example")
    knows = loaded.mta.carries is not Capability.NOTHING and not rule.require
    carried = Requirement.REQUIRETLS if knows else Requirement.NONE
    trust = load_trust_store(str(world.pki.ca_file))
    found = []
    for evidence in seen:
        forecast = judge(
            evidence,
            asked=Requirement.REQUIRETLS,
            carried=carried,
            profile=loaded.mta.profile_for("smtp"),
            trust=trust,
            now=NOW,
        )
        decision = decide(
            rule,
            forecast,
            asked=Requirement.REQUIRETLS,
            carried=carried,
            standing=Standing.TRUSTED,
            null_sender=False,
            domain="a.example",
            now=NOW,
        )
        found.append((forecast, decision))
    return found


@pytest.mark.parametrize("carries", ["requiretls", "nothing"])
@pytest.mark.parametrize("policy", ["enforce", "opportunistic+starttls", "opportunistic"])
@pytest.mark.parametrize("level", ["may", "encrypt", "dane", "secure"])
def test_what_is_told_is_what_the_rule_does(
    level: str, policy: str, carries: str, world: ScenarioPlan, seen: list[DomainEvidence]
) -> None:
    for noncompliant, mode in itertools.product(("auto", "accept", "refuse"), ("reject", "defer")):
        loaded = config.parse(
            f'[mta]\ntls_security_level = "{level}"\nrequiretls_policy = "{policy}"\n'
            f'carries = "{carries}"\n[rules.recipient."a.example"]\nmode = "{mode}"\n'
            f'on_noncompliant = "{noncompliant}"\n'.encode(),
            "c.toml",
        )
        told = " ".join(effect.warnings(loaded))
        done = decisions(loaded, world, seen)
        refused = {found.reason for found, one in done if one.action is Action.REJECT}
        passed = {one.why for _, one in done if one.action is Action.ACCEPT}
        if "refuses nothing but" in told:
            assert refused <= STARTTLS
        elif "refuses nothing" in told:
            assert not refused
        elif " all mail " in told:
            assert not passed & {Why.WILL_DELIVER, Why.NONCOMPLIANT}
        elif mode == "reject":
            assert refused - STARTTLS
            assert Why.WILL_DELIVER in passed
