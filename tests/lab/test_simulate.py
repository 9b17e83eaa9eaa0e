"""What ``simulate`` says of a message is what the same message then gets.

Each case is simulated with the running service, and then sent through the real Postfix.
"""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import labconfig, submission
from tests.lab.lab import Lab
from tests.lab.milter import Milter
from tests.lab.postfix import Postfix
from tests.lab.submission import SENDER, Accepted, Refused, message
from tests.lab.test_main_path import tags
from tests.support.scenario import Domain, Mx, Scenario, Server

pytestmark = pytest.mark.lab

NOREQ = Server(requiretls="none")


def place(name: str, server: Server | None = None, profile: str = "dane/enforce") -> Scenario:
    mx = Mx(tlsa=("3 1 1 match",), server=server or Server())
    return Scenario(f"sim-{name}", profile=profile, domains=(Domain(mx=(mx,)),))


GOOD = place("good")
LACKING = place("lacking", NOREQ)
REJECTS = place("rejects", NOREQ)
DEFERS = place("defers", NOREQ)
REQUIRED = place("required", NOREQ)
MAY = place("may", NOREQ, "may/opportunistic")
PLACES = (GOOD, LACKING, REJECTS, DEFERS, REQUIRED, MAY)


def domain(where: Scenario) -> str:
    return where.domain_name(where.domains[0])


RULES: dict[str, Any] = {
    domain(REJECTS): {"mode": "reject"},
    domain(DEFERS): {"mode": "defer"},
    domain(REQUIRED): {"mode": "reject", "require": True},
}


@dataclass(frozen=True)
class Case:
    name: str
    where: Scenario
    parameters: tuple[str, ...] = ("REQUIRETLS",)
    headers: tuple[str, ...] = ()
    status: int = 0


CASES = (
    Case("good", GOOD),
    Case("lacking, monitored", LACKING, status=1),
    Case("lacking, refused", REJECTS, status=1),
    Case("lacking, deferred", DEFERS, status=1),
    Case("asked by the rule alone", REQUIRED, (), status=1),
    Case("asked by the header", LACKING, (), ("Require-TLS-ESMTP: yes",), status=1),
    Case("TLS-Required: No", GOOD, (), ("TLS-Required: No",)),
    Case("nothing asked", GOOD, ()),
    Case("another transport", MAY),
)


@pytest.fixture(scope="module", autouse=True)
def milter(lab: Lab) -> Iterator[Milter]:
    lab.add(PLACES)
    with Milter(
        lab,
        transport=labconfig.all_transports(),
        milter={"trusted_networks": ["127.0.0.1/32"]},
        rules={"recipient": RULES},
    ) as running:
        yield running


def simulated(mta: Postfix, milter: Milter, case: Case, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what the command says."""
    arguments = [f"--parameter={one}" for one in case.parameters]
    arguments += [f"--header={one}" for one in case.headers]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "simulate"),
            *(SENDER, f"u@{domain(case.where)}", *arguments, "--client", "trusted"),
            *("--config", str(milter.config_file), "--format", "json"),
            *("--postconf", f"chroot {mta.root} /usr/sbin/postconf"),
            *("--config-dir", mta.inside("etc"), *more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def attempted(
    smtp: smtplib.SMTP, recipients: list[str], text: str, parameters: tuple[str, ...]
) -> Accepted | Refused:
    try:
        return submission.transact(smtp, recipients, text, sender=SENDER, parameters=parameters)
    except Refused as refused:
        return refused


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_message_gets_what_was_simulated(lab: Lab, milter: Milter, case: Case) -> None:
    status, found = simulated(lab.front, milter, case)
    assert found["nexthop"]["by"] == "postfix"
    assert found["notes"] == []

    recipients = [f"u@{domain(case.where)}"]
    text = message("simulated", recipients, headers=case.headers)
    assert status == case.status
    with lab.session() as smtp:
        sent = attempted(smtp, recipients, text, case.parameters)
    if isinstance(sent, Refused):
        assert found["reply"] == f"{sent.reply.code} {sent.reply.text}"
        assert found["stage"] == sent.stage == "rcpt"
        return
    assert found["action"] == "accept"
    line = milter.recipient(sent.queue_id) if found["assessed"] else None
    if line is not None:
        for key in ("requirement", "source", "carried", "why"):
            assert line[key] == found[key], key
        assert line["transport"] == found["nexthop"]["transport"]
        assert line["nexthop"] == found["nexthop"]["nexthop"]
        assert line["forecast"] == found["forecast"]["status"]
    (delivery,) = lab.deliveries(sent.queue_id)
    assert delivery.dsn == found["forecast"]["status"]
    if delivery.dsn.startswith("2."):
        got = [
            one
            for host in lab.hosts(case.where)
            for session in lab.sessions(host.address)
            for one in session.messages
            if f" id {sent.queue_id}" in one
        ]
        assert tags(got[0]) == ([found["tag"]] if found["tag"] else [])


def test_a_configuration_that_is_not_in_force_can_be_tried(
    lab: Lab, milter: Milter, tmp_path: Any
) -> None:
    other = tmp_path / "other.toml"
    table = f'[rules.recipient."{domain(LACKING)}"]\nmode = "reject"\n'
    other.write_text(milter.config_file.read_text() + table)
    status, found = simulated(lab.front, milter, CASES[1], "--config", str(other))
    assert (status, found["action"], found["reply"][:10]) == (1, "reject", "550 5.7.30")
    assert found["rule"]["mode"]["table"] == f'rules.recipient."{domain(LACKING)}"'
    assert found["rule"]["mode"]["line"]
    assert "another [rules]" in found["notes"][0]


def test_without_postfix_the_routing_of_the_configuration_decides_and_it_is_said(
    lab: Lab, milter: Milter
) -> None:
    _, found = simulated(lab.front, milter, CASES[0], "--postconf", "/nonexistent/postconf")
    assert found["nexthop"] == {
        "transport": "smtp",
        "carrier": "smtp",
        "nexthop": domain(GOOD),
        "error": None,
        "by": "configuration",
    }
