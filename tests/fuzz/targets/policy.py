"""MTA-STS: the TXT record, and the policy that a web server gives."""

from __future__ import annotations

import re

from requiretls_milter.evidence.mta_sts import MAX_AGE, PolicyError, read_policy, read_record
from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.model import MtaStsMode, MtaStsPolicy
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect

_ID = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
_PATTERN = re.compile(r"(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*", re.ASCII)


def sts_record(data: bytes) -> None:
    """The TXT records of a name, separated by LF."""
    texts = data.split(b"\n")
    try:
        found = read_record(texts)
    except PolicyError as error:
        expect.one_line(str(error), MAX_TEXT)
        return
    candidates = [text for text in texts if text.startswith(b"v=STSv1")]
    if not found:
        return
    assert _ID.fullmatch(found)
    assert any(f"id={found}".encode() in text for text in candidates)
    assert read_record([f"v=STSv1; id={found};".encode()]) == found
    assert read_record([*texts, b"v=spf1 -all"]) == found, "another record changes it"


def sts_policy(data: bytes) -> None:
    """A policy's body."""
    try:
        policy = read_policy(data, "1")
    except PolicyError as error:
        expect.one_line(str(error), MAX_TEXT)
        return
    assert 0 <= policy.max_age <= MAX_AGE
    assert policy.mx or policy.mode is MtaStsMode.NONE
    for pattern in policy.mx:
        expect.one_line(pattern, 255)
        assert _PATTERN.fullmatch(pattern)
        _check_pattern(policy, pattern)
    assert not mta_sts_match(policy, "192.0.2.1")
    for end in ("\n", "\r\n"):
        assert read_policy(_render(policy, end), "1") == policy


def _check_pattern(policy: MtaStsPolicy, pattern: str) -> None:
    """RFC 8461 section 4.1: an asterisk is one label, and never none."""
    alone = MtaStsPolicy(policy.mode, (pattern,), policy.max_age, policy.id)
    if not pattern.startswith("*."):
        assert mta_sts_match(alone, pattern.upper() + ".")
        assert not mta_sts_match(alone, "www." + pattern)
        return
    parent = pattern[2:]
    assert mta_sts_match(alone, "mx." + parent)
    assert not mta_sts_match(alone, parent)
    assert not mta_sts_match(alone, "a.mx." + parent)
    assert not mta_sts_match(alone, "." + parent)


def _render(policy: MtaStsPolicy, end: str) -> bytes:
    lines = ["version: STSv1", f"mode: {policy.mode}", f"max_age: {policy.max_age}"]
    lines += [f"mx: {pattern}" for pattern in policy.mx]
    return "".join(line + end for line in lines).encode()
