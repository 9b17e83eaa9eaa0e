"""How Postfix calls the milter."""

from __future__ import annotations

import pytest

from requiretls_milter.doctor.calling import DEFAULT_ACTIONS
from requiretls_milter.doctor.finding import Severity
from tests.support.postfixes import postfix, service
from tests.unit.doctor.examined import NAME, configured, found, one


@pytest.mark.parametrize(
    ("timeout", "wait", "severity"),
    [
        ("30s", 10, Severity.OK),
        ("11s", 10, Severity.OK),
        ("10s", 10, Severity.ERROR),
        ("9s", 10, Severity.ERROR),
        ("soon", 10, Severity.ERROR),
    ],
)
def test_postfix_has_to_wait_longer_than_we_decide(
    timeout: str, wait: float, severity: Severity
) -> None:
    made = postfix(service("smtpd", "smtp", "inet", milter_command_timeout=timeout))
    config = configured(rules={"decide_wait": wait})
    assert one(config, made, "command_timeout").severity is severity


def test_the_longest_wait_of_any_rule_counts() -> None:
    made = postfix(service("smtpd", "smtp", "inet", milter_command_timeout="15s"))
    config = configured(rules={"recipient": {"example.org": {"decide_wait": 20}}})
    finding = one(config, made, "command_timeout")
    assert finding.severity is Severity.ERROR
    assert "20 s" in finding.found


def test_the_end_of_a_message_has_a_limit_of_its_own() -> None:
    made = postfix(service("smtpd", "smtp", "inet", milter_content_timeout="2s"))
    assert one(configured(), made, "content_timeout").severity is Severity.ERROR


def test_what_is_set_for_this_milter_alone_counts() -> None:
    name = f"{{ {NAME}, command_timeout=5s, default_action=accept, protocol=2 }}"
    made = postfix(service("smtpd", "smtp", "inet", smtpd_milters=name))
    config = configured(rules={"mode": "reject"})
    assert one(config, made, "command_timeout").severity is Severity.ERROR
    assert "= accept on smtp/inet" in one(config, made, "default_action").found
    assert one(config, made, "protocol").severity is Severity.WARNING


@pytest.mark.parametrize(
    ("action", "mode", "severity"),
    [
        ("shutdown", "reject", Severity.OK),
        ("tempfail", "monitor", Severity.OK),
        ("tempfail", "reject", Severity.OK),
        ("accept", "monitor", Severity.OK),
        ("accept", "reject", Severity.WARNING),
        ("accept", "defer", Severity.WARNING),
        ("quarantine", "monitor", Severity.WARNING),
        ("reject", "monitor", Severity.ERROR),
        ("vanish", "monitor", Severity.ERROR),
    ],
)
def test_what_happens_while_the_milter_is_down_is_explained(
    action: str, mode: str, severity: Severity
) -> None:
    made = postfix(service("smtpd", "smtp", "inet", milter_default_action=action))
    finding = one(configured(rules={"mode": mode}), made, "default_action")
    assert finding.severity is severity
    assert DEFAULT_ACTIONS.get(action, "no such action") in finding.found


def test_services_with_another_default_action_are_told_apart() -> None:
    made = postfix(
        service("smtpd", "smtp", "inet"),
        service("smtpd", "submission", "inet", milter_default_action="tempfail"),
    )
    assert len(found(configured(), made, "default_action")) == 2


@pytest.mark.parametrize(
    ("settings", "carries", "told"),
    [
        ({}, "auto", False),
        ({"milter_macro_v": "Mailer"}, "auto", True),
        ({"requiretls_enable": "no"}, "auto", True),
        ({"requiretls_enable": "no"}, "tls-required", False),
        ({"requiretls_enable": "no", "tls_required_enable": "no"}, "auto", True),
    ],
)
def test_what_auto_would_believe_is_compared_with_what_postfix_does(
    settings: dict[str, str], carries: str, told: bool
) -> None:
    made = postfix(**settings)
    findings = found(configured(mta={"carries": carries}), made, "carries")
    assert bool(findings) is told
