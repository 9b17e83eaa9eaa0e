"""What goes over the engine's door is what the model allows, and nothing else."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.ipc import wire
from requiretls_milter.ipc.framing import Unframer, WireError
from requiretls_milter.ipc.wire import (
    MAX_ERROR,
    CountersRequest,
    ErrorReply,
    EvidenceReply,
    EvidenceRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    ReportReply,
    ReportRequest,
    StatusReply,
    StatusRequest,
    decode_reply,
    decode_request,
    encode,
    error_reply,
)
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    NextHop,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Question,
    Reason,
    Reply,
    Requirement,
    TlsaEvidence,
    TlsaRecord,
    Verdict,
)
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.telemetry.counting import Totals

QUESTION = Question("example.org", "smtp", Requirement.REQUIRETLS, Requirement.NONE)
FORECAST = Forecast(
    "5.7.30",
    Outcome.BOUNCE,
    Reason.REQUIRETLS_NOT_OFFERED,
    "no server offers it",
    None,
    "mx.example.org",
    "dane/!requiretls:none",
    Verdict("5.7.30", Reason.REQUIRETLS_NOT_OFFERED),
    1234.5,
)
EVIDENCE = DomainEvidence(
    NextHop(HopKind.MX, "example.org"),
    MxEvidence(DnsOutcome.FOUND, True, (MxRecord(10, "mx.example.org"),), expires=99.0),
    MtaStsEvidence(MtaStsPolicy(MtaStsMode.ENFORCE, ("*.example.org",), 86400, "1"), "", 1.0, 2.0),
    (
        HostEvidence(
            "mx.example.org",
            10,
            AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), "mx.example.org"),
            TlsaEvidence(True, DnsOutcome.FOUND, True, "mx", (TlsaRecord(3, 1, 1, b"\xff\x00"),)),
            (
                ProbeEvidence(
                    "192.0.2.1",
                    ProbeStage.EHLO_TLS,
                    ProbeFailure.REPLY,
                    Reply(421, "4.3.2", "closing"),
                    True,
                    None,
                    "TLSv1.3",
                    (bytes(range(256)), b"\xfb\xef\xff"),
                    None,
                ),
            ),
        ),
    ),
    1000.0,
)


DAY = Day(day="2026-11-29", mail=9, mail_ready=7, domains=3, domains_ready=2)


def payload_of(frame: bytes) -> bytes:
    (payload,) = Unframer().feed(frame)
    return payload


@pytest.mark.parametrize(
    "request_",
    [
        ForecastRequest(id=1, generation=2, question=QUESTION),
        CountersRequest(
            worker="worker-1",
            incarnation=3,
            totals=Totals((("x_total", ("a", "b"), 1.0),), (("y_seconds", (1, 0), 0.5),)),
        ),
        EvidenceRequest(id=0, nexthop="[mx.example.org]:587", refresh=True),
        StatusRequest(id=(1 << 53) - 1),
        ReportRequest(id=1, source=MailSource.LOG, keep=DAY),
    ],
    ids=lambda one: one.op,
)
def test_a_request_comes_out_as_it_went_in(request_: wire.Request) -> None:
    assert decode_request(payload_of(encode(request_))) == request_


@pytest.mark.parametrize(
    "reply",
    [
        ForecastReply(id=1, generation=2, forecast=FORECAST),
        EvidenceReply(id=2, evidence=EVIDENCE),
        ReportReply(id=1, days=(DAY,), mail={"example.org": 7}),
        StatusReply(
            id=3,
            version="1",
            pid=4,
            generation=5,
            assessment_digest="ab",
            uptime=1.5,
            workers=("worker-1",),
            in_flight=0,
            cache_entries={"host": 1},
        ),
        ErrorReply(id=4, error="busy"),
        ForgetReply(),
    ],
    ids=lambda one: one.op,
)
def test_a_reply_comes_out_as_it_went_in(reply: wire.EngineReply) -> None:
    decoded = decode_reply(payload_of(encode(reply)))
    assert decoded == reply
    assert type(decoded) is type(reply)


def test_words_come_out_as_words_of_the_model_and_bytes_as_bytes() -> None:
    decoded = decode_reply(payload_of(encode(EvidenceReply(id=2, evidence=EVIDENCE))))
    assert isinstance(decoded, EvidenceReply)
    (probe,) = decoded.evidence.hosts[0].probes
    assert probe.stage is ProbeStage.EHLO_TLS
    assert probe.chain == (bytes(range(256)), b"\xfb\xef\xff")


@pytest.mark.parametrize(
    "field", [field.name for field in fields(Question) if field.default is MISSING]
)
def test_a_question_without_one_of_its_fields_is_refused_and_the_place_named(field: str) -> None:
    message = json.loads(payload_of(encode(ForecastRequest(id=1, generation=1, question=QUESTION))))
    del message["question"][field]
    with pytest.raises(WireError, match=rf"forecast\.question\.{field}"):
        decode_request(json.dumps(message).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"transport":"smtp"', b'"transport":7'),
        (b'"asked":"requiretls"', b'"asked":"REQUIRETLS"'),
        (b'"asked":"requiretls"', b'"asked":null'),
        (b'"carried"', b'"carries"'),
        (b'"id":1', b'"id":"1"'),
        (b'"id":1', b'"id":1.0'),
        (b'"id":1', b'"id":-1'),
        (b'"id":1', b'"id":9007199254740992'),
        (b'"v":1', b'"v":2'),
        (b'"op":"forecast"', b'"op":"forecasts"'),
        (b'"op":"forecast"', b'"op":1'),
        (b'{"v"', b'{"more":true,"v"'),
        (b'{"nexthop"', b'{"more":true,"nexthop"'),
        (b"}}", b"}"),
        (b"}}", b"}}{}"),
    ],
)
def test_a_message_that_is_a_little_wrong_is_refused(old: bytes, new: bytes) -> None:
    payload = payload_of(encode(ForecastRequest(id=1, generation=1, question=QUESTION)))
    assert payload.count(old) == 1
    with pytest.raises(WireError):
        decode_request(payload.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"valid_until":1234.5', b'"valid_until":NaN'),
        (b'"valid_until":1234.5', b'"valid_until":1e999'),
        (b'"valid_until":1234.5', b'"valid_until":true'),
        (b'"compliant":null', b'"compliant":"false"'),
        (b'"outcome":"bounce"', b'"outcome":"deliver?"'),
    ],
)
def test_a_forecast_that_is_a_little_wrong_is_refused(old: bytes, new: bytes) -> None:
    payload = payload_of(encode(ForecastReply(id=1, generation=1, forecast=FORECAST)))
    assert payload.count(old) == 1
    with pytest.raises(WireError):
        decode_reply(payload.replace(old, new))


def test_text_that_utf8_cannot_carry_is_an_error_of_ours_not_a_crash() -> None:
    question = Question("\udc80.example", "smtp", Requirement.NONE, Requirement.NONE)
    with pytest.raises(WireError):
        encode(ForecastRequest(id=1, generation=1, question=question))


def test_an_error_is_cut_to_what_a_reply_may_hold() -> None:
    assert len(error_reply(1, "x" * 1000).error) == MAX_ERROR
    with pytest.raises(WireError):
        decode_reply(json.dumps({"op": "error", "id": 1, "error": "x" * 201}).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["op", "v", "id", "question", "totals", "forecast", "nexthop", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
OPERATIONS = st.sampled_from(["forecast", "counters", "evidence", "status", "error", ""])


@given(st.binary(max_size=400) | st.builds(lambda value: json.dumps(value).encode(), JSON))
def test_bytes_decode_to_a_message_or_are_a_wire_error(payload: bytes) -> None:
    for decode in (decode_request, decode_reply):
        try:
            message = decode(payload)
        except WireError:
            continue
        assert decode(payload_of(encode(message))) == message


@given(OPERATIONS, JSON)
def test_an_operation_with_anything_in_it_is_a_message_or_a_wire_error(
    op: str, content: object
) -> None:
    body = content if isinstance(content, dict) else {"id": content}
    payload = json.dumps({**body, "op": op}).encode()
    for decode in (decode_request, decode_reply):
        try:
            message = decode(payload)
        except WireError:
            continue
        assert message.op == op
