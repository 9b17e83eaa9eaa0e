"""From a question to a forecast, in bounded time, once for all who ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config
from requiretls_milter.engine.assessor import LIGHT_OCTETS, MIN_GATHERING, Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.evidence.gathering import LATE
from requiretls_milter.forecast import judge as judging
from requiretls_milter.ipc.wire import MAX_FORECAST_LIFE
from requiretls_milter.model import (
    DnsOutcome,
    HopKind,
    MxEvidence,
    MxRecord,
    NextHop,
    Outcome,
    ProbeStage,
    Question,
    Reason,
    Requirement,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.build import system_trust
from tests.support.chains import VALIDITIES, Make, issue
from tests.support.fakesource import Clocks, FakeSource
from tests.support.waiting import PATIENCE, until

SETTINGS = """
[mta]
tls_security_level = "dane"
[mta.transport."plain"]
tls_security_level = "may"
[rules.recipient."good.example"]
mode = "reject"
[rules.nexthop.".example.net"]
mode = "defer"
"""


class Kit:
    def __init__(
        self, text: str = SETTINGS, *, limits: config.Limits | None = None, **options: Any
    ) -> None:
        self.clocks = Clocks()
        self.source = FakeSource(self.clocks).good()
        self.counters = Counters()
        self.gauges = Gauges()
        self.cache = CachedSource(
            self.source,
            MemoryStore(),
            Config(limits=config.Limits() if limits is None else limits),
            self.counters,
            authorities="",
            clocks=self.clocks,
            jitter=lambda: 0.0,
        )
        self.assessor = Assessor(
            config.parse(text.encode(), "test"),
            self.cache,
            system_trust(),
            self.counters,
            self.gauges,
            clocks=self.clocks,
            **options,
        )

    def results(self) -> dict[str, float]:
        return self._counted("assessments_total")

    def shown(self, wanted: str) -> dict[tuple[str, ...], float]:
        return {labels: value for metric, labels, value in self.gauges.items() if metric == wanted}

    def saturated(self) -> dict[str, float]:
        return self._counted("saturated_total")

    def _counted(self, wanted: str) -> dict[str, float]:
        return {
            labels[0]: value
            for metric, labels, value in self.counters.totals().counters
            if metric == wanted
        }

    async def close(self) -> None:
        await self.assessor.close()
        await self.cache.close()


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    one = Kit()
    yield one
    await one.close()


def question(
    nexthop: str = "a.example",
    transport: str = "smtp",
    asked: Requirement = Requirement.REQUIRETLS,
) -> Question:
    return Question(nexthop, transport, asked, asked)


async def test_an_assessment_is_the_judge_s_word_on_the_evidence(kit: Kit) -> None:
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "5.7.10"  # dane without TLSA is may: not enough for REQUIRETLS
    assert forecast.outcome is Outcome.BOUNCE
    assert kit.results() == {"bounce": 1}
    ((_, counts, _),) = kit.counters.totals().histograms
    assert sum(counts) == 1


async def test_the_transport_decides_over_the_profile(kit: Kit) -> None:
    none = Requirement.NONE
    kit.source.script["tlsa"] = type(kit.source.script["tlsa"])(True, DnsOutcome.ERROR, expires=0)
    assert (await kit.assessor.assess(question("a.example", "smtp", none))).status == "4.7.5"
    assert (await kit.assessor.assess(question("a.example", "plain", none))).status == "2.0.0"


async def test_a_question_is_answered_for_the_transport_that_it_names() -> None:
    """The worker knows whether a recipe moves the message, and names the transport in the end."""
    route = 'route_transport = "strict"\ntransport.strict.tls_security_level = "dane-only"\n'
    one = Kit(f"[mta]\n{route}")
    asked, none = Requirement.REQUIRETLS, Requirement.NONE
    moved = Question("a.example", "strict", asked, none)
    assert (await one.assessor.assess(moved)).reason is Reason.NO_TLSA_RECORDS
    assert (await one.assessor.assess(replace(moved, transport="smtp"))).status == "2.0.0"
    await one.close()


async def test_a_forecast_may_be_reused_as_long_as_its_shortest_lived_evidence(kit: Kit) -> None:
    forecast = await kit.assessor.assess(question())
    assert forecast.valid_until == kit.clocks.wall() + 300
    kit.clocks.pass_(100)
    forecast = await kit.assessor.assess(question())
    assert forecast.valid_until == kit.clocks.wall() + 200


async def test_a_forecast_is_never_reused_for_longer_than_an_hour(kit: Kit) -> None:
    for kind, found in list(kit.source.script.items()):
        kit.source.script[kind] = type(found)(
            **{
                **{name: getattr(found, name) for name in found.__dataclass_fields__},
                "expires": 80_000,
            }
        )
    forecast = await kit.assessor.assess(question("[192.0.2.1]"))
    assert forecast.valid_until == kit.clocks.wall() + MAX_FORECAST_LIFE


async def test_a_forecast_is_not_reused_when_a_certificate_has_expired(kit: Kit) -> None:
    begin, end = (moment.timestamp() for moment in VALIDITIES["now"])
    kit.clocks.wall_time = begin - 20
    chain = (issue(Make("mx.a.example", 1), None),)
    kit.source.script["probe"] = replace(kit.source.script["probe"], chain=chain)
    for moment, change in ((begin - 20, begin), (begin, begin + 280), (end - 50, end)):
        kit.clocks.pass_(moment - kit.clocks.wall_time)
        assert (await kit.assessor.assess(question())).valid_until == change


async def test_r61_a_temporary_forecast_lasts_until_the_next_attempt(kit: Kit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR, error="SERVFAIL")
    for seconds in (60, 120):
        forecast = await kit.assessor.assess(question())
        assert forecast.reason is Reason.DNS_FAILURE
        assert forecast.valid_until == kit.clocks.wall() + seconds
        kit.clocks.pass_(seconds / 2)
        again = await kit.assessor.assess(question())
        assert again.valid_until == kit.clocks.wall() + seconds / 2
        kit.clocks.pass_(seconds / 2)
    assert kit.source.calls["mx a.example"] == 2


async def test_a_domain_with_more_hosts_than_are_looked_at_counts_as_such(kit: Kit) -> None:
    assert kit.saturated() == {}
    kit.source.script["mx"] = replace(kit.source.script["mx"], partial=True)
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert kit.saturated() == {"hosts": 1}


async def test_r60_one_domain_is_gathered_once_for_all_questions(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    same = [asyncio.create_task(kit.assessor.assess(question())) for _ in range(50)]
    other = asyncio.create_task(kit.assessor.assess(question("a.example", "plain")))
    await until(lambda: kit.assessor.in_flight == 3)
    kit.source.gate.set()
    forecasts = await asyncio.gather(*same)
    await other
    assert len(set(forecasts)) == 1
    assert set(kit.source.calls.values()) == {1}
    assert sum(kit.results().values()) == 2  # the two questions, not the fifty who asked


async def test_r60_a_cancelled_question_does_not_take_the_answer_from_the_others(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    first, second = (asyncio.create_task(kit.assessor.assess(question())) for _ in range(2))
    await until(lambda: kit.assessor.in_flight == 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    kit.source.gate.set()
    assert (await second).status == "5.7.10"


def test_r60_the_deadline_is_shorter_than_the_mta_s() -> None:
    milter_command_timeout = 30  # Postfix's default, in seconds
    assert milter_command_timeout > config.Limits().assessment_timeout
    with pytest.raises(config.ConfigError, match=r"limits\.assessment_timeout: expected less"):
        config.parse(b"limits.assessment_timeout = 30", "test")


async def test_r60_on_the_deadline_the_forecast_is_unknown_and_the_look_goes_on() -> None:
    kit = Kit(SETTINGS + "[limits]\nassessment_timeout = 0.05")
    kit.source.gate = asyncio.Event()
    async with asyncio.timeout(PATIENCE):  # the look itself would never end
        forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert kit.results() == {"deadline": 1}
    assert kit.saturated()["assessment_timeout"] == 1
    kit.source.gate.set()
    await until(lambda: not kit.assessor.in_flight)
    calls = dict(kit.source.calls)
    assert calls["probe 192.0.2.1 mx.a.example"] == 1
    assert (await kit.assessor.assess(question())).status == "5.7.10"
    assert dict(kit.source.calls) == calls
    await kit.close()


@pytest.mark.parametrize(
    "nexthop", ["", "[", "a..example", "a.example:port", "x" * 5000, "a b", "[1.2.3.4", "\udc80"]
)
async def test_a_malformed_next_hop_is_unknown_without_a_lookup(kit: Kit, nexthop: str) -> None:
    forecast = await kit.assessor.assess(question(nexthop))
    assert forecast.status == "unknown"
    assert kit.results() == {"malformed": 1}
    assert not kit.source.calls


async def test_a_mistake_of_ours_is_unknown_and_not_a_verdict(kit: Kit) -> None:
    kit.source.error = RuntimeError("a mistake")
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert "a mistake" not in forecast.text
    assert kit.results() == {"error": 1}
    kit.source.error = None
    assert (await kit.assessor.assess(question())).status == "5.7.10"


async def test_beyond_what_is_looked_at_at_once_the_engine_is_busy() -> None:
    kit = Kit(SETTINGS + "[limits]\ngatherings = 2")
    kit.source.gate = asyncio.Event()
    tasks = [
        asyncio.create_task(kit.assessor.assess(question(f"{letter}.example"))) for letter in "abc"
    ]
    assert (await tasks[2]).status == "unknown"
    assert kit.results() == {"busy": 1}
    kit.source.gate.set()
    await asyncio.gather(*tasks)
    assert kit.results() == {"busy": 1, "bounce": 2}
    assert kit.saturated() == {"gatherings": 1}
    await kit.close()


async def test_the_gathering_that_has_taken_longest_makes_room_for_a_new_one() -> None:
    """What is known of it is judged; here that is nothing."""
    kit = Kit(SETTINGS + "[limits]\ngatherings = 2")
    kit.source.held = {"mx a.example", "mx b.example"}
    old = [
        asyncio.create_task(kit.assessor.assess(question(f"{letter}.example"))) for letter in "ab"
    ]
    await until(lambda: kit.source.calls["mx b.example"])
    kit.clocks.pass_(MIN_GATHERING)
    assert (await kit.assessor.assess(question("c.example"))).status == "5.7.10"
    assert (await old[0]).status == "unknown"
    assert not old[1].done()
    assert kit.results() == {"bounce": 1, "busy": 1}
    assert kit.saturated() == {"gatherings": 1}
    await kit.close()


async def test_beyond_what_is_under_way_at_once_the_engine_is_busy_and_not_mistaken() -> None:
    """Lookups refused deep within a gathering are back-pressure, not a mistake of ours."""
    kit = Kit(limits=config.Limits(flights=1))
    kit.source.gate = asyncio.Event()
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert "busy" in forecast.text
    assert kit.results() == {"busy": 1}
    assert kit.saturated()["flights"] >= 1
    await kit.close()


async def test_evidence_is_not_gathered_for_ever() -> None:
    kit = Kit(SETTINGS + "[limits]\ngathering_timeout = 0.05")
    kit.source.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        await kit.assessor.evidence(nexthops.parse("a.example"))
    assert kit.assessor.in_flight == 0
    assert kit.saturated() == {"gathering_timeout": 1}
    await kit.close()


async def test_what_is_known_at_the_end_of_a_gathering_is_its_evidence() -> None:
    kit = Kit(SETTINGS + "[limits]\ngathering_timeout = 0.05")
    kit.source.held = {"probe"}
    evidence = await kit.assessor.evidence(nexthops.parse("a.example"))
    assert evidence.hosts[0].addresses.outcome is DnsOutcome.FOUND
    assert evidence.hosts[0].probes[0].stage is ProbeStage.NOT_PROBED
    assert kit.saturated() == {"gathering_timeout": 1}
    await kit.close()


WAITING = "[limits]\nevidence_wait = 0.05\nassessment_timeout = 0.3"


def two_servers(kit: Kit) -> None:
    """The second server's sessions never end."""
    records = (MxRecord(10, "mx1.a.example"), MxRecord(20, "mx2.a.example"))
    kit.source.script["mx"] = replace(kit.source.script["mx"], records=records)
    second = replace(kit.source.script["addresses"], addresses=("192.0.2.2",))
    kit.source.script["addresses mx2.a.example"] = second
    kit.source.held = {"probe 192.0.2.2 mx2.a.example"}


