"""The whole way: MTA, milter, worker, engine, DNS, a real TLS session, judge, tag, metrics."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives import serialization

from requiretls_milter.ipc import query
from requiretls_milter.model import Feature, ProbeStage
from tests.support.authority import Authority
from tests.support.dnsserver import SILENT, failure
from tests.support.internet import WITHOUT_REQUIRETLS, Internet, loopback_internet
from tests.support.service import MACROS, Service
from tests.support.smtpserver import EHLO_TLS, Close
from tests.support.waiting import eventually

Make = Callable[..., Service]


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


def test_a_next_hop_that_keeps_requiretls_is_forecast_so(make: Make, internet: Internet) -> None:
    service = make(internet.config, workers=1).start()
    (tag,) = service.send("<bob@good.test>")
    assert "requirement=requiretls; source=esmtp; forecast=2.0.0; reason=ok; " in tag


def test_without_a_ca_file_the_systems_authorities_count(make: Make, internet: Internet) -> None:
    """As it is by default; OpenSSL is told of another system."""
    config = internet.config.replace(f'ca_file = "{internet.ca_file}"', "")
    config = config.replace('"dane"', '"secure"')
    ours = {"SSL_CERT_FILE": str(internet.ca_file)}
    service = make(config, workers=1, environ=ours).start()
    assert "forecast=2.0.0; reason=ok" in service.send("<bob@good.test>")[0]
    service = make(config, workers=1, environ={"SSL_CERT_FILE": os.devnull}).start()
    assert "forecast=5.7.10; reason=certificate" in service.send("<bob@good.test>")[0]
    assert service.metric('process_restarts_total{process="engine"}') == 0


def test_a_server_without_requiretls_is_a_bounce_forecast_and_refused_by_rule(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config + '[rules]\nmode = "reject"\n', workers=1).start()
    with service.client() as session:
        outcome = session.message(
            "<alice@example.net>",
            ["<bob@lacking.test>", "<bob@good.test>"],
            parameters=["REQUIRETLS"],
        )
    assert outcome.rcpt[0].text.startswith("550 5.7.30 ")
    assert outcome.rcpt[1].passed
    assert "forecast=2.0.0" in outcome.edits[0].value


def test_the_server_is_called_once_for_many_messages_and_both_workers(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config, workers=2).start()
    before = internet.good.connections
    tags = service.send("<bob@good.test>", count=8)
    assert all("forecast=2.0.0" in tag for tag in tags)
    assert internet.good.connections == before + 1


def test_metrics_add_up_over_workers_their_deaths_and_that_of_the_engine(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config, workers=2).start()
    sent = 'messages_total{action="accept",requirement="requiretls"}'
    forecasts = 'forecasts_total{reason="ok",requirement="requiretls",status="2.0.0"}'

    def shown(number: int) -> None:
        eventually(lambda: service.metric(sent) == number, what=f"{sent} {number}")
        assert service.metric(forecasts) == number
        assert service.metric('requirement_sources_total{source="esmtp"}') == number
        assert service.metric("forecast_wait_seconds_count") == number

    assert service.metric(sent) == 0
    service.send("<bob@good.test>", count=5)
    shown(5)
    for number, name in enumerate(("worker-1", "worker-2", "worker-1"), start=6):
        service.replaced(name, service.kill(name))
        service.send("<bob@good.test>")
        shown(number)
    eventually(lambda: service.metric('process_restarts_total{process="worker"}') == 3)
    # The supervisor's copy of the engine's own counters is at most two seconds old.
    time.sleep(2.5)
    assessed = service.metric('assessments_total{result="deliver"}')
    assert assessed >= 1
    service.replaced("engine", service.kill("engine"))
    shown(8)
    assert service.metric('assessments_total{result="deliver"}') == assessed
    assert service.metric('process_restarts_total{process="engine"}') == 1


RENEWING = "<bob@renewing.test>"


def test_past_its_life_a_forecast_is_given_out_at_once_and_a_fresh_one_is_there_after(
    make: Make, internet: Internet
) -> None:
    """What is known of this domain lives for a second; then its name server takes its time."""
    service = make(internet.config, workers=1).start()

    def sent() -> dict[str, object]:
        assert "forecast=2.0.0; reason=ok; " in service.send(RENEWING)[0]
        return service.events("recipient")[-1]

    assert "stale" not in sent()
    internet.dns.latency = 0.2
    try:
        time.sleep(1.1)
        line = sent()
        assert cast(int, line["stale"]) >= 1
        assert cast(float, line["waited"]) < internet.dns.latency
        eventually(lambda: "stale" not in sent(), what="the fresh one is there")
    finally:
        internet.dns.latency = 0.0
    stale = 'cache_requests_total{layer="forecast",result="stale"}'
    eventually(lambda: service.metric(stale) >= 1)


def test_with_stale_for_0_it_is_waited_for(make: Make, internet: Internet) -> None:
    service = make(internet.config, workers=1)
    text = service.config_path.read_text()
    service.config_path.write_text(text.replace("[engine]\n", "[engine]\nstale_for = 0\n"))
    service.start()
    service.send(RENEWING)
    internet.dns.latency = 0.2
    try:
        time.sleep(1.1)
        service.send(RENEWING)
    finally:
        internet.dns.latency = 0.0
    line = service.events("recipient")[-1]
    assert "stale" not in line
    assert line["waited"] > 0.2


def test_what_is_lost_is_deferred_for_its_grace_and_told_then_refused(
    make: Make, internet: Internet
) -> None:
    """Of a server that offered REQUIRETLS until now: 451, in any worker, and counted once."""
    rules = '[rules]\nmode = "reject"\ndowngrade_grace = 10\n'
    service = make(internet.config + rules, workers=2).start()
    assert "forecast=2.0.0" in service.send(RENEWING)[0]
    refused = "7.30 REQUIRETLS cannot be honoured for renewing.test: mx.renewing.test does not"
    internet.renewing.ehlo_tls = WITHOUT_REQUIRETLS
    try:
        look_again(service)
        assert rcpt(service, RENEWING) == (
            f"451 4.{refused} offer REQUIRETLS; until recently more was offered there"
        )
        (told,) = service.events("downgrade")
        assert (told["kind"], told["subject"]) == ("requiretls", "mx.renewing.test")
        for _ in range(4):  # looked at again and again
            look_again(service)
            assert rcpt(service, RENEWING).startswith(f"451 4.{refused}")
        eventually(lambda: service.metric('downgrades_total{kind="requiretls"}') == 1)
        lines = [line for line in service.events("recipient") if line["why"] == "downgrade"]
        assert all(1 <= line["downgraded"] <= 10 for line in lines)
        eventually(lambda: rcpt(service, RENEWING).startswith(f"550 5.{refused}"), wait=40)
        assert len(service.events("downgrade")) == 1
    finally:
        internet.renewing.ehlo_tls = EHLO_TLS
    look_again(service)
    assert rcpt(service, RENEWING) == "continue"
    assert [line["kind"] for line in service.events("restored")] == ["requiretls"]


def test_what_cannot_be_reached_is_not_lost(make: Make, internet: Internet) -> None:
    """A server that hangs up, and a resolver that fails: deferred by the MTA, no downgrade."""
    service = make(internet.config + '[rules]\nmode = "reject"\n', workers=1).start()
    assert "forecast=2.0.0" in service.send(RENEWING)[0]
    records = internet.dns.script.copy()
    internet.renewing.banner = Close
    try:
        look_again(service)
        assert "forecast=4.4.2" in service.send(RENEWING)[0]
        for name, kind in records:
            if name.endswith("renewing.test") and kind in ("MX", "TLSA"):
                internet.dns.set(name, kind, failure())
        look_again(service)
        assert "dns_failure" in service.send(RENEWING)[0]
    finally:
        internet.renewing.banner = b"220 mx.example.net ESMTP\r\n"
        internet.dns.script.update(records)
    assert service.events("downgrade") == []
    for kind in Feature:
        assert service.metric(f'downgrades_total{{kind="{kind}"}}') == 0


def look_again(service: Service) -> None:
    """What is known of a server lives for an hour; this is `check --refresh`.

    The forecast that a worker keeps lives as long as the records: a second.
    """
    asyncio.run(query.evidence(str(service.engine_path), "renewing.test", refresh=True))
    time.sleep(1.1)


def rcpt(service: Service, recipient: str) -> str:
    """The answer to a recipient of a message that asks REQUIRETLS."""
    with service.client() as session:
        outcome = session.message("<alice@example.net>", [recipient], parameters=["REQUIRETLS"])
    return outcome.rcpt[0].text or outcome.rcpt[0].kind


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_log_of_a_service_that_only_looks_tells_which_mail_a_stricter_mode_would_hit(
    make: Make, internet: Internet, form: str
) -> None:
    service = make(internet.config, workers=2)
    written = service.config_path.read_text()
    service.config_path.write_text(written.replace('format = "json"', f'format = "{form}"'))
    service.start()
    for recipient in ("<bob@good.test>", "<eve@lacking.test>", "<eva@lacking.test>"):
        service.send(recipient)
    told = service.report("--would-have", str(service.directory / "log"))
    rejected = {mode["mode"]: mode for mode in told}["reject"]
    assert rejected["domains"] == {
        "lacking.test": {
            "refused": 2,
            "deferred": 0,
            "reasons": {"requiretls_not_offered": 2},
            "messages": [MACROS["i"]],  # that of each message here
        }
    }


def test_a_configured_domain_is_shown_ready_without_any_mail(
    make: Make, internet: Internet
) -> None:
    rules = "".join(
        f'[rules.recipient."{domain}"]\nmode = "monitor"\n'
        for domain in ("good.test", "lacking.test", ".good.test")
    )
    service = make(internet.config + rules, workers=1).start()
    eventually(lambda: service.metric('domain_ready{domain="good.test"}') == 1)
    eventually(lambda: service.metric('assessments_total{result="bounce"}') == 1)
    assert service.metric('domain_ready{domain="lacking.test"}') == 0
    assert ready(service) == {"good.test": 1, "lacking.test": 0}, "and no wildcard"


def test_a_domain_is_ready_as_the_mta_of_this_host_and_its_rule_have_it(
    make: Make, internet: Internet
) -> None:
    rules = '[rules.recipient."lacking.test"]\non_noncompliant = "accept"\n'
    service = make(internet.config + rules, workers=1).start()
    eventually(lambda: service.metric('domain_ready{domain="lacking.test"}') == 0)
    # An MTA that does not know REQUIRETLS delivers there, and the rule says that it may.
    with service.client({**MACROS, "v": "Postfix 3.7.11"}) as client:
        client.message("<a@example.net>", ["<b@lacking.test>"])
    eventually(lambda: service.metric('domain_ready{domain="lacking.test"}') == 1)


def test_a_reload_leaves_domain_ready_as_it_is_but_for_domains_that_have_gone(
    make: Make, internet: Internet
) -> None:
    def rules(*domains: str) -> str:
        return "".join(f'[rules.recipient."{name}"]\nmode = "monitor"\n' for name in domains)

    service = make(internet.config + rules("good.test", "lacking.test"), workers=1).start()
    expected = {"good.test": 1, "lacking.test": 0}
    eventually(lambda: ready(service) == expected, lambda: f"{ready(service)}")
    # From now on good.test cannot be looked up, and what was known of it is forgotten.
    mx = internet.dns.script["good.test", "MX"]
    internet.dns.set("good.test", "MX", SILENT)
    try:
        again = internet.config.replace("timeout = 2", "timeout = 3")
        service.configure(again + rules("later.test", "good.test"))
        service.send_signal(signal.SIGHUP)
        eventually(lambda: service.events("reloaded"), what="the reload")
        eventually(lambda: "lacking.test" not in ready(service), what="it is gone")
        assert ready(service)["good.test"] == 1
    finally:
        internet.dns.script["good.test", "MX"] = mx


def ready(service: Service) -> dict[str, float]:
    """Each domain that ``domain_ready`` shows."""
    found = re.findall(r'_domain_ready\{domain="(.+)"\} (\S+)', service.http())
    return {domain: float(value) for domain, value in found}


def test_the_command_line_shares_the_evidence_of_the_running_engine(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config, workers=1).start()
    path = str(service.engine_path)
    status = query.status(path)
    assert status.workers == ("worker-1",)
    assert status.pid == service.children["engine"]
    before = internet.good.connections
    (probe,) = asyncio.run(query.evidence(path, "good.test")).hosts[0].probes
    assert probe.stage is ProbeStage.DONE
    assert probe.requiretls
    assert probe.chain
    assert asyncio.run(query.evidence(path, "good.test")).hosts[0].probes == (probe,)
    assert internet.good.connections == before + 1
    (again,) = asyncio.run(query.evidence(path, "good.test", refresh=True)).hosts[0].probes
    assert internet.good.connections == before + 2
    assert again.probed_at > probe.probed_at


def test_a_new_ca_file_that_cannot_be_used_leaves_the_old_configuration_in_force(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config, workers=1).start()
    broken = service.directory / "ca.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    service.configure(internet.config.replace(str(internet.ca_file), str(broken)))
    service.send_signal(signal.SIGHUP)
    eventually(lambda: service.events("reload_failed"))
    assert str(broken) in service.events("reload_failed")[0]["error"]
    (tag,) = service.send("<bob@good.test>")
    assert "forecast=2.0.0" in tag
    eventually(lambda: service.metric("config_last_reload_successful") == 0)


def test_a_reload_reads_the_authorities_again(
    make: Make, internet: Internet, tmp_path: Path
) -> None:
    """One that was taken off the file vouches for nothing from then on."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(internet.ca_file.read_bytes())
    pkix = internet.config.replace('"dane"', '"secure"').replace(
        str(internet.ca_file), str(ca_file)
    )
    service = make(pkix, workers=1).start()
    assert "forecast=2.0.0; reason=ok" in service.send("<bob@good.test>")[0]
    ca_file.write_bytes(Authority(tmp_path, "Another CA").path.read_bytes())
    service.send_signal(signal.SIGHUP)
    eventually(lambda: service.events("reloaded"))
    (tag,) = service.send("<bob@good.test>")
    assert "forecast=5.7.10; reason=certificate_not_verified" in tag


