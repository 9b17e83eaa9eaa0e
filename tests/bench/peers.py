"""Row ``peers``: a look-up of an MTA-STS policy and a probe, beside the programs that sites know.

postfix-mta-sts-resolver answers a look-up of Postfix's policy table; posttls-finger(1) looks a
domain up and holds one session with its server, as a process for each. Ours are the parts of the
engine that find the same out. Every domain is a new one, and what is compared is processor time:
the servers and the resolver are the same.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.model import MtaStsMode, ServerTarget
from requiretls_milter.telemetry import log
from tests.bench.beside import Contender, Found, in_turn, table
from tests.bench.machine import cpu_seconds, family
from tests.bench.rows import Effort, Row
from tests.lab import roots
from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.lab.labconfig import NO_BUDGETS, settings
from tests.lab.stsresolver import StsResolver
from tests.support.limiters import limiters
from tests.support.scenario import Domain, Scenario, Sts

TITLE = "an MTA-STS look-up and a probe, beside others"

RESOLVER_PORT = 8461

SMTP_PORT = 25

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where chroot(8) is, and what it starts."""

PATIENCE = 20
"""Seconds for one look-up or session."""

AT_ONCE = 25
"""Domains of a run, at most: each look-up and session is about a new one."""


class WrongAnswerError(AssertionError):
    """A policy or a server is not found as it is."""


def peers(effort: Effort) -> Row:
    """Measure, or say why the lab cannot run here."""
    log.configure("logfmt", "error")
    count = min(AT_ONCE, effort.questions)
    # One more of each run is looked up before it: connections and code are there then.
    scenarios = [
        Scenario(f"peer-{n}", domains=(Domain(sts=Sts()),))
        for n in range(4 * effort.runs * (1 + count))
    ]
    domains = iter([one.domain_name(one.domains[0]) for one in scenarios])

    def some() -> list[str]:
        return list(itertools.islice(domains, 1 + count))

    try:
        with Lab(scenarios) as lab, StsResolver(RESOLVER_PORT, lab.ca_file) as resolver:
            cases = [
                in_turn(
                    "MTA-STS look-up",
                    (
                        Contender("ours", lambda: _ours(lab, some(), _policy)),
                        Contender("mta-sts-resolver", lambda: _resolver(resolver, some())),
                    ),
                    effort.runs,
                ),
                in_turn(
                    "probe",
                    (
                        Contender("ours", lambda: _ours(lab, some(), _session)),
                        Contender("posttls-finger", lambda: _finger(lab, some())),
                    ),
                    effort.runs,
                ),
            ]
    except LabUnavailable as reason:
        return Row("peers", TITLE, skipped=str(reason))
    return table(
        "peers",
        TITLE,
        cases,
        f"{count} domains in each run, one after another; processor time of the client",
        first="what",
    )


def _ours(
    lab: Lab, domains: Sequence[str], find: Callable[[Collector, str], Awaitable[None]]
) -> Found:
    config = settings(lab, limits=NO_BUDGETS)
    trust = load_trust_store(str(lab.ca_file))

    async def found() -> Found:
        collector = Collector(config, trust, limiters=limiters())
        try:
            await find(collector, domains[0])
            spent, began = time.process_time(), time.perf_counter()
            for domain in domains[1:]:
                await find(collector, domain)
            return _each(domains, time.process_time() - spent, time.perf_counter() - began)
        finally:
            await collector.close()

    return asyncio.run(found())


def _each(domains: Sequence[str], spent: float, seconds: float) -> Found:
    number = len(domains) - 1
    return {"CPU ms": 1000 * spent / number, "ms": 1000 * seconds / number}


async def _policy(collector: Collector, domain: str) -> None:
    found = await collector.mta_sts(domain)
    if found.policy is None or found.policy.mode is not MtaStsMode.ENFORCE:
        raise WrongAnswerError(f"{domain}: {found}")


async def _session(collector: Collector, domain: str) -> None:
    """What posttls-finger does: the look-ups of DANE, and one session with the first server."""
    (record,) = (await collector.mx(domain)).records
    addresses = await collector.addresses(record.host)
    tlsa = await collector.tlsa(record.host, SMTP_PORT, addresses)
    seen = await collector.probe(ServerTarget(addresses.addresses[0], SMTP_PORT, record.host))
    if not (tlsa.records and seen.requiretls):
        raise WrongAnswerError(f"{domain}: {tlsa} {seen}")


def _resolver(resolver: StsResolver, domains: Sequence[str]) -> Found:
    """Ask it as Postfix does: socketmap_table(5)."""
    pids = family(resolver.pid)
    with socket.create_connection(("127.0.0.1", RESOLVER_PORT), PATIENCE) as connection:
        _asked(connection, domains[0])
        spent, began = cpu_seconds(pids), time.perf_counter()
        for domain in domains[1:]:
            _asked(connection, domain)
        return _each(domains, cpu_seconds(pids) - spent, time.perf_counter() - began)


def _asked(connection: socket.socket, domain: str) -> None:
    request = f"postfix {domain}".encode()
    connection.sendall(b"%d:%s," % (len(request), request))
    reply = b""
    while not reply.endswith(b","):
        received = connection.recv(4096)
        if not received:
            break
        reply += received
    if b"OK secure" not in reply:
        raise WrongAnswerError(f"{domain}: {reply!r}")


def _finger(lab: Lab, domains: Sequence[str]) -> Found:
    root = roots.ensure(roots.POSTFIX_3_11)
    command = [
        *("chroot", str(root), "/usr/sbin/posttls-finger", "-c", "-t", str(PATIENCE)),
        *("-L", "summary", "-l", "dane", "-F", lab.front.inside("etc/ca.pem")),
    ]
    environment = {"PATH": PATH, "MAIL_CONFIG": lab.front.inside("etc")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for domain in domains[1:]:
        done = subprocess.run(
            [*command, domain],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=2 * PATIENCE,
            check=False,
        )
        if "Verified TLS connection established" not in done.stdout:
            raise WrongAnswerError(f"{domain}: {done.stdout}")
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _each(domains, spent, seconds)
