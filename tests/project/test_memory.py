"""The sum of all that the service may keep: as documented, and below the unit's MemoryMax.

That each bound holds for the largest that strangers can say is shown where it is kept:
unit/engine (shelf, alive, downgrades, policies), unit/store (memory, steady, sqlite),
unit/forecast/test_memo, unit/ipc/test_client, unit/test_bounded_names. service/test_memory measures
real processes.
"""

from __future__ import annotations

import re

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine import answers, downgrades, troubles
from requiretls_milter.engine.cache import alive, packing, policies, shelf
from requiretls_milter.engine.turns.schedule import MAX_SLOW_HOPS, MAX_TARGETS
from requiretls_milter.evidence.budgets import KINDS, MAX_KEYS
from requiretls_milter.evidence.policyhost import MAX_HEADER_LINE, MAX_HEADERS, MAX_POLICY
from requiretls_milter.evidence.probe import MAX_HANDSHAKE, MAX_NAMELESS
from requiretls_milter.forecast import certificate, dane, pkix
from requiretls_milter.ipc import kept
from requiretls_milter.service.cores import MOST
from requiretls_milter.store import sqlite, steady
from requiretls_milter.store.base import MAX_LISTED
from requiretls_milter.telemetry import output
from tests.project.test_unit_file import UNIT
from tests.support.memory import ALLOCATOR, STARTED
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text("utf-8")
KIB, MIB = 1 << 10, 1 << 20
CONFIG = Config()
LIMITS = CONFIG.limits
WORKERS = MOST  # as many as there are by default, on a host with many cores

GATHERING, FLIGHT, QUESTION = 24 * KIB, 6 * KIB, 5 * KIB
"""Octets of memory for the tasks that work on one, as measured."""

SPENT = 650
"""Octets of memory for what a key has spent: see unit/test_bounded_names."""

NAMELESS = 2 * KIB
"""Octets of memory for a session that ended before the handshake, with its key."""

DNS_MESSAGE = 192 * KIB
"""Octets of memory for an answer of 64 KiB, read and parsed."""

ROWS: dict[str, float] = {
    "the processes, just started": STARTED,
    "evidence by host and address": LIMITS.host_cache * shelf.ENTRY_OCTETS,
    "evidence by domain": LIMITS.domain_cache * shelf.ENTRY_OCTETS,
    "evidence in the hands of gatherings": alive.IN_HAND_OCTETS,
    "certificates that were seen lately, by which equal ones are found and kept once": (
        packing.CERTIFICATES_OCTETS
    ),
    "gatherings, flights and questions under way": LIMITS.gatherings * GATHERING
    + LIMITS.flights * FLIGHT
    + WORKERS * LIMITS.questions * QUESTION,
    "sessions, lookups and fetches under way": 2 * LIMITS.probes * MAX_HANDSHAKE
    + LIMITS.lookups * DNS_MESSAGE
    + LIMITS.fetches * (MAX_POLICY + MAX_HEADERS * MAX_HEADER_LINE),
    "records of the store": max(
        CONFIG.store.max_bytes, steady.MIRROR_BYTES + steady.PENDING_BYTES + sqlite.NOTED_BYTES
    ),
    "keys of the store while policies are refreshed": MAX_LISTED * policies.LISTED_OCTETS,
    "what was offered": downgrades.MAX_OCTETS,
    "when mail asked for policies, and pauses": policies.MAX_WANTED_OCTETS
    + policies.MAX_PAUSES_OCTETS,
    "what was computed about certificates and records": certificate.CACHED_CERTIFICATES
    + 2 * certificate.CACHED_ANSWERS
    + 2 * dane.CACHED_RECORDS
    + dane.CACHED_MATCHES
    + 2 * pkix.CACHED_PATHS,
    "budgets that are spent, and servers that were not told a name": len(KINDS) * MAX_KEYS * SPENT
    + MAX_NAMELESS * NAMELESS,
    "next hops and servers whose speed is remembered": (MAX_SLOW_HOPS + MAX_TARGETS) * SPENT,
    "names and rules that were looked up": (4 + 2 + 3 + 2) * MIB
    + WORKERS * (4 + 14 + 3 + 2 + 3 + 2 + 1) * MIB,
    "forecasts in workers": WORKERS * LIMITS.forecast_cache * kept.FORECAST_OCTETS,
    "forecasts past their life": answers.ANSWERS * LIMITS.forecast_cache * answers.ANSWER_OCTETS
    + troubles.MAX_OCTETS,
    "log lines that wait": (2 + WORKERS) * output.MAX_QUEUED,
}
"""What each row of the table is made of, in octets; the page has mebibytes, rounded up."""


def documented(row: str) -> int:
    found = re.search(rf"^\| {re.escape(row)} \|.*\| ([0-9,]+) \|$", PAGE, re.M)
    assert found is not None, row
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("row", ROWS)
def test_each_figure_is_that_of_the_code(row: str) -> None:
    assert documented(row) == -(-ROWS[row] // MIB)


def test_the_whole_service_stays_below_what_its_unit_allows_with_room() -> None:
    kept = sum(documented(row) for row in ROWS)
    gaps = documented("what the allocator needs beside")
    assert gaps == round(ALLOCATOR * (kept - documented("the processes, just started")))
    total = documented("**the whole service**")
    assert total == kept + gaps
    allowed = re.search(r"^MemoryMax=([0-9]+)M$", UNIT.read_text(), re.M)
    assert allowed is not None
    assert total < 0.85 * int(allowed[1])
    assert f"`MemoryMax={allowed[1]}M`" in PAGE
