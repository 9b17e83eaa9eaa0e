"""MTA-STS texts against the grammar of RFC 8461, which stands here as it stands there.

The ABNF is regular: each of its rules is a regular expression of the same name.
Texts are generated from them, piece by piece, so that what a text means is known
before it is read; and any text at all is read as the grammar has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from requiretls_milter.evidence.mta_sts import PolicyError, read_policy, read_record
from requiretls_milter.model import MtaStsMode, MtaStsPolicy

ALPHA, DIGIT, WSP = "A-Za-z", "0-9", "[ \t]"

# ---------------------------------------------------------------- the record: section 3.1

STS_VERSION = "v=STSv1"
STS_FIELD_DELIM = f"{WSP}*;{WSP}*"
STS_ID_VALUE = f"[{ALPHA}{DIGIT}]{{1,32}}"
STS_EXT_NAME = f"[{ALPHA}{DIGIT}][{ALPHA}{DIGIT}_.-]{{0,31}}"
STS_EXT_VALUE = "[\x21-\x3a\x3c\x3e-\x7e]+"
STS_FIELD = f"(?:id={STS_ID_VALUE}|(?!id=){STS_EXT_NAME}={STS_EXT_VALUE})"
STS_TEXT_RECORD = f"{STS_VERSION}(?:{STS_FIELD_DELIM}{STS_FIELD})+(?:{STS_FIELD_DELIM})?"


# The generators that follow are of the same rules, with few characters of each kind: regular
# expressions over all of Unicode would take minutes.

ALNUM = "aZ09"
blanks = st.sampled_from(("", " ", "\t", " \t"))
field_delimiters = st.builds("{};{}".format, blanks, blanks)
ids = st.text(ALNUM, min_size=1, max_size=32)
names = st.builds("{}{}".format, st.sampled_from(ALNUM), st.text(ALNUM + "_.-", max_size=31))
ext_values = st.text("!:<>~aZ0", min_size=1, max_size=20)


@dataclass(frozen=True)
class Text:
    """A record, and the id that it has by the way it was made."""

    text: str
    id: str


@st.composite
def records(draw: st.DrawFn) -> Text:
    """Valid records."""
    identifier = draw(ids)
    extension = st.builds("{}={}".format, names.filter(lambda name: name != "id"), ext_values)
    others = draw(st.lists(extension, max_size=3))
    later = draw(st.lists(ids, max_size=1))
    position = draw(st.integers(0, len(others)))
    fields = [*others[:position], f"id={identifier}", *others[position:]]
    fields += [f"id={value}" for value in later]
    text = STS_VERSION + "".join(draw(field_delimiters) + field for field in fields)
    return Text(text + draw(st.just("") | field_delimiters), identifier)


NO_RECORDS = st.binary(max_size=40).filter(lambda text: not text.startswith(b"v=STSv1"))


@given(records(), st.lists(NO_RECORDS, max_size=3))
def test_r46_a_record_of_the_grammar_has_the_id_that_it_was_given(
    record: Text, others: list[bytes]
) -> None:
    assert re.fullmatch(STS_TEXT_RECORD, record.text)
    assert read_record([record.text.encode("latin-1"), *others]) == record.id
    assert read_record([*others, record.text.encode("latin-1")]) == record.id


BREAK_RECORD: dict[str, Callable[[str], str]] = {
    "a field before the version": lambda text: f"a=b; {text}",
    "a blank before the version": lambda text: f" {text}",
    "another version": lambda text: text.replace("STSv1", "STSv2", 1),
    "a longer version": lambda text: text.replace("STSv1", "STSv10", 1),
    "the version in lower case": lambda text: text.replace("STSv1", "stsv1", 1),
    "the version alone": lambda _: "v=STSv1;",
    "no delimiter": lambda _: "v=STSv1",
    "an empty field": lambda text: text.replace(";", ";;", 1),
    "a field without a value": lambda text: text.replace(";", ";x=;", 1),
    "a field without a name": lambda text: text.replace(";", ";=x;", 1),
    "a field without an equals sign": lambda text: text.replace(";", ";x;", 1),
    "a name that is too long": lambda text: text.replace(";", f";{'n' * 33}=x;", 1),
    "a name that begins with a dot": lambda text: text.replace(";", ";.n=x;", 1),
    "a blank in a value": lambda text: text.replace(";", ";n=a b;", 1),
    "an equals sign in a value": lambda text: text.replace(";", ";n=a=b;", 1),
    "a control character": lambda text: text.replace(";", ";n=\x07;", 1),
    "eight bits": lambda text: text.replace(";", ";n=\xe9;", 1),
    "an id that is too long": lambda text: text.replace(";", f";id={'1' * 33};", 1),
    "an id with a hyphen": lambda text: text.replace(";", ";id=a-b;", 1),
    "an empty id": lambda text: text.replace(";", ";id=;", 1),
}


@pytest.mark.parametrize("how", BREAK_RECORD)
@settings(max_examples=10)
@given(record=records())
def test_r46_a_record_that_breaks_the_grammar_is_never_one(record: Text, how: str) -> None:
    broken = BREAK_RECORD[how](record.text)
    assert not re.fullmatch(STS_TEXT_RECORD, broken)
    assert found_in([broken.encode("latin-1")]) == ""


@given(records(), records())
def test_r46_two_records_are_none(one: Text, other: Text) -> None:
    assert found_in([one.text.encode("latin-1"), other.text.encode("latin-1")]) == ""


@given(records().map(lambda record: record.text), st.data())
def test_r46_whatever_is_done_to_a_record_it_is_read_as_the_grammar_has_it(
    text: str, data: st.DataObject
) -> None:
    changed = data.draw(changes(text))
    ids = re.findall(rf";{WSP}*id=({STS_ID_VALUE})(?={WSP}*(?:;|$))", changed)
    # More than the grammar lets through: blanks at the end.
    valid = re.fullmatch(STS_TEXT_RECORD, changed.rstrip(" \t")) and ids
    # A second id that is none is no field of the grammar, but does no harm to the first.
    assume(not (ids and changed.count("id=") > len(ids)))
    assert found_in([changed.encode("latin-1")]) == (ids[0] if valid else "")


def found_in(texts: list[bytes]) -> str:
    """The id that is found; "" where there is none, or none that counts."""
    try:
        return read_record(texts)
    except PolicyError:
        return ""


def changes(
    text: str, alphabet: str = "v=STSvid;:. \t*-_aA1\r\n\x00\x7f\xe9"
) -> st.SearchStrategy[str]:
    """*text* with a few characters put in, taken out or exchanged."""
    change = st.tuples(
        st.integers(0, max(0, len(text) - 1)),
        st.sampled_from(("insert", "delete", "replace", "double")),
        st.sampled_from(alphabet),
    )

    def apply(edits: list[tuple[int, str, str]]) -> str:
        changed = text
        for position, how, character in edits:
            head, here, tail = (
                changed[:position],
                changed[position : position + 1],
                changed[position + 1 :],
            )
            match how:
                case "insert":
                    changed = head + character + here + tail
                case "delete":
                    changed = head + tail
                case "replace":
                    changed = head + character + tail
                case _:
                    changed = head + here + here + tail
        return changed

    return st.lists(change, min_size=1, max_size=4).map(apply)


# ---------------------------------------------------------------- the policy: section 3.2

VCHAR = "\x21-\x7e\x80-\ud7ff\ue000-\U0010ffff"
"""sts-policy-vchar, decoded: UTF-8 knows no surrogates."""
SUB_DOMAIN = f"[{ALPHA}{DIGIT}](?:[{ALPHA}{DIGIT}-]{{0,61}}[{ALPHA}{DIGIT}])?"
"""RFC 5321 section 4.1.2, of RFC 1035's length."""
DOMAIN = rf"{SUB_DOMAIN}(?:\.{SUB_DOMAIN})*"
FIELD_DELIM = f":{WSP}*"
TERM = "\r?\n"
MX_VALUE = rf"(?:\*\.)?{DOMAIN}"
MAX_AGE_VALUE = f"[{DIGIT}]{{1,10}}"
EXT_NAME = f"[{ALPHA}{DIGIT}][{ALPHA}{DIGIT}_.-]{{0,31}}"
EXT_VALUE = f"[{VCHAR}](?:[ {VCHAR}]*[{VCHAR}])?"
FIELD = f"(?:mx{FIELD_DELIM}{MX_VALUE}|(?!mx:){EXT_NAME}{FIELD_DELIM}{EXT_VALUE})"
POLICY = f"{FIELD}{WSP}*(?:{TERM}{FIELD}{WSP}*)*(?:{TERM})?"

