"""Certificate verdicts of probe and judge, against posttls-finger(1) and openssl s_client.

The same servers, the same DNS; each tool by the code of the Postfix and the
OpenSSL in the lab's root.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    DomainEvidence,
    HopKind,
    MtaProfile,
    NextHop,
    Requirement,
    TlsLevel,
)
from tests.lab import roots
from tests.lab.certificates import CASES, Case, make, trusted
from tests.lab.lab import Lab
from tests.lab.labconfig import settings
from tests.support.gathered import gather
from tests.support.limiters import limiters

pytestmark = pytest.mark.lab

ZONE = "sig.test"
FIRST_ADDRESS = 0x7F020001
"""127.2.0.1: below it are the addresses of scenarios."""

PATIENCE = 20
"""Seconds for one run of a tool."""

SECURITY_LEVEL = 1
"""OpenSSL's, where smtp(8) authenticates. s_client would take Debian's default, 2."""

BEST_FIRST = ("verified", "not verified", "unusable")


@dataclass(frozen=True)
class Server:
    """One case, as the lab serves it."""

    case: Case
    domain: str
    host: str
    address: str
    records: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """All servers, and what each of the three says of them, by case."""

    lab: Lab
    servers: dict[str, Server]
    evidence: dict[str, DomainEvidence]
    trust: TrustStore
    finger: dict[tuple[str, str], str]
    s_client: dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The lab with a server for each case, and all verdicts."""
    servers = {one.id: _serve(lab, one, number) for number, one in enumerate(CASES)}
    lab.update()
    authorities = lab.front.directory / "etc/cross-check.pem"
    authorities.write_bytes(trusted() + lab.ca_file.read_bytes())
    with ThreadPoolExecutor(4) as pool:
        finger = {
            (name, level): pool.submit(_finger, lab, server, level)
            for name, server in servers.items()
            for level in LEVELS
        }
        s_client = {
            (name, way): pool.submit(_s_client, lab, server, way)
            for name, server in servers.items()
            for way in ("dane", "verify")
            if way == "verify" or name not in WITHOUT_DANE
        }
        evidence = asyncio.run(_gather(lab, authorities, servers))
        yield World(
            lab,
            servers,
            evidence,
            load_trust_store(str(authorities)),
            {key: future.result() for key, future in finger.items()},
            {key: future.result() for key, future in s_client.items()},
        )


def _serve(lab: Lab, one: Case, number: int) -> Server:
    domain = f"cross-{one.id}.{ZONE}"
    host = f"mx1.{domain}"
    value = FIRST_ADDRESS + number
    address = ".".join(str(octet) for octet in value.to_bytes(4, "big"))
    made = make(one, host, domain)
    pem = lab.directory / f"cross-{one.id}.pem"
    pem.write_bytes(made.pem)
    lab.plan.records[ZONE] += [
        f"{domain}. 300 MX 10 {host}.",
        f"{host}. 300 A {address}",
        *(f"_25._tcp.{host}. 300 TLSA {record}" for record in made.tlsa),
    ]
    lab.plan.listeners.append(
        {
            "address": address,
            "port": 25,
            "name": host,
            "pem": str(pem),
            "server": {"security_level": 0},
        }
    )
    return Server(one, domain, host, address, made.tlsa)


async def _gather(
    lab: Lab, authorities: Path, servers: dict[str, Server]
) -> dict[str, DomainEvidence]:
    config = settings(lab, probe={"ca_file": str(authorities)})
    trust = load_trust_store(str(authorities))
    collector = Collector(config, trust, limiters=limiters())
    try:
        found = await asyncio.gather(
            *(
                gather(NextHop(HopKind.MX, server.domain), collector, config, time.time())
                for server in servers.values()
            )
        )
    finally:
        await collector.close()
    return dict(zip(servers, found, strict=True))


# ---------------------------------------------------------------- the three opinions

LEVELS = {
    "dane": (TlsLevel.DANE, ()),
    "verify": (TlsLevel.VERIFY, ("hostname",)),
    "secure": (TlsLevel.SECURE, ("nexthop", "dot-nexthop")),
}
"""Our level, and what posttls-finger is told to match at it."""


def ours(world: World, name: str, level: str) -> str:
    """What the judge makes of what the probe saw; for REQUIRETLS, which all servers offer."""
    told = judge(
        world.evidence[name],
        asked=Requirement.REQUIRETLS,
        carried=Requirement.REQUIRETLS,
        profile=MtaProfile(tls_security_level=LEVELS[level][0]),
        trust=world.trust,
        now=time.time(),
    )
    words = {
        f"{level}/requiretls": "verified",
        f"!{level}/!requiretls:nocertmatch": "not verified",
        "dane:encrypt/requiretls:nocertmatch": "unusable",
        # not even tried: there is no record that Postfix takes for one, or none at all
        "encrypt?/!requiretls:nocertmatch": "unusable",
        "may?/!requiretls:nocertmatch": "none",
    }
    return words[str(told.tls)]


