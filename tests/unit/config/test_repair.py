"""What is not TOML is told with the line to write."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import ConfigError, parse
from requiretls_milter.config.repair import syntax_mistake


def told(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "c.toml")
    (mistake,) = caught.value.mistakes
    return mistake


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("[rules.recipient.*.partner.example]", '[rules.recipient.".partner.example"]'),
        ("[rules.recipient.user@partner.example]", '[rules.recipient."partner.example"]'),
        ('[rules.recipient."partner.example]', '[rules.recipient."partner.example"]'),
        ('[rules.recipient.partner.example"]', '[rules.recipient."partner.example"]'),
        ('[rules.recipient."partner.example"', '[rules.recipient."partner.example"]'),
        ("[rules.nexthop.\u201cpartner.example\u201d]", '[rules.nexthop."partner.example"]'),
        ("[rules.sender.https://partner.example/]", '[rules.sender."partner.example"]'),
        ("[rules.recipient.partner example]", '[rules.recipient."partner example"]'),
        ("[mta.transport.smtp:strict]", '[mta.transport."smtp:strict"]'),
        ("[rules", "[rules]"),
        ("mode = reject", 'mode = "reject"'),
        ("mode = off", 'mode = "off"'),
        ("mode = 'reject", 'mode = "reject"'),
        ('mode = "reject', 'mode = "reject"'),
        ("mode = \u201creject\u201d", 'mode = "reject"'),
        ("mode reject", 'mode = "reject"'),
        ('mode: "reject"', 'mode = "reject"'),
        ("mode = reject # soon", 'mode = "reject"  # soon'),
        ("require = True", "require = true"),
        ("require = yes", "require = true"),
        ("require: no", "require = false"),
        ("timeout = 5s", "timeout = 5"),
        ("timeout = 2.5 seconds", "timeout = 2.5"),
        ("socket_mode = 0660", 'socket_mode = "0660"'),
        ("socket = unix:/run/m.sock", 'socket = "unix:/run/m.sock"'),
        ("nameservers = [127.0.0.1, ::1]", 'nameservers = ["127.0.0.1", "::1"]'),
        ("domains = [example.org]", 'domains = ["example.org"]'),
        ('user@example.org = "smtp:"', '"user@example.org" = "smtp:"'),
        ('*.example.org = "enforce"', '".example.org" = "enforce"'),
    ],
)
def test_a_line_is_told_as_it_should_be(line: str, instead: str) -> None:
    mistake = told(f"# first\n{line}\n")
    assert mistake.startswith("c.toml:2:")
    assert mistake.endswith(f"; write {instead}")
    tomllib.loads(instead)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[rules.recipient."a.example"]\n[dns]\n[rules.recipient."a.example"]\n',
            'c.toml:3:1: [rules.recipient."a.example"] stands on line 1 already: put all keys of '
            "this table below one heading",
        ),
        (
            "[dns]\ntimeout = 1\n\n timeout = 2\n",
            "c.toml:4:1: timeout stands on line 2 already: keep one of the two lines",
        ),
        (
            "dns.timeout = 1\n[dns]\n",
            "c.toml:2:5: not valid TOML: Cannot declare ('dns',) twice",
        ),
    ],
)
def test_what_stands_twice_is_told_with_both_lines(text: str, said: str) -> None:
    assert told(text) == said


@pytest.mark.parametrize("text", ["x = [1,\ny = 2\n", 'x = """a\nb\n', "x = {a = 1\n"])
def test_what_is_not_closed_has_a_place_and_no_line_that_would_not_help(text: str) -> None:
    mistake = told(text)
    assert mistake.startswith("c.toml:")
    assert "write" not in mistake


@given(st.text(max_size=80) | st.text("ab.\"'[]{}= \n#@*:0s,", max_size=40))
def test_whatever_the_text_is_a_line_that_is_proposed_is_toml(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, column, why = syntax_mistake(text, error)
        assert line >= 1
        assert column >= 1
        proposed = why.partition("; write ")[2]
        if len(proposed) < 300:
            tomllib.loads(proposed)
