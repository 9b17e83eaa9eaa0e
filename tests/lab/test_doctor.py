"""``doctor`` beside a real Postfix: a sound installation, and each thing that can be wrong."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from requiretls_milter.doctor.calling import DEFAULT_ACTIONS
from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import mirror
from tests.lab.lab import Lab
from tests.lab.labconfig import all_transports
from tests.lab.milter import Milter
from tests.lab.submission import SENDER
from tests.lab.test_resolver_selftest import liar, no_ad
from tests.support import addresses
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.lab


def postconf_of(lab: Lab) -> list[str]:
    return [
        *("--postconf", f"chroot {lab.front.root} /usr/sbin/postconf"),
        *("--config-dir", lab.front.inside("etc")),
    ]


def doctor(lab: Lab, milter: Milter, *more: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "doctor", "--format", "json"),
            *("--config", str(milter.config_file), *postconf_of(lab), *more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def of(findings: list[dict[str, str]], check: str, severity: str) -> list[str]:
    return [
        one["found"] for one in findings if (one["check"], one["severity"]) == (check, severity)
    ]


def imported(lab: Lab) -> dict[str, Any]:
    command, config_dir = postconf_of(lab)[1], postconf_of(lab)[3]
    return dict(mirror(Postconf(command, config_dir).read()).mta)


@pytest.fixture
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter whose [mta] is what mta import writes."""
    milter = Milter(
        lab,
        default_action="shutdown",
        mta=imported(lab),
        milter={"socket_mode": "0660"},
    )
    with milter:
        yield milter


def test_a_sound_installation_has_no_error(lab: Lab, milter: Milter) -> None:
    status, findings = doctor(lab, milter, "--outside", addresses.MAILBOX)
    assert status == 0, [one for one in findings if one["severity"] == "error"]
    fine = {one["check"] for one in findings if one["severity"] == "ok"}
    assert fine == {
        *("postfix", "attached", "local_mail", "command_timeout", "content_timeout", "protocol"),
        *("default_action", "requiretls", "mta", "socket_permissions", "milter", "service"),
        *("metrics", "resolver_trusted", "resolver", "ca_file", "outside"),
    }
    # The lab's main.cf itself has level none; each scenario brings a transport of its own.
    odd = {one["check"] for one in findings if one["severity"] == "warning"}
    assert odd == {"level", "not_mirrored"}
    assert all(one["advice"] for one in findings if one["severity"] != "ok")


