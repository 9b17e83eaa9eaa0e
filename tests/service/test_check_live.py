"""``check`` as it runs: results as they come, files of next hops, watching, what -v shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from requiretls_milter.evidence.selftest import BOGUS_NAMES
from requiretls_milter.reports.finder import AT_ONCE, KEPT
from tests.support.command import PROGRAM, command
from tests.support.dnsserver import SILENT, failure, found, nodata
from tests.support.domains import Domains
from tests.support.memory import resident
from tests.support.paths import REPOSITORY
from tests.support.service import WITH_LIMITS
from tests.support.waiting import PATIENCE, until

NO_REQUIRETLS = b"250 mx.test\r\n"
MANY = int(os.environ.get("CHECK_DOMAINS", "240"))
"""Domains of the long list; ``make test-long`` has 1,000."""


@contextlib.asynccontextmanager
async def running(
    *arguments: str, program: Sequence[str] = PROGRAM, **streams: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program, and end it if it goes on."""
    process = await asyncio.create_subprocess_exec(
        *program, *arguments, cwd=REPOSITORY, limit=1 << 20, **streams
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def served(world: Domains, name: str, **replies: Any) -> str:
    server = await world.server(f"mx.{name}", **replies)
    return f"[mx.{name}]:{server.port}"


class Tarpit:
    """A server that takes connections and says nothing; at an address of its own."""

    def __init__(self, world: Domains, name: str) -> None:
        self._world, self._name = world, name
        self.called = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._hang, "127.0.0.9", 0)
        self._world.address(self._name, "127.0.0.9")
        return f"[{self._name}]:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        await reader.read()
        writer.close()


# ---------------------------------------------------------------- as soon as it is known


@pytest.mark.parametrize("output", ["text", "jsonl"])
async def test_a_next_hop_is_shown_while_another_one_keeps_us_waiting(
    world: Domains, output: str
) -> None:
    fine = await served(world, "good.test")
    async with Tarpit(world, "mx.slow.test") as slow:
        arguments = ["check", slow, fine, "--config", world.config(timeout=60)]
        pipe = asyncio.subprocess.PIPE
        async with running(*arguments, "--format", output, stdout=pipe) as process:
            assert process.stdout is not None
            first = (await process.stdout.readline()).decode()
            assert process.returncode is None
            assert "mx.good.test" in first
            assert "mx.slow.test" not in first


async def test_lines_from_a_pipe_are_answered_one_by_one(world: Domains) -> None:
    fine, other = await served(world, "good.test"), await served(world, "other.test")
    pipe = asyncio.subprocess.PIPE
    arguments = ["check", "--from", "-", "--format", "jsonl", "--config", world.config()]
    async with running(*arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for hop in (fine, other):
            process.stdin.write(f"{hop}\n".encode())
            assert json.loads(await process.stdout.readline())["nexthop"] == hop
        process.stdin.close()
        assert await process.wait() == 0


async def test_a_silent_pipe_does_not_keep_ctrl_c_from_ending_it(world: Domains) -> None:
    fine = await served(world, "good.test")
    pipe = asyncio.subprocess.PIPE
    arguments = ["check", fine, "--from", "-", "--config", world.config()]
    async with running(*arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert process.stderr is not None
        assert (await process.stderr.read()).strip() == b""


# ---------------------------------------------------------------- files


async def test_a_file_has_a_line_for_each_next_hop_and_a_summary(world: Domains) -> None:
    fine = await served(world, "good.test")
    wrong = await served(world, "bad.test", ehlo_tls=NO_REQUIRETLS)
    listed = world.directory / "domains.txt"
    listed.write_text(f"# partners\n\n{fine}\n  {wrong}, {fine}  \n")
    done = await command("check", "--from", str(listed), "--config", world.config())
    assert done.status == 1, done
    lines = done.out.splitlines()
    assert sorted(lines[:3]) == sorted(
        [
            f"{fine}  2.0.0 ok: mx.good.test[127.0.0.1] would take the message over TLS "
            "verified at level dane",
        ]
        * 2
        + [
            f"{wrong}  5.7.30 requiretls_not_offered: mx.bad.test[127.0.0.1] does not offer "
            "REQUIRETLS"
        ]
    )
    assert lines[3].startswith("3 next hops in ")
    assert "2 would be delivered, 1 would fail permanently, 0 would be deferred" in lines[3]
    assert [line.split() for line in lines[4:]] == [
        ["2", "2.0.0", "ok"],
        ["1", "5.7.30", "requiretls_not_offered"],
    ]
    assert done.err == ""


async def test_a_line_that_is_no_next_hop_is_told_with_its_number_and_the_others_go_on(
    world: Domains,
) -> None:
    fine = await served(world, "good.test")
    listed = world.directory / "domains.txt"
    listed.write_bytes(f"a..b\n{fine}\n".encode() + b"\xff\xfe.test\n" + b"a" * 5_000 + b"\n[x\n")
    done = await command(
        "check", "--from", str(listed), "--format", "jsonl", "--config", world.config()
    )
    assert done.status == 2
    assert json.loads(done.out)["nexthop"] == fine
    told = done.err.splitlines()
    assert [line.split(": ")[:2] for line in told[:4]] == [
        ["error", f"line {number}"] for number in (1, 3, 4, 5)
    ]
    assert "more than 1024 characters" in told[2]
    assert "4 malformed" in told[4], "JSON lines are not mixed with the summary"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "/nonexistent"],
        ["a.test", "--watch", "5", "--format", "json"],
        ["a.test", "--watch", "0"],
    ],
)
async def test_what_cannot_be_done_is_wrong_usage(arguments: list[str]) -> None:
    done = await command("check", *arguments)
    assert done.status == 2
    assert done.out == ""
    assert "Error: " in done.err