NUMBER = re.compile(r"[0-9.]+")
"""What would be an IPv4 address, or look like one: no host name (RFC 1123 section 2.1)."""

YEAR = 31557600
KNOWN = ("version", "mode", "max_age", "mx")


@dataclass(frozen=True)
class Body:
    """A policy's fields, in order, and what they mean by the way they were made."""

    fields: tuple[tuple[str, str], ...]
    delimiters: tuple[str, ...]
    ends: tuple[str, ...]
    policy: MtaStsPolicy

    @property
    def text(self) -> str:
        """The policy's text."""
        lines = zip(self.fields, self.delimiters, self.ends, strict=True)
        return "".join(f"{name}{delimiter}{value}{end}" for (name, value), delimiter, end in lines)

    def without(self, name: str) -> str:
        """Its text without the fields of a name."""
        lines = zip(self.fields, self.delimiters, self.ends, strict=True)
        return "".join(f"{n}{d}{v}{e}" for (n, v), d, e in lines if n != name) or "x:y"

    def with_value(self, name: str, value: str) -> str:
        """Its text with another value in each field of a name."""
        lines = zip(self.fields, self.delimiters, self.ends, strict=True)
        return "".join(f"{n}{d}{value if n == name else v}{e}" for (n, v), d, e in lines)


