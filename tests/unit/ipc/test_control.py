"""The channel between the supervisor and a child: whole messages, in order, or its end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
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


# ---------------------------------------------------------------- descriptors


@pytest.fixture
def taker() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = control.pair()
    other = Channel(theirs, takes_descriptors=True)
    yield ours, other
    ours.close()
    other.close()


def test_a_descriptor_comes_with_its_message(
    taker: tuple[Channel, Channel], tmp_path: Path
) -> None:
    ours, theirs = taker
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        with (tmp_path / name).open() as file:
            ours.send("socket", descriptor=file.fileno())
        ours.send("stop")
    taken = []
    for message in theirs.receive():
        if message["op"] == "socket":
            with open(theirs.take_descriptor()) as file:
                taken.append(file.read())
    assert taken == ["one", "two"]


def test_a_descriptor_waits_with_its_message_for_the_reader(
    taker: tuple[Channel, Channel], tmp_path: Path
) -> None:
    ours, theirs = taker
    (tmp_path / "file").write_text("text")
    ours.send("config", text="x" * 3_000_000)
    assert ours.unsent
    with (tmp_path / "file").open() as file:
        ours.send("socket", descriptor=file.fileno())
    received: list[Any] = []
    while len(received) < 2:
        received += theirs.receive()
        ours.flush()
    with open(theirs.take_descriptor()) as file:
        assert file.read() == "text"


def test_a_message_without_the_descriptor_that_belongs_to_it_is_the_end_of_the_channel(
    taker: tuple[Channel, Channel],
) -> None:
    taker[0].send("socket")
    assert taker[1].receive() == [{"op": "socket"}]
    with pytest.raises(ControlClosed, match="without its descriptor"):
        taker[1].take_descriptor()


def test_the_supervisor_is_given_no_descriptor(
    channel: tuple[Channel, Channel], tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (tmp_path / "file").open("w") as file:
        for _ in range(10):
            channel[0].send("heartbeat", descriptor=file.fileno())
    assert len(channel[1].receive()) == 10
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ControlClosed):
        channel[1].take_descriptor()


def test_descriptors_that_were_not_taken_are_closed_with_the_channel(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = control.pair()
    other = Channel(theirs, takes_descriptors=True)
    with (tmp_path / "file").open("w") as file:
        ours.send("socket", descriptor=file.fileno())
        other.receive()
        ours.send("config", text="x" * 3_000_000)
        ours.send("socket", descriptor=file.fileno())
    ours.close()
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before
