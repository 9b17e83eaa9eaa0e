"""``check --inbound``: our own servers, as others see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.authority import DAY
from tests.support.command import command
from tests.support.dnsserver import found
from tests.support.domains import Domains
from tests.support.smtpserver import SmtpServer

WITHOUT_STARTTLS = b"250-mx.own.test hello\r\n250 SIZE 1000\r\n"
CERTIFICATE_ENDS = 14 * DAY


async def own(world: Domains, **replies: Any) -> SmtpServer:
    """``own.test`` with one server, DANE, and a record for the next key."""
    server = await world.server("mx.own.test", **replies)
    world.mx("own.test", "mx.own.test")
    owner = f"_{server.port}._tcp.mx.own.test"
    records = list(world.dns.script[owner, "TLSA"].answer)
    world.dns.set(owner, "TLSA", found(*records, f"{owner}. 300 IN TLSA 3 1 1 {'00' * 32}"))
    name = "_smtp._tls.own.test"
    world.dns.set(name, "TXT", found(f'{name}. 300 IN TXT "v=TLSRPTv1; rua=mailto:a@own.test"'))
    return server


def config(world: Domains, server: SmtpServer) -> str:
    return world.config(f"probe.port = {server.port}")


def without_resolver(world: Domains, server: SmtpServer) -> str:
    """A configuration whose name server is nobody."""
    path = Path(config(world, server))
    path.write_text(path.read_text().replace(world.dns.address, "127.0.0.1:9"))
    return str(path)


async def test_a_domain_in_good_order_is_status_0(world: Domains) -> None:
    server = await own(world)
    done = await command("check", "--inbound", "own.test", "--config", config(world, server))
    assert done.status == 0, done
    assert "mx.own.test  ready" in done.out
    assert "Nothing that was seen breaks soon." in done.out
    # It has no MTA-STS: that is advice.
    assert "policy_missing" in done.out


async def test_each_session_is_told_if_asked_for(world: Domains) -> None:
    server = await own(world)
    done = await command("check", "--inbound", "own.test", "-v", "--config", config(world, server))
    assert done.status == 0, done
    _, told = done.out.split("own.test: mx.own.test\n")
    assert "  TLSv1.3 " in told
    assert "    issuer " in told
    assert "EHLO " in told


async def test_json_names_what_breaks_first(world: Domains) -> None:
    server = await own(world, ehlo=WITHOUT_STARTTLS)
    path = config(world, server)
    done = await command("check", "--inbound", "own.test", "--config", path, "--format", "json")
    assert done.status == 1, done
    (report,) = done.json
    assert report["domain"] == "own.test"
    assert report["resolver_validates"] is True
    assert report["breaks_first"]["problem"] == "starttls_not_offered"
    assert report["breaks_first"]["host"] == "mx.own.test"
    assert report["breaks_first"]["severity"] == "broken"
    assert report["servers"] == [
        {"host": "mx.own.test", "ready": False, "certificate_expires": None}
    ]


async def test_what_ends_soon_is_status_75(world: Domains) -> None:
    server = await own(world)
    issued = world.authority.issue("mx.own.test", start=-76 * DAY, end=CERTIFICATE_ENDS)
    server.tls = issued.server_context()
    # Senders that look for the authority mind the dates.
    owner = f"_{server.port}._tcp.mx.own.test"
    del world.dns.script[owner, "TLSA"]
    path = config(world, server)
    done = await command("check", "--inbound", "own.test", "--config", path, "--format", "jsonl")
    assert done.status == 75, done
    first = done.json["breaks_first"]
    assert first["problem"] == "certificate_expires"
    assert first["at"] == f"{issued.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert done.json["servers"][0]["ready"] is True


async def test_a_record_that_no_longer_matches_is_told(world: Domains) -> None:
    server = await own(world)
    world.tlsa("mx.own.test", server.port, world.authority.issue("mx.own.test"))
    done = await command("check", "--inbound", "own.test", "--config", config(world, server))
    assert done.status == 1, done
    assert "Breaks first: tlsa_does_not_match of mx.own.test, now." in done.out


async def test_a_resolver_that_does_not_answer_is_no_trouble_of_the_domain(
    world: Domains,
) -> None:
    server = await own(world)
    path = without_resolver(world, server)
    done = await command("check", "--inbound", "own.test", "--config", path)
    assert done.status == 75, done
    assert done.out.startswith("No name server answers us: nothing could be seen (NS .: ")
    assert "broken" not in done.out
    done = await command("check", "--inbound", "own.test", "--config", path, "--format", "json")
    assert (done.json[0]["problems"], done.json[0]["unseen"]) == ([], ["own.test"])


async def test_what_is_no_domain_is_a_mistake(world: Domains) -> None:
    done = await command("check", "--inbound", "[mx.own.test]", "--config", world.config())
    assert done.status == 2, done
    assert "--inbound takes domains" in done.err


async def test_it_takes_the_place_of_lists_and_of_watching(world: Domains) -> None:
    done = await command("check", "--inbound", "own.test", "--watch", "5")
    assert done.status == 2, done
    assert "neither --from nor --watch" in done.err
