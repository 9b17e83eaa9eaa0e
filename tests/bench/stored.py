"""Fill a store as an engine does that knows many domains; run with the package of any commit.

    python -m tests.bench.stored FILE DOMAINS

What is kept of a domain: which features it and its servers offered, for one in twenty a policy,
and for one in ten the session with a server, since many domains share few of them.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

DAY = 86_400.0

BATCH = 1000
"""Changes in one transaction."""

CHAIN = (1_250, 1_300, 1_400)
"""Octets of the certificates of a usual chain."""

POLICIES, SESSIONS = 20, 10
"""One of so many domains has a policy; so many domains share a server."""


def fill(path: str, domains: int) -> None:
    """Write the file."""
    asyncio.run(_fill(path, domains))


def _within(name: str, *modules: str) -> Any:
    """What bears a name in the first of the modules that the package has."""
    for module in modules:
        try:
            return getattr(importlib.import_module(f"requiretls_milter.{module}"), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name} in none of {', '.join(modules)}")


async def _fill(path: str, domains: int) -> None:
    record = _within("Record", "store.base", "store")
    counters = _within("Counters", "telemetry.counting", "metrics")()
    backend = _within("SqliteBackend", "store.sqlite")(
        path, counters, max_records=10_000_000, max_bytes=1 << 40
    )
    await backend.open()
    now = time.time()
    changes = []
    for kind, key, value, life in _records(domains, now):
        changes.append((kind, key, record(value, now, now + life)))
        if len(changes) == BATCH:
            await backend.write(changes)
            changes = []
    await backend.write(changes)
    await backend.close()


def _records(domains: int, now: float) -> Iterator[tuple[Any, str, bytes, float]]:
    kinds = _within("StoreKind", "store.base", "store")
    model = importlib.import_module("requiretls_milter.model")
    encode_policy = _within("encode_policy", "engine.records")
    encode_probe = _within("encode_probe", "engine.records")
    history = f'{{"first_seen":{now - DAY},"last_seen":{now - 60},"lost_at":0.0}}'.encode()
    chance = random.Random(1)  # noqa: S311 - the same each time
    for number in range(domains):
        domain = f"domain-{number}.example"
        yield kinds.OFFERED, f"requiretls mx.{domain}", history, 30 * DAY
        if number % POLICIES == 0:
            policy = model.MtaStsPolicy(
                model.MtaStsMode.ENFORCE, (f"mx.{domain}", f"*.{domain}"), 604_800, f"id{number}"
            )
            yield kinds.MTA_STS_POLICY, domain, encode_policy(policy, now - 60, now - 60), 7 * DAY
        if number % SESSIONS == 0:
            host = f"mx.{domain}"
            found = model.ProbeEvidence(
                _address(number),
                model.ProbeStage.DONE,
                starttls_offered=True,
                tls_version="TLSv1.3",
                chain=_chain(chance, CHAIN),
                requiretls=True,
                ehlo_name=host,
                probed_at=now - 60,
                expires=now + 3_600,
            )
            yield kinds.PROBE, f"{found.address} 25 {host}", encode_probe(found), 3_600


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _chain(chance: random.Random, sizes: Sequence[int]) -> tuple[bytes, ...]:
    return tuple(chance.randbytes(size) for size in sizes)


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))
