from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.config.mistakes import ANY_NAME, MAX_MISTAKE, dotted, known_keys, tables_of
from tests.support.mistakes import without_place


def mistakes(directory: Path, content: str) -> tuple[str, ...]:
    path = directory / "config.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return tuple(map(without_place, caught.value.mistakes))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """
        [milter]
        workers = -1
        sockte = "x"
        [mta]
        profile = "sendmail"
        [probe]
        ca_file = "/nonexistent/ca.pem"
        """,
    )
    assert [mistake.split(":", 1)[0] for mistake in found] == [
        "milter.workers",
        "milter.sockte",
        "mta.profile",
        "probe.ca_file",
    ]


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        ("milter", "sockt", "milter.socket"),
        ("mta", "tls_securty_level", "mta.tls_security_level"),
        ("mta.transport.strict", "tls_level", "mta.transport.strict.tls_security_level"),
        ('rules.recipient."example.org"', "mod", 'rules.recipient."example.org".mode'),
        ("probe", "tls_security_level", "mta.tls_security_level"),
        ("milter", "tag_wait", "rules.tag_wait"),
        ('rules.sender."a.example"', "tag_wait", "rules.tag_wait"),
        ("rules", "nameserver", "dns.nameservers"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(
    tmp_path: Path, section: str, key: str, meant: str
) -> None:
    (mistake,) = mistakes(tmp_path, f"[{section}]\n{key} = 1\n")
    assert mistake == f"{section}.{key}: no such key; did you mean {meant}?"


def test_an_unknown_section_is_told_with_the_nearest_section(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "[probes]\nport = 25\n")
    assert mistake == "probes: no such key; did you mean probe?"
    (mistake,) = mistakes(tmp_path, "probes = 5\n")
    assert mistake == "probes: no such key; did you mean limits.probes?"


def test_a_key_that_is_like_none_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "[engine]\nxyzzy = 1\n")
    assert mistake == "engine.xyzzy: no such key; known here: socket, stale_for"
    (mistake,) = mistakes(tmp_path, "[frobnication]\n")
    assert mistake.startswith("frobnication: no such key; known here: include, milter, metrics, ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("milter.workers", '"2"', 'expected a whole number, got the text "2"'),
        ("milter.workers", "2.0", "expected a whole number, got a number, 2.0"),
        ("milter.workers", "true", "expected a whole number, got a boolean, true"),
        ("milter.socket", "[]", "expected text, got a list"),
        ("milter.by", "1979-05-27", "expected text, got a date or time"),
        ("milter.trusted_networks", '"::1"', 'expected a list, got the text "::1"'),
        ("dns.timeout", '"5"', 'expected a number, got the text "5"'),
        ("dns.timeout", "inf", "expected a finite number, got a number, inf"),
        ("dns.timeout", "nan", "expected a finite number, got a number, nan"),
        ("dns.timeout", "0", "expected more than 0, got a number, 0"),
        ("dns.timeout", "3601", "expected at most 3600, got a number, 3601"),
        ("probe.enabled", "1", "expected true or false, got a number, 1"),
        ("rules.mode", '"rejct"', 'did you mean "reject"?'),
        ("rules.recipient", "3", "expected a table, got a number, 3"),
        ('rules.recipient."example.org"', "3", "expected a table, got a number, 3"),
        ("milter", "3", "expected a table, got a number, 3"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected_and_given(
    tmp_path: Path, key: str, value: str, said: str
) -> None:
    (mistake,) = mistakes(tmp_path, f"{key} = {value}\n")
    assert mistake.startswith(f"{key}: ")
    assert said in mistake


def test_r62_what_stands_in_the_file_cannot_break_out_of_the_message(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[rules]\n"a\\nb\\u001b[31m" = 1\nmode = "\\r\\n\\u001b[31mé"\n')
    for mistake in found:
        assert mistake.isascii()
        assert mistake.isprintable()


def test_r62_a_long_value_is_told_in_part(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, f'rules.mode = "{"x" * 4000}"\n')
    assert len(mistake) < 200


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("rules", "mode"), "rules.mode"),
        (("rules", "recipient", "example.org", "mode"), 'rules.recipient."example.org".mode'),
        (("dns", "nameservers", 1), "dns.nameservers[1]"),
        (("rules", 'a"\n'), r'rules."a"\n"'),
        ((), ""),
    ],
)
def test_a_path_is_written_as_toml_writes_it(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_the_keys_that_are_known_include_those_of_tables_that_the_operator_names() -> None:
    keys = set(known_keys(Config))
    assert ("milter", "socket") in keys
    assert ("mta", "transport", ANY_NAME, "tls_security_level") in keys
    assert ("rules", "sender", ANY_NAME, "mode") in keys
    assert tables_of(Config)["rules"] == (config.Rules, False)
    assert tables_of(config.Rules)["sender"] == (config.RuleTable, True)


@pytest.mark.parametrize("text", ["x" * MAX_MISTAKE, "x" * (MAX_MISTAKE + 1), "\x1b" * 999])
def test_r62_a_mistake_is_one_bounded_line_whatever_it_tells(text: str) -> None:
    (told,) = ConfigError((text,)).mistakes
    assert len(told) <= MAX_MISTAKE
    assert told.isascii()
    assert told.isprintable()


# ---------------------------------------------------------------- what to write instead


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            '[rules.recipient.partner.example]\nmode = "reject"\n',
            "1:1: rules.recipient.partner.example: a name with dots stands in quotes; write "
            '[rules.recipient."partner.example"]',
        ),
        (
            '[rules]\nrecipient.mail.partner.example.mode = "off"\n',
            "2:1: rules.recipient.mail.partner.example: a name with dots stands in quotes; write "
            '[rules.recipient."mail.partner.example"]',
        ),
        (
            '[rules.recipient."*.partner.example"]\n',
            '1:1: rules.recipient."*.partner.example": "*.partner.example" is not a domain name: '
            'subdomains are written with a leading dot, no "*"; write '
            '[rules.recipient.".partner.example"]',
        ),
        (
            '\n[rules.sender."user@partner.example"]\n',
            '2:1: rules.sender."user@partner.example": "user@partner.example" is an address, not a '
            'domain name; write [rules.sender."partner.example"]',
        ),
        (
            '[rules."partner.example"]\nmode = "off"\n',
            '1:1: rules."partner.example": no such table; a rule for mail to partner.example is '
            '[rules.recipient."partner.example"]',
        ),
        (
            '[rules.partner.example]\nmode = "off"\n',
            "1:1: rules.partner.example: no such table; a rule for mail to partner.example is "
            '[rules.recipient."partner.example"]',
        ),
        (
            '[rules.recipient]\n"partner.example" = "reject"\n',
            '2:1: rules.recipient."partner.example": expected a table, got the text "reject"; '
            'write "partner.example" = { mode = "reject" }',
        ),
        (
            '[rules.recipient]\nmode = "reject"\n',
            '2:1: rules.recipient.mode: expected a table, got the text "reject"; write it '
            'below [rules.recipient."example.org"]',
        ),
        (
            "[[rules.recipient]]\n",
            "1:1: rules.recipient: expected a table, got a list; each domain has a table with its "
            "name, in single brackets",
        ),
        (
            '[mta.requiretls_policy]\nexample.org = "enforce"\n',
            "2:1: mta.requiretls_policy.example: a name with dots stands in quotes; write "
            '"example.org" = "enforce"',
        ),
        (
            "[mta.transport.smtp.strict]\nmx_address_limit = 1\n",
            "1:1: mta.transport.smtp.strict: a name with dots stands in quotes; write "
            '[mta.transport."smtp.strict"]',
        ),
        (
            "[rules]\nrequire = 'True'\n",
            '2:1: rules.require: expected true or false, got the text "True"; write require = true',
        ),
        (
            "rules.require = 0\n",
            "1:1: rules.require: expected true or false, got a number, 0; write require = false",
        ),
        (
            'milter.workers = "2"\n',
            '1:1: milter.workers: expected a whole number, got the text "2"; write workers = 2',
        ),
        (
            "milter.workers = 2.0\n",
            "1:1: milter.workers: expected a whole number, got a number, 2.0; write workers = 2",
        ),
        (
            'dns.timeout = "5s"\n',
            '1:1: dns.timeout: expected a number, got the text "5s"; write timeout = 5',
        ),
        (
            "milter.socket_mode = 660\n",
            '1:1: milter.socket_mode: expected text, got a number, 660; write socket_mode = "660"',
        ),
        (
            'rules.mode = "Reject"\n',
            '1:1: rules.mode: expected "off", "monitor", "defer" or "reject", got the text '
            '"Reject"; did you mean "reject"?',
        ),
        (
            '[watch]\ndomains = ["a.example", "www@b.example"]\n',
            '2:25: watch.domains[1]: "www@b.example" is an address, not a domain name; write '
            '"b.example"',
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_write(
    tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert caught.value.mistakes == (f"{path}:{told}",)
