"""Records of what is wrong with watched domains."""

from __future__ import annotations

import json
from typing import Any

import pytest

from requiretls_milter.engine.records import (
    MAX_PROBLEMS,
    RecordError,
    decode_watched,
    encode_watched,
)
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.model import InboundProblem

LOST = Problem(InboundProblem.STARTTLS_NOT_OFFERED, Urgency.BROKEN, "mx.example.org", "not offered")
ENDS = Problem(InboundProblem.CERTIFICATE_EXPIRES, Urgency.ENDS, "mx.example.org", "it ends", 2e9)


def test_what_was_written_comes_back() -> None:
    assert decode_watched(encode_watched([LOST, ENDS])) == (LOST, ENDS)
    assert decode_watched(encode_watched([])) == ()


def test_the_number_of_problems_is_bounded() -> None:
    assert len(decode_watched(encode_watched([LOST] * 1_000))) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("problem", "no_such_word"),
        ("severity", "fatal"),
        ("host", "mx\u00e9.example.org"),
        ("text", "a line\nand another"),
        ("text", "x" * 10_000),
        ("at", -1.0),
        ("at", 1e300),
        ("at", "soon"),
        ("more", 1),
    ],
)
def test_what_we_would_not_have_written_is_no_record(key: str, value: Any) -> None:
    record = json.loads(encode_watched([ENDS]))
    record["problems"][0][key] = value
    with pytest.raises(RecordError):
        decode_watched(json.dumps(record).encode())


@pytest.mark.parametrize("octets", [b"", b"[]", b'{"v":2,"problems":[]}', b"\xff"])
def test_other_octets_are_no_record(octets: bytes) -> None:
    with pytest.raises(RecordError):
        decode_watched(octets)