async def many_domains(world: Domains) -> tuple[str, str]:
    """A list of domains with a server name each, and a configuration that knows them."""
    server = await world.server("mx.many.test")
    issued = world.authority.issue("mx.many.test")
    listed = world.directory / "domains.txt"
    for number in range(MANY):
        host = f"mx.d{number}.test"
        world.mx(f"d{number}.test", host)
        world.address(host, "127.0.0.1")
        world.tlsa(host, server.port, issued)
    listed.write_text("".join(f"d{number}.test\n" for number in range(MANY)))
    limits = ("address_per_minute", "address_per_hour", "network_per_minute")
    config = world.config(
        f"probe.port = {server.port}", *(f"limits.{name} = 100000" for name in limits)
    )
    return str(listed), config


async def test_a_long_list_takes_no_more_memory_than_a_short_one(world: Domains) -> None:
    """First result within a second and 1,000 domains: the figures are in docs/check.md."""
    listed, config = await many_domains(world)
    pipe = asyncio.subprocess.PIPE
    arguments = ["check", "--from", listed, "--format", "jsonl", "--config", config]
    async with running(*arguments, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        sizes = []
        for _ in range(MANY):
            await process.stdout.readline()
            sizes.append(resident(process.pid))
        assert await process.wait() == 1
    assert 2 * MANY > KEPT, "more domains than this process keeps evidence of"
    assert sizes[-1] - sizes[MANY // 4] < 8 << 20


async def test_the_first_of_many_results_is_on_a_pipe_while_most_domains_were_not_even_asked(
    world: Domains,
) -> None:
    listed, config = await many_domains(world)
    pipe = asyncio.subprocess.PIPE
    async with running("check", "--from", listed, "--config", config, stdout=pipe) as process:
        assert process.stdout is not None
        first = await process.stdout.readline()
        assert not world.dns.types_asked(f"d{MANY - 1}.test")
        assert len(set(asked_domains(world))) <= 4 * AT_ONCE
        assert first.startswith(b"d")


async def test_the_first_of_many_results_is_on_a_terminal_while_most_domains_were_not_even_asked(
    world: Domains,
) -> None:
    listed, config = await many_domains(world)
    ours, theirs = pty.openpty()
    arguments = ["check", "--from", listed, "--config", config]
    async with running(*arguments, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = ""
        while ".test  5.7.10 " not in shown:
            shown += (await asyncio.to_thread(os.read, ours, 4096)).decode()
        assert not world.dns.types_asked(f"d{MANY - 1}.test")
        assert len(set(asked_domains(world))) <= 4 * AT_ONCE
        process.send_signal(signal.SIGINT)
        await process.wait()
    os.close(ours)


def asked_domains(world: Domains) -> list[str]:
    """The domains of the list whose MX records were asked for."""
    return [name for name, rdtype, _ in world.dns.asked if rdtype == "MX"]


# ---------------------------------------------------------------- watching


async def test_watching_tells_what_becomes_another(world: Domains) -> None:
    server = await world.server("mx.good.test")
    hop = f"[mx.good.test]:{server.port}"
    pipe = asyncio.subprocess.PIPE
    arguments = ["check", hop, "--watch", "1", "--config", world.config()]
    async with running(*arguments, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode()
        assert first.startswith(f"{hop}  2.0.0 ok: ")
        seen = server.connections
        await until(lambda: server.connections > seen, what="it looks anew")
        server.ehlo_tls = NO_REQUIRETLS
        change = (await process.stdout.readline()).decode()
        moment, rest = change.split("  ", 1)
        assert moment.endswith("Z")
        assert rest.startswith(f"{hop}  was 2.0.0 ok, is 5.7.30 requiretls_not_offered: ")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


# ---------------------------------------------------------------- the terminal


async def test_a_terminal_has_a_line_that_says_what_is_waited_for(world: Domains) -> None:
    fine = await served(world, "good.test")
    ours, theirs = pty.openpty()
    async with Tarpit(world, "mx.slow.test") as slow:
        arguments = ["check", fine, slow, "--config", world.config(timeout=60)]
        async with running(*arguments, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = ""
            while "1 of 2" not in shown:
                shown += (await asyncio.to_thread(os.read, ours, 4096)).decode()
            last = shown.rsplit("\r", 1)[-1]
            assert last.startswith("\x1b[2K1 of 2, ")
            assert "mx.slow.test" in shown.split("1 of 2")[-1]
            assert "mx.good.test" in shown
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    os.close(ours)


# ---------------------------------------------------------------- details, ages, the resolver


async def test_v_shows_certificate_cipher_group_and_dialogue(world: Domains) -> None:
    hop = await served(world, "good.test")
    done = await command("check", "-v", hop, "--config", world.config())
    assert done.status == 0, done
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    at = lines.index("127.0.0.1:")
    shown = lines[at : at + 20]
    assert shown[1].startswith("TLSv1.3 TLS_AES_256_GCM_SHA384, group ")
    assert shown[2] == "certificate CN=server"
    assert shown[3] == "issuer CN=Test CA"
    assert shown[4] == "names mx.good.test"
    assert shown[5].startswith("valid 20")
    assert shown[6] == "key EC secp256r1"
    said = [line for line in shown[7:] if line[:2] in ("C:", "S:") or "begins" in line]
    assert said[0] == "S: 220 mx.example.net ESMTP"
    assert "C: STARTTLS" in said
    assert said.index("(TLSv1.3 begins)") > said.index("C: STARTTLS")
    assert said[-1] == "C: QUIT", "whose reply nobody waits for"


async def test_without_v_json_has_no_details_and_with_it_each_address_has(world: Domains) -> None:
    hop = await served(world, "good.test")
    arguments = ("check", hop, "--format", "json", "--config", world.config())
    (plain,) = (await command(*arguments)).json[0]["hosts"][0]["addresses"]
    (full,) = (await command(*arguments, "-v")).json[0]["hosts"][0]["addresses"]
    assert plain["details"] is None
    assert set(full["details"]) == {"cipher", "group", "certificate", "dialogue"}
    assert full["details"]["certificate"]["names"] == ["mx.good.test"]


async def test_a_resolver_that_does_not_validate_is_the_first_thing_that_is_said(
    world: Domains,
) -> None:
    hop = await served(world, "good.test")
    for name in ("google.com", "microsoft.com"):
        world.dns.set(name, "A", found(f"{name}. 300 IN A 192.0.2.1", ad=True))
    config = world.config()
    done = await command("check", hop, hop, "--config", config)
    assert done.out.startswith("The resolver does not validate DNSSEC: nothing that it says counts")
    assert done.out.count("does not validate DNSSEC") == 1
    done = await command("check", hop, "--config", config, "--format", "json")
    assert done.json[0]["resolver_validates"] is False
    assert done.json[0]["hosts"][0]["secure"] is False


async def test_names_without_an_answer_hold_nothing_up(world: Domains) -> None:
    """One control has no answer for longer than the test waits; the other one is enough."""
    for name in BOGUS_NAMES:
        world.dns.set(name, "A", SILENT)
    hop = await served(world, "good.test")
    hour = 3600.0
    config = world.config(lookup=hour)
    limits = json.dumps({"evidence.selftest.TEST_TIMEOUT": hour})
    program = (sys.executable, "-c", WITH_LIMITS, limits)
    async with running("check", hop, "--config", config, program=program) as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    for name in BOGUS_NAMES:
        assert world.dns.types_asked(name), "the test was made"


async def test_a_policy_that_cannot_be_fetched_says_why(world: Domains) -> None:
    server = await world.server("mx.good.test")
    world.mx("good.test", "mx.good.test")
    record = '_mta-sts.good.test. 60 IN TXT "v=STSv1; id=1"'
    world.dns.set("_mta-sts.good.test", "TXT", found(record))
    world.dns.set("mta-sts.good.test", "A", failure())
    world.dns.set("mta-sts.good.test", "AAAA", nodata())
    config = world.config(f"probe.port = {server.port}")
    done = await command("check", "good.test", "--config", config, "--format", "json")
    assert done.json[0]["mta_sts"] is None
    assert "mta-sts.good.test has no address" in done.json[0]["mta_sts_error"]
    done = await command("check", "good.test", "--config", config)
    assert "MTA-STS failed: policy of good.test: " in " ".join(done.out.split())
