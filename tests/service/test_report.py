"""``report`` over a log, a list and a running service, with real servers behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.message
import pytest

from tests.support.command import Done, command
from tests.support.domains import Domains
from tests.support.html import parse
from tests.support.milterlogs import QUEUE_ID, delivery_line, forecast_line
from tests.support.paths import REPOSITORY
from tests.support.service import Service
from tests.support.waiting import PATIENCE

NO_REQUIRETLS = b"250 mx.test\r\n"


class Partners:
    """Two next hops: one that has all it needs, one that lacks REQUIRETLS."""

    def __init__(self, world: Domains) -> None:
        self.world = world
        self.log = world.directory / "mail.log"

    async def start(self) -> None:
        good = await self.world.server("mx.good.test")
        bad = await self.world.server("mx.bad.test", ehlo_tls=NO_REQUIRETLS)
        self.good = f"[mx.good.test]:{good.port}"
        self.bad = f"[mx.bad.test]:{bad.port}"
        self.routes = f'"good.test" = "smtp:{self.good}"\n"bad.test" = "smtp:{self.bad}"\n'

    def config(self, *more: str) -> str:
        return self.world.config(*more, f"[mta.routes]\n{self.routes}")

    def write_log(self) -> None:
        lines = [
            delivery_line("2.0.0", to=f"u{number}@{name}").replace(QUEUE_ID, f"{QUEUE_ID}{number}")
            for name, count in (("good.test", 3), ("bad.test", 1))
            for number in range(count)
        ]
        self.log.write_text("\n".join(lines) + "\n")


@pytest.fixture
async def partners(world: Domains) -> Partners:
    one = Partners(world)
    await one.start()
    one.write_log()
    return one


async def report(*arguments: object) -> Done:
    return await command("report", *map(str, arguments))


def told(done: Done) -> Any:
    assert done.status == 0, done
    return json.loads(done.out)


async def test_the_mail_of_a_log_decides_the_shares(partners: Partners) -> None:
    config = partners.config('[watch]\ndomains = ["own.test"]')
    done = await report(partners.log, "--config", config, "--format", "json")
    found = told(done)
    assert done.err == ""
    assert (found["answer"], found["source"]) == ("partly", "log")
    assert found["mail"] == {"ready": 3, "total": 4, "share": 0.75}
    assert found["domains"] == {"ready": 1, "total": 2, "share": 0.5}
    assert found["steps"] == {"requiretls": {"domains": 1, "mail": 1}}
    assert found["resolver_validates"] is True
    assert [(one["nexthop"], one["mail"], one["state"]) for one in found["next_hops"]] == [
        (partners.good, 3, "ready"),
        (partners.bad, 1, "bounce"),
    ]
    assert found["next_hops"][0]["level"] == "dane"
    assert (found["history"], found["history_kept"]) == ([], False)
    assert found["accuracy"] is None
    assert [one["domain"] for one in found["own_servers"]] == ["own.test"]
    text = (await report(partners.log, "--config", config)).out
    assert text.startswith("Not for all mail: 75 % of the mail would be delivered")


async def test_forecasts_in_the_log_tell_how_accurate_they_were(partners: Partners) -> None:
    with partners.log.open("a") as log:
        log.write(forecast_line("2.0.0", to="<u0@good.test>", queue_id=f"{QUEUE_ID}0") + "\n")
    arguments = (partners.log, "--config", partners.config(), "--format", "json")
    assert told(await report(*arguments))["accuracy"]["equal"] == 1


async def test_the_page_replaces_a_file_when_it_is_complete(partners: Partners) -> None:
    path = partners.world.directory / "readiness.html"
    path.write_text("an earlier one")
    arguments = ("--config", partners.config(), "--format", "html", "--output", path)
    done = await report(partners.log, *arguments)
    assert (done.status, done.out, done.err) == (0, "", "")
    root = parse(path.read_bytes())
    assert [one.text for one in root.all("dd", "value")] == ["75 %", "50 %", "1"]
    assert len(root.all("svg")) == 3
    assert [one.name for one in path.parent.glob("*.html*")] == ["readiness.html"]
    assert [*path.parent.glob(".readiness*")] == []


async def test_of_a_list_each_next_hop_counts_and_what_is_none_is_told(
    partners: Partners, tmp_path: Path
) -> None:
    listed = tmp_path / "partners"
    listed.write_text(f"# ours\n{partners.good}\n{partners.bad}\n[broken\n{partners.good}\n")
    done = await report("--from", listed, "--config", partners.config(), "--format", "json")
    assert done.status == 2
    assert done.err.startswith("error: line 4: ")
    found = json.loads(done.out)
    assert (found["source"], found["mail"]["total"]) == ("list", 0)
    assert found["domains"] == {"ready": 1, "total": 2, "share": 0.5}


async def test_beyond_the_limit_nothing_is_known(partners: Partners) -> None:
    arguments = ("--config", partners.config(), "--format", "json", "--limit", 1)
    found = told(await report(partners.log, *arguments))
    assert found["left_out"] == {"domains": 1, "mail": 1}
    assert found["states"]["unknown"] == {"domains": 1, "mail": 1}
    assert found["mail"]["share"] == 0.75


async def test_a_running_service_keeps_a_history_and_counts_mail(
    partners: Partners, make: Callable[..., Service]
) -> None:
    world = partners.world
    service = make(
        f"""
