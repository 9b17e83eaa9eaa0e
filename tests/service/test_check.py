from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from requiretls_milter import config as configuration
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.server import EngineServer
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.command import command, start
from tests.support.domains import Domains
from tests.support.engineview import SetEngine
from tests.support.limiters import limiters

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
NO_REQUIRETLS = b"250 mx.test\r\n"


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def good(world: Domains) -> str:
    server = await world.server("mx.good.test")
    return f"[mx.good.test]:{server.port}"


async def bad(world: Domains) -> str:
    server = await world.server("mx.bad.test", ehlo_tls=NO_REQUIRETLS)
    return f"[mx.bad.test]:{server.port}"


def down(world: Domains) -> str:
    port = closed_port()
    world.down("mx.down.test", port)
    return f"[mx.down.test]:{port}"


# ---------------------------------------------------------------- exit status


async def test_a_delivery_that_would_be_made_is_status_0(world: Domains) -> None:
    done = await command("check", await good(world), "--config", world.config())
    assert done.status == 0, done
    assert done.err == ""


async def test_a_delivery_that_would_fail_for_good_is_status_1(world: Domains) -> None:
    done = await command("check", await bad(world), "--config", world.config())
    assert done.status == 1, done


async def test_a_delivery_that_would_be_deferred_is_status_75(world: Domains) -> None:
    done = await command("check", down(world), "--config", world.config())
    assert done.status == 75, done


async def test_what_is_not_known_is_status_75(world: Domains) -> None:
    config = world.config("probe.enabled = false")
    done = await command("check", await good(world), "--config", config, "--format", "json")
    assert done.status == 75, done
    assert done.json[0]["forecast"]["outcome"] == "unknown"


async def test_the_worst_of_several_is_the_status(world: Domains) -> None:
    config = world.config()
    fine, wrong, away = await good(world), await bad(world), down(world)
    assert (await command("check", fine, away, "--config", config)).status == 75
    assert (await command("check", away, wrong, fine, "--config", config)).status == 1


async def test_a_noncompliant_delivery_is_status_0(world: Domains) -> None:
    # the MX is unsigned, the host's TLSA records are not: Postfix delivers, the RFC would not
    server = await world.server("mx.half.test")
    world.mx("half.test", "mx.half.test")
    world.dns.script["half.test", "MX"].ad = False
    config = world.config(f"probe.port = {server.port}")
    done = await command("check", "half.test", "--config", config, "--format", "json")
    assert done.status == 0, done
    (report,) = done.json
    assert report["forecast"]["compliant"] is False
    assert report["forecast"]["reason"] == "noncompliant_mx_insecure"
    assert report["rfc8689"] == {"status": "5.7.10", "reason": "mx_lookup_insecure"}