def test_the_text_says_the_same(lab: Lab, milter: Milter) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "doctor"),
            *("--config", str(milter.config_file), *postconf_of(lab)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0
    assert "port 25 outside was not tried" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("no errors, ")


def test_a_configuration_that_was_not_imported_differs_key_by_key(lab: Lab) -> None:
    with Milter(lab, mta={"mydomain": "elsewhere.test", "inet_protocols": ["ipv4"]}) as milter:
        status, findings = doctor(lab, milter)
    assert status == 0
    # Transports that other tests gave the MTA are not mirrored here at all.
    recorded = tuple(f"mta.transport.{name}." for name in all_transports())
    told = "\n".join(
        line
        for line in of(findings, "mta", "warning")
        if line.startswith(recorded) or not line.startswith("mta.transport.")
    )
    assert 'mta.mydomain is "elsewhere.test", but in Postfix it is "sender.test"' in told
    assert 'mta.transport.dane-enforce.tls_security_level is "may"' in told
    assert "inet_protocols" not in told


def test_a_service_that_is_down_is_an_error(lab: Lab, milter: Milter) -> None:
    milter.server.stop()
    status, findings = doctor(lab, milter)
    assert status == 1
    failed = {one["check"] for one in findings if one["severity"] == "error"}
    assert failed == {"milter", "service", "metrics"}


def test_a_service_with_another_configuration_is_told(lab: Lab, milter: Milter) -> None:
    milter.write(mta={"mydomain": "elsewhere.test"})
    status, findings = doctor(lab, milter)
    assert status == 0
    (found,) = of(findings, "service", "warning")
    assert "another [mta], [dns] or [probe]" in found


def test_a_socket_that_postfix_looks_for_elsewhere_is_an_error(lab: Lab, milter: Milter) -> None:
    lab.attach_milter("unix:/run/requiretls-milter/milter.sock")
    status, findings = doctor(lab, milter)
    assert status == 1
    assert len(of(findings, "attached", "error")) == 1
    told = of(findings, "socket_name", "error")
    assert len(told) == 3  # port 25, port 587, and cleanup for sendmail(1)
    assert str(milter.socket_file) in told[0]
    advice = [one["advice"] for one in findings if one["check"] == "socket_name"]
    inside = f"{lab.front.milter.inside}/{milter.socket_file.name}"
    assert f"smtpd_milters = unix:{inside}" in advice[0]


def test_a_socket_that_postfix_may_not_use_is_an_error_and_postfix_says_so_too(
    lab: Lab, milter: Milter
) -> None:
    milter.socket_file.chmod(0o600)
    status, findings = doctor(lab, milter)
    assert status == 1
    (found,) = of(findings, "socket_permissions", "error")
    assert "no write permission" in found
    with pytest.raises(smtplib.SMTPConnectError):
        smtplib.SMTP(addresses.FRONT, 25)
    lab.front.server.wait_until(
        lambda: any(lab.front.log.grep(f"{milter.socket_file.name}: Permission denied")),
        "telling that it may not use the socket",
    )
    milter.socket_file.chmod(0o660)


def test_a_resolver_that_lies_is_an_error(lab: Lab) -> None:
    with liar(no_ad) as address, Milter(lab, dns={"nameservers": [address]}) as milter:
        status, findings = doctor(lab, milter)
    assert status == 1
    (found,) = of(findings, "resolver", "error")
    assert "does not validate DNSSEC: the signed name sig.test came without AD" in found
    # Postfix asks another one, which is told.
    assert len(of(findings, "mta_resolver", "warning")) == 1
    assert len(of(findings, "mta_resolver", "ok")) == 1


def test_a_network_without_port_25_is_an_error(lab: Lab, milter: Milter) -> None:
    status, findings = doctor(lab, milter, "--outside", f"{addresses.MAILBOX}:26")
    assert status == 1
    assert "cannot be reached" in of(findings, "outside", "error")[0]


# ---------------------------------------------------------------- while the milter is down


def replies(lab: Lab) -> dict[str, str]:
    """What a client hears at each step while the milter is not there."""
    heard: dict[str, str] = {}

    def note(step: str, answer: tuple[int, bytes]) -> bool:
        heard[step] = f"{answer[0]} {answer[1].decode()}"
        return answer[0] < 400

    smtp = smtplib.SMTP(timeout=20)
    try:
        if not note("connect", smtp.connect(addresses.FRONT, 25)):
            return heard
        note("ehlo", smtp.ehlo("client.sender.test"))
        if note("starttls", smtp.docmd("STARTTLS")):
            context = ssl.create_default_context(cafile=str(lab.ca_file))
            context.check_hostname = False
            assert smtp.sock is not None
            smtp.sock = context.wrap_socket(smtp.sock)
            smtp.file = None
            smtp.ehlo("client.sender.test")
        if note("mail", smtp.docmd("MAIL", f"FROM:<{SENDER}>")):
            note("rcpt", smtp.docmd("RCPT", f"TO:<{SENDER}>"))
            note("data", smtp.data("Subject: down\r\n\r\nhello\r\n"))
        return heard
    finally:
        smtp.close()


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("accept", {"starttls": "220", "mail": "250", "data": "250"}),
        ("tempfail", {"starttls": "454 4.3.0", "mail": "451 4.7.1"}),
        ("shutdown", {"connect": "421"}),
        ("reject", {"connect": "554"}),
        ("quarantine", {"starttls": "220", "mail": "250", "data": "250"}),
    ],
)
def test_each_default_action_does_what_the_doctor_says_of_it(
    lab: Lab, action: str, expected: dict[str, str]
) -> None:
    nobody = f"unix:{lab.front.milter.inside}/nobody.sock"
    lab.attach_milter(nobody, milter_default_action=action)
    try:
        heard = replies(lab)
    finally:
        lab.attach_milter("", milter_default_action="shutdown")
    for step, reply in expected.items():
        assert heard[step].startswith(reply), heard
    if "data" in expected:
        queue_id = heard["data"].split("queued as ")[1].split()[0]
        held = lab.front.queue_directory / "hold" / queue_id
        assert held.exists() is (action == "quarantine")
        held.unlink(missing_ok=True)
    # Each code by which a client is turned away stands in what the doctor says.
    for reply in expected.values():
        if reply.startswith(("4", "5")):
            assert reply in DEFAULT_ACTIONS[action]