[mta]
carries = "requiretls"
tls_security_level = "dane"
[mta.routes]
{partners.routes}
[dns]
nameservers = ["{world.dns.address}"]
timeout = 2
[probe]
ca_file = "{world.authority.path}"
allow_networks = ["127.0.0.0/8"]
[rules.recipient."good.test"]
[rules.recipient."bad.test"]
""",
        workers=1,
    )
    await asyncio.to_thread(service.start)
    arguments = ("--config", service.config_path, "--format", "json")
    first = told(await report(partners.log, *arguments, "--no-history"))
    assert (first["history"], first["history_kept"]) == ([], True)
    second = told(await report(partners.log, *arguments))
    third = told(await report(partners.log, *arguments))
    (day,) = second["history"]
    assert day == {
        "day": second["made_at"][:10],
        "mail": 4,
        "mail_ready": 3,
        "domains": 2,
        "domains_ready": 1,
    }
    assert len({one["made_at"][:10] for one in (second, third)}) == len(third["history"])
    await asyncio.to_thread(service.send, "<bob@good.test>", count=2)
    await asyncio.to_thread(service.send, "<bob@bad.test>")
    await asyncio.to_thread(service.send, "<bob@elsewhere.test>")
    async with asyncio.timeout(PATIENCE):
        # A worker tells the engine of its counters every second.
        while (counters := told(await report("counters:", *arguments)))["mail"]["total"] < 4:
            pass
    assert (counters["source"], counters["left_out"]) == ("counters", {"domains": 0, "mail": 1})
    assert (counters["mail"]["ready"], counters["domains"]) == (2, second["domains"])
    assert [one["mail"] for one in counters["next_hops"]] == [2, 1]
    assert [one["mail"] for one in counters["history"]] == [4]


async def test_without_the_library_of_plots_it_is_said_what_to_install(world: Domains) -> None:
    code = "import sys; sys.modules['pygal'] = None; from requiretls_milter.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "report", "--config", world.config(), "--format", "html"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    out, error = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"pip install requiretls-milter[report]" in error


# ---------------------------------------------------------------- a dead resolver


async def test_a_resolver_that_answers_nothing_is_asked_about_few_of_many_domains(
    world: Domains,
) -> None:
    """What is not asked is not known; otherwise each domain would take as long as a lookup may."""
    loop, asked = asyncio.get_running_loop(), set[str]()

    class Silent(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            asked.add(str(dns.message.from_wire(data).question[0].name))

    transport, _ = await loop.create_datagram_endpoint(Silent, ("127.0.0.1", 0))
    address = "{}:{}".format(*transport.get_extra_info("sockname"))
    rules = "".join(f'[rules.recipient."d{number}.example"]\n' for number in range(300))
    path = world.directory / "dead.toml"
    path.write_text(
        f'engine.socket = "{world.directory}/engine.sock"\nmta.carries = "requiretls"\n'
        f'[dns]\nnameservers = ["{address}"]\ntimeout = 0.5\n{rules}'
    )
    try:
        done = await report("--config", path)
    finally:
        transport.close()
    first, *lines = [line for line in done.out.splitlines() if line != "doctor)."]
    assert done.status == 0, done
    assert first.startswith("The resolver does not validate DNSSEC")
    assert len(lines) == 300
    assert sum("unknown" in line for line in lines) > 200
    assert 5 <= sum(name.endswith("example.") for name in asked) < 200
