"""The milter's own lines are read in either format, also if syslog has cut them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.logs.milter import of_cut_object, of_logfmt, of_object
from tests.support.milterlogs import recipient_line

LOGFMT = recipient_line("logfmt", action="accept")


def test_values_are_read_with_or_without_quotes() -> None:
    fields = of_logfmt(
        'event=recipient tls= to="<\\"a b\\"@example.org>" status=2.0.0 action=accept'
    )
    assert fields == {
        "event": "recipient",
        "tls": "",
        "to": '<"a b"@example.org>',
        "status": "2.0.0",
        "action": "accept",
    }


def test_the_first_of_two_pairs_with_one_name_counts() -> None:
    assert of_logfmt("event=message event=recipient action=accept")["event"] == "message"


@pytest.mark.parametrize("length", range(len(LOGFMT)))
def test_what_is_left_of_a_cut_line_is_never_half_a_value(length: int) -> None:
    whole, cut = of_logfmt(LOGFMT), of_logfmt(LOGFMT[:length])
    last = list(cut)[-1] if cut else ""
    assert all(cut[key] == whole[key] for key in cut if key != last)
    if cut.get("event") == "recipient" and "action" not in cut:
        assert cut[last] == whole[last]


def test_values_of_json_become_text_and_null_the_empty_one() -> None:
    found = {"event": "recipient", "tls": None, "count": 3, "known": True}
    assert of_object(found) == {"event": "recipient", "tls": "", "count": "3", "known": "True"}


def test_another_programs_object_has_no_event_of_ours() -> None:
    assert of_object({"event": {"kind": "recipient"}, "message": "recipient"}) == {}
    assert of_object({"log": "event=recipient"}) == {}


def test_a_cut_object_is_a_recipient_if_only_a_recipient_has_these_pairs() -> None:
    """The event is the last but three of its pairs: it is the first to be cut off."""
    line = json.dumps(
        {
            "component": "milter.account",
            "queue_id": "4A",
            "to": '<"a b"@x>',
            "waited": 0.1,
            "tls": None,
            "forecast": "2.0.0",
            "action": "accept",
            "event": "recipient",
        }
    )
    assert of_cut_object(line[:-30]) == {
        "component": "milter.account",
        "queue_id": "4A",
        "to": '<"a b"@x>',
        "waited": "0.1",
        "tls": "",
        "forecast": "2.0.0",
        "event": "recipient",
    }
    assert of_cut_object('{"component": "supervisor", "to": "x", "forecast": "2.0.0", "na') == {}


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=50)))
def test_what_is_written_in_json_is_read_back(fields: dict[str, str]) -> None:
    written = {**fields, "event": "recipient"}
    assert of_object(json.loads(json.dumps(written))) == written


@given(st.text(max_size=300))
def test_no_line_raises_anything(text: str) -> None:
    of_logfmt("event=recipient " + text)
    of_cut_object('{"event": ' + text)
