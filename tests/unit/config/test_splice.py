"""One section of a file is changed, and nothing else."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config.splice import SpliceError, replaced

FILE = """\
# top
include = ["conf.d/*.toml"]

[rules]
mode   =   'reject' # stays

# how our MTA delivers
[mta]
mydomain = "old.example"   # ours
my_addresses = [
  "192.0.2.1", # one
]
gone = 1
mx_address_limit = 5

# the bank
[rules.recipient."bank.example"]
require = true

[mta.transport."smtp-strict"]
tls_security_level = "dane-only"
# last
[dns]
timeout = 3"""


def text_of(value: object) -> str:
    return tomlkit.item(value).as_string()


def changed(text: str, wanted: dict[str, Any]) -> str:
    return replaced(text, "mta", wanted, text_of)


def test_a_value_is_changed_in_its_line_and_all_else_stays() -> None:
    wanted = {
        "mydomain": "new.example",
        "my_addresses": ["192.0.2.2"],
        "mx_address_limit": 5,
        "relayhost": "[relay.example]",
        "transport": {"smtp-strict": {"tls_security_level": "secure"}},
    }
    assert changed(FILE, wanted) == (
        FILE.replace("old.example", "new.example")
        .replace('[\n  "192.0.2.1", # one\n]', '["192.0.2.2"]')
        .replace("gone = 1\n", "")
        .replace("limit = 5\n", 'limit = 5\nrelayhost = "[relay.example]"\n')
        .replace("dane-only", "secure")
        + "\n"
    )


def test_what_is_the_same_changes_no_octet() -> None:
    assert changed(FILE, tomllib.loads(FILE)["mta"]) == FILE


def test_a_new_table_follows_the_section() -> None:
    wanted = tomllib.loads(FILE)["mta"] | {"routes": {"a.example": "smtp:"}}
    assert (
        changed(FILE, wanted)
        == FILE.replace('"dane-only"\n', '"dane-only"\n\n[mta.routes]\n"a.example" = "smtp:"\n\n')
        + "\n"
    )


def test_lines_end_as_the_others_do() -> None:
    text = "[mta]\r\nmx_address_limit = 5 \t# few\r\n[rules]\r\n"
    wanted = {"mx_address_limit": 7, "relayhost": "", "routes": {"a.example": "smtp:"}}
    after = changed(text, wanted)
    assert after.startswith('[mta]\r\nmx_address_limit = 7 \t# few\r\nrelayhost = ""\r\n')
    assert after.count("\n") == after.count("\r\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "[rules]\nmode = 'off'",
        "mta = { a = 2 } # one line\n[rules]\n",
        "mta.a = 2\nmta.c = 3\n[rules]\nmode = 'off'\n",
        "[mta.routes]\n'x' = 'y'\n[rules]\n",
        "[mta]\nroutes = { 'x' = 'y' } # where mail goes\n",
        "[mta]\nroutes.x = 'y'\n",
        "[mta]\na = 1 # why",
        "[mta.transport.x]\nb = 3\n",
        "[mta]\nb = 5",
    ],
)
def test_however_it_was_written_it_says_what_it_should(text: str) -> None:
    wanted = {"a": 1, "b": [2], "routes": {"a.b": "c"}, "transport": {"x": {"d": 4}}}
    after = changed(text, wanted)
    assert tomllib.loads(after) == {**tomllib.loads(text), "mta": wanted}
    comments = [line.partition("#")[2] for line in text.splitlines() if "mta =" not in line]
    assert all(comment in after for comment in comments)


def test_a_section_in_a_list_is_left_alone() -> None:
    with pytest.raises(SpliceError, match=r"\[mta\] is written in a way"):
        replaced("[[mta]]\na = 1\n[mta.b]\nc = 2\n", "mta", {"b": {"c": 3}}, lambda _: "")


VALUES = st.one_of(st.integers(0, 3), st.text("ab#\"'[]\\", max_size=5), st.lists(st.booleans()))
CONTENT = st.dictionaries(
    st.sampled_from(["a", "b", "c.d", "e"]),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(["x", "y z"]), VALUES, min_size=1)),
    min_size=1,
)


@given(CONTENT, CONTENT, CONTENT)
def test_any_section_becomes_any_other_and_the_rest_stays(
    before: dict[str, Any], other: dict[str, Any], wanted: dict[str, Any]
) -> None:
    text = "# begin\n" + tomlkit.dumps({"rules": other, "mta": before, "watch": other}) + "# end\n"
    after = changed(text, wanted)
    assert tomllib.loads(after) == {**tomllib.loads(text), "mta": wanted}
    assert after.startswith("# begin\n")
    assert after.endswith("# end\n")
