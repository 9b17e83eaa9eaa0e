"""What the promised bounds come to in a real process, with what the allocator needs beside.

docs/reliability.md#memory has the sum; tests/project/test_memory.py compares it with the constants.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.support.memory import ALLOCATOR, STARTED, shared_out
from tests.support.paths import REPOSITORY
from tests.support.service import Service

FILL = """
import asyncio, random
from requiretls_milter.clocks import SYSTEM_CLOCKS, Life
from requiretls_milter.engine.cache.shelf import ENTRY_OCTETS, Entry, Shelf
from requiretls_milter.model import *
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, Layer
from tests.support.memory import long_name, resident

LIMIT = 4_000
promised = 2 * LIMIT * ENTRY_OCTETS
hosts, domains = (
    Shelf(layer, LIMIT, bound, Counters(), SYSTEM_CLOCKS)
    for layer, bound in ((Layer.HOST, Bound.HOST_CACHE), (Layer.DOMAIN, Bound.DOMAIN_CACHE))
)
store = MemoryStore(max_bytes=promised // 2)
promised += promised // 2
chance = random.Random(1)

def evidence(number):
    kind = number % 4
    name = long_name(number)
    if kind == 0:
        chain = tuple(chance.randbytes(chance.randrange(500, 3_000)) for _ in range(3))
        return ProbeEvidence(f"2001:db8::{number:x}", chain=chain, ehlo_name=name)
    if kind == 1:
        records = tuple(MxRecord(n, long_name(number, n)) for n in range(chance.randrange(1, 100)))
        return MxEvidence(DnsOutcome.FOUND, records=records, canonical=name)
    if kind == 2:
        records = tuple(TlsaRecord(3, 1, 1, chance.randbytes(32)) for _ in range(100))
        return TlsaEvidence(True, records=records, base_domain=name)
    return AddressLookup(DnsOutcome.FOUND, addresses=tuple(f"2001:db8::{n:x}" for n in range(50)))

async def fill():
    for number in range(20_000):
        found = evidence(number)
        shelf = domains if isinstance(found, MxEvidence) else hosts
        shelf.put(("kind", long_name(number)), Entry(found, 1.0, Life.of(1.0, 2.0, 3.0)))
        octets = chance.randbytes(chance.randrange(200, 12_000))
        await store.put(StoreKind.PROBE, long_name(number), octets, 1e9, float(number))

before = resident("self")
asyncio.run(fill())
print(promised, resident("self") - before)
"""


def test_a_process_grows_by_no_more_than_what_is_promised_and_what_the_allocator_needs() -> None:
    """All that is kept is replaced several times by pieces of another size."""
    done = subprocess.run(
        [sys.executable, "-c", FILL], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    promised, grown = map(int, done.stdout.split())
    assert 0.6 * promised < grown < (1.0 + ALLOCATOR) * promised


def test_the_processes_just_started_take_what_is_said(make: Callable[..., Service]) -> None:
    """What several of them share is counted once."""
    service = make().start()
    together = shared_out((service.pid, *service.family))
    assert STARTED // 3 < together < STARTED
