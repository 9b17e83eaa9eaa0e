"""What comes back from a store is believed only where we could have written it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.engine.records import (
    RecordError,
    Scopes,
    decode_attempt,
    decode_policy,
    decode_probe,
    encode_attempt,
    encode_policy,
    encode_probe,
    worth_a_pause,
    worth_keeping,
)
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.evidence.probe import FRESH, MAX_CHAIN, MAX_CHAIN_OCTETS
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HopKind,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
)
from requiretls_milter.store.base import CLOCK_SKEW
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.stores import OFFERED, counted

NOW = 1_000_000.0
ADDRESS = "192.0.2.1"
POLICY = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example.net", "*.example.net"), 86400, "20260101a")
PROBE = ProbeEvidence(
    ADDRESS,
    ProbeStage.DONE,
    starttls_offered=True,
    tls_version="TLSv1.3",
    chain=(b"\x30\x82\x01\x00", b"\xff" * 1000),
    requiretls=True,
    ehlo_name="mx.example.net",
    probed_at=NOW - 100,
    expires=NOW + 3000,
)


def changed(wire: bytes, path: str, value: Any) -> bytes:
    """A record with one value in the place of another."""
    record = json.loads(wire)
    place, steps = record, path.split(".")
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    return json.dumps(record).encode()


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        replace(POLICY, mode=MtaStsMode.NONE, mx=()),
        replace(POLICY, mode=MtaStsMode.TESTING, max_age=31_557_600),
        replace(POLICY, mx=tuple(f"mx{number}.example.net" for number in range(2000))),
    ],
)
def test_a_policy_comes_back_as_it_was_fetched(policy: MtaStsPolicy) -> None:
    kept = decode_policy(encode_policy(policy, NOW - 50, NOW - 10), NOW)
    assert kept.policy == policy
    assert kept.asked_at == NOW - 10
    assert kept.evidence == MtaStsEvidence(
        policy, fetched_at=NOW - 50, expires=NOW - 50 + policy.max_age
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2),
        ("policy", None),
        ("policy.mode", "always"),
        ("policy.mx", []),
        ("policy.mx", ["*"]),
        ("policy.mx", ["*.*.example.net"]),
        ("policy.mx", ["mx.example.net\nmode: none"]),
        ("policy.mx", ["MX.example.net"]),
        ("policy.mx", ["192.0.2.1"]),
        ("policy.mx", ["\udc80"]),
        ("policy.mx", "mx.example.net"),
        ("policy.max_age", 0),
        ("policy.max_age", -1),
        ("policy.max_age", 31_557_601),
        ("policy.max_age", 1e300),
        ("policy.max_age", "86400"),
        ("policy.id", ""),
        ("policy.id", "a" * 33),
        ("policy.id", "a; v=STSv1"),
        ("fetched_at", NOW + CLOCK_SKEW + 1),
        ("fetched_at", -1.0),
        ("fetched_at", "now"),
        ("fetched_at", 1e999),
        ("asked_at", None),
        ("surprise", 1),
    ],
)
def test_a_policy_that_cannot_have_been_published_is_none(path: str, value: Any) -> None:
    with pytest.raises(RecordError):
        decode_policy(changed(encode_policy(POLICY, NOW, NOW), path, value), NOW)


def test_r61_a_policy_lives_until_its_max_age_whatever_else_the_record_says() -> None:
    kept = decode_policy(encode_policy(POLICY, NOW - 80_000, NOW + 1e9), NOW)
    assert kept.evidence.expires == NOW + 6400
    assert kept.asked_at == NOW


# ---------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    "found",
    [
        PROBE,
        replace(PROBE, starttls_offered=False, tls_version="", chain=(), requiretls=None),
        replace(PROBE, starttls_reply=Reply(554, "5.7.0", "no TLS for you"), requiretls=None),
        replace(PROBE, requiretls=False, chain_cut=True),
    ],
)
def test_a_session_comes_back_as_it_was_held(found: ProbeEvidence) -> None:
    assert worth_keeping(found)
    assert decode_probe(encode_probe(found), ADDRESS, NOW) == found


@pytest.mark.parametrize(
    "found",
    [
        ProbeEvidence(ADDRESS),
        ProbeEvidence(ADDRESS, ProbeStage.CONNECT, ProbeFailure.TIMEOUT),
        ProbeEvidence(ADDRESS, ProbeStage.CONNECT, ProbeFailure.FORBIDDEN),
        ProbeEvidence(ADDRESS, ProbeStage.BANNER, ProbeFailure.REPLY, Reply(554)),
        ProbeEvidence(ADDRESS, ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL),
        ProbeEvidence(ADDRESS, ProbeStage.EHLO_TLS, ProbeFailure.CLOSED),
        replace(PROBE, starttls_reply=Reply(454, "4.7.0", "not now")),
        replace(PROBE, failure=ProbeFailure.CLOSED),
        replace(PROBE, only_opportunistic="tls alert handshake failure"),
    ],
)
def test_r61_a_temporary_result_is_neither_kept_nor_taken(found: ProbeEvidence) -> None:
    assert not worth_keeping(found)
    with pytest.raises(RecordError):
        decode_probe(encode_probe(found), ADDRESS, NOW)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", "1"),
        ("found", {}),
        ("found.address", "192.0.2.2"),
        ("found.stage", "handshake"),
        ("found.starttls_offered", "yes"),
        ("found.requiretls", 1),
        ("found.chain", ["not base64!"]),
        ("found.chain", ["AAAA"] * (MAX_CHAIN + 1)),
        ("found.ehlo_name", "mx\r\nX-Forged: yes"),
        ("found.ehlo_name", "x" * 201),
        ("found.error", "\x1b[2J"),
        ("found.error", "\u202e"),
        ("found.only_opportunistic", "\x1b]0;title\x07"),
        ("found.only_opportunistic", "x" * 50_000),
        ("found.small_group", "x" * 50_000),
        ("found.cipher", "x" * 65),
        ("found.size_limit", -1),
        ("found.size_limit", 2**63),
        ("found.cipher", "AES128-SHA\n"),
        ("found.tls_version", "T" * 21),
        ("found.starttls_reply", {"code": 554, "enhanced": "5.7.0\n", "text": ""}),
        ("found.starttls_reply", {"code": 99999, "enhanced": "", "text": ""}),
        ("found.reply", {"code": 250, "enhanced": "", "text": "x" * 201}),
        ("found.probed_at", NOW + CLOCK_SKEW + 1),
        ("found.probed_at", -1.0),
        ("found.surprise", True),
    ],
)
def test_a_session_that_we_would_not_have_kept_is_none(path: str, value: Any) -> None:
    with pytest.raises(RecordError):
        decode_probe(changed(encode_probe(PROBE), path, value), ADDRESS, NOW)


def test_r61_a_session_is_good_for_an_hour_whatever_the_record_says() -> None:
    found = replace(PROBE, expires=NOW + 1e9)
    assert _probe_expires(encode_probe(found)) == PROBE.probed_at + FRESH
    brief = replace(PROBE, expires=NOW + 1)
    assert _probe_expires(encode_probe(brief)) == NOW + 1


def test_the_largest_session_that_is_kept_comes_back() -> None:
    each = MAX_CHAIN_OCTETS // MAX_CHAIN
    found = replace(PROBE, chain=(b"\xff" * each,) * MAX_CHAIN)
    assert decode_probe(encode_probe(found), ADDRESS, NOW) == found


# ---------------------------------------------------------------- sessions that failed

FAILED = ProbeEvidence(
    ADDRESS,
    ProbeStage.HANDSHAKE,
    ProbeFailure.PROTOCOL,
    starttls_offered=True,
    error="unknown ca",
    probed_at=NOW - 30,
    expires=NOW + 30,
)


@pytest.mark.parametrize(
    "found",
    [
        FAILED,
        replace(FAILED, stage=ProbeStage.CONNECT, failure=ProbeFailure.TIMEOUT, error=""),
        replace(FAILED, stage=ProbeStage.CONNECT, failure=ProbeFailure.UNREACHABLE),
        replace(FAILED, stage=ProbeStage.BANNER, failure=ProbeFailure.REPLY, reply=Reply(421)),
        replace(PROBE, starttls_reply=Reply(454, "4.7.0"), probed_at=NOW - 30, expires=NOW + 30),
        replace(PROBE, only_opportunistic="alert", probed_at=NOW - 30, expires=NOW + 30),
    ],
)
def test_a_failed_session_comes_back_with_its_pause(found: ProbeEvidence) -> None:
    assert worth_a_pause(found)
    kept = decode_attempt(encode_attempt(found, 120.0), ADDRESS, NOW, 900.0)
    assert kept is not None
    assert (kept.found, kept.pause) == (found, 120.0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("found.address", "192.0.2.2"),
        ("found.stage", "done"),
        ("found.stage", "not_probed"),
        ("found.failure", "forbidden"),
        ("found.error", "\r\n250 fine"),
        ("found.probed_at", NOW + CLOCK_SKEW + 1),
        ("pause", 0),
        ("pause", -1.0),
        ("pause", 901.0),
        ("pause", "60"),
        ("surprise", 1),
        ("v", 0),
        ("v", 3),
        ("v", "2"),
    ],
)
def test_a_failed_session_that_we_would_not_have_kept_is_none(path: str, value: Any) -> None:
    with pytest.raises(RecordError):
        decode_attempt(changed(encode_attempt(FAILED, 60.0), path, value), ADDRESS, NOW, 900.0)


# ---------------------------------------------------------------- records of earlier versions

EARLIER_POLICY = (
    b'{"v":1,"policy":{"mode":"enforce","mx":["mx.example.net","*.example.net"],'
    b'"max_age":86400,"id":"20260101a"},"fetched_at":999950.0,"asked_at":999990.0}'
)
EARLIER_PROBE = (
    b'{"v":1,"found":{"address":"192.0.2.1","stage":"done","failure":null,"reply":null,'
    b'"starttls_offered":true,"starttls_reply":null,"tls_version":"TLSv1.3",'
    b'"chain":["MIIBAA=="],"requiretls":true,"ehlo_name":"mx.example.net","error":"",'
    b'"probed_at":999900.0,"expires":1003000.0,"chain_cut":false,"only_opportunistic":""}}'
)
EARLIER_ATTEMPT = (
    b'{"v":1,"found":{"address":"192.0.2.1","stage":"connect","failure":"refused",'
    b'"reply":null,"starttls_offered":null,"starttls_reply":null,"tls_version":"","chain":[],'
    b'"requiretls":null,"ehlo_name":"","error":"No route to host","probed_at":999970.0,'
    b'"expires":1000030.0,"chain_cut":false,"only_opportunistic":""},"pause":60.0}'
)


def test_r52_a_policy_of_an_earlier_version_is_read() -> None:
    """An upgrade must not take away what an attacker cannot."""
    assert decode_policy(EARLIER_POLICY, NOW).policy == POLICY


def test_a_session_of_an_earlier_version_is_read() -> None:
    """What went to its end means the same as ever."""
    assert decode_probe(EARLIER_PROBE, ADDRESS, NOW) == replace(PROBE, chain=(b"0\x82\x01\x00",))


def test_a_session_of_an_earlier_version_is_dropped_if_its_cipher_suite_would_count() -> None:
    """Of TLS 1.2 it does not say whether it had forward secrecy."""
    earlier = EARLIER_PROBE.replace(b"TLSv1.3", b"TLSv1.2")
    assert decode_probe(earlier, ADDRESS, NOW) is None


def test_a_failed_session_of_an_earlier_version_is_dropped_and_not_misread() -> None:
    """It calls "refused" what may have been our own network."""
    assert decode_attempt(EARLIER_ATTEMPT, ADDRESS, NOW, 900.0) is None


def test_r61_a_failed_session_holds_back_no_longer_than_it_may_whatever_the_record_says() -> None:
    found = replace(FAILED, expires=NOW + 1e9)
    kept = decode_attempt(encode_attempt(found, 60.0), ADDRESS, NOW, 900.0)
    assert kept is not None
    assert kept.found.expires == FAILED.probed_at + 120


# ---------------------------------------------------------------- whatever comes


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(wire: bytes) -> None:
    with pytest.raises(RecordError):
        decode_policy(wire, NOW)
    with pytest.raises(RecordError):
        decode_probe(wire, ADDRESS, NOW)
    with pytest.raises(RecordError):
        decode_attempt(wire, ADDRESS, NOW, 900.0)


@given(st.data())
def test_no_flipped_byte_makes_a_record_good_for_longer(data: st.DataObject) -> None:
    good = [encode_policy(POLICY, NOW, NOW), encode_probe(PROBE)]
    wire = bytearray(data.draw(st.sampled_from(good)))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    for expires in (_policy_expires(bytes(wire)), _probe_expires(bytes(wire))):
        assert expires is None or expires <= NOW + 31_557_600 + CLOCK_SKEW


def _policy_expires(wire: bytes) -> float | None:
    try:
        return decode_policy(wire, NOW).evidence.expires
    except RecordError:
        return None


def _probe_expires(wire: bytes) -> float | None:
    try:
        found = decode_probe(wire, ADDRESS, NOW)
    except RecordError:
        return None
    return found.expires if found is not None else None


# ---------------------------------------------------------------- what was offered


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b'{"first_seen": "x"}',
        b'{"first_seen": 1, "last_seen": 2, "lost_at": 9e99}',
        b'{"first_seen": 1, "last_seen": 9e99, "lost_at": 0}',
        b'{"first_seen": 3, "last_seen": 2, "lost_at": 0}',
        b'{"first_seen": 1, "last_seen": 2, "lost_at": NaN}',
        b'{"first_seen": 1, "last_seen": 2, "lost_at": -1}',
    ],
)
async def test_a_loss_that_lies_ahead_does_not_defer_mail_until_then(record: bytes) -> None:
    store, counters = MemoryStore(), Counters()
    await store.put(OFFERED, "mta_sts a.example", record, NOW + 1e6, NOW)
    evidence = DomainEvidence(
        NextHop(HopKind.MX, "a.example"), MxEvidence(DnsOutcome.FOUND), MtaStsEvidence()
    )
    assert (
        await DowngradeTracker(RecordStore(store, counters), counters).observe(evidence, NOW) == 0
    )
    assert counted(counters, "store_errors_total", "decode") == 1


# ---------------------------------------------------------------- scopes


def scopes(text: str, authorities: str = "ab") -> Scopes:
    return Scopes.of(Config.model_validate(tomllib.loads(text)), authorities)


def test_only_configurations_that_would_observe_the_same_share_a_record() -> None:
    usual = scopes("")
    assert usual.policy.startswith("#")
    assert usual.probe == ""
    assert scopes("[probe]\nconnect_timeout = 3\n[rules]\nmode = 'reject'") == usual
    assert scopes("[probe]\nca_file = '/etc/lab.pem'") == usual, "a name is not what it names"
    assert scopes("", "cd").policy != usual.policy
    assert scopes("", "cd").probe == ""
    probes = {
        scopes(f"[probe]\n{line}").probe
        for line in (
            "",
            "enabled = false",
            "helo = 'mail.example.net'",
            "allow_networks = ['10.0.0.0/8']",
            "allow_networks = ['10.0.0.0/8', '127.0.0.0/8']",
        )
    }
    assert len(probes) == 5
    assert scopes("[probe]\nenabled = false").policy == usual.policy
