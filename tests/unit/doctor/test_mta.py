"""Checks of Postfix's settings against the configuration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.mta import (
    DEFAULT_ACTIONS,
    ListedMilter,
    attached,
    milters,
    name_for,
    path_of,
    seconds,
)
from requiretls_milter.doctor.run import examine_postfix
from requiretls_milter.mirror.postconf import Postfix, Service
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import older, postfix, service

QUEUE = "/var/spool/postfix"
SOCKET = f"unix:{QUEUE}/requiretls-milter/milter.sock"
NAME = "unix:requiretls-milter/milter.sock"


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate({"milter": {"socket": SOCKET}, **sections})


def matching(made: Postfix, **sections: dict[str, Any]) -> Config:
    """A configuration whose [mta] is what mta import writes."""
    return configured(mta=dict(mirror(made).mta), **sections)


def found(config: Config, made: Postfix, check: str) -> list[Finding]:
    return [one for one in examine_postfix(config, made, mirror(made)) if one.check == check]


def one(config: Config, made: Postfix, check: str) -> Finding:
    (finding,) = found(config, made, check)
    return finding


DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}


def test_a_good_installation_has_no_fault() -> None:
    made = postfix(**DANE)
    findings = list(examine_postfix(matching(made), made, mirror(made)))
    assert [finding for finding in findings if finding.severity is not Severity.OK] == []
    assert {finding.check for finding in findings} == {
        "attached",
        "local_mail",
        "command_timeout",
        "content_timeout",
        "default_action",
        "protocol",
        "requiretls",
        "level",
        "mta",
    }


# ---------------------------------------------------------------- which services call the milter


def test_a_list_of_milters_is_read_with_its_overrides() -> None:
    text = "inet:localhost:8891, { unix:m.sock, default_action=accept { command_timeout = 5s } } {}"
    assert milters(text) == [
        ListedMilter("inet:localhost:8891"),
        ListedMilter("unix:m.sock", {"default_action": "accept", "command_timeout": "5s"}),
    ]


@pytest.mark.parametrize(
    ("chroot", "path", "seen"),
    [
        (False, "m/m.sock", f"{QUEUE}/m/m.sock"),
        (True, "m/m.sock", f"{QUEUE}/m/m.sock"),
        (False, "/run/m.sock", "/run/m.sock"),
        (True, "/m/m.sock", f"{QUEUE}/m/m.sock"),
    ],
)
def test_a_socket_is_looked_for_as_postfix_does(chroot: bool, path: str, seen: str) -> None:
    smtpd = service("smtpd", "smtp", "inet", chroot=chroot)
    assert path_of(path, smtpd, postfix(smtpd)) == Path(seen)
    inside = replace(postfix(smtpd), root=Path("/srv/mta"))
    assert path_of(path, smtpd, inside) == Path("/srv/mta" + seen)


@pytest.mark.parametrize(
    ("socket", "name", "chroot", "ours"),
    [
        (SOCKET, NAME, True, True),
        (SOCKET, NAME, False, True),
        (SOCKET, f"unix:{QUEUE}/requiretls-milter/milter.sock", False, True),
        (SOCKET, f"unix:{QUEUE}/requiretls-milter/milter.sock", True, False),
        (SOCKET, "unix:/requiretls-milter/milter.sock", True, True),
        (SOCKET, "local:requiretls-milter/milter.sock", True, True),
        (SOCKET, "inet:localhost:8894", True, False),
        ("unix:/run/requiretls-milter/milter.sock", NAME, False, False),
        ("inet:8894@127.0.0.1", "inet:127.0.0.1:8894", True, True),
        ("inet:8894@127.0.0.1", "inet:localhost:8894", True, True),
        ("inet:8894@0.0.0.0", "inet:192.0.2.1:8894", True, True),
        ("inet6:8894@::1", "inet:[::1]:8894", True, True),
        ("inet:8894@127.0.0.1", "inet:127.0.0.1:8895", True, False),
        ("inet:8894@127.0.0.1", "inet:192.0.2.1:8894", True, False),
        ("inet:8894@127.0.0.1", NAME, True, False),
    ],
)
def test_our_socket_is_recognised(socket: str, name: str, chroot: bool, ours: bool) -> None:
    smtpd = service("smtpd", "smtp", "inet", chroot=chroot, smtpd_milters=name)
    config = Config.model_validate({"milter": {"socket": socket}})
    (attachment,) = attached(config, postfix(smtpd))
    assert bool(attachment.ours) is ours


def test_a_socket_is_the_same_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "run", tmp_path / "var-run")
    config = Config.model_validate({"milter": {"socket": f"unix:{tmp_path}/run/m.sock"}})
    smtpd = service("smtpd", "smtp", "inet", smtpd_milters=f"unix:{tmp_path}/var-run/m.sock")
    (attachment,) = attached(config, postfix(smtpd))
    assert attachment.ours


def test_a_postfix_that_does_not_call_the_milter_is_an_error_with_the_line_to_add() -> None:
    smtpd = service("smtpd", "smtp", "inet", chroot=True, smtpd_milters="inet:localhost:8891")
    finding = one(configured(), postfix(smtpd), "attached")
    assert finding.severity is Severity.ERROR
    assert f"smtpd_milters = {NAME}" in finding.advice


def test_a_socket_that_a_chroot_cannot_see_is_told_where_to_go() -> None:
    smtpd = service("smtpd", "smtp", "inet", chroot=True, smtpd_milters="")
    finding = one(Config(), postfix(smtpd), "attached")
    assert f'milter.socket = "unix:{QUEUE}/requiretls-milter/milter.sock"' in finding.advice
    assert name_for(Config(), replace(smtpd, chroot=False), postfix()) == (
        "unix:/run/requiretls-milter/milter.sock"
    )


def test_a_name_that_is_nearly_ours_is_an_error_that_tells_both_places() -> None:
    smtpd = service(
        "smtpd",
        "smtp",
        "inet",
        chroot=True,
        smtpd_milters="unix:/run/requiretls-milter/milter.sock",
    )
    finding = one(Config(), postfix(smtpd), "socket_name")
    assert finding.severity is Severity.ERROR
    assert f"{QUEUE}/run/requiretls-milter/milter.sock (it is chrooted)" in finding.found
    assert "unix:/run/requiretls-milter/milter.sock" in finding.found


def test_a_service_that_does_not_call_the_milter_is_a_warning_an_inner_one_is_none() -> None:
    made = postfix(
        service("smtpd", "smtp", "inet"),
        service("smtpd", "submission", "inet", smtpd_milters=""),
        service("smtpd", "127.0.0.1:10026", "inet", smtpd_milters=""),
        service("smtpd", "[::1]:10027", "inet", receive_override_options="no_milters"),
    )
    findings = found(configured(), made, "attached")
    assert [finding.severity for finding in findings] == [Severity.OK, Severity.WARNING]
    assert "submission/inet" in findings[1].found


@pytest.mark.parametrize(
    "settings",
    [
        {"receive_override_options": "no_milters, no_header_body_checks"},
        {"smtpd_milters": "disable"},
    ],
)
def test_milters_that_are_switched_off_are_not_called(settings: dict[str, Any]) -> None:
    made = postfix(service("smtpd", "smtp", "inet", **settings))
    assert one(configured(), made, "attached").severity is Severity.ERROR


def test_a_milter_named_twice_and_one_on_both_sides_of_a_filter_are_told() -> None:
    twice = service("smtpd", "smtp", "inet", smtpd_milters=f"{NAME} {NAME}")
    assert "2 times" in one(configured(), postfix(twice), "attached_twice").found
    made = postfix(
        service("smtpd", "smtp", "inet", content_filter="scan:[127.0.0.1]:10025"),
        service("smtpd", "127.0.0.1:10026", "inet"),
    )
    finding = one(configured(), made, "attached_twice")
    assert "127.0.0.1:10026/inet" in finding.advice


def proxied(name: str, **settings: Any) -> Service:
    """An smtpd with a before-queue filter."""
    return service("smtpd", name, "inet", smtpd_proxy_filter="127.0.0.1:10025", **settings)


def test_a_milter_before_a_before_queue_filter_is_an_error_that_says_where_to_go() -> None:
    made = postfix(
        proxied("smtp"),
        service("smtpd", "127.0.0.1:10026", "inet", smtpd_milters=""),
        service("cleanup"),
    )
    told = one(matching(made), made, "attached")
    assert told.severity == "error"
    assert "smtpd_proxy_filter = 127.0.0.1:10025" in told.found
    assert "neither the header nor the end of a message" in told.found
    assert "which may be 127.0.0.1:10026/inet" in told.advice


def test_a_milter_behind_a_before_queue_filter_is_good() -> None:
    made = postfix(
        proxied("smtp", smtpd_milters=""),
        service("smtpd", "127.0.0.1:10026", "inet"),
        service("cleanup"),
    )
    assert one(matching(made), made, "attached").severity == "ok"


def test_pickup_can_keep_mail_of_sendmail_from_the_milter() -> None:
    made = postfix(
        service("smtpd", "smtp", "inet"),
        service("pickup", receive_override_options="no_header_body_checks, no_milters"),
        service("cleanup"),
    )
    told = one(matching(made), made, "local_mail")
    assert told.severity == "warning"
    assert "receive_override_options of pickup has no_milters" in told.found
    usual = postfix(service("smtpd", "smtp", "inet"), service("pickup"), service("cleanup"))
    assert one(matching(usual), usual, "local_mail").severity == "ok"


def test_milters_by_client_are_told() -> None:
    made = postfix(service("smtpd", "smtp", "inet", smtpd_milter_maps="cidr:/etc/postfix/m"))
    assert "cidr:/etc/postfix/m" in one(configured(), made, "attached_by_client").found


def test_mail_of_sendmail_that_is_not_seen_is_told() -> None:
    made = postfix(service("smtpd", "smtp", "inet"), service("cleanup", non_smtpd_milters=""))
    finding = one(configured(), made, "local_mail")
    assert finding.severity is Severity.WARNING
    assert "non_smtpd_milters = $smtpd_milters" in finding.advice


def test_that_mail_of_sendmail_is_never_deferred_is_told() -> None:
    made = postfix(service("smtpd", "smtp", "inet"), service("cleanup"))
    finding = one(configured(), made, "local_mail")
    assert finding.severity is Severity.OK
    assert "never deferred: Postfix bounces what is refused" in finding.found


def test_a_postfix_that_takes_no_mail_is_told() -> None:
    made = postfix(service("cleanup"))
    assert one(configured(), made, "attached").severity is Severity.WARNING


# ---------------------------------------------------------------- how the milter is called


@pytest.mark.parametrize(
    ("text", "limit"),
    [("30s", 30), ("30", 30), ("2m", 120), ("1H", 3600), ("1d", 86_400), ("1w", 604_800)],
)
def test_times_are_read_as_postfix_writes_them(text: str, limit: int) -> None:
    assert seconds(text) == limit


@pytest.mark.parametrize("text", ["", "x", "30 s s", "-1", "1.5s"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert seconds(text) is None


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


# ---------------------------------------------------------------- [mta]


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
