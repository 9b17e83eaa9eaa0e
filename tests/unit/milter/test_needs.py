"""What a message needs of the server, read from what a stranger says at MAIL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.milter.needs import asks_smtputf8, declared_size


@pytest.mark.parametrize(
    ("parameters", "asks"),
    [
        ((b"SMTPUTF8",), True),
        ((b"BODY=8BITMIME", b"smtputf8"), True),
        ((b"SMTPUTF8=yes",), False),
        ((b"SMTPUTF88",), False),
        ((), False),
    ],
)
def test_the_parameter_has_any_case_and_no_value(parameters: tuple[bytes, ...], asks: bool) -> None:
    assert asks_smtputf8(parameters) is asks


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ((b"SIZE=560",), 560),
        ((b"REQUIRETLS", b"size=1000"), 1000),
        ((b"SIZE=10485760",), 10_400_000),
        ((b"SIZE=0",), 0),
        ((b"SIZE=",), 0),
        ((b"SIZE=-1",), 0),
        ((b"SIZE=1e9",), 0),
        ((b"SIZE=" + b"9" * 21,), 0),
        ((), 0),
    ],
)
def test_the_declared_size_has_three_digits(parameters: tuple[bytes, ...], size: int) -> None:
    """Forecasts are kept for each size."""
    assert declared_size(parameters) == size


@given(st.integers(0, 10**20 - 1))
def test_a_size_is_never_more_than_declared_and_less_by_a_hundredth_at_most(size: int) -> None:
    found = declared_size([b"SIZE=%d" % size])
    assert found <= size
    assert found >= min(size, 2**63 - 1) * 0.99
    assert len(str(found).rstrip("0")) <= 3


@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_are_too_odd(parameters: list[bytes]) -> None:
    assert isinstance(asks_smtputf8(parameters), bool)
    assert declared_size(parameters) >= 0
