"""A log is cut into lines of bounded length, whatever octets are in it."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.logs.lines import MAX_LINE, Line, lines


def texts(content: bytes) -> list[bytes]:
    return [line.text for line in lines(io.BytesIO(content))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_lines_are_read_without_their_ends(end: bytes, last: bytes) -> None:
    assert texts(b"one" + end + b"\xff\x00\x1b" + end + end + b"three" + last) == [
        b"one",
        b"\xff\x00\x1b",
        b"",
        b"three",
    ]


@pytest.mark.parametrize("length", [MAX_LINE - 2, MAX_LINE - 1, MAX_LINE, 5 * MAX_LINE + 3])
def test_a_long_line_is_cut_and_the_next_one_is_whole(length: int) -> None:
    cut, following = texts(b"x" * length + b"\nnext\n")
    assert cut == b"x" * min(length, MAX_LINE)
    assert following == b"next"


def binary(name: bytes, value: bytes) -> bytes:
    return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def test_entries_of_journalctl_export_are_lines_with_a_time() -> None:
    entries = (
        b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1764375552123456\nPRIORITY=6\n"
        b"MESSAGE=one\nSYSLOG_IDENTIFIER=postfix/smtp\n\n"
        b"__CURSOR=s=2\n__REALTIME_TIMESTAMP=1764375553000000\n"
        + binary(b"MESSAGE", b"two \xff\nMESSAGE=three")
        + binary(b"COREDUMP", bytes(3 * MAX_LINE))
        + b"\nplain\n"
    )
    assert list(lines(io.BytesIO(entries))) == [
        Line(b"one", 1764375552.123456),
        Line(b"two \xff MESSAGE=three", 1764375553.0),
        Line(b"plain"),
    ]


@pytest.mark.parametrize("length", [0, 3, 2**64 - 1])
def test_a_length_that_is_not_kept_ends_with_the_file(length: int) -> None:
    content = b"__CURSOR=s\nMESSAGE\n" + struct.pack("<Q", length) + b"end"
    assert len(texts(content)) <= 2


def test_an_object_over_several_lines_is_one_line() -> None:
    one, two = {"MESSAGE": "one", "_PID": "7"}, {"MESSAGE": "two", "a": {"b": 1}}
    pretty = "\n".join(json.dumps(item, indent="\t") for item in (one, two))
    assert [json.loads(text) for text in texts(f"{pretty}\nthree\n".encode())[:2]] == [one, two]
    indented = json.dumps([one, two], indent=2).encode()
    assert [json.loads(text) for text in texts(indented)[1:3]] == [one, two]


@given(st.lists(st.sampled_from([b"{\n", b"__CURSOR=\n", b"MESSAGE\n", b"\n", b"}\n", b"\xff"])))
def test_no_octets_raise_anything(parts: list[bytes]) -> None:
    texts(b"".join(parts))
