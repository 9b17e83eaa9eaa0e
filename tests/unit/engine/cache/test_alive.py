"""Evidence is counted until it is freed, whoever holds it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import source as module
from requiretls_milter.engine.cache.alive import LiveEvidence
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.model import (
    AddressLookup,
    MtaStsEvidence,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    Question,
    Reason,
    Requirement,
    ServerTarget,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.build import system_trust
from tests.support.cachekit import CacheKit, limited
from tests.support.fakesource import FakeSource
from tests.support.memory import measured

CHAIN = 50_000
"""Octets of the chain of a server that says much."""


def probe(number: int = 0) -> ProbeEvidence:
    return ProbeEvidence(f"192.0.2.{number}", chain=(bytes(CHAIN),))


def test_what_is_counted_is_what_it_takes_until_it_is_freed() -> None:
    with measured() as taken:
        alive = LiveEvidence(20 * CHAIN)
        held = [probe(number) for number in range(15)]
        for one in held:
            alive.add(one)
        assert 0.9 * alive.octets < taken() <= alive.octets
        del held, one
        assert alive.octets == 0
        assert taken() < CHAIN


@pytest.mark.parametrize(("pieces", "usual", "large"), [(9, True, True), (10, True, False)])
def test_if_much_is_in_hand_only_pieces_of_a_usual_size_are_given_out(
    pieces: int, usual: bool, large: bool
) -> None:
    alive = LiveEvidence(20 * CHAIN)
    held = [probe(number) for number in range(pieces)]
    for one in held:
        alive.add(one)
    assert (alive.may_be_held(MtaStsEvidence()), alive.may_be_held(held[0])) == (usual, large)
    assert not alive.is_full


def test_if_too_much_is_in_hand_nothing_is_given_out() -> None:
    alive = LiveEvidence(20 * CHAIN)
    held = [probe(number) for number in range(20)]
    for one in held:
        alive.add(one)
    assert alive.is_full
    assert not alive.may_be_held(MtaStsEvidence())


def test_equal_pieces_of_evidence_are_counted_each() -> None:
    alive = LiveEvidence(CHAIN)
    one, other = probe(), probe()
    alive.add(one)
    before = alive.octets
    alive.add(other)
    assert alive.octets == 2 * before
    del other
    assert alive.octets == before
    del one
    assert alive.octets == 0


def test_any_thread_may_free_it() -> None:
    """The judge's does."""
    alive = LiveEvidence(CHAIN)
    held = [probe() for _ in range(1_000)]
    for one in held:
        alive.add(one)
    del one
    thread = threading.Thread(target=held.clear)
    thread.start()
    while thread.is_alive():
        alive.add(MtaStsEvidence(error="timed out"))
    thread.join()
    assert alive.octets == 0


async def test_no_further_evidence_is_looked_for_while_there_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = 12_000
    monkeypatch.setattr(module, "IN_HAND_OCTETS", 12 * usual)
    kit = CacheKit(config=limited(host_cache=1, domain_cache=1))
    kit.source.script["probe"] = replace(kit.source.script["probe"], chain=(bytes(usual),))

    async def ask(number: int) -> ProbeEvidence:
        return await kit.cache.probe(ServerTarget(f"192.0.2.{number}", 25, "mx.example"))

    held = [await ask(number) for number in range(10)]
    with pytest.raises(BusyError):
        await ask(10)
    with pytest.raises(BusyError):
        await ask(11)
    assert kit.sessions == 10, "it is not even called while there is too much"
    assert kit.count("saturated_total", "flights") == 2
    held.clear()
    assert (await ask(12)).chain


class Tarpits(FakeSource):
    """Of two servers of each domain, one says much and the other nothing; of one both are well."""

    def __init__(self, kit: CacheKit) -> None:
        super().__init__(kit.clocks)
        self.good()
        self.silent = asyncio.Event()

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        records = MxRecord(10, f"mx1.{domain}"), MxRecord(20, f"mx2.{domain}")
        return replace(await super().mx(domain), records=records)

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        kind, domain, _ = host.split(".")
        address = f"2001:db8:{kind[-1]}::{'ffff' if domain == 'healthy' else domain}"
        return replace(await super().addresses(host), addresses=(address,))

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        if server.server_name.endswith(".healthy.example"):
            return await super().probe(server)
        if server.server_name.startswith("mx2."):
            await self.silent.wait()
        return replace(await super().probe(server), chain=(bytes(CHAIN),))


async def test_hundreds_of_gatherings_that_wait_for_a_silent_server_fill_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They keep what all other servers said until then."""
    promised = 1 << 20
    monkeypatch.setattr(module, "IN_HAND_OCTETS", 3 * promised)
    kit = CacheKit(MemoryStore(max_records=0), limited(host_cache=1, domain_cache=1))
    source = Tarpits(kit)
    for name in ("mx", "addresses", "probe"):
        monkeypatch.setattr(kit.source, name, getattr(source, name))
    assessor = Assessor(
        limited(assessment_timeout=300.0, evidence_wait=300.0),
        kit.cache,
        system_trust(),
        Counters(),
        Gauges(),
        clocks=kit.clocks,
    )
    asked = Requirement.REQUIRETLS
    with measured() as taken:
        answers = [
            asyncio.create_task(assessor.assess(Question(f"{n}.example", "smtp", asked, asked)))
            for n in range(200)
        ]
        await kit.idle()
        busy = sum(one.done() for one in answers)
        # Beside what was found: 200 questions and the tasks that work on them.
        assert taken() < 2 * promised + 200 * 25_000 < 200 * CHAIN
    assert 170 <= busy < 200
    healthy = await assessor.assess(Question("healthy.example", "smtp", asked, asked))
    assert healthy.reason is not Reason.UNKNOWN, "what is of a usual size has room"
    source.silent.set()
    results = await asyncio.gather(*answers)
    assert sum("takes too much memory" in one.text for one in results) >= busy
    await assessor.close()
