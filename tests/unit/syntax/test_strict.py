"""JSON of another process: exact, or an error that names the place."""

from __future__ import annotations

import pytest

from requiretls_milter.syntax.strict import StrictModel, decoded
from requiretls_milter.syntax.text import MAX_TEXT


class Inner(StrictModel):
    number: float
    octets: bytes = b""


class Outer(StrictModel):
    inner: Inner


def mistake(wire: str) -> str:
    with pytest.raises(LookupError) as caught:
        decoded(Outer.model_validate_json, wire.encode(), LookupError, "message")
    return str(caught.value)


@pytest.mark.parametrize(
    ("wire", "place"),
    [
        ("", "message: "),
        ("[]", "message: "),
        ("{}", "inner: "),
        ('{"inner":{"number":"1"}}', "inner.number: "),
        ('{"inner":{"number":NaN}}', "inner.number: "),
        ('{"inner":{"number":1,"octets":"!"}}', "inner.octets: "),
        ('{"inner":{"number":1},"more":1}', "more: "),
    ],
)
def test_what_does_not_fit_is_an_error_at_its_place(wire: str, place: str) -> None:
    assert mistake(wire).startswith(place)


def test_r62_a_strangers_key_is_one_short_printable_line() -> None:
    text = mistake('{"inner":{"number":1},"' + "\\n\xe9" * 1000 + '":1}')
    assert len(text) == MAX_TEXT
    assert text.isascii()
    assert text.isprintable()


def test_octets_come_back_as_they_were() -> None:
    octets = bytes(range(256))
    wire = Outer(inner=Inner(number=1.5, octets=octets)).model_dump_json().encode()
    assert decoded(Outer.model_validate_json, wire, LookupError, "message").inner.octets == octets
