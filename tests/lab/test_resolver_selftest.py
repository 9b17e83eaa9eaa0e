"""The self-test against the lab's real Unbound, and against resolvers that lie in each way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.selftest import SelfTest, SelfTestOutcome
from requiretls_milter.syntax.endpoint import parse_nameserver
from tests.lab.lab import Lab
from tests.lab.labconfig import SELFTEST_NAMES, profile_settings
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.support import addresses
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.lab

LIAR = "127.53.0.9"

Lie = Callable[[dns.message.Message, dns.message.Message], dns.message.Message]


def _forward(query: dns.message.Message) -> dns.message.Message:
    return dns.query.udp_with_fallback(query, addresses.RESOLVER, timeout=10)[0]


def no_ad(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
    """Does not validate, like most forwarders."""
    answer.flags &= ~dns.flags.AD
    return answer


def no_servfail(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
    """Hands out what did not validate, as Unbound's val-permissive-mode does."""
    if answer.rcode() != dns.rcode.SERVFAIL:
        return answer
    query.flags |= dns.flags.CD
    return _forward(query)


def always_ad(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
    """Calls everything secure, or the path to it does."""
    if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        answer.flags |= dns.flags.AD
    return answer


LIES = [no_ad, no_servfail, always_ad]


@contextmanager
def liar(lie: Lie) -> Iterator[str]:
    """A resolver that asks Unbound and changes what it says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LIAR, 53))
        server.settimeout(0.1)
        ended = threading.Event()

        def answer(wire: bytes, client: tuple[str, int]) -> None:
            query = dns.message.from_wire(wire)
            try:
                reply = lie(query, _forward(query))
            except (OSError, dns.exception.DNSException):
                return  # nobody answered us, and we answer nobody
            if not ended.is_set():
                server.sendto(reply.to_wire(max_size=65535), client)

        def serve() -> None:
            while not ended.is_set():
                try:
                    wire, client = server.recvfrom(65535)
                except TimeoutError:
                    continue
                thread = threading.Thread(target=answer, args=(wire, client))
                thread.start()
                answering.append(thread)

        answering: list[threading.Thread] = []
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield f"{LIAR}:53"
        finally:
            ended.set()
            serving.join()
            for thread in answering:
                thread.join()


def run(test: SelfTest, nameserver: str) -> tuple[SelfTestOutcome, tuple[str, ...]]:
    result = asyncio.run(test.run(Resolver([parse_nameserver(nameserver)], 10)))
    return result.outcome, result.problems


NAMED = SelfTest("sig.test", ("bogus.test",), ("uns.test",))


def test_r20_the_real_unbound_passes(lab: Lab) -> None:
    assert run(NAMED, lab.resolver) == (SelfTestOutcome.PASSED, ())


def test_r20_the_root_zone_alone_shows_nothing_where_public_names_cannot_be_seen(
    lab: Lab,
) -> None:
    """An isolated network needs one name of its own: unsigned, or with broken signatures."""
    verdict, problems = run(SelfTest(), lab.resolver)
    assert verdict is SelfTestOutcome.UNDECIDED
    assert len(problems) == 2
    for named in (SelfTest(insecure=("uns.test",)), SelfTest(bogus=("bogus.test",))):
        verdict, (missing,) = run(named, lab.resolver)
        assert verdict is SelfTestOutcome.PASSED, missing


def only_the_root(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
    """A forwarder that validates nothing and copies AD, behind which only "." can be seen.

    "." and what the tests send mail to; none of the self-test's names.
    """
    query.flags |= dns.flags.CD
    answer = _forward(query)
    answer.flags |= query.flags & dns.flags.AD
    if query.question[0].name.to_text(omit_final_dot=True) in SELFTEST_NAMES.values():
        answer = dns.message.make_response(query, recursion_available=True)
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer


def test_r20_a_proxy_that_copies_ad_and_shows_only_the_root_is_believed_in_nothing(
    lab: Lab,
) -> None:
    scenario = lab.plan.scenarios["a-ok"]
    transport = {transport_name(scenario.profile): profile_settings(scenario)}
    root = {"selftest_secure": ""}
    with (
        liar(only_the_root) as address,
        Milter(lab, transport=transport, dns={"nameservers": [address], **root}) as milter,
    ):
        accepted = lab.send("a-ok")
        line = milter.recipient(accepted.queue_id)
        assert milter.metric("resolver_validates") == 0
        (told,) = milter.events("resolver_not_tested")
        assert (told["level"], told["effect"]) == ("warning", "nothing is called secure")
        assert (line["forecast"], line["reason"]) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("lie", "name"),
    [(no_ad, "sig.test"), (no_servfail, "bogus.test"), (always_ad, "uns.test")],
)
def test_r20_each_lie_is_found_out(lab: Lab, lie: Lie, name: str) -> None:
    with liar(lie) as address:
        verdict, problems = run(NAMED, address)
    assert verdict is SelfTestOutcome.FAILED
    (problem,) = problems
    assert name in problem


@pytest.mark.parametrize("lie", LIES)
def test_r20_a_service_with_a_lying_resolver_calls_nothing_secure(lab: Lab, lie: Lie) -> None:
    scenario = lab.plan.scenarios["a-ok"]
    transport = {transport_name(scenario.profile): profile_settings(scenario)}
    with (
        liar(lie) as address,
        Milter(lab, transport=transport, dns={"nameservers": [address]}) as milter,
    ):
        accepted = lab.send("a-ok")
        line = milter.recipient(accepted.queue_id)
        assert milter.metric("resolver_validates") == 0
        (loud,) = milter.events("resolver_does_not_validate")
        assert loud["level"] == "error"
        assert (line["forecast"], line["reason"]) == ("5.7.10", "tls_level_does_not_verify")
        # Postfix has the honest resolver, and delivers.
        assert [one.dsn for one in lab.deliveries(accepted.queue_id)] == ["2.0.0"]

        # A reload that names the honest one brings trust, and another forecast, at once.
        milter.write(dns={"nameservers": [lab.resolver]})
        milter.server.hangup()
        milter.await_metric("resolver_validates", 1)
        accepted = lab.send("a-ok")
        line = milter.recipient(accepted.queue_id)
        assert (line["forecast"], line["compliant"]) == ("2.0.0", "true")
        assert [one.dsn for one in lab.deliveries(accepted.queue_id)] == ["2.0.0"]


def test_a_service_with_an_honest_resolver_says_so_and_stays_quiet(lab: Lab) -> None:
    with Milter(lab) as milter:
        milter.await_metric("resolver_validates", 1)
        assert [line["level"] for line in milter.events("resolver_validates")] == ["info"]
        assert milter.events("resolver_does_not_validate") == []


def check(lab: Lab, directory: Path, nameserver: str) -> tuple[int, str, bool]:
    """What ``check`` without a service says of a-ok: exit status, forecast, security."""
    scenario = lab.plan.scenarios["a-ok"]
    config = directory / "config.toml"
    names = "".join(f'{key} = "{value}"\n' for key, value in SELFTEST_NAMES.items())
    config.write_text(
        f'[mta]\ntls_security_level = "dane"\n[dns]\nnameservers = ["{nameserver}"]\n{names}'
        f'[probe]\nca_file = "{lab.ca_file}"\nallow_networks = ["127.0.0.0/8"]\n'
        f'[engine]\nsocket = "{directory / "none.sock"}"\n'
    )
    domain = scenario.domain_name(scenario.domains[0])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "check", domain),
            *("--config", str(config), "--format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    (report,) = json.loads(done.stdout)
    return done.returncode, report["forecast"]["status"], report["mx_lookup_secure"]


def test_r20_check_tests_the_resolver_too(lab: Lab, tmp_path: Path) -> None:
    assert check(lab, tmp_path, lab.resolver) == (0, "2.0.0", True)
    for lie in LIES:
        with liar(lie) as address:
            assert check(lab, tmp_path, address) == (1, "5.7.10", False), lie.__name__


def test_a_resolver_that_does_not_answer_is_not_convicted(lab: Lab) -> None:
    def silent(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
        raise dns.exception.Timeout

    began = time.monotonic()
    with liar(silent) as address:
        result = asyncio.run(NAMED.run(Resolver([parse_nameserver(address)], 1)))
    assert result.outcome is SelfTestOutcome.UNDECIDED
    assert time.monotonic() - began < 10
