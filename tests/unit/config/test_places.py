"""Where in the files a key stands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.config.places import Place, heading_path, scan
from requiretls_milter.config.text import render
from tests.unit.config.generated import CONFIG

HERE = Path("config.toml")

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


def places(text: str) -> dict[tuple[str | int, ...], tuple[int, int]]:
    return {path: (place.line, place.column) for path, place in scan(text).places(HERE).items()}


def test_keys_are_found_in_their_tables() -> None:
    found = places(FILE)
    assert found["rules", "mode"] == (3, 1)
    assert found["rules", "recipient", "Example.ORG"] == (5, 1)
    assert found["rules", "recipient", "Example.ORG", "mode"] == (6, 1)
    assert found["rules", "recipient", "Example.ORG", "on_unknown"] == (7, 1)
    assert found["rules", "sender", ".bank.example", "require"] == (9, 3)
    assert found["mta", "local_domains"] == (11, 1)
    assert found["mta", "local_domains", 0] == (12, 3)
    assert found["mta", "transport", "smtp", "tls_security_level"] == (14, 24)
    assert found["mta", "rules", "x"] == (15, 1)


def test_a_text_of_several_lines_is_no_key() -> None:
    text = "[log]\na = \"\"\"\n[rules]\nb = 1\n\"\"\"\nc = ['''\nd = 2''', 3]\ne = 4\n"
    assert places(text) == {
        ("log",): (1, 1),
        ("log", "a"): (2, 1),
        ("log", "c"): (6, 1),
        ("log", "c", 0): (6, 6),
        ("log", "c", 1): (7, 11),
        ("log", "e"): (8, 1),
    }


def test_tables_in_lists_are_counted() -> None:
    assert places("[[a]]\nb = 1\n[[a]]\nb = 2\n")["a", 1, "b"] == (4, 1)


def test_a_place_is_written_as_compilers_write_it() -> None:
    assert str(Place(Path("/etc/x.toml"), 3, 7)) == "/etc/x.toml:3:7"
    assert str(Place(Path("/etc/x.toml"))) == "/etc/x.toml"


def test_the_heading_of_a_table_is_its_path() -> None:
    assert heading_path('[rules.nexthop."[mx.example.org]:587"]') == (
        "rules",
        "nexthop",
        "[mx.example.org]:587",
    )
    assert heading_path("[no heading") == ()


def every_key(value: Any, above: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {above} - {()}
    if isinstance(value, dict):
        for key, below in value.items():
            found |= every_key(below, (*above, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            found |= every_key(below, (*above, number))
    return found


@given(CONFIG)
def test_each_key_of_a_configuration_has_a_place(raw: dict[str, Any]) -> None:
    text = render(Config.model_validate(raw))
    assert set(places(text)) == every_key(tomllib.loads(text))


LINES = st.sampled_from(
    [
        "a = 1",
        "a.b = 2",
        'b."c.d" = """x\n[y]\n\\""" """',
        "c = [1, [2, {f = 3}], # x = 1\n '''4\n''',\n]",
        """d = {h = 'i#', j.k = "l\\"]", m = []}""",
        "# [no]",
        "e = 1979-05-27 07:32:00Z # z = 1",
        "'f g' = -inf",
        "[t]",
        "[t.'u.v']",
        "[[w]]",
        "[ w . x ]",
        "",
    ]
)


@given(st.lists(LINES, max_size=8))
def test_each_key_that_tomllib_finds_has_a_place(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a key twice
        return
    assert every_key(raw) <= set(places(text))


@given(st.text(max_size=200))
def test_no_text_makes_it_stumble(text: str) -> None:
    assert all(line >= 1 and column >= 1 for line, column in places(text).values())
