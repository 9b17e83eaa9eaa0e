"""Where mail goes for which Postfix names no next hop, and what is local: as the real Postfix does.

The settings of each case go into main.cf, ``mta import`` mirrors them, the milter forecasts, and
Postfix delivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import Mirror, mirror
from tests.lab import submission
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.milter import Milter
from tests.lab.postfix import Tables
from tests.lab.sweep import PATIENCE, PROBE
from tests.support import addresses
from tests.support.lmtpserver import LmtpServer
from tests.support.scenario import Domain, Mx, Scenario, Server

pytestmark = pytest.mark.lab

GOOD = Scenario("route-good", "dane/enforce", (Domain(mx=(Mx(),)),))
LACKING = Scenario(
    "route-lacking", "dane/enforce", (Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)
BOXES = "boxes.route.test"
"""A domain that only this Postfix knows."""
USER = f"user@{MYDOMAIN}"

ENFORCED = {"smtp_tls_security_level": "dane", "smtp_requiretls_policy": "enforce"}
LMTP_PORT = 2424

DEFAULTS = {
    "default_transport": "smtp",
    "relayhost": "",
    "relay_domains": "",
    "relay_transport": "relay",
    "virtual_mailbox_domains": "",
    "virtual_transport": "virtual",
    "mydestination": "",
    "mailbox_transport": "",
    "fallback_transport": "",
    "sender_dependent_default_transport_maps": "",
    "sender_dependent_relayhost_maps": "",
    "local_recipient_maps": "",
    "smtp_tls_security_level": "may",
    "smtp_requiretls_policy": "enforce",
}
"""What each case begins with."""


@dataclass(frozen=True)
class Case:
    """Settings, and what becomes of a message to *to* with them."""

    ends: tuple[str, str]
    """dsn and tls= of Postfix's log."""
    settings: Mapping[str, str] = field(default_factory=dict)
    to: str = "good"
    smtp_options: str = ""
    """``-o`` of the service smtp of master.cf."""
    by: tuple[str, ...] = ("sendmail",)


SENT = ("2.0.0", "dane/requiretls")
LACKS = ("5.7.30", "dane/!requiretls:none")

CASES = {
    "nothing": Case(("5.7.10", "may?/!requiretls:nocertmatch")),
    "main.cf": Case(SENT, ENFORCED),
    "smtp-with-o": Case(SENT, smtp_options="  -o smtp_tls_security_level=dane\n"),
    "default-transport": Case(SENT, {"default_transport": "dane-enforce"}),
    "default-transport-hop": Case(LACKS, {**ENFORCED, "default_transport": "smtp:[@LACKING@]"}),
    "default-transport-clone-hop": Case(LACKS, {"default_transport": "dane-enforce:[@LACKING@]"}),
    "relayhost": Case(LACKS, {**ENFORCED, "relayhost": "[@LACKING@]"}, by=("sendmail", "smtp")),
    "relayhost-beside-hop": Case(
        SENT, {"default_transport": "dane-enforce:@GOOD-DOMAIN@", "relayhost": "[@LACKING@]"}
    ),
    "relay-transport": Case(
        LACKS,
        {"relay_domains": "@GOOD-DOMAIN@", "relay_transport": "dane-enforce:[@LACKING@]"},
        by=("sendmail", "smtp"),
    ),
    "by-sender-transport": Case(
        SENT,
        {"sender_dependent_default_transport_maps": f"inline:{{ {{ {USER} = dane-enforce: }} }}"},
    ),
    "by-sender-domain": Case(
        SENT,
        {
            "sender_dependent_default_transport_maps": (
                f"inline:{{ {{ @{MYDOMAIN} = dane-enforce }} }}"
            )
        },
    ),
    "by-sender-relayhost": Case(
        LACKS,
        {
            **ENFORCED,
            "sender_dependent_relayhost_maps": f"inline:{{ {{ {USER} = [@LACKING@] }} }}",
        },
        by=("sendmail", "smtp"),
    ),
    "by-sender-dunno": Case(
        SENT,
        {
            **ENFORCED,
            "relayhost": "@GOOD-DOMAIN@",
            "sender_dependent_relayhost_maps": f"inline:{{ {{ {USER} = DUNNO }} }}",
        },
    ),
    "virtual-transport": Case(
        LACKS,
        {
            **ENFORCED,
            "virtual_mailbox_domains": BOXES,
            "virtual_mailbox_maps": "",
            "virtual_transport": "smtp:[@LACKING@]",
        },
        to="boxes",
        by=("sendmail", "smtp"),
    ),
    "local-transport": Case(
        LACKS,
        {**ENFORCED, "mydestination": BOXES, "local_transport": "smtp:[@LACKING@]"},
        to="boxes",
        by=("sendmail", "smtp"),
    ),
    "mailbox-transport": Case(
        LACKS,
        {
            **ENFORCED,
            "mydestination": BOXES,
            "local_transport": "local:$myhostname",
            "mailbox_transport": "smtp:[@LACKING@]",
        },
        to="boxes",
        by=("sendmail", "smtp"),
    ),
    "fallback-transport": Case(
        LACKS,
        {
            **ENFORCED,
            "mydestination": BOXES,
            "local_transport": "local:$myhostname",
            "fallback_transport": "smtp:[@LACKING@]",
        },
        to="boxes",
        by=("sendmail", "smtp"),
    ),
    "lmtp-over-tcp": Case(
        ("2.0.0", "none/requiretls:none"),
        {
            **ENFORCED,
            "virtual_mailbox_domains": BOXES,
            "virtual_mailbox_maps": "",
            "virtual_transport": f"lmtp:inet:[{addresses.MILTER}]:{LMTP_PORT}",
        },
        to="boxes",
        by=("sendmail", "smtp"),
    ),
    "lmtp-enforced": Case(
        ("5.7.10", "none?/!requiretls:nocertmatch"),
        {
            "virtual_mailbox_domains": BOXES,
            "virtual_mailbox_maps": "",
            "virtual_transport": f"lmtp:inet:[{addresses.MILTER}]:{LMTP_PORT}",
            "lmtp_requiretls_policy": "enforce",
        },
        to="boxes",
        by=("sendmail", "smtp"),
    ),
}