def _finger(lab: Lab, server: Server, level: str) -> str:
    """What posttls-finger says of the server's certificate."""
    command = [
        "/usr/sbin/posttls-finger",
        *("-c", "-t", str(PATIENCE), "-L", "summary,certmatch"),
        *(
            "-F",
            lab.front.inside("etc/cross-check.pem"),
            "-l",
            "secure" if level == "verify" else level,
        ),
        server.domain,
        *LEVELS[level][1],
    ]
    said = _run(command, lab, {"MAIL_CONFIG": lab.front.inside("etc")})
    if re.search("all TLSA records unusable|no usable TLSA", said):
        return "unusable"
    match = re.search(r"(\w+) TLS connection established", said)
    if match is None:
        return said
    return "verified" if match[1] == "Verified" else "not verified"


def _s_client(lab: Lab, server: Server, way: str) -> str:
    """What openssl s_client says: by one of the reference names, as Postfix tries them all."""
    names = [server.host, server.domain] if way == "dane" else [server.host]
    found = {_s_client_with(lab, server, way, name) for name in names}
    return min(found, key=BEST_FIRST.index) if found <= set(BEST_FIRST) else str(found)


def _s_client_with(lab: Lab, server: Server, way: str, name: str) -> str:
    options = ["-CAfile", lab.front.inside("etc/cross-check.pem"), "-verify_hostname", name]
    if way == "dane":
        options = ["-dane_tlsa_domain", name, "-dane_ee_no_namechecks"]
        for record in server.records:
            if record[0] in "23":  # RFC 7672 section 3.1.3: no others in SMTP
                options += ["-dane_tlsa_rrdata", record]
    command = [
        "/usr/bin/openssl",
        *("s_client", "-connect", f"{server.address}:25", "-starttls", "smtp"),
        *("-servername", server.host, "-verify_return_error", "-verify", "9"),
        *("-no-CApath", "-no-CAstore"),
        *("-cipher", f"DEFAULT:@SECLEVEL={SECURITY_LEVEL}", *options),
    ]
    said = _run(command, lab, {})
    if re.search(r"^Verification: OK$", said, re.MULTILINE):
        return "verified"
    if re.search(r"^verify error:", said, re.MULTILINE):
        return "not verified"
    # What is not usable it warns of; it connects if another record is.
    return "unusable" if "unusable TLSA rrdata" in said else said


def _run(command: list[str], lab: Lab, environment: dict[str, str]) -> str:
    root = roots.ensure(roots.POSTFIX_3_11)
    done = subprocess.run(
        ["chroot", str(root), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=2 * PATIENCE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )
    return done.stdout + done.stderr


# ---------------------------------------------------------------- do they agree?

WITHOUT_DANE = tuple(one.id for one in CASES if all(record[0] not in "23" for record in one.tlsa))
"""Cases without a record for SMTP (RFC 7672 section 3.1.3): there posttls-finger goes on as at its
level ``secure``, as its manual says, and smtp(8) at ``may`` or ``encrypt``, as was recorded."""

PARTIAL_WILDCARD = "name-partial"
"""OpenSSL lets ``m*.example.org`` stand for a name if it is not told otherwise. Postfix tells it,
and s_client has no option to."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [one.id for one in CASES])
def test_r06_the_certificate_is_worth_what_posttls_finger_says(
    world: World, name: str, level: str
) -> None:
    said = world.finger[name, level]
    if level == "dane" and name in WITHOUT_DANE:
        assert said == world.finger[name, "secure"]
        assert ours(world, name, level) in ("none", "unusable")
    else:
        assert ours(world, name, level) == said


@pytest.mark.parametrize("name", [one.id for one in CASES if one.id not in WITHOUT_DANE])
def test_r38_tlsa_records_match_where_openssl_says_so(world: World, name: str) -> None:
    said = world.s_client[name, "dane"]
    if name == PARTIAL_WILDCARD:
        assert (said, ours(world, name, "dane")) == ("verified", "not verified")
    else:
        assert ours(world, name, "dane") == said


@pytest.mark.parametrize("name", [one.id for one in CASES])
def test_r06_a_chain_and_a_name_are_worth_what_openssl_says(world: World, name: str) -> None:
    said = world.s_client[name, "verify"]
    if name == PARTIAL_WILDCARD:
        assert (said, ours(world, name, "verify")) == ("verified", "not verified")
    else:
        assert ours(world, name, "verify") == said


def test_the_tools_have_seen_good_and_bad_of_every_kind(world: World) -> None:
    """Where all say the same of everything nothing has been compared."""
    for level in LEVELS:
        said = [world.finger[name, level] for name in world.servers]
        assert min(said.count("verified"), said.count("not verified")) >= 15
    said = [world.finger[name, "dane"] for name in world.servers]
    assert said.count("unusable") >= 5
