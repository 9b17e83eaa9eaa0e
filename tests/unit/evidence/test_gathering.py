"""Which questions are put: gathering over a source that answers by a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.evidence.gathering import (
    ANY_AGE,
    LATE,
    MAX_AT_ONCE,
    MAX_HOSTS,
    MAX_PROBES,
    EvidenceSource,
    Gathering,
    bounds_met,
)
from requiretls_milter.forecast.reach import MailServer
from requiretls_milter.forecast.servers import NoServer, servers_of
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    MailProtocol,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    NextHop,
    ProbeEvidence,
    ProbeStage,
    ServerTarget,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.syntax.nexthop import parse
from tests.support.gathered import gather
from tests.support.shuffling import ever_tried
from tests.support.waiting import until

NOW = 1_000_000.0
MX = HopKind.MX


def configured(**sections: dict[str, object]) -> Config:
    return Config.model_validate(sections)


# ---------------------------------------------------------------- which questions are put


@dataclass
class ScriptedSource(EvidenceSource):
    """Gives what it is told to, and remembers what it was asked."""

    records: MxEvidence = field(default_factory=lambda: MxEvidence(DnsOutcome.NODATA))
    hosts: dict[str, AddressLookup] = field(default_factory=dict)
    keys: dict[str, TlsaEvidence] = field(default_factory=dict)
    pause: float = 0.0
    held: set[str] = field(default_factory=set)
    """Hosts, addresses and kinds of question that are never answered."""
    open: int = 0
    most_open: int = 0
    asked: list[tuple[object, ...]] = field(default_factory=list)

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        self.asked.append(("mx", domain))
        await self._answer("mx")
        return self.records

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        self.asked.append(("srv", name))
        await self._answer("srv")
        return self.records

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        self.asked.append(("mta_sts", domain))
        await self._answer("mta_sts")
        return MtaStsEvidence(MtaStsPolicy(MtaStsMode.TESTING, ("x",), 1, "1"))

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        self.asked.append(("addresses", host))
        await self._answer(host)
        return self.hosts.get(host, AddressLookup(DnsOutcome.NODATA))

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        self.asked.append(("tlsa", host, port))
        await self._answer(host)
        return self.keys.get(host, TlsaEvidence())

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        lmtp = () if server.protocol is MailProtocol.SMTP else (server.protocol,)
        self.asked.append(("probe", *server[:3], *lmtp))
        await self._answer(server.address)
        return ProbeEvidence(server.address, ProbeStage.DONE, ehlo_name=server.server_name)

    async def _answer(self, key: str) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if key in self.held:
                await asyncio.Event().wait()
            await asyncio.sleep(self.pause)
        finally:
            self.open -= 1

    def questions(self, kind: str) -> list[tuple[object, ...]]:
        return [question[1:] for question in self.asked if question[0] == kind]


def at(*addresses: str) -> AddressLookup:
    return AddressLookup(DnsOutcome.FOUND, True, addresses)


def exchangers(*records: tuple[int, str]) -> MxEvidence:
    return MxEvidence(DnsOutcome.FOUND, True, tuple(MxRecord(*record) for record in records))


async def ask(
    source: ScriptedSource, nexthop: NextHop | None = None, config: Config | None = None
) -> DomainEvidence:
    return await gather(nexthop or NextHop(MX, "a.test"), source, config or configured(), NOW)


def probed(evidence: DomainEvidence) -> dict[str, list[str]]:
    return {host.host: [probe.address for probe in host.probes] for host in evidence.hosts}


@pytest.mark.parametrize("secure", [True, False])
async def test_r24_no_mx_is_an_implicit_one(secure: bool) -> None:
    source = ScriptedSource(MxEvidence(DnsOutcome.NODATA, secure), {"a.test": at("192.0.2.1")})
    evidence = await ask(source)
    assert evidence.mx.secure is secure
    assert probed(evidence) == {"a.test": ["192.0.2.1"]}
    assert evidence.hosts[0].preference == 0


@pytest.mark.parametrize(
    "mx",
    [
        MxEvidence(DnsOutcome.NXDOMAIN, True),
        MxEvidence(DnsOutcome.ERROR, error="MX a.test: timed out"),
        MxEvidence(DnsOutcome.FOUND, True, null_mx=True),
        MxEvidence(DnsOutcome.FOUND, True, error="no MX record names a host"),
    ],
)
async def test_r24_but_neither_nxdomain_nor_null_mx_nor_an_error(mx: MxEvidence) -> None:
    source = ScriptedSource(mx, {"a.test": at("192.0.2.1")})
    evidence = await ask(source)
    assert evidence.hosts == ()
    assert evidence.mx == mx
    assert source.questions("addresses") == []


async def test_r54_the_policy_domain_is_the_next_hop_domain_also_behind_an_alias() -> None:
    source = ScriptedSource(MxEvidence(DnsOutcome.NODATA, canonical="b.test"))
    evidence = await ask(source)
    assert source.questions("mta_sts") == [("a.test",)]
    assert evidence.mta_sts.policy is not None


@pytest.mark.parametrize(
    ("nexthop", "name"),
    [
        (NextHop(HopKind.HOST, "mx.a.test", 587), "mx.a.test"),
        (NextHop(HopKind.ADDRESS, "192.0.2.1", 587), ""),
    ],
)
async def test_r54_a_host_in_brackets_has_no_mx_and_an_address_no_policy_either(
    nexthop: NextHop, name: str
) -> None:
    source = ScriptedSource(hosts={nexthop.host: at("192.0.2.1")})
    evidence = await ask(source, nexthop)
    assert source.questions("mx") == []
    assert source.questions("mta_sts") == ([(name,)] if name else [])
    assert evidence.mx.outcome is DnsOutcome.NODATA
    assert not evidence.mx.secure
    assert (evidence.mta_sts == MtaStsEvidence()) is not bool(name)
    assert source.questions("tlsa") == [(nexthop.host, 587)]
    assert source.questions("probe") == [("192.0.2.1", 587, name)]


async def test_a_local_next_hop_raises_no_question() -> None:
    source = ScriptedSource()
    evidence = await ask(source, NextHop(HopKind.LOCAL, ""))
    assert source.asked == []
    assert evidence.hosts == ()


@pytest.mark.parametrize(("nexthop_port", "port"), [(25, 2525), (587, 587)])
async def test_the_configured_port_stands_for_25(nexthop_port: int, port: int) -> None:
    source = ScriptedSource(exchangers((10, "mx.test")), {"mx.test": at("192.0.2.1")})
    await ask(source, NextHop(MX, "a.test", nexthop_port), configured(probe={"port": 2525}))
    assert source.questions("tlsa") == [("mx.test", port)]
    assert source.questions("probe") == [("192.0.2.1", port, "mx.test")]


async def test_r42_the_server_name_is_the_base_domain_of_secure_tlsa_records() -> None:
    record = TlsaRecord(3, 1, 1, b"x")
    hosts = {name: at(f"192.0.2.{n}") for n, name in enumerate(["a", "b", "c", "d"])}
    keys = {
        "a": TlsaEvidence(True, DnsOutcome.FOUND, True, "base.test", (record,)),
        "b": TlsaEvidence(True, DnsOutcome.FOUND, False, "base.test", (record,)),
        "c": TlsaEvidence(True, DnsOutcome.NODATA, True, "base.test"),
        "d": TlsaEvidence(True, DnsOutcome.ERROR, False, "base.test"),
    }
    source = ScriptedSource(exchangers(*((10, name) for name in hosts)), hosts, keys)
    await ask(source)
    assert [name for *_, name in source.questions("probe")] == ["base.test", "b", "c", "d"]


async def test_a_host_that_is_named_twice_is_asked_for_once() -> None:
    source = ScriptedSource(
        exchangers((10, "mx.test"), (20, "mx.test")), {"mx.test": at("192.0.2.1")}
    )
    evidence = await ask(source)
    assert [(host.host, host.preference) for host in evidence.hosts] == [
        ("mx.test", 10),
        ("mx.test", 20),
    ]
    assert source.questions("addresses") == [("mx.test",)]
    assert len(source.questions("probe")) == 1
    assert all(host.probes for host in evidence.hosts)


async def test_an_address_of_two_hosts_is_probed_under_both_names() -> None:
    source = ScriptedSource(
        exchangers((10, "mx1.test"), (20, "mx2.test")),
        {"mx1.test": at("192.0.2.1"), "mx2.test": at("192.0.2.1")},
    )
    evidence = await ask(source)
    assert [host.probes[0].ehlo_name for host in evidence.hosts] == ["mx1.test", "mx2.test"]


async def test_of_many_hosts_the_best_are_looked_at() -> None:
    records = [(n, f"mx{n}.test") for n in range(100)]
    source = ScriptedSource(exchangers(*records))
    evidence = await ask(source)
    assert [host.host for host in evidence.hosts] == [f"mx{n}.test" for n in range(MAX_HOSTS)]
    assert len(source.questions("addresses")) == MAX_HOSTS


async def test_what_the_bounds_left_out_is_told() -> None:
    async def met(hosts: int, addresses: int = 1) -> tuple[str, ...]:
        records = [(n, f"mx{n}.test") for n in range(hosts)]
        found = {name: at(*v4(1, addresses)) for _, name in records[:1]}
        return bounds_met(await ask(ScriptedSource(exchangers(*records), found)))

    assert await met(MAX_HOSTS) == ()
    assert await met(MAX_HOSTS + 1) == ("hosts",)
    assert await met(1, MAX_PROBES - 1) == ()
    assert await met(1, MAX_PROBES + 1) == ("sessions",)
    partial = replace(exchangers((10, "mx.test")), partial=True)
    assert bounds_met(await ask(ScriptedSource(partial))) == ("hosts",)


async def test_questions_that_do_not_depend_on_each_other_are_put_at_once() -> None:
    hosts = {f"mx{n}.test": at(f"192.0.2.{n}") for n in range(5)}
    source = ScriptedSource(exchangers(*((10, name) for name in hosts)), hosts)
    await ask(source)
    kinds = [question[0] for question in source.asked]
    # Four steps one after the other, whatever their number: no answer comes before all
    # questions of its step are put.
    assert set(kinds[:2]) == {"mx", "mta_sts"}
    assert kinds[2:] == ["addresses"] * 5 + ["tlsa"] * 5 + ["probe"] * 5


async def test_cancelling_passes_through() -> None:
    source = ScriptedSource(pause=5.0)
    task = asyncio.create_task(ask(source))
    await until(lambda: source.asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- which addresses are probed


def v4(first: int, count: int) -> list[str]:
    return [f"192.0.2.{n}" for n in range(first, first + count)]


def v6(first: int, count: int) -> list[str]:
    return [f"2001:db8::{n:x}" for n in range(first, first + count)]


async def chosen(
    groups: Sequence[Sequence[str]], nexthop: NextHop | None = None, **mta: object
) -> list[str]:
    """Gather from one host per preference; return the addresses probed, in order."""
    hosts = {f"mx{n}.test": at(*addresses) for n, addresses in enumerate(groups)}
    records = exchangers(*((n, name) for n, name in enumerate(hosts)))
    evidence = await ask(ScriptedSource(records, hosts), nexthop, configured(mta=mta))
    return [address for addresses in probed(evidence).values() for address in addresses]


async def test_no_more_addresses_are_probed_than_the_mta_tries() -> None:
    addresses = v4(1, 8)
    assert await chosen([[address] for address in addresses]) == addresses[:5]
    assert await chosen([[a] for a in addresses], mx_address_limit=3) == addresses[:3]


async def test_a_group_that_begins_within_the_limit_is_probed_whole() -> None:
    # Postfix shuffles what is equal: any of the second group may be the fifth.
    assert await chosen([v4(1, 4), v4(10, 3), v4(20, 1)]) == v4(1, 4) + v4(10, 3)
    assert await chosen([v4(1, 5), v4(10, 3)]) == v4(1, 5)


async def test_hosts_of_equal_preference_are_one_group() -> None:
    hosts = {f"mx{n}.test": at(f"192.0.2.{n}") for n in range(8)}
    source = ScriptedSource(exchangers(*((10, name) for name in hosts)), hosts)
    await ask(source)
    assert len(source.questions("probe")) == 8


async def test_sessions_for_one_next_hop_are_bounded() -> None:
    assert await chosen([v4(1, 100)]) == v4(1, MAX_PROBES)
    assert await chosen([v4(1, 100)], mx_address_limit=0) == v4(1, MAX_PROBES)


async def test_without_a_limit_all_groups_are_probed() -> None:
    addresses = v4(1, 9)
    assert await chosen([[address] for address in addresses], mx_address_limit=0) == addresses


async def test_neither_address_family_crowds_the_other_out() -> None:
    # smtp_balance_inet_protocols: 6 and 2 become 3 and 2, and the order stays.
    assert await chosen([v6(1, 6), v4(1, 2)]) == v6(1, 6) + v4(1, 2)
    singles = [[address] for address in v6(1, 6) + v4(1, 2)]
    assert await chosen(singles) == v6(1, 3) + v4(1, 2)
    singles = [[address] for address in v6(1, 6) + v4(1, 6)]
    assert await chosen(singles) == v6(1, 3) + v4(1, 2), "the first one's family has the odd slot"
    singles = [[*v6(1, 1), *v4(1, 1)], *([address] for address in v6(2, 5) + v4(2, 5))]
    assert await chosen(singles) == [*v6(1, 1), *v4(1, 1), *v6(2, 2), *v4(2, 2)], "random"
    singles = [[address] for address in v4(1, 9) + v6(1, 1)]
    assert await chosen(singles) == v4(1, 4) + v6(1, 1)


preferences_and_addresses = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.lists(st.sampled_from((*v4(1, 4), *v6(1, 4))), max_size=2, unique=True),
    ),
    min_size=1,
    max_size=3,
)
transports = st.fixed_dictionaries(
    {
        "mx_address_limit": st.integers(0, 5),
        "inet_protocols": st.sampled_from((["ipv4"], ["ipv6"], ["ipv4", "ipv6"])),
        "address_preference": st.sampled_from(("any", "ipv4", "ipv6")),
        "my_addresses": st.sampled_from(([], v4(1, 1), v6(1, 1))),
    }
)


@given(preferences_and_addresses, transports, st.sampled_from((25, 587)))
def test_the_judge_has_a_probe_of_each_server_that_may_be_tried_and_of_no_other(
    listed: list[tuple[int, list[str]]], transport: dict[str, object], port: int
) -> None:
    hosts = {f"mx{n}.test": at(*addresses) for n, (_, addresses) in enumerate(listed)}
    records = sorted((preference, f"mx{n}.test") for n, (preference, _) in enumerate(listed))
    config = configured(mta=transport)
    source = ScriptedSource(exchangers(*records), hosts)
    evidence = asyncio.run(ask(source, NextHop(MX, "a.test", port), config))
    profile = config.mta.profile_for("")
    servers = servers_of(evidence, profile)
    tried: set[MailServer] = set()
    if not isinstance(servers, NoServer):
        tried = ever_tried(servers, profile.mx_address_limit)
    found = [(host.host, probe.address) for host in evidence.hosts for probe in host.probes]
    assert sorted(found) == sorted((server.host.host, server.address) for server in tried)


async def test_every_transport_counts_for_what_is_probed() -> None:
    singles = [[address] for address in v4(1, 4) + v6(1, 4)]
    wide = await chosen(
        singles,
        mx_address_limit=1,
        inet_protocols=["ipv4"],
        transport={"smtp6": {"inet_protocols": ["ipv6"], "mx_address_limit": 2}},
    )
    assert wide == v4(1, 1) + v6(1, 2)


async def test_the_mta_itself_and_what_is_no_better_preferred_is_not_probed() -> None:
    groups = [v4(1, 1), v4(2, 1), v4(3, 1)]
    own = ["192.0.2.2"]
    assert await chosen(groups, my_addresses=own) == v4(1, 1)
    elsewhere = NextHop(MX, "a.test", 587)
    assert await chosen(groups, elsewhere, my_addresses=own) == v4(1, 3)


async def test_nobody_calls_a_host_of_which_it_is_not_known_what_the_mta_sees() -> None:
    many = replace(at(*v4(1, 100)), partial=True)
    hosts = {"many.test": many, "mx.test": at("198.51.100.1")}
    source = ScriptedSource(exchangers((10, "many.test"), (20, "mx.test")), hosts)
    evidence = await ask(source)
    assert not evidence.hosts[0].probes
    assert [question[0] for question in source.questions("probe")] == ["198.51.100.1"]


@pytest.mark.timeout(20)
async def test_a_domain_that_names_two_thousand_addresses_is_no_burden() -> None:
    groups = [[f"10.{n}.0.{m}" for m in range(100)] for n in range(20)]
    started = time.monotonic()
    assert len(await chosen(groups)) == MAX_PROBES
    assert time.monotonic() - started < 5.0


async def test_without_probes_servers_are_named_and_not_called() -> None:
    source = ScriptedSource(exchangers((10, "mx.test")), {"mx.test": at("192.0.2.1")})
    found = await gather(NextHop(MX, "a.test"), source, configured(), NOW, probes=False)
    assert source.questions("probe") == []
    (probe,) = found.hosts[0].probes
    assert (probe.address, probe.stage) == ("192.0.2.1", ProbeStage.NOT_PROBED)


async def test_how_old_evidence_may_be_is_said_in_each_question() -> None:
    told: list[float] = []

    class Dated(ScriptedSource):
        async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
            told.append(since)
            return await super().mx(domain)

        async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
            told.append(since)
            return await super().mta_sts(domain)

        async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
            told.append(since)
            return await super().addresses(host)

        async def tlsa(
            self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
        ) -> TlsaEvidence:
            told.append(since)
            return await super().tlsa(host, port, addresses)

        async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
            told.append(since)
            return await super().probe(server)

    source = Dated(exchangers((10, "mx.test")), {"mx.test": at("192.0.2.1")})
    await gather(NextHop(MX, "a.test"), source, configured(), NOW, since=7.0)
    assert told == [7.0] * 5


async def test_a_next_hop_of_lmtp_is_asked_for_no_mx_and_spoken_to_in_lmtp() -> None:
    source = ScriptedSource(hosts={"box.test": at("192.0.2.1")})
    hop = parse("box.test", MailProtocol.LMTP)
    found = await ask(source, hop)
    assert source.questions("mx") == []
    assert source.questions("probe") == [("192.0.2.1", 24, "box.test", MailProtocol.LMTP)]
    assert found.hosts[0].probes[0].stage is ProbeStage.DONE


async def test_servers_of_srv_records_are_asked_at_their_own_ports() -> None:
    records = (MxRecord(10, "a.test", 2525), MxRecord(20, "b.test", 587))
    source = ScriptedSource(
        MxEvidence(DnsOutcome.FOUND, True, records),
        {"a.test": at("192.0.2.1"), "b.test": at("192.0.2.2")},
    )
    found = await ask(source, parse("srv:domain.test:submission"))
    assert source.questions("mx") == []
    assert source.questions("srv") == [("_submission._tcp.domain.test",)]
    assert source.questions("tlsa") == [("a.test", 2525), ("b.test", 587)]
    assert source.questions("probe") == [
        ("192.0.2.1", 2525, "a.test"),
        ("192.0.2.2", 587, "b.test"),
    ]
    assert [host.port for host in found.hosts] == [2525, 587]


# ---------------------------------------------------------------- what is known before the end


class Under:
    """A gathering under way."""

    def __init__(self, source: ScriptedSource) -> None:
        self.gathering = Gathering(NextHop(MX, "a.test"), source, configured(), NOW)

    async def __aenter__(self) -> Gathering:
        self._task = asyncio.create_task(self.gathering.run())
        return self.gathering

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def two_hosts(held: set[str]) -> ScriptedSource:
    return ScriptedSource(
        exchangers((10, "mx1.a.test"), (20, "mx2.a.test")),
        {"mx1.a.test": at("192.0.2.1"), "mx2.a.test": at("192.0.2.2")},
        held=held,
    )


async def test_without_the_mx_records_nothing_is_known() -> None:
    source = two_hosts(held={"mx"})
    async with Under(source) as gathering:
        await until(lambda: source.open == 1)
        assert gathering.known() is None


async def test_a_server_that_does_not_answer_is_one_that_has_not_been_probed() -> None:
    source = two_hosts(held={"192.0.2.1"})
    async with Under(source) as gathering:
        await until(lambda: len(source.questions("probe")) == 2 and source.open == 1)
        known = gathering.known()
    assert known is not None
    one, two = (host.probes[0] for host in known.hosts)
    assert (one.stage, one.error) == (ProbeStage.NOT_PROBED, LATE)
    assert two.stage is ProbeStage.DONE


async def test_a_host_whose_names_are_not_looked_up_so_far_may_have_any_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are called meanwhile."""
    monkeypatch.setattr("requiretls_milter.evidence.gathering.LOOKUP_PATIENCE", 0.05)
    source = two_hosts(held={"mx1.a.test"})
    async with Under(source) as gathering:
        await until(lambda: source.questions("probe") and source.open == 1)
        known = gathering.known()
    assert known is not None
    assert source.questions("probe") == [("192.0.2.2", 25, "mx2.a.test")]
    servers = servers_of(known, configured().mta.profile_for(""))
    assert not isinstance(servers, NoServer)
    (unseen,), (seen,) = servers
    assert unseen.unseen is not None
    assert LATE in unseen.unseen.why
    assert (seen.address, seen.probe.stage) == ("192.0.2.2", ProbeStage.DONE)


