"""How much of a stranger's text is read, and how much of it is shown: to the character."""

from __future__ import annotations

import pytest

from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.names import DomainNameError, mail_exchanger, to_alabel
from requiretls_milter.syntax.nexthop import NextHopError, parse
from requiretls_milter.syntax.text import error_text, printable


def told(text: str) -> str:
    with pytest.raises(NextHopError) as caught:
        parse(text)
    return str(caught.value)


def test_a_next_hop_has_1024_characters_at_most() -> None:
    """Blanks around it included; in a domain name as many are looked at."""
    assert parse("a.example".ljust(1024)).host == "a.example"
    assert "1025 characters: at most 1024" in told("a.example".ljust(1025))
    assert "at most 63" in told("x" * 1024)
    with pytest.raises(DomainNameError, match="at most 63"):
        to_alabel("x" * 1024)
    with pytest.raises(DomainNameError, match="1025 characters"):
        to_alabel("x" * 1025)


@pytest.mark.parametrize("length", [59, 60, 61, 500])
def test_of_hostile_text_60_characters_are_shown(length: int) -> None:
    text = "[".ljust(length, "x")
    shown = text if length <= 60 else text[:57] + "..."
    assert told(text).startswith(f'"{shown}" ')


@pytest.mark.parametrize("character", ["\n", "\x7f", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\\"])
def test_what_is_not_printable_is_shown_escaped(character: str) -> None:
    text = told(f"[a{character}b")
    assert text.isascii()
    assert text.isprintable()
    assert "\\" in text


@pytest.mark.parametrize("number", ["1", "65535", "00025"])
def test_a_port_has_five_digits_at_most(number: str) -> None:
    assert parse(f"a.example:{number}").port == int(number)
    assert "1 to 65535" in told(f"a.example:0{number.zfill(5)}")


def test_a_policy_has_100_names_to_match_at_most() -> None:
    names = [f"n{number}.example" for number in range(101)]
    for separator in (":", " match="):
        found = tlspolicy.parse(f"secure match={separator.join(names[:100])}")
        assert found.match == tuple(names[:100])
        with pytest.raises(tlspolicy.TlsPolicyError, match="more than 100"):
            tlspolicy.parse(f"secure match={separator.join(names)}")


@pytest.mark.parametrize(
    "entry",
    ["{}", "secure {}", "secure {}=b", "secure match={}\N{LATIN SMALL LETTER E WITH ACUTE}"],
)
def test_of_a_policy_that_is_not_understood_40_characters_are_shown(entry: str) -> None:
    with pytest.raises(tlspolicy.TlsPolicyError) as caught:
        tlspolicy.parse(entry.format("x" * 500))
    shown = str(caught.value).split('"')[-2]
    assert len(shown) == 40
    assert "x" * 30 in shown


def test_r62_of_any_text_200_characters_are_kept_from_the_blank_to_the_tilde() -> None:
    assert printable(" ~\x1f\x7f") == " ~??"
    assert printable(b" ~\x1f\x7f") == " ~??"
    for long in ("x" * 201, b"x" * 201):
        assert printable(long) == "x" * 200
        assert printable(long, 3) == "xxx"
    assert error_text(ValueError("x" * 201)) == "x" * 200
    assert error_text(ValueError(" a\n"), 1) == "a"
    assert error_text(OSError(0, "no number")) == "[Errno 0] no number"


def test_an_exchange_that_is_an_address_has_253_characters_at_most() -> None:
    assert mail_exchanger("1.2.3.4".rjust(253, "0")) == "1.2.3.4"
    assert mail_exchanger("1.2.3.4".rjust(254, "0")) is None