async def test_a_malformed_next_hop_is_status_2_and_nothing_is_asked(world: Domains) -> None:
    done = await command("check", "good.test", "[a", "b..c", "--config", world.config())
    assert done.status == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 2
    assert world.dns.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "a.test", "--format", "xml"],
        ["check", "a.test", "--requirement", "maybe"],
        ["check", "a.test", "--config", "/nonexistent.toml"],
        ["check", "--frobnicate", "a.test"],
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = await command(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err


async def test_ctrl_c_is_no_verdict(world: Domains) -> None:
    connected = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    world.address("mx.slow.test", "127.0.0.1")
    config = world.config(timeout=60)
    process = await start("check", f"[mx.slow.test]:{port}", "--config", config)
    await connected.wait()
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    server.close()
    assert process.returncode == 130
    assert out == b""


# ---------------------------------------------------------------- JSON


async def test_json_has_the_promised_keys_and_nothing_else(world: Domains) -> None:
    server = await world.server("mx.good.test")
    world.mx("good.test", "mx.good.test")
    config = world.config(f"probe.port = {server.port}")
    done = await command("check", "Good.TEST", "--config", config, "--format", "json")
    (report,) = done.json
    valid_until = report["forecast"].pop("valid_until")
    assert TIME.fullmatch(valid_until)
    (record,) = report["hosts"][0].pop("tlsa")
    assert re.fullmatch(r"3 1 1 [0-9a-f]{64}", record)
    seen = {
        "starttls": "offered",
        "tls_version": "TLSv1.3",
        "certificate": {"verified_by": "dane", "error": None},
        "requiretls": True,
        "status": "2.0.0",
        "reason": "ok",
    }
    for times in (report, report["hosts"][0], report["hosts"][0]["addresses"][0]):
        for key in [key for key in times if key.endswith("observed_at")]:
            assert TIME.fullmatch(times.pop(key))
    assert report == {
        "nexthop": "Good.TEST",
        "observed_by": "command",
        "resolver_validates": True,
        "requirement": "requiretls",
        "carried": "requiretls",
        "carried_by": "configuration",
        "mta": None,
        "rule": {
            "mode": "monitor",
            "on_noncompliant": "accept",
            "action": "accept",
            "why": "mode",
            "reply": None,
        },
        "forecast": {
            "status": "2.0.0",
            "outcome": "deliver",
            "compliant": True,
            "reason": "ok",
            "text": "mx.good.test[127.0.0.1] would take the message over TLS verified at level "
            "dane",
            "mx": "mx.good.test",
            "tls": "dane/requiretls",
        },
        "rfc8689": {"status": "2.0.0", "reason": "ok"},
        "mx_lookup_secure": True,
        "mta_sts": None,
        "mta_sts_error": None,
        "hosts": [
            {
                "host": "mx.good.test",
                "preference": 10,
                "secure": True,
                "mta_sts_match": None,
                **seen,
                "addresses": [{"address": "127.0.0.1", **seen, "details": None}],
            }
        ],
    }


async def test_json_has_an_object_for_each_next_hop_in_order(world: Domains) -> None:
    fine, wrong = await good(world), await bad(world)
    config = world.config()
    asked = [wrong, fine, wrong]
    done = await command("check", *asked, "--config", config, "--format", "json")
    assert [report["nexthop"] for report in done.json] == asked
    assert [report["forecast"]["status"] for report in done.json] == ["5.7.30", "2.0.0", "5.7.30"]


async def test_the_requirement_is_taken_as_carried(world: Domains) -> None:
    wrong = await bad(world)
    config = world.config()
    for requirement, status in (("none", 0), ("tls-required-no", 0), ("requiretls", 1)):
        done = await command(
            *("check", wrong, "--config", config),
            *("--requirement", requirement, "--format", "json"),
        )
        assert done.status == status, done
        assert done.json[0]["requirement"] == requirement


async def test_the_transport_decides_how_it_is_judged(world: Domains) -> None:
    wrong = await bad(world)
    config = world.config('[mta.transport.lax]\nrequiretls_policy = "opportunistic"')
    assert (await command("check", wrong, "--config", config)).status == 1
    assert (await command("check", wrong, "--config", config, "--transport", "lax")).status == 0


async def test_a_next_hop_that_postfix_cannot_use_is_told(world: Domains) -> None:
    done = await command("check", "inet:[192.0.2.1]", "--config", world.config())
    assert done.status == 2
    assert "Postfix cannot use such a next hop" in done.err


async def test_each_next_hop_of_a_list_is_assessed(world: Domains) -> None:
    wrong = await bad(world)
    done = await command(
        "check", f"{wrong}, {wrong}", "--config", world.config(), "--format", "json"
    )
    assert [report["nexthop"] for report in done.json] == [wrong, wrong]


async def test_without_a_transport_that_of_default_transport_is_assumed(world: Domains) -> None:
    wrong = await bad(world)
    config = world.config(
        'mta.default_transport = "lax:"\nmta.transport.lax.requiretls_policy = "opportunistic"'
    )
    assert (await command("check", wrong, "--config", config)).status == 0
    assert (await command("check", wrong, "--config", config, "--transport", "smtp")).status == 1


async def test_all_servers_are_looked_at_also_where_the_mta_would_not_connect(
    world: Domains,
) -> None:
    server = await world.server("mx.good.test")
    config = world.config('mta.tls_security_level = "may"'.replace("mta.", "mta.transport.may."))
    done = await command(
        *("check", f"[mx.good.test]:{server.port}", "--config", config),
        *("--transport", "may", "--format", "json"),
    )
    (report,) = done.json
    assert report["forecast"]["reason"] == "tls_level_does_not_verify"
    assert report["rfc8689"] == {"status": "2.0.0", "reason": "ok"}
    assert report["hosts"][0]["requiretls"] is True


# ---------------------------------------------------------------- text


async def test_text_tells_host_by_host_then_both_verdicts_then_why(world: Domains) -> None:
    server = await world.server("mx1.mixed.test", ehlo_tls=NO_REQUIRETLS)
    world.down("mx2.mixed.test", server.port, "127.0.0.9")
    world.mx("mixed.test", "mx1.mixed.test", "mx2.mixed.test")
    config = world.config(f"probe.port = {server.port}")
    done = await command("check", "mixed.test", "--config", config)
    assert done.status == 75
    parts = [
        "mixed.test",
        "MX lookup signed, MTA-STS none",
        "10  mx1.mixed.test  address signed",
        "TLSA 3 1 1 ",
        "127.0.0.1  TLSv1.3  verified by DANE  no REQUIRETLS  5.7.30 requiretls_not_offered",
        "20  mx2.mixed.test  address signed",
        "127.0.0.9  unreachable",
        "Forecast  4.4.1  would be deferred: unreachable",
        "RFC 8689  4.4.1  unreachable",
        "Why",
        "No connection to mx2.mixed.test[127.0.0.9]",
    ]
    position = 0
    for part in parts:
        assert part in done.out[position:], done.out
        position = done.out.index(part, position) + len(part)


MARKUP = "no [/] [green]2.0.0 all well[/] [link=http://evil.example]see[/link] :smile:"


async def test_r62_what_a_server_says_is_no_markup_of_the_terminal(world: Domains) -> None:
    server = await world.server("mx.markup.test", banner=f"554 {MARKUP}\r\n".encode())
    world.mx("markup.test", "mx.markup.test")
    config = world.config(f"probe.port = {server.port}")
    done = await command("check", "markup.test", "--config", config)
    assert done.status == 75
    assert MARKUP in " ".join(done.out.split())


async def test_text_for_a_pipe_is_plain_and_fits(world: Domains) -> None:
    done = await command("check", await good(world), "--config", world.config())
    assert "\x1b" not in done.out
    assert all(len(line) <= 100 and line == line.rstrip() for line in done.out.splitlines())


# ---------------------------------------------------------------- this host


async def test_it_is_judged_with_what_the_mta_carries(world: Domains) -> None:
    hop = await bad(world)
    carries = world.config('mta.carries = "nothing"')
    done = await command("check", hop, "--config", carries, "--format", "json")
    assert done.status == 0, done
    (report,) = done.json
    assert (report["carried"], report["carried_by"]) == ("none", "configuration")
    assert report["forecast"]["reason"] == "noncompliant_not_offered"
    what_if = await command("check", hop, "--config", carries, "--carried", "requiretls")
    assert what_if.status == 1, what_if
    assert "as --carried says" in what_if.out


async def test_it_is_judged_by_the_rule_of_the_domain(world: Domains) -> None:
    server = await world.server("mx.bad.test", ehlo_tls=NO_REQUIRETLS)
    world.mx("bad.test", "mx.bad.test")
    config = world.config(
        f"probe.port = {server.port}",
        'mta.carries = "nothing"',
        'rules.recipient."bad.test".mode = "reject"',
    )
    done = await command("check", "bad.test", "--config", config)
    assert done.status == 1, done
    assert "mode reject: the milter answers 550 5.7.30" in done.out
    report = await command("report", "--config", config)
    assert (
        report.out == "bad.test: 2.0.0 noncompliant_not_offered; mode reject, answered 550 5.7.30\n"
    )


# ---------------------------------------------------------------- the engine of a running service


class Warm:
    """The engine of a running service, with a configuration of its own."""

    def __init__(self, config: configuration.Config) -> None:
        trust = load_trust_store(config.probe.ca_file)
        live = Collector(config, trust, limiters=limiters())
        self.source = CachedSource(
            live, MemoryStore(), config, Counters(), authorities=trust.digest
        )
        self.assessor = Assessor(config, self.source, trust, Counters(), Gauges())
        engine = SetEngine(self.assessor, assessment_digest=config.assessment_digest(trust.digest))
        self.server = EngineServer(config.engine.socket, engine)

    async def __aenter__(self) -> Warm:
        await self.server.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()
        await self.assessor.close()
        await self.source.close()


async def test_a_running_engine_with_the_same_settings_is_asked(world: Domains) -> None:
    server = await world.server("mx.good.test")
    hop = f"[mx.good.test]:{server.port}"
    path = world.config("milter.workers = 4")
    observed = set()
    async with Warm(configuration.load(Path(path))):
        for _ in range(2):
            done = await command("check", hop, "--config", path, "--format", "json")
            assert done.status == 0, done
            assert done.json[0]["nexthop"] == hop
            assert done.json[0]["observed_by"] == "service"
            observed.add(done.json[0]["hosts"][0]["addresses"][0]["observed_at"])
        assert server.connections == 1  # the second time it was known
        assert len(observed) == 1, "it is as old as it is"
        await command("check", hop, "--config", path, "--refresh")
        assert server.connections == 2


async def test_an_engine_with_other_settings_is_not_asked(world: Domains) -> None:
    server = await world.server("mx.good.test")
    hop = f"[mx.good.test]:{server.port}"
    theirs = world.config("mta.mx_address_limit = 1", name="theirs.toml")
    async with Warm(configuration.load(Path(theirs))):
        for _ in range(2):
            done = await command("check", hop, "--config", world.config())
            assert done.status == 0, done
        assert server.connections == 2


async def test_an_engine_that_does_not_answer_delays_little(world: Domains) -> None:
    fine = await good(world)
    path = world.config()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(world.directory / "engine.sock"))
        mute.listen()
        began = time.monotonic()
        done = await command("check", fine, "--config", path)
    assert done.status == 0, done
    assert time.monotonic() - began < 10