@pytest.fixture(scope="module")
def boxes(lab: Lab) -> Iterator[LmtpServer]:
    before = lab.front.parameters
    lab.add([GOOD, LACKING])
    with LmtpServer(addresses.MILTER, LMTP_PORT) as server:
        yield server
    lab.front.restore(before)
    lab.update()


def lab_tables(lab: Lab) -> Tables:
    """The lab's own routes but that of the domains here, which no table is to route."""
    own = {lab.plan.recipients(item)[0].partition("@")[2] for item in (GOOD, LACKING)}
    kept = {name: to for name, to in lab.plan.transport.items() if name not in own}
    return Tables({**kept, MYDOMAIN: ("inbox", f"[{addresses.MAILBOX}]")}, lab.plan.tls_policy)


def arranged(lab: Lab, case: Case) -> Mirror:
    """Set Postfix so, and mirror it."""
    (lacking,) = lab.hosts(LACKING)
    words = {"@LACKING@": lacking.name, "@GOOD-DOMAIN@": GOOD.domain_name(GOOD.domains[0])}

    def with_names(text: str) -> str:
        for word, name in words.items():
            text = text.replace(word, name)
        return text

    settings = {key: with_names(value) for key, value in {**DEFAULTS, **case.settings}.items()}
    lab.front.reload(lab_tables(lab), settings)
    give_options(lab, case)
    command = f"chroot {lab.front.root} /usr/sbin/postconf"
    return mirror(Postconf(command, lab.front.inside("etc")).read())


def give_options(lab: Lab, case: Case) -> None:
    """Write the case's ``-o`` into master.cf, which each reload with parameters writes anew."""
    if not case.smtp_options:
        return
    master = lab.front.directory / "etc/master.cf"
    line = "smtp      unix  -       -       n       -       -       smtp\n"
    text = master.read_text()
    assert line in text
    master.write_text(text.replace(line, line + case.smtp_options))
    lab.front.reload()


def by_smtp(lab: Lab, recipient: str) -> None:
    submission.send(
        lab.front.address,
        [recipient],
        submission.message("route", [recipient]),
        ca_file=lab.ca_file,
        sender=USER,
        parameters=("REQUIRETLS",),
    )


def by_sendmail(lab: Lab, recipient: str) -> None:
    lab.front.sendmail(
        ["-f", USER, "-O", "requiretls=yes", recipient], f"Subject: route\nTo: {recipient}\n\nx\n"
    )


WAYS: Mapping[str, Callable[[Lab, str], None]] = {"smtp": by_smtp, "sendmail": by_sendmail}


def forecast(milter: Milter, recipient: str, way: str) -> dict[str, Any]:
    """The milter's line for a recipient, whom SMTP gives in angle brackets."""
    (line,) = milter.wait("recipient", to=f"<{recipient}>" if way == "smtp" else recipient)
    return line


@pytest.mark.parametrize("name", CASES)
def test_the_forecast_is_for_the_way_that_postfix_takes(
    lab: Lab, boxes: LmtpServer, name: str
) -> None:
    case = CASES[name]
    made = arranged(lab, case)
    domain = BOXES if case.to == "boxes" else GOOD.domain_name(GOOD.domains[0])
    with Milter(lab, mta=dict(made.mta), probe=PROBE, rules={"tag_wait": PATIENCE}) as milter:
        give_options(lab, case)
        for way in case.by:
            recipient = f"{name}-{way}@{domain}"
            WAYS[way](lab, recipient)
            line = forecast(milter, recipient, way)
            (delivery,) = lab.deliveries(str(line["queue_id"]))
            assert (delivery.dsn, delivery.tls) == case.ends, way
            assert (line["forecast"], line["tls"]) == case.ends, way


def test_a_unix_socket_of_lmtp_is_local(lab: Lab, boxes: LmtpServer) -> None:
    case = Case(
        ("", ""),
        {
            "virtual_mailbox_domains": BOXES,
            "virtual_mailbox_maps": "",
            "virtual_transport": "lmtp:unix:private/no-such-socket",
        },
    )
    made = arranged(lab, case)
    recipient = f"socket@{BOXES}"
    with Milter(lab, mta=dict(made.mta), probe=PROBE) as milter:
        for way in WAYS:
            WAYS[way](lab, f"{way}-{recipient}")
            line = forecast(milter, f"{way}-{recipient}", way)
            assert line["reason"] == "local"
            lab.front.discard(str(line["queue_id"]))
