"""The channel between the supervisor and a child: whole messages, in order, or its end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from requiretls_milter.ipc import control
from requiretls_milter.ipc.control import Channel, ControlClosed


@pytest.fixture
def channel() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = control.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_messages_arrive_whole_and_in_order(channel: tuple[Channel, Channel]) -> None:
    channel[0].send("config", generation=2, config={"a": [1, "é"]})
    channel[0].send("stop")
    assert channel[1].receive() == [
        {"op": "config", "generation": 2, "config": {"a": [1, "é"]}},
        {"op": "stop"},
    ]
    assert channel[1].receive() == []


def test_a_message_larger_than_the_kernel_takes_waits_for_the_reader(
    channel: tuple[Channel, Channel],
) -> None:
    text = "x" * 3_000_000
    channel[0].send("config", text=text)
    assert channel[0].unsent
    received: list[Any] = []
    while not received:
        received += channel[1].receive()
        channel[0].flush()
    assert received[0]["text"] == text
    assert not channel[0].unsent


def test_what_was_sent_before_the_end_is_still_received(channel: tuple[Channel, Channel]) -> None:
    channel[0].send("ready")
    channel[0].close()
    assert channel[1].receive() == [{"op": "ready"}]
    with pytest.raises(ControlClosed):
        channel[1].receive()


def test_sending_to_a_closed_end_is_the_end_of_the_channel(
    channel: tuple[Channel, Channel],
) -> None:
    channel[1].close()
    with pytest.raises(ControlClosed):
        channel[0].send("stop")


def test_an_end_that_never_reads_is_given_up(
    channel: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MAX_UNSENT", 1_000_000)
    channel[0].send("config", text="x" * 900_000)
    with pytest.raises(ControlClosed, match="does not read"):
        channel[0].send("config", text="x" * 900_000)


@pytest.mark.parametrize(
    "payload",
    [b"[]", b'"op"', b"{}", b'{"op": 1}', b"\xff", b"{", b"[" * 100_000],
    ids=["list", "string", "no op", "op no text", "no UTF-8", "cut off", "deep"],
)
def test_what_no_process_of_ours_sends_is_the_end_of_the_channel(payload: bytes) -> None:
    ours, theirs = control.pair()
    theirs.sendall(struct.pack(">I", len(payload)) + payload)
    with pytest.raises(ControlClosed):
        ours.receive()
    ours.close()
    theirs.close()
