"""Bad input from senders, servers and operators: a clear error, or a bounded and correct answer.

What Postfix makes of it is the measure: each odd message and each odd server is put to both.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hostile import HostileServer
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.lab.submission import SENDER
from tests.lab.sweep import differences, knowing_all, send
from tests.lab.versions import as_recorded
from tests.support.milterclient import MilterClient
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Mx, Scenario, Server

pytestmark = pytest.mark.lab

PARALLEL = 8

MEGABYTE = 1_000_000


def place(name: str, *mx: Mx) -> Scenario:
    return Scenario(f"odd-{name}", domains=(Domain(mx=mx or (Mx(),)),))


def at(where: Scenario) -> str:
    return f"u@{where.domain_name(where.domains[0])}"


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that forecasts for every message, whatever it asks."""
    with knowing_all(lab) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_too_much(lab: Lab, milter: Milter) -> Iterator[None]:
    """Whatever comes: no process dies, no callback fails, and none grows without bounds."""
    lab.add([GOOD, NO_REQUIRETLS])
    family = milter.pids()
    before = {pid: _resident(pid) for pid in family.values()}
    yield
    assert milter.pids() == family
    assert milter.metric("callback_errors_total") == 0
    assert milter.metric("process_restarts_total") == 0
    for pid, octets in before.items():
        assert _resident(pid) - octets < 40 * MEGABYTE


