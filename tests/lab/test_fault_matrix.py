"""docs/reliability.md, row by row: each fault of DNS, HTTPS and SMTP meets mail on its way.

Two messages that ask for REQUIRETLS go to each faulty place. A rule says ``reject`` for the sender
of the first: the reply to its RCPT is what the page says. The second is accepted, as it is where
rules only look on: log line and metric are what the page says, Postfix ends it as was forecast, and
what is delivered comes whole, once, and never as secure as it was not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from cryptography import x509
from OpenSSL import SSL

from tests.lab.hostile import EHLO_TLS, HostileServer
from tests.lab.lab import Lab
from tests.lab.labconfig import transport_overrides
from tests.lab.log import Delivery
from tests.lab.milter import Milter
from tests.lab.policyservice import PORT, PolicyService
from tests.lab.postfix import transport_name
from tests.lab.submission import Reply, message, transact
from tests.lab.sweep import PROBE
from tests.support.authority import RSA_16384, with_a_mebibyte
from tests.support.faultmatrix import ROWS
from tests.support.pki import spki
from tests.support.scenario import Domain, Mx, Scenario, Server, Sts
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

PARALLEL = 16
"""Faults at once."""

PATIENCE = 12.0
"""``rules.decide_wait`` and ``tag_wait``: longer than what any step may take here (4 s)."""

SLACK = 2.0
"""Seconds more that a reply takes on a busy machine."""

STRICT = "a@strict.test"
"""Whose recipients are refused where that is forecast."""

PROFILE = "fault/dane"
PROFILES = {
    PROFILE: {
        "smtp_tls_security_level": "dane",
        "smtp_requiretls_policy": "enforce",
        "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{PORT + 9}:sts",
        "smtp_tls_enforce_sts_mx_patterns": "yes",
    }
}
"""The policy service beside Postfix finds no policy where we cannot fetch any."""

NAMESERVER = "127.53.0.9"
"""A scripted one, for answers that Knot would never give."""

BODY = "".join(f".line {number} of what must arrive as it was sent\n" for number in range(300))


SECTIONS = ("DNS", "HTTPS (MTA-STS)", "SMTP servers")
"""Those of which each fault is met here."""

ELSEWHERE = {
    "the resolver does not validate",
    "nothing shows whether the resolver validates",
    "one of several resolvers does not validate",
    "the names of the self-test cannot be seen any more",
    "the resolver is gone, for all names",
    "the policy can no longer be fetched",
    "port 25 blocked, uplink gone",
}
"""Faults of all domains at once, and one that needs a past: the page names their tests."""


# ---------------------------------------------------------------- what goes wrong


@dataclass(frozen=True)
class Fault:
    """A place where something goes wrong, and what is forecast there."""

    row: str
    name: str
    forecast: str
    domain: Domain = field(default_factory=Domain)
    hostile: Mapping[str, Any] | None = None
    """How a :class:`HostileServer` is, in the place of the domain's own."""
    prepare: Callable[[Lab, Scenario], None] | None = None
    """Changes the world by hand."""
    as_postfix: bool = True
    """Whether Postfix ends the message just so: else it is more patient than we are."""

    @functools.cached_property
    def scenario(self) -> Scenario:
        domain = self.domain
        if self.hostile is not None:
            domain = replace(domain, mx=(replace(domain.mx[0], addr="refused"),))
        return Scenario(f"matrix-{self.name}", PROFILE, domains=(domain,))


def at(server: Server, **mx: Any) -> Domain:
    return Domain(mx=(Mx(server=server, **mx),))


def name_of(lab: Lab, scenario: Scenario) -> str:
    return lab.recipients(scenario)[0].partition("@")[2]


def _mx(count: int) -> Callable[[Lab, Scenario], None]:
    """So many MX records more, all worse than the good one and of hosts that do not exist."""

    def prepare(lab: Lab, scenario: Scenario) -> None:
        owner = name_of(lab, scenario)
        lab.plan.records["sig.test"] += [
            f"{owner}. 300 MX {100 + number} {number:x}.{owner}." for number in range(count)
        ]

    return prepare


def _addresses(lab: Lab, scenario: Scenario) -> None:
    (host,) = lab.hosts(scenario)
    lab.plan.records["sig.test"] += [
        f"{host.name}. 300 A 127.9.{number // 250}.{1 + number % 250}" for number in range(1_500)
    ]