def test_an_authority_that_has_expired_vouches_for_nothing_although_the_server_did_not_send_it(
    make: Make, internet: Internet, tmp_path: Path
) -> None:
    """All else that is known is good for minutes, the server's certificate for weeks."""
    lifetime = datetime.timedelta(seconds=15)
    ending = internet.authority.certified(lifetime)
    until = time.time() + lifetime.total_seconds()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(ending.public_bytes(serialization.Encoding.PEM))
    pkix = internet.config.replace('"dane"', '"secure"')
    service = make(pkix.replace(str(internet.ca_file), str(ca_file)), workers=1).start()
    assert "forecast=2.0.0; reason=ok" in service.send("<bob@good.test>")[0]
    eventually(lambda: time.time() > until)
    (tag,) = service.send("<bob@good.test>")
    assert "forecast=5.7.10; reason=certificate_not_verified" in tag


def test_the_engine_keeps_the_limits_of_the_configuration(make: Make, internet: Internet) -> None:
    limits = "[limits]\nmetrics_connections = 1\ngatherings = 1\n"
    service = make(internet.config + limits, workers=1).start()
    with socket.create_connection(("127.0.0.1", service.metrics_port)) as idle:
        eventually(lambda: service.http("/healthz") == "ok\n")
        assert idle.recv(1) == b""  # closed in favour of the one that has come to ask
    eventually(lambda: service.metric('saturated_total{bound="metrics_connections"}') >= 1)
    internet.dns.set("one.test", "MX", SILENT)
    internet.dns.set("two.test", "MX", SILENT)
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@one.test>")
        client.rcpt("<bob@two.test>")  # while the first one is still being looked at
    eventually(lambda: service.metric('saturated_total{bound="gatherings"}') >= 1)