def _resident(pid: int) -> int:
    """Octets of memory that a process has for itself."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no memory")


GOOD = place("good")
NO_REQUIRETLS = place("noreq", Mx(server=Server(requiretls="none")))


# ---------------------------------------------------------------- odd messages


def transmit(smtp: smtplib.SMTP, head: bytes, to: str, parameters: str = "") -> str:
    """A message with this header, byte for byte; its queue ID."""
    assert smtp.docmd("MAIL", f"FROM:<{SENDER}> {parameters}".rstrip())[0] == 250
    assert smtp.docmd("RCPT", f"TO:<{to}>")[0] == 250
    assert smtp.docmd("DATA")[0] == 354
    smtp.send(head + b"\r\n\r\nbody\r\n.\r\n")
    code, text = smtp.getreply()
    assert code == 250, text
    return text.decode().split()[-1]


def both(
    lab: Lab, milter: Milter, where: Scenario, head: bytes, parameters: str = ""
) -> tuple[str, tuple[str, str], tuple[str, str]]:
    """What is asked of the message, what is forecast, what Postfix then did."""
    with lab.session() as smtp:
        queue_id = transmit(smtp, head, at(where), parameters)
    line = milter.recipient(queue_id)
    (delivery,) = lab.deliveries(queue_id)
    return (
        line["requirement"],
        (line["forecast"], line["tls"] or ""),
        (delivery.dsn, delivery.tls or ""),
    )


ODD_FIELDS: Mapping[str, tuple[bytes, bool]] = {
    # name: header lines, NAME for the field's and WORD for its word; whether it counts
    "no-blank": (b"NAME:WORD", True),
    "blank-behind": (b"NAME: WORD ", False),
    "tab-behind": (b"NAME: WORD\t", False),
    "folded": (b"NAME:\r\n WORD", True),
    "folded-twice": (b"NAME: \r\n \r\n\tWORD", True),
    "folded-behind": (b"NAME: WORD\r\n ", False),
    "nul-behind": (b"NAME: WORD\0", True),
    "nul-and-more": (b"NAME: WORD\0more", True),
    "nul-before": (b"NAME: \0WORD", False),
    "invalid-utf8": (b"NAME: WORD\xff", False),
    "latin-1-blank": (b"NAME:\xa0WORD", False),
    "thin-blank": (b"NAME: \xe2\x80\x89WORD", False),
    "vertical-tab": (b"NAME: \x0bWORD", True),
    "form-feed": (b"NAME: \x0cWORD", True),
    "carriage-return": (b"NAME: \rWORD", True),
    "blank-before-colon": (b"NAME : WORD", True),
    "tab-before-colon": (b"NAME\t: WORD", True),
    "no-field": (b" NAME: WORD", False),
    "quoted": (b'NAME: "WORD"', False),
    "comment": (b"NAME: WORD (comment)", False),
    "two-colons": (b"NAME:: WORD", False),
    "encoded": (b"NAME: =?us-ascii?q?WORD?=", False),
    "far-off": (b"NAME:" + b" " * 3000 + b"WORD", True),
    "long": (b"NAME: " + b"x" * 100_000, False),
    "in-the-body": (b"X: y\r\n\r\nNAME: WORD", False),
    "in-a-part": (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nNAME: WORD\r\n\r\n--x--",
        False,
    ),
    "in-an-enclosure": (b"Content-Type: message/rfc822\r\n\r\nNAME: WORD\r\n", False),
    "behind-a-broken-name": (b"X\xff: z\r\nNAME: WORD", False),
    "behind-a-line-without-colon": (b"no field\r\nNAME: WORD", False),
    "bare-newline": (b"NAME: WORD\nX: y", True),
}

TLS_REQUIRED = {name: place(f"no-{name}", Mx(tlsa=("3 1 1 bad",))) for name in ODD_FIELDS}
"""One domain each: what is deferred once is not tried again at once."""


def test_r08_odd_tls_required_fields_count_where_they_do_for_postfix(
    lab: Lab, milter: Milter
) -> None:
    lab.add(TLS_REQUIRED.values())

    def one(name: str) -> tuple[str, bool, tuple[str, str], tuple[str, str]]:
        lines, counts = ODD_FIELDS[name]
        head = lines.replace(b"NAME", b"TLS-Required").replace(b"WORD", b"No")
        asked, forecast, done = both(lab, milter, TLS_REQUIRED[name], b"Subject: x\r\n" + head)
        return name, (asked == "tls-required-no") == counts, forecast, done

    with ThreadPoolExecutor(PARALLEL) as pool:
        made = list(pool.map(one, ODD_FIELDS))
    assert [name for name, as_expected, _, _ in made if not as_expected] == []
    assert [item for item in made if item[2] != item[3]] == []


def test_odd_require_tls_esmtp_fields_count_where_they_do_for_postfix(
    lab: Lab, milter: Milter
) -> None:
    def one(name: str) -> tuple[str, bool, tuple[str, str], tuple[str, str]]:
        lines, counts = ODD_FIELDS[name]
        head = lines.replace(b"NAME", b"Require-TLS-ESMTP").replace(b"WORD", b"Yes")
        asked, forecast, done = both(lab, milter, NO_REQUIRETLS, b"Subject: x\r\n" + head)
        return name, (asked == "requiretls") == counts, forecast, done

    with ThreadPoolExecutor(PARALLEL) as pool:
        made = list(pool.map(one, ODD_FIELDS))
    assert [name for name, as_expected, _, _ in made if not as_expected] == []
    assert [item for item in made if item[2] != item[3]] == []


@pytest.mark.parametrize(
    "parameters",
    ["REQUIRETLS ENVID=" + "x" * 10_240, "SIZE=1 " * 1_500 + "REQUIRETLS"],
    ids=["one", "many"],
)
def test_a_mail_command_of_ten_kilobytes_asks_what_postfix_understood(
    lab: Lab, milter: Milter, parameters: str
) -> None:
    """Postfix takes its beginning; for the rest it ends the session, or answers it as commands."""
    queue_id = ""
    with lab.session() as smtp, contextlib.suppress(smtplib.SMTPServerDisconnected):
        assert smtp.docmd("MAIL", f"FROM:<{SENDER}> {parameters}")[0] == 250
        code, text = smtp.docmd("RCPT", f"TO:<{at(NO_REQUIRETLS)}>")
        while code == 500:
            code, text = smtp.getreply()
        assert (code, smtp.docmd("DATA")[0]) == (250, 354)
        smtp.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        code, text = smtp.getreply()
        assert code == 250
        queue_id = text.decode().split()[-1]
    if queue_id:
        line = milter.recipient(queue_id)
        (delivery,) = lab.deliveries(queue_id)
        assert (line["forecast"], line["tls"]) == (delivery.dsn, delivery.tls)
    # and whoever comes next is none the worse for it
    asked, forecast, done = both(lab, milter, NO_REQUIRETLS, b"Subject: x", "REQUIRETLS")
    assert (asked, forecast) == ("requiretls", done)


def test_a_parameter_that_is_repeated_asks_once(lab: Lab, milter: Milter) -> None:
    """1.6 kB: as much as Postfix takes."""
    many = "REQUIRETLS " * 150
    asked, forecast, done = both(lab, milter, NO_REQUIRETLS, b"Subject: x", many)
    assert (asked, forecast) == ("requiretls", done)


def test_a_mail_parameter_of_ten_kilobytes_is_taken_from_any_mta(milter: Milter) -> None:
    """Straight to the milter: Postfix would have cut it."""
    macros = {"j": "mta.example.net", "v": "Postfix 3.11.7", "i": "4XyZ10kB"}
    with MilterClient(str(milter.socket_file), macros) as client:
        client.connect()
        outcome = client.message(
            "<a@sender.test>",
            [f"<{at(GOOD)}>"],
            parameters=["X=" + "y" * 10_240, "REQUIRETLS", "Z" * 10_240],
            mailer=transport_name("dane/enforce"),
        )
    assert outcome.end is not None
    assert outcome.end.passed
    (edit,) = outcome.edits
    assert edit.value.startswith("requirement=requiretls; source=esmtp; forecast=2.0.0; ")


def test_a_message_of_two_thousand_fields_is_tagged_in_no_time(lab: Lab, milter: Milter) -> None:
    """Among them as many forged tags as are taken, all of which go."""
    fields = []
    for number in range(500):
        fields += [
            b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000" if number < 40 else b"X: y",
            b"X-RequireTLS: route=requiretls; forged" if number < 100 else b"X-Require: forged",
            b"X-Number: %d" % number,
            b"TLS-Required: not at all",
        ]
    with lab.session() as smtp:
        began = time.monotonic()
        queue_id = transmit(smtp, b"\r\n".join(fields), at(GOOD), "REQUIRETLS")
        took = time.monotonic() - began
    assert took < 5
    (told,) = milter.wait("message", queue_id=queue_id)
    assert (told["tags_removed"], told["tls_required_malformed"]) == (100, 500)
    lab.deliveries(queue_id)
    (host,) = lab.hosts(GOOD)
    (text,) = (
        text
        for item in lab.sessions(host.address)
        for text in item.messages
        if f" id {queue_id}" in text
    )
    assert text.lower().count("x-requiretls:") == 1
    assert text.startswith("X-RequireTLS: requirement=requiretls; source=esmtp; forecast=2.0.0;")
    assert text.count("X-Number: ") == 500


def _cpu(lab: Lab, *names: str) -> float:
    """Seconds of CPU time that the front MTA's processes of these names have taken."""
    ticks = 0
    for name in names:
        for pid in lab.front.processes(name):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("copies", [101, 10_000, 200_000])
