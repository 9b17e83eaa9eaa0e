"""Scripted servers, the policy host, and the second Postfix do what they are told."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tests.lab import submission
from tests.lab.dns import query
from tests.lab.lab import Lab
from tests.support import addresses
from tests.support.scenario import Domain, Message, Mx, Scenario, Server, Sts
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab


def _policy(lab: Lab, domain: str) -> str:
    name = f"mta-sts.{domain}"
    context = ssl.create_default_context(cafile=str(lab.ca_file))
    with (
        socket.create_connection((addresses.POLICY_HOST, 443), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        tls.sendall(f"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
    return answer.decode()


def test_policy_host_serves_the_scenarios_policy(lab: Lab) -> None:
    answer = _policy(lab, "e-new-2mx-second.uns.test")
    assert answer.startswith("HTTP/1.1 200 ")
    assert answer.endswith(
        "version: STSv1\r\nmode: enforce\r\nmx: mx2.e-new-2mx-second.uns.test\r\nmax_age: 86400\r\n"
    )
    text = query("_mta-sts.e-new-2mx-second.uns.test", "TXT").to_text()
    assert "v=STSv1; id=" in text


def test_policy_host_can_fail_as_told(lab: Lab) -> None:
    lab.add(
        Scenario(id=f"z-https-{how}", domains=(Domain(zone="uns", sts=Sts(https=how)),))
        for how in ("404", "wrongname", "expired", "redirect")
    )
    assert _policy(lab, "z-https-404.uns.test").startswith("HTTP/1.1 404 ")
    assert _policy(lab, "z-https-redirect.uns.test").startswith("HTTP/1.1 302 ")
    for how in ("wrongname", "expired"):
        with pytest.raises(ssl.SSLCertVerificationError):
            _policy(lab, f"z-https-{how}.uns.test")


def test_scenarios_can_be_added_to_the_running_lab(lab: Lab) -> None:
    good = Scenario(id="z-added")
    bad = Scenario(id="z-added-bad", domains=(Domain(mx=(Mx(server=Server(requiretls="plain")),)),))
    lab.add([good, bad])
    for scenario, dsn in ((good, "2.0.0"), (bad, "5.7.30")):
        (delivery,) = lab.deliveries(lab.send(scenario).queue_id)
        assert delivery.dsn == dsn
    (host,) = lab.hosts(good)
    (session,) = lab.sessions(host.address)
    assert session.tls == "TLSv1.3"
    assert session.mail[0].endswith(" REQUIRETLS")
    assert "Subject: z-added\n" in session.messages[0]


@pytest.mark.parametrize(("kind", "suffix"), [("implicit", ""), ("cname", ""), ("mx", "other")])
def test_kinds_that_were_not_recorded_deliver(lab: Lab, kind: str, suffix: str) -> None:
    scenario = Scenario(
        id=f"z-kind-{kind}",
        domains=(Domain(kind=kind, suffix=suffix),),  # type: ignore[arg-type]
    )
    lab.add([scenario])
    (delivery,) = lab.deliveries(lab.send(scenario).queue_id)
    assert (delivery.dsn, delivery.tls) == ("2.0.0", "dane/requiretls")


@pytest.mark.parametrize(
    ("addr", "reason"),
    [("refused", "Connection refused"), ("noroute", "Network is unreachable")],
)
def test_unreachable_hosts(lab: Lab, addr: str, reason: str) -> None:
    scenario = Scenario(
        id=f"z-{addr}",
        domains=(Domain(mx=(Mx(addr=addr),)),),  # type: ignore[arg-type]
    )
    lab.add([scenario])
    (delivery,) = lab.deliveries(lab.send(scenario).queue_id)
    assert (delivery.status, delivery.dsn) == ("deferred", "4.4.1")
    assert delivery.reason.endswith(reason)


def test_latency_is_added_to_every_answer(lab: Lab) -> None:
    scenario = Scenario(id="z-slow", domains=(Domain(mx=(Mx(server=Server(latency=0.2)),)),))
    lab.add([scenario])
    began = time.monotonic()
    lab.deliveries(lab.send(scenario).queue_id)
    # banner, EHLO, STARTTLS, EHLO, MAIL, RCPT, DATA (pipelining is not offered), end of data
    assert time.monotonic() - began > 8 * 0.2


def test_downstream_postfix_takes_requiretls_mail(lab: Lab) -> None:
    scenario = Scenario(id="z-downstream", domains=(Domain(mx=(Mx(addr="downstream"),)),))
    lab.add([scenario])
    accepted = lab.send(scenario, authenticated=True)
    (delivery,) = lab.deliveries(accepted.queue_id)
    assert (delivery.dsn, delivery.tls) == ("2.0.0", "dane/requiretls")
    inbox = lab.downstream.directory / "mail/inbox/new"
    (message,) = eventually(lambda: list(inbox.glob("*")), "the message is in the inbox")
    # RFC 8689 has no trace field; Postfix keeps the requirement in a header field of its own.
    assert "Require-TLS-ESMTP: yes" in message.read_text()


def test_bounces_reach_the_senders_mailbox(lab: Lab) -> None:
    scenario = Scenario(
        id="z-bounce",
        domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),),
        message=Message(sender="bounce-me@sender.test"),
    )
    lab.add([scenario])
    lab.deliveries(lab.send(scenario).queue_id)
    eventually(lambda: any("bounce-me@" in text for text in lab.mailbox()), wait=10)
    (bounce,) = (text for text in lab.mailbox() if "bounce-me@" in text)
    assert "Status: 5.7.30" in bounce


def test_front_mta_asks_the_milter_that_is_attached(lab: Lab) -> None:
    lab.attach_milter(
        f"unix:{lab.front.milter.inside}/nobody.sock", milter_default_action="tempfail"
    )
    try:
        with pytest.raises(submission.Refused) as refused:
            lab.send("a-ok")
        # A milter that is missing under "tempfail" makes Postfix refuse even STARTTLS.
        assert (refused.value.stage, refused.value.reply.code) == ("starttls", 454)
    finally:
        lab.attach_milter("")
    assert lab.send("a-ok").queue_id