async def test_after_a_while_what_is_known_is_judged_and_may_be_enough() -> None:
    kit = Kit(SETTINGS + WAITING)
    two_servers(kit)
    none = Requirement.NONE
    forecast = await kit.assessor.assess(question("a.example", "plain", none))
    assert forecast.status == "2.0.0"
    assert forecast.valid_until == 0.0, "more may be known soon"
    assert set(kit.saturated()) == {"evidence_wait"}
    assert kit.assessor.in_flight == 1, "the gathering goes on"
    await kit.close()


async def test_what_is_known_is_judged_before_the_deadline_however_short_that_is() -> None:
    kit = Kit(SETTINGS + "[limits]\nassessment_timeout = 0.4")
    two_servers(kit)
    forecast = await kit.assessor.assess(question("a.example", "plain", Requirement.NONE))
    assert forecast.status == "2.0.0"
    await kit.close()


async def test_what_is_known_is_not_enough_if_a_server_that_is_not_known_might_decide() -> None:
    kit = Kit(SETTINGS + WAITING)
    two_servers(kit)
    kit.source.held = {"probe 192.0.2.1 mx1.a.example"}
    forecast = await kit.assessor.assess(question("a.example", "plain", Requirement.NONE))
    assert forecast.status == "unknown"
    assert kit.results() == {"deadline": 1}
    await kit.close()


