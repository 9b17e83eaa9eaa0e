"""What comes in at the engine's socket, and at the workers' side of it."""

from __future__ import annotations

from requiretls_milter.engine import records
from requiretls_milter.evidence.mta_sts import MAX_AGE, read_record
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.ipc import wire
from requiretls_milter.ipc.framing import Unframer, WireError, frame
from requiretls_milter.store.base import CLOCK_SKEW
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect


def wire_request(data: bytes) -> None:
    """A frame's content, in the direction of the engine."""
    try:
        request = wire.decode_request(data)
    except WireError as error:
        expect_error(error)
        return
    assert wire.decode_request(wire.encode(request)[4:]) == request


def wire_reply(data: bytes) -> None:
    """A frame's content, in the direction of a worker."""
    try:
        reply = wire.decode_reply(data)
    except WireError as error:
        expect_error(error)
        return
    assert wire.decode_reply(wire.encode(reply)[4:]) == reply


def expect_error(error: WireError) -> None:
    """Its text fits into an error reply, which can be sent."""
    assert len(str(error)) <= wire.MAX_ERROR
    wire.encode(wire.error_reply(0, str(error)))


def wire_frames(data: bytes) -> None:
    """A stream: an octet that says in which pieces it comes, then its octets."""
    step, stream = (data[0] or 1) if data else 1, data[1:]
    limit = 1000
    at_once, error = _frames([stream], limit)
    in_pieces, same_error = _frames(
        [stream[i : i + step] for i in range(0, len(stream), step)], limit
    )
    assert error == same_error
    # Frames before a bad length in the same piece go down with it: the connection ends.
    assert in_pieces[: len(at_once)] == at_once
    assert error or in_pieces == at_once


def _frames(pieces: list[bytes], limit: int) -> tuple[list[bytes], str]:
    unframer = Unframer(limit)
    found: list[bytes] = []
    for piece in pieces:
        try:
            found += unframer.feed(piece)
        except WireError as error:
            expect.one_line(str(error), wire.MAX_ERROR)
            return found, str(error)
        assert unframer.pending < limit + 4
    for payload in found:
        assert 0 < len(payload) <= limit
        assert Unframer().feed(frame(payload)) == [payload]
    return found, ""


_NOW = 1.8e9
_ADDRESS = "192.0.2.1"
_LONGEST = 900.0


def kept_record(data: bytes) -> None:
    """What a store gives back, as a policy, as a session that failed, and as one that did not."""
    try:
        kept = records.decode_policy(data, _NOW)
    except records.RecordError:
        pass
    else:
        again = records.encode_policy(kept.policy, kept.evidence.fetched_at, kept.asked_at)
        assert records.decode_policy(again, _NOW) == kept
        assert kept.evidence.expires <= _NOW + CLOCK_SKEW + MAX_AGE
        assert read_record([f"v=STSv1; id={kept.policy.id}".encode()]) == kept.policy.id
    try:
        attempt = records.decode_attempt(data, _ADDRESS, _NOW, _LONGEST)
    except records.RecordError:
        pass
    else:
        if attempt is not None:
            assert records.worth_a_pause(attempt.found)
            assert attempt.found.expires <= _NOW + CLOCK_SKEW + 2 * _LONGEST
            expect.one_line(attempt.found.error, MAX_TEXT)
    try:
        found = records.decode_probe(data, _ADDRESS, _NOW)
    except records.RecordError:
        return
    if found is None:
        return
    assert found.address == _ADDRESS
    assert records.worth_keeping(found)
    assert found.expires <= _NOW + CLOCK_SKEW + FRESH
    assert records.decode_probe(records.encode_probe(found), _ADDRESS, _NOW) == found
    expect.one_line(found.error, MAX_TEXT)
