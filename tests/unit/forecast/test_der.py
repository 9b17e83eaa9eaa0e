"""One DER value, by its length alone (X.690 section 8.1.3)."""

from __future__ import annotations

import pytest

from requiretls_milter.forecast.der import is_one_value


@pytest.mark.parametrize(
    ("der", "one"),
    [
        (b"\x30\x00", True),
        (b"\x30\x01x", True),
        (b"\x30\x7f" + bytes(0x7F), True),
        (b"\x30\x81\x80" + bytes(0x80), True),
        (b"\x30\x82\x01\x00" + bytes(0x100), True),
        (b"\x30\x01", False),
        (b"\x30\x01xx", False),
        (b"\x30\x81\x80" + bytes(0x7F), False),
        (b"\x30\x81\x80" + bytes(0x81), False),
        (b"\x30\x82\x01\x00" + bytes(0xFF), False),
        (b"\x30\x80\x00\x00", False),
        (b"\x30\x81", False),
        (b"\x30", False),
        (b"", False),
    ],
)
def test_a_value_ends_where_its_length_says(der: bytes, one: bool) -> None:
    """The long form has as many octets as its first one says; DER has no indefinite form."""
    assert is_one_value(der) is one
