"""What is kept of certificates and records, so that a hop is judged in microseconds."""

from __future__ import annotations

from requiretls_milter.forecast.memo import MAX_CACHED_OCTETS, cached_if_small
from requiretls_milter.model import TlsaRecord


def test_a_result_is_kept_but_none_about_much_data() -> None:
    """It is kept with its arguments, which servers and zones write."""
    calls = []

    @cached_if_small(2)
    def length(chain: tuple[bytes, ...], records: tuple[TlsaRecord, ...]) -> int:
        calls.append(len(chain))
        return len(chain) + len(records)

    usual = (bytes(MAX_CACHED_OCTETS - 1), b"x")
    for _ in range(2):
        assert length(usual, ()) == 2
    assert calls == [2]
    large = TlsaRecord(3, 0, 0, b"xx")
    for _ in range(2):
        assert length(usual[:1], (large,)) == 2
    assert calls == [2, 1, 1]
    for chain in ((b"1",), (b"2",), (b"3",), (b"1",)):
        length(chain, ())
    assert calls == [2, 1, 1, 1, 1, 1, 1], "the oldest made room"
