"""The milter's own lines are found among others, in either format."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.loglines import MAX_LINE, recipient_fields
from tests.support.milterlogs import recipient_line

PREFIXES = [
    "",
    "Nov 24 19:00:00 mta requiretls-milter[38]: ",
    "2025-11-24T19:00:00.123456+00:00 mta requiretls-milter[38]: ",
    "timestamp=2025-11-24T19:00:00Z level=info ",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_what_stands_before_a_line_is_skipped(prefix: str, form: str) -> None:
    fields = recipient_fields(prefix + recipient_line(form))
    assert fields is not None
    assert fields["to"] == "<u@example.org>"
    assert fields["text"] == 'mx1 said "no", and so on'


def test_values_of_json_become_text_and_null_the_empty_one() -> None:
    fields = recipient_fields('{"event": "recipient", "tls": null, "count": 3, "known": true}')
    assert fields == {"event": "recipient", "tls": "", "count": "3", "known": "True"}


def test_values_without_quotes_end_at_a_blank() -> None:
    fields = recipient_fields("event=recipient tls= status=2.0.0")
    assert fields == {"event": "recipient", "tls": "", "status": "2.0.0"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "event=message text=recipient",
        '{"event": "message", "recipient": 1}',
        '{"event": "recipient"',
        '["recipient"] {}',
        "recipient {" + '"a": [' * 5000 + "}",
        recipient_line() + " " * MAX_LINE,
    ],
    ids=["empty", "another event", "another event in JSON", "cut", "a list", "deep", "too long"],
)
def test_any_other_line_is_none(line: str) -> None:
    assert recipient_fields(line) is None


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=50)))
def test_what_is_written_in_json_is_read_back(fields: dict[str, str]) -> None:
    written = {**fields, "event": "recipient"}
    assert recipient_fields(json.dumps(written)) == written


@given(st.text(max_size=300))
def test_no_line_raises_anything(text: str) -> None:
    recipient_fields(text)
    recipient_fields("recipient " + text)