def _loop(lab: Lab, scenario: Scenario) -> None:
    owner = name_of(lab, scenario)
    lab.plan.records["uns.test"] += [
        f"{owner}. 300 CNAME other.{owner}.",
        f"other.{owner}. 300 CNAME {owner}.",
    ]


def _ttl(seconds: int) -> Callable[[Lab, Scenario], None]:
    def prepare(lab: Lab, scenario: Scenario) -> None:
        records = lab.plan.records["sig.test"]
        for number, line in enumerate(records):
            if f"{scenario.id}." in line:
                records[number] = line.replace(" 300 ", f" {seconds} ", 1)

    return prepare


def _delegated(lab: Lab, scenario: Scenario) -> None:
    """The domain is a zone of its own, whose server is ours."""
    owner = name_of(lab, scenario)
    lab.plan.records["uns.test"] += [
        f"{owner}. 300 NS ns.{owner}.",
        f"ns.{owner}. 300 A {NAMESERVER}",
    ]


def _elsewhere(lab: Lab, scenario: Scenario) -> None:
    """The MX host, or the policy host where there is one, has a private address."""
    name = f"mta-sts.{name_of(lab, scenario)}" if scenario.domains[0].sts else ""
    (host,) = lab.hosts(scenario)
    for zone in ("sig.test", "uns.test"):
        records = lab.plan.records[zone]
        for number, line in enumerate(records):
            if line.startswith(f"{name or host.name}. ") and " A " in line:
                records[number] = f"{name or host.name}. 300 A 10.1.2.3"


# -- a name server


def answer(query: dns.message.Message) -> bytes:
    """By the name of the fault, which the domain has."""
    question = query.question[0]
    name = question.name.to_text().lower()
    if "matrix-malformed" in name:
        return query.to_wire()[:2] + b"\x84\x00\x00\x01\xff\xff\x00\x00\x00\x00" + b"\xc0\x0c" * 20
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    if "matrix-foreign" in name:
        other = dns.message.make_query("another.name.test.", question.rdtype)
        other.id = query.id
        return dns.message.make_response(other).to_wire()
    if "matrix-chain" in name:
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", f"x.{name}"))
    elif "matrix-ttl-2-31" in name and question.rdtype == dns.rdatatype.MX:
        record = dns.rrset.from_text(question.name, 60, "IN", "MX", "10 mx1.matrix-good.sig.test.")
        reply.answer.append(record)
        return reply.to_wire().replace(b"\x00\x00\x00\x3c", b"\x80\x00\x00\x00")
    return reply.to_wire()


