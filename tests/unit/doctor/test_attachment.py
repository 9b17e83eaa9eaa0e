"""Which services of Postfix call the milter."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.attachment import (
    ListedMilter,
    attachments,
    milters,
    name_for,
    path_of,
)
from requiretls_milter.doctor.finding import Severity
from requiretls_milter.doctor.run import examine_postfix
from requiretls_milter.mirror.postconf import Service
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import postfix, service
from tests.unit.doctor.examined import DANE, NAME, QUEUE, SOCKET, configured, found, matching, one


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
    (attachment,) = attachments(config, postfix(smtpd))
    assert bool(attachment.ours) is ours


def test_a_socket_is_the_same_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "run", tmp_path / "var-run")
    config = Config.model_validate({"milter": {"socket": f"unix:{tmp_path}/run/m.sock"}})
    smtpd = service("smtpd", "smtp", "inet", smtpd_milters=f"unix:{tmp_path}/var-run/m.sock")
    (attachment,) = attachments(config, postfix(smtpd))
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