labels = st.sampled_from(("a", "MX1", "x-y", "a--b", "0", "9", "x" * 63, "xn--bcher-kva", "org"))
domains = (
    st.lists(labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: len(name) <= 253 and not NUMBER.fullmatch(name))
)
hosts = st.builds("{}{}".format, st.sampled_from(("", "*.")), domains)
max_ages = st.integers(0, 10**10 - 1).map(str) | st.sampled_from(("0", "0000000060", "31557601"))
values = st.text("!:;=~aZ0 é€\U0001f600\x80", min_size=1, max_size=20).filter(
    lambda text: text == text.strip(" ")
)


@st.composite
def policies(draw: st.DrawFn, modes: tuple[MtaStsMode, ...] = tuple(MtaStsMode)) -> Body:
    """Valid policies."""
    mode = draw(st.sampled_from(modes))
    age = draw(max_ages)
    patterns = draw(st.lists(hosts, min_size=0 if mode is MtaStsMode.NONE else 1, max_size=3))
    extension = st.tuples(names.filter(lambda name: name not in KNOWN), values)
    unknown = st.lists(extension, max_size=2)
    fields = [("version", "STSv1"), ("mode", mode.value), ("max_age", age)]
    fields += [("mx", pattern) for pattern in patterns]
    fields = draw(st.permutations([*fields, *draw(unknown)]))
    # Of these the first counts, whatever a later one says (section 3.2).
    later = [("version", "STSv2"), ("mode", "testing"), ("mode", "?"), ("max_age", "no")]
    fields = [*fields, *draw(st.lists(st.sampled_from(later), max_size=2))]
    ends = [draw(blanks) + draw(st.sampled_from(("\n", "\r\n"))) for _ in fields]
    if draw(st.booleans()):
        ends[-1] = ends[-1].rstrip("\r\n")
    found = tuple(dict.fromkeys(value.lower() for name, value in fields if name == "mx"))
    policy = MtaStsPolicy(mode, found, min(int(age), YEAR), "1")
    delimiters = tuple(":" + draw(blanks) for _ in fields)
    return Body(tuple(fields), delimiters, tuple(ends), policy)


@given(policies())
def test_r48_a_policy_of_the_grammar_means_what_it_was_made_of(body: Body) -> None:
    assert re.fullmatch(POLICY, body.text)
    assert read_policy(body.text.encode(), "1") == body.policy