@pytest.mark.parametrize("asks", ["", "REQUIRETLS"])
def test_more_forged_tags_than_any_path_makes_are_refused_at_once(
    lab: Lab, milter: Milter, copies: int, asks: str
) -> None:
    """Postfix took 3 s of CPU time to delete 10,000 one by one, 150 s for 200,000 (3.2 MB)."""
    met = milter.metric("saturated_total", bound="tags")
    with lab.session() as smtp:
        assert smtp.docmd("MAIL", f"FROM:<{SENDER}> {asks}".rstrip())[0] == 250
        assert smtp.docmd("RCPT", f"TO:<{at(GOOD)}>")[0] == 250
        assert smtp.docmd("DATA")[0] == 354
        before, began = _cpu(lab, "cleanup"), time.monotonic()
        smtp.send(b"X-RequireTLS: x\r\n" * copies + b"\r\nbody\r\n.\r\n")
        code, text = smtp.getreply()
        took, cpu = time.monotonic() - began, _cpu(lab, "cleanup") - before
        assert (code, text) == (
            550,
            b"5.7.1 more than 100 header fields X-RequireTLS: only this system writes them",
        )
        print(f"{copies} copies: {took:.2f} s, of cleanup's CPU time {cpu:.2f} s")
        # linear: Postfix itself takes a few microseconds for each field that it shows a milter
        assert cpu < 0.5 + copies * 20e-6
        assert took < 3 + copies * 100e-6
        # and the session goes on
        assert smtp.noop()[0] == 250
    (line,) = milter.wait("message", tags_removed=copies, requirement=asks.lower() or "none")
    assert line["action"] == "reject"
    milter.await_metric("saturated_total", met + 1, bound="tags")