async def test_a_policy_that_is_not_known_so_far_is_an_error_and_not_none() -> None:
    source = two_hosts(held={"mta_sts"})
    async with Under(source) as gathering:
        await until(lambda: len(source.questions("probe")) == 2)
        known = gathering.known()
    assert known is not None
    assert known.mta_sts.policy is None
    assert (known.mta_sts.error, known.mta_sts.unasked) == (LATE, True)


async def test_what_takes_the_source_too_long_stays_unknown_and_the_rest_is_gathered() -> None:
    class Late(ScriptedSource):
        async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
            raise TimeoutError

    source = Late(exchangers((10, "mx1.a.test")), {"mx1.a.test": at("192.0.2.1")})
    evidence = await ask(source)
    assert evidence.mta_sts.error == LATE
    assert evidence.hosts[0].probes[0].stage is ProbeStage.DONE


async def test_one_next_hop_has_few_questions_open_at_once() -> None:
    hosts = [f"mx{n}.a.test" for n in range(16)]
    source = ScriptedSource(
        exchangers(*((10, host) for host in hosts)),
        {host: at(f"192.0.2.{n + 1}") for n, host in enumerate(hosts)},
        pause=0.01,
    )
    evidence = await ask(source)
    assert sum(len(host.probes) for host in evidence.hosts) == 16
    assert source.most_open == MAX_AT_ONCE