@pytest.mark.parametrize(
    ("mta_sts", "level", "status"), [("off", "may", "2.0.0"), ("match", "may", "unknown")]
)
async def test_a_policy_that_is_not_known_matters_to_an_mta_that_heeds_it(
    mta_sts: str, level: str, status: str
) -> None:
    settings = f'[mta]\nmta_sts = "{mta_sts}"\ntls_security_level = "{level}"\n'
    kit = Kit(settings + WAITING)
    kit.source.held = {"mta_sts"}
    forecast = await kit.assessor.assess(question(asked=Requirement.NONE))
    assert forecast.status == status
    await kit.close()


async def test_without_the_policy_no_delivery_is_said_to_fail() -> None:
    """The policy may vouch for names that DNSSEC does not: none is called insecure without it."""
    kit = Kit(SETTINGS + WAITING)
    kit.source.script["mx"] = replace(kit.source.script["mx"], secure=False)
    kit.source.held = {"mta_sts"}
    assert (await kit.assessor.assess(question())).status == "unknown"
    kit.source.held = set()
    await kit.close()


async def test_a_policy_that_the_source_cannot_find_in_time_is_not_known_either() -> None:
    kit = Kit(limits=config.Limits(flight_timeout=0.05))
    kit.source.script["mx"] = replace(kit.source.script["mx"], secure=False)
    kit.source.held = {"mta_sts"}
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert LATE in forecast.text
    await kit.close()