@contextlib.contextmanager
def nameserver() -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAMESERVER, 53))

        def serve() -> None:
            while True:
                data, client = server.recvfrom(4_096)
                if not data:
                    return
                server.sendto(answer(dns.message.from_wire(data)), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.sendto(b"", (NAMESERVER, 53))
            thread.join(5)


# -- certificates and handshakes


def _pem(lab: Lab, fault: Fault) -> Path:
    """The file that a hostile server presents: the host's own, unless the fault is in it."""
    (host,) = lab.hosts(fault.scenario)
    assert host.certificate is not None
    path = lab.directory / f"{fault.name}.pem"
    own = host.certificate.path.read_bytes()
    if fault.name == "rsa-16384":
        return RSA_16384
    if fault.name == "chain-100":
        path.write_bytes(own + lab.ca_file.read_bytes() * 98)
    elif fault.name == "mebibyte":
        path.write_bytes(with_a_mebibyte(own, lab.plan.pki.authority.key))
    else:
        return host.certificate.path
    return path


def _rsa_16384_in_dns(lab: Lab, scenario: Scenario) -> None:
    certificate = x509.load_pem_x509_certificate(RSA_16384.read_bytes())
    digest = hashlib.sha256(spki(certificate.public_key())).hexdigest()
    (host,) = lab.hosts(scenario)
    lab.plan.records["sig.test"].append(f"_25._tcp.{host.name}. 300 TLSA 3 1 1 {digest}")


def endless_handshake(client: socket.socket) -> None:
    """Records of a certificate that has no end."""
    client.recv(4_096)
    record = b"\x16\x03\x03\x40\x00" + b"\x0b\x00\xff\xff" + b"\x00" * (0x4000 - 4)
    for _ in range(1_000):
        client.sendall(record)


def renegotiating(pem: Path, client: socket.socket) -> None:
    """In the place of a reply to EHLO the server wants to begin anew, and insists."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(str(pem))
    context.use_privatekey_file(str(pem))
    client.settimeout(None)
    connection = SSL.Connection(context, client)
    connection.set_accept_state()
    with contextlib.suppress(SSL.Error):
        connection.do_handshake()
        connection.recv(1_000)
        connection.renegotiate()
        connection.do_handshake()
        while connection.renegotiate_pending():
            connection.recv(1_000)
        connection.sendall(EHLO_TLS)


# ---------------------------------------------------------------- the faults

LINES = [b"250-X" + b"y" * 60 + b"\r\n"] * 150_000
STEPS = ("banner", "ehlo", "starttls_reply", "handshake", "ehlo_tls")


def _steps(what: str) -> Iterator[Fault]:
    row = {
        "hang": "the banner never comes, or silence at any step",
        "close": "closed at any step",
    }[what]
    for step in STEPS:
        forecast = "4.7.5" if step == "handshake" else "4.4.2"
        name = f"{what}-{step.replace('_', '-')}"
        words: dict[str, Any] = {step: what}
        if (what, step) != ("hang", "handshake"):  # has a row of its own
            yield Fault(row, name, forecast, at(Server(**words)))


SIGNED = Domain()
POLICY = Domain(zone="uns", mx=(Mx(zone="uns", tlsa=()),), sts=Sts())
"""Nothing but the policy vouches for it: without one REQUIRETLS mail is returned, 5.7.10."""


def _https(row: str, *words: str) -> Iterator[Fault]:
    for word in words:
        domain = replace(POLICY, sts=Sts(https=word))
        yield Fault(row, f"https-{word}", "5.7.10", domain)


NOBODY = Domain(kind="nxdomain", zone="uns")
"""No record but those that are added by hand."""

DNS = (
    Fault("the resolver is silent", "silent", "4.4.3", Domain(zone="dead")),
    Fault("SERVFAIL, REFUSED, bogus signature", "servfail", "4.4.3", Domain(zone="lame")),
    Fault("SERVFAIL, REFUSED, bogus signature", "bogus", "4.4.3", Domain(zone="bogus")),
    Fault("a malformed or foreign reply", "malformed", "4.4.3", NOBODY, prepare=_delegated),
    Fault("a malformed or foreign reply", "foreign", "4.4.3", NOBODY, prepare=_delegated),
    Fault("a truncated answer", "truncated", "2.0.0", prepare=_mx(60)),
    Fault("5,000 MX records", "mx-500", "unknown", prepare=_mx(500), as_postfix=False),
    Fault("5,000 MX records", "mx-5000", "4.4.3", prepare=_mx(5_000)),
    Fault(
        "thousands of addresses",
        "a-1500",
        "unknown",
        at(Server(), addr="refused"),
        prepare=_addresses,
        as_postfix=False,
    ),
    Fault("a loop of CNAMEs", "loop", "4.4.3", NOBODY, prepare=_loop),
    Fault("a chain of CNAMEs without end", "chain", "4.4.3", NOBODY, prepare=_delegated),
    Fault("TTL 0, and days", "ttl-0", "2.0.0", prepare=_ttl(0)),
    Fault("TTL 0, and days", "ttl-days", "2.0.0", prepare=_ttl(900_000)),
    Fault("TTL of 2^31", "ttl-2-31", "2.0.0", NOBODY, prepare=_delegated),
)

HTTPS = (
    *_https("an expired certificate", "expired"),
    *_https("a certificate for another name", "wrongname"),
    *_https("an authority that nobody trusts", "untrusted", "selfsigned"),
    *_https("a redirect", "redirect"),
    *_https("a body without end", "endless"),
    *_https("a slow header, a slow body", "slow-header", "slow-body", "hang"),
    *_https("64 KiB and one octet", "one-too-many", "big"),
    *_https("another media type", "html"),
    *_https("a compressed bomb", "gzip"),
    *_https("a header without bounds", "long-header"),
    *_https("an empty or binary body", "empty", "binary", "garbage"),
    Fault(
        "the policy host has a private address",
        "https-private",
        "5.7.10",
        POLICY,
        prepare=_elsewhere,
    ),
)

SMTP = (
    Fault("connection refused", "refused", "4.4.1", at(Server(), addr="refused")),
    Fault("connection unanswered", "blackhole", "4.4.1", at(Server(), addr="blackhole")),
    *_steps("hang"),
    *_steps("close"),
    Fault(
        "a banner in single octets",
        "octets",
        "2.0.0",
        SIGNED,
        {"greeting": [b"%c" % octet for octet in b"220 mx ESMTP\r\n"], "pause": 0.02},
    ),
    Fault(
        "a reply that drips",
        "drip",
        "4.4.2",
        SIGNED,
        {"greeting": [*[b"220-x\r\n"] * 30, b"220 mx\r\n"], "pause": 0.2},
        as_postfix=False,
    ),
    Fault("ten megabytes of lines", "lines", "unknown", SIGNED, {"ehlo": LINES}, as_postfix=False),
    Fault(
        "one line without end", "endless-line", "4.4.2", SIGNED, {"ehlo": [b"z" * 1_000] * 10_000}
    ),
    Fault(
        "NUL and 8-bit text",
        "nul",
        "2.0.0",
        SIGNED,
        {
            "greeting": b"220 mx\x00\xff\x1b[31m\r\n",
            "ehlo": b"250-\xff\r\n250-STARTTLS\r\n250 \x00x\r\n",
        },
    ),
    Fault(
        "NUL and 8-bit text",
        "nul-before",
        "5.7.30",
        SIGNED,
        {"ehlo_tls": b"250-mx\r\n250-\x00REQUIRETLS\r\n250 \xff\r\n"},
    ),
    Fault("no SMTP at all", "http", "4.4.2", SIGNED, {"greeting": b"HTTP/1.1 400 Bad Request\r\n"}),
    Fault("STARTTLS, then silence", "hang-handshake", "4.7.5", at(Server(handshake="hang"))),
    Fault("STARTTLS, then garbage", "garbage", "4.7.5", at(Server(handshake="garbage"))),
    Fault(
        "plaintext injected after STARTTLS",
        "injected",
        "5.7.30",
        SIGNED,
        {"starttls": b"220 go\r\n250-mx\r\n250 REQUIRETLS\r\n", "ehlo_tls": b"250 mx\r\n"},
    ),
    Fault(
        "a handshake without end",
        "endless-handshake",
        "4.7.5",
        SIGNED,
        {"instead_of_tls": endless_handshake},
    ),
    Fault("a chain of 100 certificates", "chain-100", "2.0.0", SIGNED, {}),
    Fault(
        "a forbidden address (loopback, private, mapped…)",
        "private",
        "unknown",
        SIGNED,
        prepare=_elsewhere,
        as_postfix=False,
    ),
    Fault("a certificate of 1 MiB", "mebibyte", "4.7.5", SIGNED, {}),
    Fault(
        "an RSA key of 16,384 bits",
        "rsa-16384",
        "2.0.0",
        at(Server(), tlsa=()),
        {},
        prepare=_rsa_16384_in_dns,
    ),
    Fault("renegotiation", "renegotiation", "4.4.2", SIGNED, {"instead_of_tls": renegotiating}),
)

FAULTS = {fault.name: fault for fault in (*DNS, *HTTPS, *SMTP)}
GOOD = Scenario("matrix-good", PROFILE)


# ---------------------------------------------------------------- what happens


@dataclass
class Happened:
    """To the two messages."""

    reply: Reply
    waited: float
    """Seconds, for the reply to RCPT."""
    ended: float
    """Seconds, for the reply to the end of the message."""
    line: dict[str, Any]
    deliveries: list[Delivery]
    arrived: list[str]


def send(lab: Lab, milter: Milter, fault: Fault, server: HostileServer | None) -> Happened:
    """Both messages, and what came of them."""
    recipients = lab.recipients(fault.scenario)
    with lab.session() as smtp:
        assert smtp.docmd("MAIL", f"FROM:<{STRICT}> REQUIRETLS")[0] == 250
        began = time.monotonic()
        code, text = smtp.docmd("RCPT", f"TO:<{recipients[0]}>")
        waited = time.monotonic() - began
        smtp.rset()
        began = time.monotonic()
        accepted = transact(
            smtp, recipients, message(fault.name, recipients, body=BODY), parameters=("REQUIRETLS",)
        )
        ended = time.monotonic() - began
    line = milter.recipient(accepted.queue_id)
    deliveries = lab.deliveries(accepted.queue_id, timeout=120)
    hosts = {host.address for host in lab.hosts(fault.scenario)} | {lab.hosts(GOOD)[0].address}

    def arrived() -> list[str]:
        if server is None:
            found = [text for host in hosts for one in lab.sessions(host) for text in one.messages]
        else:
            found = [visit.message.decode("latin-1") for visit in server.visits]
        return [text for text in found if f"\nSubject: {fault.name}\n" in text]

    # A server tells of its session when it has ended, which is after Postfix has its reply.
    if any(delivery.status == "sent" for delivery in deliveries):
        eventually(arrived, f"{fault.name!r} arrives")
    return Happened(Reply(code, text.decode()), waited, ended, line, deliveries, arrived())


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    lab.add_transports(PROFILES)
    with Milter(
        lab,
        transport={transport_name(PROFILE): transport_overrides(PROFILES[PROFILE], "new")},
        probe={"allow_networks": PROBE["allow_networks"]},
        limits={"fetch_timeout": 4},
        mta={"inet_protocols": ["ipv4"]},
        rules={
            "mode": "monitor",
            "tag_wait": PATIENCE,
            "decide_wait": PATIENCE,
            "sender": {STRICT.partition("@")[2]: {"mode": "reject"}},
        },
    ) as running:
        yield running


@pytest.fixture(scope="module")
def happened(lab: Lab, milter: Milter) -> Iterator[dict[str, Future[Happened]]]:
    """All of it, at once; each test waits for its own."""
    lab.plan.add([GOOD, *(fault.scenario for fault in FAULTS.values())])
    for fault in FAULTS.values():
        if fault.prepare is not None:
            fault.prepare(lab, fault.scenario)
    with contextlib.ExitStack() as stack:
        stack.enter_context(nameserver())
        stack.enter_context(PolicyService(lambda _: None, PORT + 9))
        lab.update()
        servers = {}
        for fault in FAULTS.values():
            if fault.hostile is not None:
                (host,) = lab.hosts(fault.scenario)
                words = dict(fault.hostile)
                pem = _pem(lab, fault)
                if words.get("instead_of_tls") is renegotiating:
                    words["instead_of_tls"] = functools.partial(renegotiating, pem)
                servers[fault.name] = stack.enter_context(HostileServer(host.address, pem, **words))
        pool = stack.enter_context(ThreadPoolExecutor(PARALLEL))
        yield {
            name: pool.submit(send, lab, milter, fault, servers.get(name))
            for name, fault in FAULTS.items()
        }


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_mail_meets_each_fault_and_the_page_says_what_becomes_of_it(
    lab: Lab, happened: dict[str, Future[Happened]], fault: Fault
) -> None:
    row, found = ROWS[fault.row], happened[fault.name].result()
    forecast, line = fault.forecast, found.line
    assert line["forecast"] == forecast, line["text"]
    assert forecast in row.mail

    # the first message: the reply to its RCPT
    assert found.waited < PATIENCE + SLACK
    refused = forecast.startswith("5")
    assert f"{found.reply.code} {found.reply.text}".startswith(
        f"550 {forecast} REQUIRETLS cannot be honoured" if refused else "250 2.1.5 Ok"
    )
    assert (f"550 {forecast}" if refused else "250") in row.reply

    # the second: it is accepted, and told of in one line that nobody else has written
    assert found.ended < PATIENCE + SLACK
    assert f"`{line['event']}`" == row.line
    assert (line["action"], line["to"]) == ("accept", f"<{lab.recipients(fault.scenario)[0]}>")
    assert 0 < len(line["text"]) < 1_000
    assert line["text"].isascii()
    assert line["text"].isprintable()

    # Postfix ends it as was forecast, above all where that was delivery over verified TLS
    (delivery,) = found.deliveries
    if fault.as_postfix:
        assert (forecast, line["tls"] or "") == (delivery.dsn, delivery.tls or "")
    else:
        assert forecast != "2.0.0"

    # what was delivered came once, and whole
    assert len(found.arrived) == (delivery.status == "sent")
    for text in found.arrived:
        assert text.partition("\n\n")[2].strip("\n") == BODY.strip("\n")


def test_the_metrics_have_counted_the_faults(
    milter: Milter, happened: dict[str, Future[Happened]]
) -> None:
    """In sum: at least as many of each kind as there are faults that the page counts so."""
    for future in happened.values():
        future.result()
    named = Counter(
        found
        for fault in FAULTS.values()
        for found in re.findall(r'`(\w+)(?:\{result="(\w+)"\})?`', ROWS[fault.row].metric)
    )
    assert len(named) > 5
    for (name, result), faults in named.items():
        counted = milter.metric(name, **({"result": result} if result else {}))
        assert counted >= faults, (name, result)
    assert milter.metric("callback_errors_total") == 0
    assert milter.metric("process_restarts_total") == 0


def test_no_fault_of_the_network_is_left_out() -> None:
    mine = {row.fault for row in ROWS.values() if row.section in SECTIONS}
    assert mine == {fault.row for fault in FAULTS.values()} | ELSEWHERE