BREAK_POLICY: dict[str, Callable[[Body], str]] = {
    "no version": lambda body: body.without("version"),
    "no mode": lambda body: body.without("mode"),
    "no max_age": lambda body: body.without("max_age"),
    "no mx": lambda body: body.without("mx"),
    "another version": lambda body: body.with_value("version", "STSv2"),
    "the version in lower case": lambda body: body.with_value("version", "stsv1"),
    "an unknown mode": lambda body: body.with_value("mode", "strict"),
    "a mode in upper case": lambda body: body.with_value("mode", "ENFORCE"),
    "two modes": lambda body: body.with_value("mode", "enforce testing"),
    "an empty mode": lambda body: body.with_value("mode", ""),
    "a negative max_age": lambda body: body.with_value("max_age", "-1"),
    "a max_age of eleven digits": lambda body: body.with_value("max_age", "1" * 11),
    "a fraction": lambda body: body.with_value("max_age", "86400.0"),
    "digits of another script": lambda body: body.with_value("max_age", "\u0661\u0662"),
    "an empty mx": lambda body: body.with_value("mx", ""),
    "any host": lambda body: body.with_value("mx", "*"),
    "any two labels": lambda body: body.with_value("mx", "*.*"),
    "an asterisk inside": lambda body: body.with_value("mx", "mx.*.example.org"),
    "an asterisk in a label": lambda body: body.with_value("mx", "mx*.example.org"),
    "two asterisks": lambda body: body.with_value("mx", "*.*.example.org"),
    "an empty label": lambda body: body.with_value("mx", "mx..example.org"),
    "a leading dot": lambda body: body.with_value("mx", ".example.org"),
    "a label of 64 octets": lambda body: body.with_value("mx", "a" * 64 + ".example.org"),
    "a hyphen at a label's end": lambda body: body.with_value("mx", "mx-.example.org"),
    "a U-label": lambda body: body.with_value("mx", "b\u00fccher.example"),
    "an address": lambda body: body.with_value("mx", "192.0.2.1"),
    "an address literal": lambda body: body.with_value("mx", "[192.0.2.1]"),
    "two hosts": lambda body: body.with_value("mx", "a.example b.example"),
    "a comma": lambda body: body.with_value("mx", "a.example,b.example"),
    "a line without a colon": lambda body: "nothing\n" + body.text,
    "a blank before a colon": lambda body: "x : y\n" + body.text,
    "a blank before a name": lambda body: " x: y\n" + body.text,
    "a name that is too long": lambda body: "n" * 33 + ": y\n" + body.text,
    "a name that begins with a hyphen": lambda body: "-n: y\n" + body.text,
    "a field without a value": lambda body: "x:\n" + body.text,
    "a control character": lambda body: "x: a\x07b\n" + body.text,
    "a tab in a value": lambda body: "x: a\tb\n" + body.text,
    "a carriage return alone": lambda body: "x: a\rb\n" + body.text,
    "a byte order mark": lambda body: "\ufeff" + body.text,
    "nothing": lambda _: "",
}


@pytest.mark.parametrize("how", BREAK_POLICY)
@settings(max_examples=10)
@given(body=policies((MtaStsMode.ENFORCE, MtaStsMode.TESTING)))
def test_r48_a_policy_that_breaks_the_grammar_is_refused(body: Body, how: str) -> None:
    with pytest.raises(PolicyError):
        read_policy(BREAK_POLICY[how](body).encode(), "1")


@given(
    policies(), st.integers(0), st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
)
def test_r48_what_is_no_utf_8_is_refused(body: Body, where: int, octets: bytes) -> None:
    encoded = body.text.encode()
    position = where % (len(encoded) + 1)
    with pytest.raises(PolicyError):
        read_policy(encoded[:position] + octets + encoded[position:], "1")


@given(policies(), st.data())
def test_r48_whatever_is_done_to_a_policy_it_is_read_as_the_grammar_has_it(
    body: Body, data: st.DataObject
) -> None:
    changed = data.draw(changes(body.text))
    try:
        found = read_policy(changed.encode(), "1")
    except PolicyError:
        found = None
    assert found == as_the_grammar_has_it(changed)


@example("version: STSv1\nmode: none\nmax_age: 1\n\n\n")
@example("version: STSv1\nmode: enforce\nmx: a.example.\nmax_age: 1")
@given(st.text(alphabet="versionSTmdefcax_g:1* .-\n\r\t", max_size=60))
def test_any_text_is_read_as_the_grammar_has_it(text: str) -> None:
    try:
        found = read_policy(text.encode(), "1")
    except PolicyError:
        found = None
    assert found == as_the_grammar_has_it(text)


def as_the_grammar_has_it(text: str) -> MtaStsPolicy | None:
    """What a text means by the grammar and the prose of section 3.2; None: it is no policy.

    More than the grammar lets through: empty lines, of blanks too, and a dot at the end of an mx.
    """
    lines = [line.removesuffix("\r").rstrip(" \t") for line in text.split("\n")]
    lines = [re.sub(r"^(mx:.*)\.$", r"\1", line) for line in lines if line]
    if not lines or not all(re.fullmatch(FIELD, line) for line in lines):
        return None
    pairs = [re.split(FIELD_DELIM, line, maxsplit=1) for line in lines]
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    patterns = tuple(dict.fromkeys(value.lower() for name, value in pairs if name == "mx"))
    if (
        values.get("version") != "STSv1"
        or values.get("mode") not in list(MtaStsMode)
        or not re.fullmatch(MAX_AGE_VALUE, values.get("max_age", ""))
        or (values["mode"] != "none" and not patterns)
        or any(len(pattern) > 255 or is_ipv4(pattern) for pattern in patterns)
    ):
        return None
    age = min(int(values["max_age"]), YEAR)
    return MtaStsPolicy(MtaStsMode(values["mode"]), patterns, age, "1")


def is_ipv4(text: str) -> bool:
    """Whether it is an IPv4 address in dotted form."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isdigit() and int(part) < 256 and (part == "0" or part[0] != "0") for part in parts
    )