def test_as_many_forged_tags_as_are_taken_cost_little_below_a_long_header(
    lab: Lab, milter: Milter
) -> None:
    """For each of them Postfix reads the header from its top, to the last one."""
    fields = 100_000
    cost = []
    for tags in (0, 100):
        head = b"X: y\r\n" * fields + b"X-RequireTLS: x\r\n" * tags + b"Subject: long"
        before = _cpu(lab, "cleanup")
        with lab.session() as smtp:
            queue_id = transmit(smtp, head, at(GOOD))
        cost.append(_cpu(lab, "cleanup") - before)
        if tags:
            (told,) = milter.wait("message", queue_id=queue_id)
            assert told["tags_removed"] == tags
        lab.front.discard(queue_id)
    print(f"cleanup's CPU time: {cost[0]:.2f} s without tags, {cost[1]:.2f} s with 100")
    assert cost[1] < 3


def test_r62_what_a_sender_writes_stays_on_its_line_of_the_log(lab: Lab, milter: Milter) -> None:
    """JSON, one object a line: nothing that was sent above broke one."""
    odd = '<"a\\"b c%s{}=x"@sender.test>'
    with lab.session() as smtp:
        assert smtp.docmd("MAIL", f"FROM:{odd} REQUIRETLS")[0] == 250
        assert smtp.docmd("RCPT", f'TO:<"%n {{rcpt}} \\"q\\""@{at(GOOD)[2:]}>')[0] == 250
        assert smtp.docmd("DATA")[0] == 354
        smtp.send(b"Subject: x\xff\0\x1b[31m\r\n\r\n.\r\n")
        code, text = smtp.getreply()
    assert code == 250
    line = milter.recipient(text.decode().split()[-1])
    assert line["sender"].startswith("<")
    assert line["forecast"] == "2.0.0"
    assert milter.events("not_json") == []


@pytest.mark.parametrize(
    ("hop", "status", "reason"),
    [
        ("[not a host..", "4.3.0", "nexthop_invalid"),
        ("[two..dots.test]", "4.3.0", "nexthop_invalid"),
        ("[a.test]:99999", "4.3.0", "nexthop_invalid"),
        ("%s{}\x7f", "unknown", "unknown"),
    ],
)
def test_a_next_hop_that_smtp_dies_of_or_that_cannot_be_understood_is_not_a_failure_of_ours(
    milter: Milter, hop: str, status: str, reason: str
) -> None:
    """Straight to the milter."""
    queue_id = f"4XyZ{abs(hash(hop))}"
    macros = {"j": "mta.example.net", "v": "Postfix 3.11.7", "i": queue_id}
    with MilterClient(str(milter.socket_file), macros) as client:
        client.connect()
        client.mail("<a@sender.test>", "REQUIRETLS")
        assert client.rcpt(f"<{at(GOOD)}>", mailer="smtp", host=hop).passed
        client.data()
        client.eoh()
        assert client.eom().passed
        (edit,) = client.edits
    assert f"forecast={status}; reason={reason}; " in edit.value
    line = milter.recipient(queue_id)
    assert (line["forecast"], line["nexthop"]) == (status, hop.replace("\x7f", "\\x7f"))
    assert line["text"]


# ---------------------------------------------------------------- odd MX records

ODD_EXCHANGES: Mapping[str, str] = {
    # what an MX record names, as in a zone file; @ for the domain
    "underscore": "_mx.@",
    "hyphen-first": "-mx.@",
    "hyphen-last": "mx-.@",
    "hyphens": "m--x.@",
    "number": "12345.@",
    "numbers": "1.2.3",
    "number-last": "mx.123",
    "no-address": "1.2.3.456",
    "address": "127.1.0.1",
    "address-short": "127.1",
    "address-hexadecimal": "0x7f.1",
    "address-octal": "0177.0.0.1",
    "address-one-number": "0x7f000001",
    "address-zeros": "00127.000.000.001",
    "address-in-brackets": r"\091127.0.0.1\093",
    "dot-in-label": r"a\046b.@",
    "blank": r"a\032b.@",
    "nul": r"m\000x.@",
    "eight-bit": r"m\255x.@",
    "at": r"m\064x.@",
    "slash": r"a\047b.@",
    "percent": r"a\037b.@",
    "quote": r"a\034b.@",
    "backslash": r"a\092b.@",
    "comma": r"a\044b.@",
    "colon": r"a\058b.@",
    "long-label": "l" * 63 + ".@",
    "many-labels": "a." * 60 + "@",
    "upper": "MX.@",
    "a-label": "xn--bcher-kva.@",
    "one-label": "singlelabel",
    "top": "test",
    "wildcard": r"\042.@",
}


