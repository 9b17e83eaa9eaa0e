"""A forecast past its life: to whom it is given, and to whom never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config
from requiretls_milter.engine.answers import (
    ENDING,
    OFTEN,
    REFRESH_PAUSE,
    WARM,
    Answers,
)
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.engine.outage import MIN_FAILED
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.troubles import Troubles, lost
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    Feature,
    Forecast,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    Needs,
    Outcome,
    ProbeFailure,
    ProbeStage,
    Question,
    Reason,
    Requirement,
    ServerTarget,
    TlsaEvidence,
    unknown_forecast,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import OutboundService
from tests.support import build, virtualtime
from tests.support.fakesource import Clocks, FakeSource
from tests.support.stores import counted
from tests.support.waiting import until

DAY = 86_400.0
LIFE = 300.0
"""Seconds that what the network says lives, but for sessions."""

ACTS = '[mta]\ntls_security_level = "dane"\n[rules]\nmode = "reject"\n'
MONITORS = '[mta]\ntls_security_level = "dane"\n[rules]\nmode = "monitor"\n'
REQUIRETLS = Requirement.REQUIRETLS
QUESTION = Question("a.example", "smtp", REQUIRETLS, REQUIRETLS)
RETRY = Config().probe.retry_after * 1.2
BY_US_ALONE = replace(QUESTION, carried=Requirement.NONE)


def stale(answers: Answers, question: Question, *, acts: bool) -> Forecast | None:
    """The answer past its life; None if there is none."""
    found = answers.use(question, 0, acts=acts, since=float("-inf"))
    return found[0] if found is not None and found[0].stale else None


async def let_the_resolver_die(kit: Kit) -> None:
    """Have no name answered any more, and see that this is our own outage."""
    dead = MxEvidence(DnsOutcome.ERROR, error="timed out")
    kit.source.script["mx"] = replace(dead, expires=60)
    kit.source.script["addresses"] = AddressLookup(DnsOutcome.ERROR, error="timed out")
    for number in range(MIN_FAILED):
        kit.cache.outage.saw_lookup(f"zone{number}.test", dead)
    await kit.cache.recheck_reachability()
    assert kit.cache.outage.is_out(OutboundService.DNS)


class Kit:
    """An assessor with answers, over a scripted internet in which all is well."""

    def __init__(self, text: str = ACTS, stale_for: float = DAY, clocks: Any = None) -> None:
        self.clocks = Clocks() if clocks is None else clocks
        self.source = FakeSource(self.clocks).good()
        record = build.certificate().tlsa()
        tlsa = TlsaEvidence(True, DnsOutcome.FOUND, True, "mx", (record,), expires=LIFE)
        self.source.script["tlsa"] = tlsa
        self.source.script["probe"] = replace(build.probe(), expires=FRESH)
        self.counters = Counters()
        self.troubles = Troubles(self.clocks)
        self.answers = Answers(stale_for, 1_000, self.troubles, self.clocks)
        store = MemoryStore()
        self.cache = CachedSource(
            self.source,
            store,
            Config(),
            self.counters,
            authorities="",
            troubles=self.troubles,
            clocks=self.clocks,
            jitter=lambda: 0.0,
        )
        self._config = config.parse(text.encode(), "test")
        self._downgrades = DowngradeTracker(
            RecordStore(store, self.counters), self.counters, self.troubles
        )
        self.assessor = self.another_assessor()

    def another_assessor(self) -> Assessor:
        """As after a reload that finds the same evidence."""
        return Assessor(
            self._config,
            self.cache,
            build.system_trust(),
            self.counters,
            Gauges(),
            downgrades=self._downgrades,
            answers=self.answers,
            clocks=self.clocks,
        )

    async def ask(self, question: Question = QUESTION, **options: Any) -> Forecast:
        at_hand = self.assessor.answer_at_hand(question, **options)
        return at_hand or await self.assessor.assess(question)

    async def settle(self) -> None:
        """Let what was begun behind the answers end."""
        await self.assessor.finish(10)

    @property
    def given_stale(self) -> float:
        return counted(self.counters, "cache_requests_total", "forecast", "stale")

    @property
    def sessions(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("probe "))

    @property
    def lookups(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("mx "))

    def fail_sessions(self) -> None:
        self.source.script["probe"] = replace(
            build.probe(), stage=ProbeStage.CONNECT, failure=ProbeFailure.TIMEOUT, chain=()
        )

    async def close(self) -> None:
        await self.assessor.close()
        await self.cache.close()


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    one = Kit()
    yield one
    await one.close()


# ---------------------------------------------------------------- within its life


def assessed(kit: Kit) -> float:
    return counted(kit.counters, "assessments_total", "deliver")


async def test_within_its_life_a_forecast_is_the_answer_without_being_made_anew(kit: Kit) -> None:
    first = await kit.ask()
    kit.clocks.pass_(LIFE - 1)
    assert kit.assessor.answer_at_hand(QUESTION) == first
    assert assessed(kit) == 1
    assert counted(kit.counters, "cache_requests_total", "forecast", "hit") == 1
    kit.clocks.pass_(1)
    assert kit.assessor.answer_at_hand(QUESTION) != first


async def test_nor_is_it_without_forecasts_past_their_life() -> None:
    kit = Kit(stale_for=0)
    await kit.ask()
    kit.clocks.pass_(LIFE - 1)
    assert kit.assessor.answer_at_hand(QUESTION) is not None
    kit.clocks.pass_(1)
    assert kit.assessor.answer_at_hand(QUESTION) is None
    await kit.close()


async def test_another_question_about_the_same_domain_has_another_answer(kit: Kit) -> None:
    await kit.ask()
    assert kit.assessor.answer_at_hand(BY_US_ALONE) is None
    assert kit.assessor.answer_at_hand(replace(QUESTION, transport="other")) is None


@pytest.mark.parametrize("kind", ["mx", "mta_sts", "addresses", "tlsa", "probe"])
async def test_what_was_found_again_makes_it_anew(kit: Kit, kind: str) -> None:
    await kit.ask()
    kit.clocks.pass_(1)
    since = kit.clocks.monotonic()
    addresses = await kit.cache.addresses("mx.a.example")
    names: dict[str, Callable[[], Awaitable[Any]]] = {
        "mx": lambda: kit.cache.mx("a.example", since=since),
        "mta_sts": lambda: kit.cache.mta_sts("a.example", since=since),
        "addresses": lambda: kit.cache.addresses("mx.a.example", since=since),
        "tlsa": lambda: kit.cache.tlsa("mx.a.example", 25, addresses, since=since),
        "probe": lambda: kit.cache.probe(ServerTarget("192.0.2.1", 25, "mx"), since=since),
    }
    await names[kind]()
    assert kit.assessor.answer_at_hand(QUESTION) is None
    kit.clocks.pass_(1)
    await kit.ask()
    assert assessed(kit) == 2
    assert kit.assessor.answer_at_hand(QUESTION) is not None


async def test_what_was_found_again_for_others_does_not(kit: Kit) -> None:
    await kit.ask()
    await kit.cache.mx("b.example")
    kit.clocks.pass_(1)
    await kit.cache.mx("b.example", since=kit.clocks.monotonic())
    assert kit.assessor.answer_at_hand(QUESTION) is not None


async def test_what_has_failed_since_makes_it_anew(kit: Kit) -> None:
    await kit.ask()
    kit.troubles.note(("probe", "192.0.2.9"))
    kit.troubles.note(lost(Feature.STARTTLS, "another.example"))
    assert kit.assessor.answer_at_hand(QUESTION) is not None
    kit.troubles.note(lost(Feature.MTA_STS, "a.example"))
    assert kit.assessor.answer_at_hand(QUESTION) is None


async def test_what_rests_on_a_failure_is_made_anew_each_time(kit: Kit) -> None:
    """Once the failure is forgotten, for instance at the end of an outage, it has to be."""
    kit.source.script["mta_sts"] = MtaStsEvidence(error="no answer", expires=LIFE)
    assert (await kit.ask()).status == "2.0.0"
    assert kit.assessor.answer_at_hand(QUESTION) is None


async def test_during_an_outage_and_after_it_everything_is_made_anew(kit: Kit) -> None:
    await kit.ask()
    well = dict(kit.source.script)
    await let_the_resolver_die(kit)
    assert kit.assessor.answer_at_hand(QUESTION) is None
    kit.source.script = well
    await kit.cache.mx("b.example")
    assert not kit.cache.outage.is_out(OutboundService.DNS)
    assert kit.assessor.answer_at_hand(QUESTION) is None


async def test_after_a_reload_everything_is_made_anew(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(1)
    reloaded = kit.another_assessor()
    assert reloaded.answer_at_hand(QUESTION) is None
    await reloaded.assess(QUESTION)
    assert reloaded.answer_at_hand(QUESTION) is not None
    await reloaded.close()


async def test_a_clock_that_was_set_back_makes_nobody_keep_it_for_longer(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE - 10)
    kit.clocks.wall_time -= 1_000
    again = kit.assessor.answer_at_hand(QUESTION)
    assert again is not None
    assert again.valid_until == kit.clocks.wall() + 10


# ---------------------------------------------------------------- what it is for


async def test_past_its_life_a_forecast_is_given_out_and_made_anew_behind_it(kit: Kit) -> None:
    first = await kit.ask()
    assert (first.status, first.compliant, first.stale) == ("2.0.0", True, 0.0)
    kit.clocks.pass_(LIFE + 60)
    kit.source.gate = asyncio.Event()  # from now on the network takes its time
    second = await kit.ask()
    assert second == replace(first, valid_until=0.0, stale=60.0)
    assert kit.given_stale == 1
    kit.source.gate.set()
    await kit.settle()
    third = await kit.ask()
    assert (third.stale, third.valid_until) == (0.0, kit.clocks.wall() + LIFE)
    assert (kit.lookups, kit.given_stale) == (2, 1)


async def test_a_worker_does_not_keep_it(kit: Kit) -> None:
    """The next message finds the fresh one in the engine."""
    await kit.ask()
    kit.clocks.pass_(LIFE)
    assert (await kit.ask()).valid_until == 0.0


async def test_within_its_life_a_forecast_is_not_stale(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE - 1)
    assert (await kit.ask()).stale == 0.0
    assert kit.given_stale == 0


async def test_several_messages_have_it_made_anew_once(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE)
    kit.source.gate = asyncio.Event()
    for _ in range(20):
        assert (await kit.ask()).stale
    kit.source.gate.set()
    await kit.settle()
    assert kit.lookups == 2


async def test_while_nothing_new_is_found_out_it_is_tried_every_half_minute(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE)
    kit.source.error = RuntimeError("an internal error")
    for _ in range(5):
        await kit.ask()
        await kit.settle()
    assert kit.lookups == 2
    kit.clocks.pass_(REFRESH_PAUSE)
    await kit.ask()
    await kit.settle()
    assert kit.lookups == 3


async def test_with_stale_for_0_every_message_waits_for_the_network() -> None:
    kit = Kit(stale_for=0)
    await kit.ask()
    for number in range(2, 5):
        kit.clocks.pass_(LIFE)
        forecast = await kit.ask()
        assert (forecast.stale, forecast.valid_until) == (0.0, kit.clocks.wall() + LIFE)
        assert kit.lookups == number
    await kit.close()


async def test_messages_of_any_size_that_fits_share_an_answer(kit: Kit) -> None:
    kit.source.script["probe"] = replace(kit.source.script["probe"], size_limit=1_000)
    await kit.ask(replace(QUESTION, needs=Needs(size=10)))
    kit.clocks.pass_(LIFE)
    assert (await kit.ask(replace(QUESTION, needs=Needs(size=999)))).stale
    await kit.settle()
    kit.clocks.pass_(LIFE)
    assert (await kit.ask(replace(QUESTION, needs=Needs(size=1_001)))).stale == 0.0


# ---------------------------------------------------------------- never


async def test_not_for_longer_than_the_operator_said(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE + DAY - 1)
    assert (await kit.ask()).stale == DAY - 1
    await kit.settle()
    kit.clocks.pass_(LIFE + DAY)
    assert (await kit.ask()).stale == 0.0


@pytest.mark.parametrize("clock", ["wall_time", "monotonic_time"])
async def test_neither_clock_prolongs_it(kit: Kit, clock: str) -> None:
    await kit.ask()
    setattr(kit.clocks, clock, getattr(kit.clocks, clock) + LIFE + DAY)
    assert (await kit.ask()).stale == 0.0


async def test_not_after_the_end_of_the_policy_on_which_it_rests(kit: Kit) -> None:
    policy = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.a.example",), 3_600, "1")
    kit.source.script["mta_sts"] = MtaStsEvidence(policy, expires=LIFE)
    assert (await kit.ask()).proven_until == kit.clocks.wall() + 3_600
    kit.clocks.pass_(3_599)
    assert (await kit.ask()).stale
    await kit.settle()
    kit.clocks.pass_(3_601)
    assert (await kit.ask()).stale == 0.0


async def test_not_after_the_end_of_a_certificate_on_which_it_rests(kit: Kit) -> None:
    forecast = await kit.assessor.assess(QUESTION)
    evidence = build.domain(build.host())
    ends = replace(forecast, proven_until=kit.clocks.wall() + 1_000)
    kit.answers.note(QUESTION, ends, evidence, kit.clocks.monotonic())
    kit.clocks.pass_(999)
    assert stale(kit.answers, QUESTION, acts=True)
    kit.clocks.pass_(1)
    assert stale(kit.answers, QUESTION, acts=True) is None


async def test_not_where_the_milter_alone_enforces(kit: Kit) -> None:
    first = await kit.ask(BY_US_ALONE)
    assert first.status == "2.0.0"
    kit.clocks.pass_(LIFE)
    assert (await kit.ask(BY_US_ALONE)).stale == 0.0
    assert kit.lookups == 2


@pytest.mark.parametrize(("requiretls", "status"), [(False, "5.7.30"), (True, "2.0.0")])
async def test_not_a_failure_as_a_reason_to_act(kit: Kit, requiretls: bool, status: str) -> None:
    probe = replace(kit.source.script["probe"], requiretls=requiretls)
    kit.source.script["probe"] = probe
    assert (await kit.ask()).status == status
    kit.clocks.pass_(LIFE)
    assert bool((await kit.ask()).stale) is (status == "2.0.0")


async def test_not_a_delivery_that_violates_rfc_8689(kit: Kit) -> None:
    forecast = replace(await kit.assessor.assess(QUESTION), compliant=False)
    kit.answers.note(QUESTION, forecast, build.domain(build.host()), kit.clocks.monotonic())
    kit.clocks.pass_(LIFE)
    assert stale(kit.answers, QUESTION, acts=True) is None
    assert stale(kit.answers, QUESTION, acts=False)


@pytest.mark.parametrize("question", [QUESTION, BY_US_ALONE])
async def test_if_no_rule_acts_a_final_failure_is_given_out_too(question: Question) -> None:
    kit = Kit(MONITORS)
    kit.source.script["probe"] = replace(kit.source.script["probe"], requiretls=False)
    first = await kit.ask(question)
    kit.clocks.pass_(LIFE)
    assert await kit.ask(question) == replace(first, valid_until=0.0, stale=1.0)
    await kit.settle()
    await kit.close()


async def test_not_what_would_leave_mail_in_the_queue() -> None:
    kit = Kit(MONITORS)
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR, error="SERVFAIL", expires=60)
    assert (await kit.ask()).outcome is Outcome.DEFER
    kit.clocks.pass_(LIFE)
    assert (await kit.ask()).stale == 0.0
    await kit.close()


async def test_not_after_the_server_was_seen_to_fail(kit: Kit) -> None:
    """Here it is seen while the answer is made anew."""
    await kit.ask()
    kit.clocks.pass_(FRESH)
    kit.fail_sessions()
    assert (await kit.ask()).stale
    await kit.settle()
    kit.clocks.pass_(1)
    assert (await kit.ask()).outcome is Outcome.DEFER


async def test_not_after_the_server_was_seen_to_fail_for_another_domain(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(FRESH)
    kit.fail_sessions()
    await kit.ask(replace(QUESTION, nexthop="b.example"))  # whose server has the same address
    assert (await kit.ask()).stale == 0.0


async def test_what_had_failed_already_when_it_was_made_does_not_count(kit: Kit) -> None:
    """A domain of which one address is never there is answered like any other."""
    addresses = replace(kit.source.script["addresses"], addresses=("192.0.2.1", "2001:db8::1"))
    kit.source.script["addresses"] = addresses
    dead = replace(build.probe(), stage=ProbeStage.CONNECT, failure=ProbeFailure.UNREACHABLE)
    kit.source.script["probe 2001:db8::1 mx"] = replace(dead, chain=())
    assert (await kit.ask()).status == "2.0.0"
    for _ in range(3):
        kit.clocks.pass_(FRESH)
        assert (await kit.ask()).stale
        await kit.settle()


async def test_not_after_a_downgrade(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(FRESH)
    kit.source.script["probe"] = replace(kit.source.script["probe"], requiretls=False)
    assert (await kit.ask()).stale
    await kit.settle()
    kit.clocks.pass_(LIFE)
    forecast = await kit.ask()
    assert (forecast.stale, forecast.reason) == (0.0, Reason.REQUIRETLS_NOT_OFFERED)
    assert forecast.downgraded_at


async def test_not_after_a_downgrade_of_its_host_that_was_seen_under_another_name(
    kit: Kit,
) -> None:
    await kit.ask()
    kit.clocks.pass_(FRESH)
    kit.source.script["probe"] = replace(kit.source.script["probe"], requiretls=False)
    kit.source.script["mx b.example"] = replace(
        kit.source.script["mx"], records=(MxRecord(10, "mx.a.example"),), canonical="b.example"
    )
    await kit.ask(replace(QUESTION, nexthop="b.example"))
    assert (await kit.ask()).stale == 0.0


async def test_again_once_what_failed_for_another_domain_has_answered(kit: Kit) -> None:
    """One session of many with a large provider fails, and its other domains go on."""
    kit.source.script["mx b.example"] = replace(kit.source.script["mx"], canonical="b.example")
    other = replace(QUESTION, nexthop="b.example")
    await kit.ask()
    well = kit.source.script["probe"]
    kit.clocks.pass_(FRESH)
    kit.fail_sessions()
    await kit.ask(other)
    kit.source.script["probe"] = well
    kit.clocks.pass_(RETRY)
    await kit.ask(other)
    assert (await kit.ask()).stale


async def test_not_while_another_name_fails_at_the_address(kit: Kit) -> None:
    mx = kit.source.script["mx"]
    kit.source.script["mx b.example"] = replace(mx, records=(MxRecord(10, "mx.b.example"),))
    kit.source.script["mx c.example"] = replace(mx, records=(MxRecord(10, "mx.c.example"),))
    for name in ("mx.b.example", "mx.c.example"):
        tlsa = replace(kit.source.script["tlsa"], base_domain=name)
        kit.source.script[f"tlsa {name}:25"] = tlsa
    await kit.ask()
    well = kit.source.script["probe"]
    kit.clocks.pass_(FRESH)
    kit.fail_sessions()
    await kit.ask(replace(QUESTION, nexthop="b.example"))
    kit.source.script["probe"] = well
    kit.clocks.pass_(RETRY)
    await kit.ask(replace(QUESTION, nexthop="c.example"))
    assert (await kit.ask()).stale == 0.0


def test_not_after_a_server_was_seen_to_take_too_long() -> None:
    async def day(clocks: virtualtime.VirtualClocks) -> None:
        kit = Kit(clocks=clocks)
        await kit.ask()
        await asyncio.sleep(FRESH)
        kit.source.held = {"probe"}
        assert (await kit.ask()).stale
        await asyncio.sleep(Config().limits.flight_timeout + 1)
        assert (await kit.ask()).outcome is Outcome.UNKNOWN
        await kit.close()

    on_virtual_time(day)


@pytest.mark.parametrize("feature", [Feature.STARTTLS, Feature.REQUIRETLS, Feature.TLSA])
async def test_not_after_a_downgrade_of_a_host_was_seen_for_another_domain(
    kit: Kit, feature: Feature
) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE)
    kit.troubles.note(lost(feature, "mx.a.example"))
    assert (await kit.ask()).stale == 0.0


async def test_not_while_our_own_network_is_down(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE)
    await let_the_resolver_die(kit)
    assert (await kit.ask()).stale == 0.0


async def test_not_what_too_little_was_known_for(kit: Kit) -> None:
    await kit.ask()
    kit.answers.note(
        QUESTION, unknown_forecast("busy"), build.domain(build.host()), kit.clocks.monotonic()
    )
    kit.clocks.pass_(LIFE)
    assert (await kit.ask()).status == "2.0.0", "the earlier answer stands"


# ---------------------------------------------------------------- used often


def on_virtual_time(main: Any) -> None:
    virtualtime.run(main)


def test_what_is_used_often_is_made_anew_before_mail_asks() -> None:
    async def day(clocks: virtualtime.VirtualClocks) -> None:
        kit = Kit(clocks=clocks)
        await kit.ask()
        await asyncio.sleep(LIFE + 1)
        await kit.ask(uses=OFTEN)  # so often a worker gave out the first one
        await kit.settle()
        assert kit.lookups == 2
        await asyncio.sleep(LIFE + 1)
        assert kit.lookups == 3
        assert (await kit.ask()).stale == 0.0
        await asyncio.sleep(DAY)
        assert kit.lookups == 3, "a life later it had been used once: it was left alone"
        await kit.close()

    on_virtual_time(day)


def test_what_is_used_seldom_is_left_alone() -> None:
    async def day(clocks: virtualtime.VirtualClocks) -> None:
        kit = Kit(clocks=clocks)
        for _ in range(OFTEN):
            await kit.ask()
        await asyncio.sleep(DAY)
        assert kit.lookups == 1
        await kit.close()

    on_virtual_time(day)


def test_it_is_made_anew_where_it_must_not_be_given_out_past_its_life_too() -> None:
    async def day(clocks: virtualtime.VirtualClocks) -> None:
        kit = Kit(clocks=clocks)
        await kit.ask(BY_US_ALONE)
        await kit.ask(BY_US_ALONE, uses=OFTEN)
        await asyncio.sleep(LIFE + 1)
        assert kit.lookups == 2
        kit.source.gate = asyncio.Event()
        assert (await kit.ask(BY_US_ALONE)).status == "2.0.0", "without any wait"
        await kit.close()

    on_virtual_time(day)


# ---------------------------------------------------------------- confirmed by DNS


async def until_it_ends(kit: Kit) -> None:
    kit.clocks.pass_(LIFE + DAY - ENDING + 1)
    await kit.assessor.confirm_answers()


async def test_before_its_end_dns_confirms_it_and_no_server_is_called(kit: Kit) -> None:
    await kit.ask()
    await until_it_ends(kit)
    assert (kit.lookups, kit.sessions) == (2, 1)
    kit.clocks.pass_(DAY - 1)
    forecast = await kit.ask()
    assert forecast.status == "2.0.0"
    assert forecast.stale == pytest.approx(LIFE + 2 * DAY - ENDING - FRESH)


async def test_it_is_not_confirmed_before_it_is_needed(kit: Kit) -> None:
    await kit.ask()
    kit.clocks.pass_(LIFE + DAY - ENDING)
    await kit.assessor.confirm_answers()
    assert kit.lookups == 1


async def test_it_is_confirmed_for_three_days_after_the_last_message(kit: Kit) -> None:
    await kit.ask()
    confirmed_at = 0.0
    for _ in range(int(5 * DAY / 600)):
        kit.clocks.pass_(600)
        before = kit.lookups
        await kit.assessor.confirm_answers()
        if kit.lookups > before:
            confirmed_at = kit.clocks.monotonic()
    assert kit.lookups == 4
    assert confirmed_at < 500 + WARM
    assert (await kit.ask()).stale == 0.0


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ("mx", MxEvidence(DnsOutcome.ERROR, error="SERVFAIL", expires=60)),
        ("tlsa", TlsaEvidence(True, DnsOutcome.NODATA, True, expires=60)),
        ("addresses", None),
    ],
)
async def test_if_dns_says_something_else_it_is_given_out_no_more(
    kit: Kit, piece: str, says: Any
) -> None:
    await kit.ask()
    if says is None:  # a server with which no session was held
        says = replace(kit.source.script["addresses"], addresses=("192.0.2.77",))
    kit.source.script[piece] = says
    await until_it_ends(kit)
    assert kit.sessions == 1
    kit.clocks.pass_(ENDING)
    assert (await kit.ask()).stale == 0.0


async def test_an_internal_error_ends_neither_the_pass_nor_the_answers(kit: Kit) -> None:
    await kit.ask()
    kit.source.error = RuntimeError("an internal error")
    await until_it_ends(kit)
    kit.source.error = None
    assert (await kit.ask()).stale


async def test_a_reload_gives_up_what_is_being_confirmed(kit: Kit) -> None:
    """The pass that waits for it goes on."""
    await kit.ask()
    kit.source.held = {"mx"}
    kit.clocks.pass_(LIFE + DAY - 1)
    passing = asyncio.create_task(kit.assessor.confirm_answers())
    await until(lambda: kit.lookups == 2)
    await kit.assessor.close()
    await asyncio.wait_for(passing, 5)


async def test_what_must_not_be_given_out_is_not_confirmed(kit: Kit) -> None:
    await kit.ask(BY_US_ALONE)
    await until_it_ends(kit)
    assert kit.lookups == 1


# ---------------------------------------------------------------- bounds


def test_no_more_are_kept_than_there_may_be() -> None:
    clocks = Clocks()
    answers = Answers(DAY, 10, Troubles(clocks), clocks)
    forecast = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, valid_until=clocks.wall() + LIFE)
    evidence = build.domain(build.host())
    for number in range(30):
        question = replace(QUESTION, nexthop=f"d{number}.example")
        answers.note(question, forecast, evidence, clocks.monotonic())
    assert 5 <= len(answers) <= 10
    clocks.pass_(LIFE)
    assert stale(answers, replace(QUESTION, nexthop="d0.example"), acts=True) is None
    assert stale(answers, replace(QUESTION, nexthop="d29.example"), acts=True)