def test_a_reload_takes_new_limits_and_tells_which_wait_for_a_restart(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config, workers=1).start()
    assert "forecast=2.0.0" in service.send("<bob@good.test>")[0]
    assert service.metric('cache_entries{layer="host"}') > 0
    service.configure(internet.config + "[limits]\nprobes = 3\nquestions = 99\n")
    service.send_signal(signal.SIGHUP)
    eventually(lambda: service.events("reloaded"))
    assert [line["key"] for line in service.events("needs_restart")] == ["limits.questions"]
    assert service.metric('cache_entries{layer="host"}') == 0  # another engine's heart
    assert "forecast=2.0.0" in service.send("<bob@good.test>")[0]


def test_a_reload_judges_anew(make: Make, internet: Internet) -> None:
    service = make(internet.config, workers=1).start()
    assert "forecast=2.0.0" in service.send("<bob@good.test>")[0]
    service.configure(internet.config.replace('"dane"', '"may"'))
    service.send_signal(signal.SIGHUP)
    eventually(lambda: service.events("reloaded"))
    assert "forecast=5.7.10" in service.send("<bob@good.test>")[0]


def test_a_resolver_that_validates_is_shown(make: Make, internet: Internet) -> None:
    service = make(internet.config, workers=1).start()
    eventually(lambda: service.metric("resolver_validates") == 1)
