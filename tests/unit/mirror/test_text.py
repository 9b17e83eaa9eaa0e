"""The mirror as text."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter import config
from requiretls_milter.config import Config
from requiretls_milter.mirror.postconf import PARAMETERS
from requiretls_milter.mirror.section import mirror
from requiretls_milter.mirror.text import to_toml
from tests.support.postfixes import postfix, service

VALUES = st.sampled_from(["", "yes", "no", "dane", "hash:x", "socketmap:x", "3", "ü {", "a, b"])


def test_what_says_nothing_is_not_written() -> None:
    assert "tls_policy" not in tomllib.loads(to_toml(mirror(postfix())))["mta"]


def test_the_same_settings_always_give_the_same_text() -> None:
    assert to_toml(mirror(postfix())) == to_toml(mirror(postfix()))


def test_hostile_text_in_a_setting_stays_a_comment() -> None:
    made = mirror(postfix(relayhost='x\n[rules]\nmode = "off"\t\x1b[2J' + "y" * 999))
    text = to_toml(made)
    assert text.isascii()
    assert "\x1b" not in text
    assert set(tomllib.loads(text)) == {"mta"}
    assert max(map(len, text.splitlines())) < 200


def test_hints_for_the_probe_are_comments() -> None:
    made = mirror(postfix(smtp_tls_CAfile="/etc/ssl/partners.pem", smtp_tcp_port="2525"))
    assert made.hints == {
        "ca_file": "/etc/ssl/partners.pem",
        "helo": "mta.example.org",
        "port": 2525,
    }
    text = to_toml(made)
    assert '# [probe]\n# ca_file = "/etc/ssl/partners.pem"\n' in text
    assert set(tomllib.loads(text)) == {"mta"}


@given(st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=12))
def test_whatever_postfix_is_set_to_the_text_is_a_valid_configuration(
    main: dict[str, str],
) -> None:
    strict = service("smtp", "strict", main=main, smtp_tls_security_level="dane-only")
    made = mirror(postfix(strict, service("local"), **main))
    text = to_toml(made)
    assert text.isascii()
    read = config.parse(text.encode(), "mirror")
    assert read == Config.model_validate({"mta": made.mta})