def test_odd_names_of_mail_exchangers_are_to_us_what_they_are_to_postfix(
    lab: Lab, milter: Milter
) -> None:
    """Each alone, and each as the better one beside one that is good."""
    (good,) = lab.hosts(GOOD)
    (tlsa,) = (
        line.partition(" TLSA ")[2]
        for line in lab.plan.records["sig.test"]
        if line.startswith(f"_25._tcp.{good.name}. ")
    )
    places = {}
    for name, exchange in ODD_EXCHANGES.items():
        alone = Scenario(f"odd-mx-{name}", domains=(Domain(kind="nodata"),))
        beside = place(f"mx-too-{name}", Mx(pref=20))
        lab.plan.add([alone, beside])
        places[name] = [alone, beside]
        for scenario in places[name]:
            owner = at(scenario)[2:]
            host = exchange.replace("@", owner)
            lab.plan.records["sig.test"].append(f"{owner}. 300 MX 10 {host}.")
            if host.endswith(owner):
                lab.plan.records["sig.test"] += [
                    f"{host}. 300 A {good.address}",
                    f"_25._tcp.{host}. 300 TLSA {tlsa}",
                ]
    lab.update()
    everywhere = [scenario for both in places.values() for scenario in both]
    with ThreadPoolExecutor(PARALLEL) as pool:
        made = list(pool.map(lambda scenario: send(lab, milter, scenario), everywhere))
    as_recorded(differences(made))
    # some are hosts, some are none, and some lead back to the MTA
    endings = [next(iter(done.values()))[0] for _, _, done in made]
    assert min(map(endings.count, ("2.0.0", "5.4.4", "5.4.6"))) > 4


# ---------------------------------------------------------------- odd servers


def _line(octets: int) -> bytes:
    """A line of a reply that has so many octets with its end."""
    return b"250-" + b"x" * (octets - 6) + b"\r\n"


ODD_EHLO: Mapping[str, bytes] = {
    "argument": b"250-mx\r\n250-WORD now\r\n250 x\r\n",
    "equals": b"250-mx\r\n250 WORD=1\r\n",
    "prefix": b"250-mx\r\n250 XWORD\r\n",
    "suffix": b"250-mx\r\n250 WORDX\r\n",
    "blanks": b"250-mx\r\n250-   WORD  \r\n250 x\r\n",
    "lower": b"250-mx\r\n250 word\r\n",
    "first": b"250 WORD\r\n",
    "hyphens": b"250-mx\r\n250--WORD\r\n250 x\r\n",
    "tab": b"250-mx\r\n250-\tWORD\r\n250 x\r\n",
    "newlines": b"250-mx\n250 WORD\n",
    "returns": b"250-mx\r\r\n250 WORD\r\r\n",
    "noise": b"250-mx\r\nsome WORD\r\nWORD\r\n250 x\r\n",
    "code": b"250-mx\r\n251 WORD\r\n",
    "refused": b"250-mx\r\n550 WORD\r\n",
    "accepted": b"550-mx\r\n250 WORD\r\n",
    "nul": b"250-mx\r\n250-WORD\0 x\r\n250 x\r\n",
    "nul-first": b"250-mx\r\n250-\0WORD\r\n250 x\r\n",
    "eight-bit": b"250-m\xff\xfe\r\n250 WORD\xa0\r\n",
    "bare-end": b"250-mx\r\n250-WORD\r\n250\r\n",
    "bare-begin": b"250-\r\n250 WORD\r\n",
    "four-digits": b"2500-x\r\n250-mx\r\n250 WORD\r\n",
    "line-2049": _line(2049) + b"250 WORD\r\n",
    "line-2050": _line(2050) + b"250 WORD\r\n",
    "line-4096": _line(4096) + b"250 WORD\r\n",
    "line-4097": _line(4097) + b"250 WORD\r\n",
    "many": b"250-mx\r\n250-WORD\r\n" + b"250-X\r\n" * 900 + b"250 x\r\n",
    "too-late": b"250-mx\r\n" + b"250-XY\r\n" * 300 + b"250 WORD\r\n",
}
"""A reply to EHLO, with the keyword as WORD."""

