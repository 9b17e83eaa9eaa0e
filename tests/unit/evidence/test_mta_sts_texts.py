"""The TXT record and the policy as texts: what counts, what does not, and what is said of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.evidence.mta_sts import MAX_AGE, PolicyError, read_policy, read_record
from requiretls_milter.model import MtaStsMode, MtaStsPolicy

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 86400\r\n"


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize(
    "record",
    [
        b"v=STSv1; id=20160831085700Z;",
        b"v=STSv1;id=20160831085700Z",
        b"v=STSv1 \t; \t id=20160831085700Z \t ; ",
        b"v=STSv1; foo=bar; id=20160831085700Z; id=second",
        b"v=STSv1; id=20160831085700Z; a.b_c-d=!~",
    ],
)
def test_r46_the_id_of_the_one_record_is_found(record: bytes) -> None:
    assert read_record([record]) == "20160831085700Z"


@pytest.mark.parametrize("length", [1, 31, 32])
def test_r46_an_id_has_1_to_32_letters_or_digits(length: int) -> None:
    assert read_record([b"v=STSv1; id=" + b"a" * length]) == "a" * length


@pytest.mark.parametrize("bad", [b"", b"a" * 33, b"a-b", b"a b", b"\xc3\xa9", b"a=b", b"a\0"])
def test_r46_any_other_id_voids_the_record(bad: bytes) -> None:
    with pytest.raises(PolicyError):
        read_record([b"v=STSv1; id=" + bad + b";"])


def test_r46_other_records_of_the_name_do_not_matter() -> None:
    assert read_record([b"v=spf1 -all", b"v=STSv1; id=1", b"\xff\xfe"]) == "1"
    assert read_record([b"v=spf1 -all"]) == ""
    assert read_record([]) == ""


def test_r46_two_records_are_as_good_as_none() -> None:
    with pytest.raises(PolicyError, match="2 MTA-STS records"):
        read_record([b"v=STSv1; id=1", b"v=STSv1; id=1"])


@pytest.mark.parametrize(
    "record", [b"v=STSv1;", b"v=STSv1; foo=bar", b"v=STSv1; ;id=1", b"v=STSv1; id", b"v=STSv1; =1"]
)
def test_r46_a_record_that_breaks_the_grammar_is_none(record: bytes) -> None:
    with pytest.raises(PolicyError):
        read_record([record])


@pytest.mark.parametrize(
    "record",
    [
        b"id=1; v=STSv1;",
        b"v=STSv10; id=1",
        b"v=STSv1",
        b"v=stsv1; id=1",
        b"V=STSv1; id=1",
        b" v=STSv1; id=1",
        b"v= STSv1; id=1",
        b"v=STSv1 x; id=1",
    ],
)
def test_r47_the_version_comes_first_and_is_the_whole_word(record: bytes) -> None:
    assert read_record([record]) == ""


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=40).map(b"v=STSv1;".__add__)))
def test_any_octets_give_an_id_nothing_or_a_policy_error(texts: list[bytes]) -> None:
    try:
        found = read_record(texts)
    except PolicyError as error:
        said, found = str(error), ""
    else:
        said = ""
    assert said.isascii()
    assert said.isprintable()
    assert found == "" or (found.isalnum() and found.isascii() and len(found) <= 32)


# ---------------------------------------------------------------- the policy


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("last", [True, False])
def test_r48_lines_end_in_crlf_or_lf(end: bytes, last: bool) -> None:
    body = POLICY.replace(b"\r\n", end)
    if not last:
        body = body.removesuffix(end)
    expected = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example.org",), 86400, "7")
    assert read_policy(body, "7") == expected


@pytest.mark.parametrize("missing", [b"version", b"mode", b"mx", b"max_age"])
def test_r48_what_is_required_is_required(missing: bytes) -> None:
    body = b"".join(line for line in POLICY.splitlines(True) if not line.startswith(missing + b":"))
    with pytest.raises(PolicyError, match=missing.decode()):
        read_policy(body, "1")


def test_r48_mode_none_needs_no_mx() -> None:
    policy = read_policy(b"version: STSv1\nmode: none\nmax_age: 60\n", "1")
    assert policy == MtaStsPolicy(MtaStsMode.NONE, (), 60, "1")


def test_r48_the_first_of_several_counts_but_every_mx() -> None:
    body = POLICY + b"mode: none\r\nmax_age: 1\r\nversion: STSv2\r\nmx: mx2.example.org\r\n"
    policy = read_policy(body, "1")
    assert policy.mode is MtaStsMode.ENFORCE
    assert policy.max_age == 86400
    assert policy.mx == ("mx.example.org", "mx2.example.org")


@pytest.mark.parametrize(
    "line", [b"foo: bar", b"a.b_c-d:  x y ", b"f" * 32 + b":x", "foo: b\u00fccher".encode()]
)
def test_r48_unknown_keys_are_ignored(line: bytes) -> None:
    assert read_policy(line + b"\r\n" + POLICY, "1").max_age == 86400


@pytest.mark.parametrize(
    "line",
    [
        b"foo",
        b": bar",
        b"foo :bar",
        b" foo: bar",
        b"_foo: bar",
        b"f" * 33 + b":x",
        b"foo:",
        b"foo: \t",
        b"foo: a\0b",
        b"foo: a\rb",
        b"foo: a\x7fb",
        b"foo: \xff",
        b"<html>",
    ],
)
def test_r48_a_line_that_breaks_the_grammar_voids_the_policy(line: bytes) -> None:
    with pytest.raises(PolicyError):
        read_policy(POLICY + line + b"\r\n", "1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"version", b"STSv2"),
        (b"version", b"stsv1"),
        (b"mode", b"Enforce"),
        (b"mode", b"report"),
        (b"max_age", b"-1"),
        (b"max_age", b"1d"),
        (b"max_age", b"1.5"),
        (b"max_age", "\u0661".encode()),
        (b"max_age", b"12345678901"),
    ],
)
def test_r48_a_value_that_is_not_known_voids_the_policy(key: bytes, value: bytes) -> None:
    lines = POLICY.splitlines(True)
    body = b"".join(
        key + b": " + value + b"\r\n" if line.startswith(key + b":") else line for line in lines
    )
    with pytest.raises(PolicyError, match=key.decode()):
        read_policy(body, "1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"0", 0),
        (b"1", 1),
        (b"0000000060", 60),
        (b"31557599", 31557599),
        (b"31557600", MAX_AGE),
        (b"31557601", MAX_AGE),
        (b"9999999999", MAX_AGE),
    ],
)
def test_r49_max_age_has_up_to_ten_digits_and_is_a_year_at_most(text: bytes, seconds: int) -> None:
    assert read_policy(POLICY.replace(b"86400", text), "1").max_age == seconds


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (b"*.example.net", "*.example.net"),
        (b"MX.Example.ORG", "mx.example.org"),
        (b"mx.example.org.", "mx.example.org"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"localhost", "localhost"),
    ],
)
def test_r55_a_pattern_is_a_name_or_a_wildcard_before_one(text: bytes, pattern: str) -> None:
    assert read_policy(POLICY.replace(b"mx.example.org", text), "1").mx == (pattern,)


@pytest.mark.parametrize(
    "text",
    [
        b"*",
        b"*.",
        b"*.*.example.net",
        b"*.*",
        b"mx.*.example.net",
        b"m*.example.net",
        b"**.example.net",
        b".example.net",
        b"mx..example.net",
        b"-mx.example.net",
        b"mx-.example.net",
        b"192.0.2.1",
        b"[192.0.2.1]",
        b"2001:db8::1",
        "b\u00fccher.example".encode(),
        b"mx.example.org mx2.example.org",
        b"mx.example.org, mx2.example.org",
        b"a" * 64 + b".example",
        b".".join([b"a" * 50] * 6),
    ],
)
def test_r55_anything_else_voids_the_policy(text: bytes) -> None:
    with pytest.raises(PolicyError, match="mx"):
        read_policy(POLICY.replace(b"mx.example.org", text), "1")


@given(st.binary(max_size=200) | st.binary(max_size=60).map(POLICY.__add__))
def test_any_octets_give_a_policy_or_a_policy_error(body: bytes) -> None:
    policy: MtaStsPolicy | None
    try:
        policy = read_policy(body, "1")
    except PolicyError as error:
        said, policy = str(error), None
    else:
        said = ""
    assert said.isascii()
    assert said.isprintable()
    assert policy is None or 0 <= policy.max_age <= MAX_AGE
    assert policy is None or all(pattern.isascii() for pattern in policy.mx)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "body",
    [b"a" * 65_536, b"a:" * 32_768, b"\n" * 65_536, b"mx: a\n" * 10_922, b"mx: " + b"a." * 32_000],
)
def test_64_kibibytes_of_anything_are_read_in_no_time(body: bytes) -> None:
    with pytest.raises(PolicyError):
        read_policy(body, "1")
