"""The service watches our own servers: what breaks is told within one round."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.authority import DAY
from tests.support.dnsserver import found, nodata
from tests.support.domains import Domains
from tests.support.mailbox import Mailbox
from tests.support.service import Service
from tests.support.smtpserver import EHLO, SmtpServer
from tests.support.waiting import until

WITHOUT_STARTTLS = b"250-mx.own.test hello\r\n250 SIZE 1000\r\n"
INTERVAL = 5
SERVER = '{domain="own.test",host="mx.own.test"}'

Make = Callable[..., Service]


def problem(word: str) -> str:
    return f'watched_problem{{domain="own.test",problem="{word}"}}'


class Own:
    """``own.test``: a server, a policy host, and a service that watches them."""

    def __init__(self, world: Domains, make: Make, directory: Path) -> None:
        self.world = world
        self.make = make
        self.told = directory / "told"

    async def publish(self) -> None:
        self.server: SmtpServer = await self.world.server("mx.own.test")
        self.world.mx("own.test", "mx.own.test")
        for name in ("mx.own.test", "own.test"):
            self.world.dns.set(f"_smtp._tls.{name}", "TXT", nodata())

    async def start(self, *, policy_port: int = 1, more: str = "") -> Service:
        notify = f"/bin/sh -c 'cat >> {self.told}'"
        config = f"""
[mta]
tls_security_level = "dane"
[dns]
nameservers = ["{self.world.dns.address}"]
timeout = 2
[probe]
port = {self.server.port}
ca_file = "{self.world.authority.path}"
allow_networks = ["127.0.0.0/8"]
[watch]
domains = ["own.test"]
interval = {INTERVAL}
notify = "{notify}"
{more}
"""
        limits = {
            "evidence.policyhost.HTTPS_PORT": policy_port,
            "engine.watched.mailing.COLLECT": 0.1,
        }
        service = self.make(config, workers=1, limits=limits)
        state = self.told.with_name("state.db")
        text = service.config_path.read_text()
        service.config_path.write_text(text.replace("memory:", f"sqlite:///{state}"))
        await asyncio.to_thread(service.start)
        self.service = service
        return service

    async def metric(self, series: str) -> float:
        return await asyncio.to_thread(self.service.metric, series)

    async def shown(self, series: str, value: float) -> None:
        """Wait until a metric has a value; NaN for none."""
        async with asyncio.timeout(INTERVAL + 10):
            while True:
                now = await self.metric(series)
                if now == value or (math.isnan(now) and math.isnan(value)):
                    return
                await asyncio.sleep(0.1)

    def changes(self) -> list[dict[str, Any]]:
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
async def own(world: Domains, make: Make, tmp_path: Path) -> Own:
    one = Own(world, make, tmp_path)
    await one.publish()
    return one


async def test_a_server_that_loses_starttls_is_told_within_one_round(own: Own) -> None:
    service = await own.start()
    await own.shown(f"watched_server_ready{SERVER}", 1.0)
    assert own.changes() == []
    own.server.ehlo = WITHOUT_STARTTLS
    loop = asyncio.get_running_loop()
    lost_at = loop.time()
    await own.shown(f"watched_server_ready{SERVER}", 0.0)
    assert loop.time() - lost_at < 2 * INTERVAL
    assert await own.metric(problem("starttls_not_offered")) == 1.0
    (line,) = [one for one in service.events("watched_problem") if one["severity"] == "broken"]
    assert (line["domain"], line["host"]) == ("own.test", "mx.own.test")
    assert line["problem"] == "starttls_not_offered"
    await until(own.changes)
    (change,) = own.changes()
    assert change["appeared"][0]["problem"] == "starttls_not_offered"
    assert change["report"]["servers"][0]["ready"] is False
    own.server.ehlo = EHLO
    service.send_signal(signal.SIGHUP)  # a round begins at once
    await own.shown(f"watched_server_ready{SERVER}", 1.0)
    await until(lambda: len(own.changes()) == 2)
    assert own.changes()[1]["ended"][0]["problem"] == "starttls_not_offered"
    await own.shown('watch_notifications_total{result="told"}', 2.0)


async def test_a_change_is_mailed_and_not_told_again_by_the_next_engine(own: Own) -> None:
    async with Mailbox() as box:
        more = f'mail_to = ["postmaster@own.test"]\nmail_server = "127.0.0.1:{box.port}"'
        service = await own.start(more=more)
        await own.shown(f"watched_server_ready{SERVER}", 1.0)
        own.server.ehlo = WITHOUT_STARTTLS
        await until(lambda: box.mails and own.changes())
        assert box.mails[0]["Subject"] == "own.test: 1 new problem, 0 ended"
        assert "starttls_not_offered" in box.mails[0].get_content()
        await asyncio.to_thread(service.replaced, "engine", service.kill("engine"))
        await own.shown(f"watched_server_ready{SERVER}", 0.0)
        own.server.ehlo = EHLO
        service.send_signal(signal.SIGHUP)  # a round begins at once
        await until(lambda: len(box.mails) == 2)
        assert box.mails[1]["Subject"] == "own.test: 0 new problems, 1 ended"
        _, last = own.changes()
        assert "starttls_not_offered" in [one["problem"] for one in last["ended"]]


async def test_a_record_and_a_certificate_and_a_policy_host_are_told_at_once(own: Own) -> None:
    issued = own.world.authority.issue("mx.own.test", start=-76 * DAY, end=14 * DAY)
    own.server.tls = issued.server_context()  # the TLSA record is that of another one
    name = "mta-sts.own.test"
    own.world.address(name, "127.0.0.1")
    record = '_mta-sts.own.test. 300 IN TXT "v=STSv1; id=1"'
    own.world.dns.set("_mta-sts.own.test", "TXT", found(record))

    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    expired = own.world.authority.issue(name, start=-90 * DAY, end=-DAY)
    runner = web.ServerRunner(web.Server(refuse), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=expired.server_context()).start()
    try:
        await own.start(policy_port=runner.addresses[0][1])
        for word in (
            "tlsa_does_not_match",
            "certificate_expires",
            "policy_host_fails",
            "policy_certificate_expired",
        ):
            await own.shown(problem(word), 1.0)
    finally:
        await runner.cleanup()
    assert await own.metric(f"watched_server_ready{SERVER}") == 0.0
    end = issued.certificate.not_valid_after_utc.timestamp()
    assert await own.metric(f"watched_certificate_expiry_timestamp_seconds{SERVER}") == end


async def test_a_domain_that_is_watched_no_more_is_not_shown(own: Own) -> None:
    service = await own.start()
    await own.shown(f"watched_server_ready{SERVER}", 1.0)
    text = service.config_path.read_text().replace('domains = ["own.test"]', "domains = []")
    service.config_path.write_text(text)
    service.send_signal(signal.SIGHUP)
    await own.shown(f"watched_server_ready{SERVER}", math.nan)