ODD_SERVERS: Mapping[str, dict[str, Any]] = {
    **{
        f"clear-{name}": {"ehlo": reply.replace(b"WORD", b"STARTTLS").replace(b"word", b"starttls")}
        for name, reply in ODD_EHLO.items()
    },
    **{
        f"inside-{name}": {
            "ehlo_tls": reply.replace(b"WORD", b"REQUIRETLS").replace(b"word", b"requiretls")
        }
        for name, reply in ODD_EHLO.items()
    },
    "greeting-multi": {"greeting": b"220-a\r\n220 b\r\n"},
    "greeting-mixed": {"greeting": b"220-a\r\n554 b\r\n"},
    "greeting-noise": {"greeting": b"hello there\r\n220 b\r\n"},
    "greeting-bare": {"greeting": b"220\r\n"},
    "greeting-masked": {"greeting": b"220 ****0*******2***0\r\n"},
    "greeting-1": {"greeting": b"120 wait\r\n"},
    "greeting-6": {"greeting": b"620 what\r\n"},
    "greeting-mismatch": {"greeting": b"450 5.7.1 no\r\n"},
    "greeting-no-detail": {"greeting": b"450 4.1000.9 no\r\n"},
    "greeting-detail": {"greeting": b"450-4.7.2 a\r\n450 4.7.1 b\r\n"},
    "starttls-injected": {"starttls": b"220 go\r\n250-mx\r\n250 REQUIRETLS\r\n"},
    "starttls-2": {"starttls": b"299 go\r\n"},
    "starttls-multi": {"starttls": b"220-go\r\n220 on\r\n"},
    "starttls-3": {"starttls": b"354 what\r\n"},
    "starttls-0": {"starttls": b"000 what\r\n"},
}


def test_r04_odd_servers_are_forecast_as_postfix_finds_them(lab: Lab, milter: Milter) -> None:
    places = {name: place(name, Mx(addr="refused")) for name in ODD_SERVERS}
    lab.add(places.values())
    with contextlib.ExitStack() as stack:
        for name, words in ODD_SERVERS.items():
            (host,) = lab.hosts(places[name])
            assert host.certificate is not None
            stack.enter_context(HostileServer(host.address, host.certificate.path, **words))
        with ThreadPoolExecutor(2 * PARALLEL) as pool:
            made = list(pool.map(lambda item: send(lab, milter, item), places.values()))
    as_recorded(differences(made))
    # the list is worth something: many of them are taken, many are not
    endings = [next(iter(done.values()))[0] for _, _, done in made]
    assert endings.count("2.0.0") > 15
    assert endings.count("5.7.30") > 15


TEN_MEGABYTES: Mapping[str, dict[str, Any]] = {
    "greeting": {"greeting": (b"220-" + b"x" * 60 + b"\r\n" for _ in range(150_000))},
    "ehlo": {"ehlo": (b"250-X" + b"y" * 60 + b"\r\n" for _ in range(150_000))},
    "ehlo_tls": {"ehlo_tls": (b"250-X" + b"y" * 60 + b"\r\n" for _ in range(150_000))},
    "line": {"ehlo": (b"z" * 1000 for _ in range(10_000))},
    "line_tls": {"ehlo_tls": (b"z" * 1000 for _ in range(10_000))},
}


