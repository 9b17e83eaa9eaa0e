"""Where in the file a key stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config.lines import key_lines, table_path

FILE = """\
# a comment with mode = "off"
[rules]
mode = "monitor"   # not "off"

[rules.recipient."Example.ORG"]
mode = "reject"
'on_unknown' = "accept"
[rules.sender.".bank.example"]
  require = true
[mta]
local_domains = [
  "a.example",
]
transport = { smtp = { tls_security_level = "dane" } }
rules.x = 1
"""


def test_keys_are_found_in_their_tables() -> None:
    assert key_lines(FILE) == {
        ("rules", "mode"): 3,
        ("rules", "recipient", "example.org", "mode"): 6,
        ("rules", "recipient", "example.org", "on_unknown"): 7,
        ("rules", "sender", ".bank.example", "require"): 9,
        ("mta", "local_domains"): 11,
        ("mta", "transport"): 14,
        ("mta", "rules", "x"): 15,
    }


def test_the_header_of_a_table_is_its_path() -> None:
    assert table_path('[rules.nexthop."[mx.example.org]:587"]') == (
        "rules",
        "nexthop",
        "[mx.example.org]:587",
    )
    assert table_path("[no header") == ()


@given(st.text(max_size=200))
def test_no_text_makes_it_stumble(text: str) -> None:
    assert all(line >= 1 for line in key_lines(text).values())
