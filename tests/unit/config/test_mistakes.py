from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.config.mistakes import ANY_NAME, MAX_MISTAKE, dotted, known_keys, tables_of


def mistakes(directory: Path, content: str) -> tuple[str, ...]:
    path = directory / "config.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return caught.value.mistakes


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


def test_a_key_that_is_like_none_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "[engine]\nxyzzy = 1\n")
    assert mistake == "engine.xyzzy: no such key; known here: socket, stale_for"
    (mistake,) = mistakes(tmp_path, "[frobnication]\n")
    assert mistake.startswith("frobnication: no such key; known here: milter, metrics, ")


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