@pytest.mark.parametrize("where", TEN_MEGABYTES)
def test_a_server_that_sends_ten_megabytes_is_not_listened_to(
    lab: Lab, milter: Milter, where: str
) -> None:
    """What Postfix would make of all of it we do not claim to know, but for a line without end."""
    scenario = place(f"ten-{where.replace('_', '')}", Mx(addr="refused"))
    lab.add([scenario])
    (host,) = lab.hosts(scenario)
    assert host.certificate is not None
    with HostileServer(host.address, host.certificate.path, **TEN_MEGABYTES[where]) as server:
        began = time.monotonic()
        accepted = lab.send(scenario, authenticated=True)
        assert time.monotonic() - began < 6
        line = milter.recipient(accepted.queue_id)
        # the first visitor is the probe: mail is delivered once the message has ended
        probe = server.visits[0]
    assert probe.helo in ("", f"probe.{MYDOMAIN}")
    # what fits into the buffers of two sockets, and no more
    assert probe.told < 8 * MEGABYTE
    expected = ("4.4.2", "unreachable") if where.startswith("line") else ("unknown", "unknown")
    assert (line["forecast"], line["reason"]) == expected
    assert "more than" in line["text"]


# ---------------------------------------------------------------- bad configuration


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    """Start the service; it is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "serve", "--config", str(config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ('[milter]\nsokcet = "x"\n', ["milter.sokcet", "socket"]),
        ("[milter]\nworkers = true\n", ["milter.workers", "expected"]),
        ('[probe]\ntimeout = 3\nport = "smtp"\n', ["probe.timeout", "probe.port"]),
        ('[mta]\ntls_security_level = "dain"\n', ["mta.tls_security_level", "dane"]),
        ("[mta\n", ["config.toml:1:5"]),
        ('[rules.recipient."exa mple"]\nmode = "reject"\n', ["exa mple"]),
        ("\xff", ["utf-8"]),
    ],
    ids=["unknown", "ill-typed", "several", "word", "syntax", "domain", "encoding"],
)
def test_a_mistake_in_the_configuration_is_told_with_its_key_and_nothing_starts(
    tmp_path: Path, mistake: str, words: list[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(mistake.encode("latin-1"))
    done = serve(config)
    assert done.returncode == 2
    assert "config_invalid" in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr.lower(), done.stderr
    check = subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "config", "check", str(config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert check.returncode == 2
    for word in words:
        assert word in (check.stdout + check.stderr).lower()


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = serve(tmp_path / "missing.toml")
    assert done.returncode == 2
    assert "missing.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["missing", "directory", "no certificate", "denied"])
def test_a_certificate_file_that_cannot_be_used_is_told_and_nothing_starts(
    tmp_path: Path, how: str
) -> None:
    file = tmp_path / "ca.pem"
    if how == "directory":
        file.mkdir()
    elif how == "no certificate":
        file.write_text("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n")
    elif how == "denied":
        # root may read whatever its mode says; a socket nobody can
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(file))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[milter]\nsocket = "unix:{tmp_path}/m.sock"\n'
        f'[engine]\nsocket = "{tmp_path}/e.sock"\n'
        f'[metrics]\nlisten = ""\n[store]\nurl = "memory:"\n[probe]\nca_file = "{file}"\n'
    )
    done = serve(config)
    assert done.returncode != 0
    assert "ca.pem" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m.sock").exists()


def test_a_socket_where_another_program_listens_is_told(tmp_path: Path, milter: Milter) -> None:
    config = tmp_path / "config.toml"
    taken = milter.socket_file
    config.write_text(
        f'[milter]\nsocket = "unix:{taken}"\n[engine]\nsocket = "{tmp_path}/e.sock"\n'
        '[metrics]\nlisten = ""\n[store]\nurl = "memory:"\n'
    )
    done = serve(config)
    assert done.returncode == 1
    assert f"cannot open {taken}: another process listens there" in done.stderr
    assert taken.exists()


def test_an_address_where_another_program_listens_is_told(tmp_path: Path, milter: Milter) -> None:
    config = tmp_path / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(
            f'[milter]\nsocket = "inet:{port}@127.0.0.1"\n[engine]\nsocket = "{tmp_path}/e.sock"\n'
            '[metrics]\nlisten = ""\n[store]\nurl = "memory:"\n'
        )
        done = serve(config)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    # the metrics' address too: nothing is served half
    config.write_text(
        f'[milter]\nsocket = "unix:{tmp_path}/m.sock"\n[engine]\nsocket = "{tmp_path}/e.sock"\n'
        f'[metrics]\nlisten = "{milter.config.metrics.listen}"\n[store]\nurl = "memory:"\n'
    )
    done = serve(config)
    assert done.returncode != 0
    assert "cannot_start" in done.stderr
    assert not (tmp_path / "m.sock").exists()
