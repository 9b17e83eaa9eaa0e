"""Frames: whole messages out of a stream, whatever pieces it comes in."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.ipc.framing import MAX_FRAME, Unframer, WireError, frame


@pytest.mark.parametrize(("size", "fits"), [(MAX_FRAME, True), (MAX_FRAME + 1, False)])
def test_a_frame_holds_one_mebibyte_and_no_more(size: int, fits: bool) -> None:
    if fits:
        assert Unframer().feed(frame(bytes(size))) == [bytes(size)]
    else:
        with pytest.raises(WireError, match="over the limit"):
            frame(bytes(size))
    header = struct.pack(">I", size)
    if fits:
        assert Unframer().feed(header) == []
    else:
        with pytest.raises(WireError, match="a frame of"):
            Unframer().feed(header)


def test_a_frame_without_content_is_refused() -> None:
    with pytest.raises(WireError):
        Unframer().feed(bytes(4))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(1, 50)))
def test_frames_come_out_whole_whatever_pieces_they_come_in(
    payloads: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(map(frame, payloads))
    unframer = Unframer()
    found: list[bytes] = []
    while stream:
        size = cuts.pop() if cuts else len(stream)
        found += unframer.feed(stream[:size])
        stream = stream[size:]
    assert found == payloads
    assert unframer.pending == 0


@given(st.binary(max_size=200))
def test_a_stream_of_anything_gives_frames_or_a_wire_error(stream: bytes) -> None:
    try:
        frames = Unframer(64).feed(stream)
    except WireError:
        return
    assert all(0 < len(payload) <= 64 for payload in frames)