async def test_a_lookup_that_never_ends_is_unknown_and_counted_once() -> None:
    kit = Kit(limits=config.Limits(flight_timeout=0.05))
    kit.source.gate = asyncio.Event()
    forecast = await kit.assessor.assess(question())
    assert forecast.status == "unknown"
    assert kit.results() == {"deadline": 1}
    assert set(kit.saturated()) == {"flight_timeout"}
    await kit.close()


def send_many_certificates(kit: Kit, domain: str) -> None:
    """The server of a domain sends more certificates than are judged on the loop."""
    chain = tuple(bytes([n]) * 2048 for n in range(LIGHT_OCTETS // 2048 + 1))
    server = f"probe 192.0.2.1 mx.{domain}"
    kit.source.script[server] = replace(kit.source.script["probe"], chain=chain)


async def test_judging_many_certificates_does_not_hold_the_loop_up(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    gate = threading.Event()
    real = judging.judge

    def slow(*arguments: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        assert gate.wait(PATIENCE), "the loop did not turn while the judge was at work"
        return real(*arguments, **more)

    monkeypatch.setattr("requiretls_milter.engine.assessor.judge", slow)
    send_many_certificates(kit, "a.example")
    assessment = asyncio.create_task(kit.assessor.assess(question()))
    await until(lambda: threads)
    gate.set()
    assert (await assessment).outcome is not Outcome.UNKNOWN
    assert threading.get_ident() not in threads


async def test_nothing_is_judged_beside_a_thread_that_judges_since_they_share_a_trust_store(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most = 0, 0
    threads = set()
    lock = threading.Lock()
    real = judging.judge

    def noting(*arguments: Any, **more: Any) -> Any:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threads.add(threading.get_ident())
        time.sleep(0.01)
        with lock:
            at_work -= 1
        return real(*arguments, **more)

    monkeypatch.setattr("requiretls_milter.engine.assessor.judge", noting)
    for n in range(0, 10, 3):
        send_many_certificates(kit, f"{n}.example")
    await kit.assessor.assess(question())
    assert threads == {threading.get_ident()}
    await asyncio.gather(*(kit.assessor.assess(question(f"{n}.example")) for n in range(10)))
    assert most == 1
    assert len(threads) == 2


async def test_ordinary_mail_is_surveyed_without_probes_where_the_operator_says_dns() -> None:
    kit = Kit('[probe]\nplain_mail = "dns"\n')
    await kit.assessor.assess(question(asked=Requirement.NONE))
    assert kit.source.calls["mx a.example"] == 1
    assert not [call for call in kit.source.calls if call.startswith("probe")]
    await kit.assessor.assess(question())
    assert [call for call in kit.source.calls if call.startswith("probe")]
    await kit.close()


async def test_evidence_for_the_command_line_is_that_of_the_cache_or_looked_for_anew(
    kit: Kit,
) -> None:
    hop = NextHop(HopKind.MX, "a.example")
    first = await kit.assessor.evidence(hop)
    assert first.hosts[0].probes[0].stage is ProbeStage.DONE
    kit.clocks.pass_(1)
    await kit.assessor.evidence(hop)
    assert set(kit.source.calls.values()) == {1}
    await kit.assessor.evidence(hop, refresh=True)
    assert set(kit.source.calls.values()) == {2}


async def test_a_configured_domain_is_shown_ready_or_not(kit: Kit) -> None:
    await kit.assessor.assess(question("good.example"))
    await kit.assessor.assess(question("other.example"))
    await kit.assessor.assess(question("good.example", asked=Requirement.NONE))
    assert kit.shown("domain_ready") == {("good.example",): 0.0}
    assert kit.shown("domain_state") == {("good.example", "bounce"): 1.0}
    assert kit.shown("domain_last_assessed_timestamp_seconds") == {
        ("good.example",): kit.clocks.wall()
    }


async def test_a_configured_domain_of_which_nothing_is_known_is_shown_neither_ready_nor_not(
    kit: Kit,
) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR, error="over budget", unasked=True)
    assert (await kit.assessor.assess(question("good.example"))).outcome is Outcome.UNKNOWN
    assert kit.shown("domain_ready") == {}
    assert kit.shown("domain_state") == {("good.example", "unknown"): 1.0}


async def test_a_configured_domain_whose_assessment_fails_is_shown_as_unknown(kit: Kit) -> None:
    kit.source.script["mx"] = RuntimeError("a fault of ours")
    await kit.assessor.assess(question("good.example"))
    assert kit.results() == {"error": 1}
    assert kit.shown("domain_state") == {("good.example", "unknown"): 1.0}


async def test_closing_ends_what_is_under_way(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.assessor.assess(question()))
    await until(lambda: kit.assessor.in_flight == 2)
    await kit.assessor.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_finishing_waits_for_what_is_under_way_but_not_for_ever(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.assessor.assess(question()))
    await until(lambda: kit.assessor.in_flight == 2)
    started = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        await kit.assessor.finish(0.1)
    assert time.monotonic() - started > 0.05
    asyncio.get_running_loop().call_later(0.05, kit.source.gate.set)
    await kit.assessor.finish(5)
    assert task.done()
