"""The channel between the supervisor and each of its children.

A channel is a socket pair, made before the fork, that carries JSON objects in frames. Both ends
belong to processes of ours; a message that does not decode closes the channel. The end of the
channel is also how a child learns that the supervisor is gone: the kernel closes it, whatever
the supervisor died of.

From the supervisor: ``config`` (generation, config), ``supervisor`` (totals,
gauges, health; to the engine), ``socket`` (with a descriptor: the milter's socket, made anew; to
workers), ``log`` (with a descriptor: the log file, opened anew), ``drain`` (seconds), ``stop``.
From a child: ``ready``,
``accepting`` (a worker: from now on the MTA reaches it),
``failed`` (error: it cannot start), ``ack`` (generation, error), ``heartbeat``
(well; problem; connections; threads), ``snapshot`` (of the counters; from the engine),
``draining`` (it takes no new connection any more), ``listening`` (device, inode: of the
file of the engine's socket).
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.ipc.framing import Unframer, WireError, frame

MAX_MESSAGE = 32 << 20
"""Bytes of a message: a configuration with 100,000 rules takes a quarter of it."""

MAX_UNSENT = 64 << 20
"""Unsent bytes; an other end that lets it come to this is stuck."""

MAX_PASSED = 1
"""Descriptors with one piece of the stream: a message has at most one, and each is a piece."""

_CHUNK = 1 << 16


class ControlClosed(RequiretlsMilterError):
    """The other end is gone, or sent what no process of ours sends.

    A child concludes that its supervisor is dead, and ends; the supervisor concludes that
    the child has to be replaced.
    """


class Channel:
    """One end of a channel. Not for use from several threads at once.

    Args:
        end: of a socket pair.
        takes_descriptors: whether the other end may pass descriptors. The kernel closes those
            that come where none are taken.
    """

    def __init__(self, end: socket.socket, *, takes_descriptors: bool = False) -> None:
        end.setblocking(False)
        self._socket = end
        self._takes_descriptors = takes_descriptors
        self._unframer = Unframer(MAX_MESSAGE)
        self._unsent = bytearray()
        self._to_pass: deque[int] = deque()
        self._passed: deque[int] = deque()

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether :meth:`flush` has something left to do when the socket becomes writable."""
        return bool(self._unsent)

    def send(self, op: str, *, descriptor: int | None = None, **values: Any) -> None:
        """Send a message, or keep it until the other end reads; never waits.

        Args:
            op: what the message is about.
            descriptor: is passed with it (SCM_RIGHTS); the caller may close it afterwards.
            values: what else it says.

        Raises:
            ControlClosed: the other end is gone, or reads nothing any more.
        """
        payload = json.dumps({"op": op, **values}, separators=(",", ":")).encode()
        try:
            self._unsent += frame(payload, MAX_MESSAGE)
        except WireError as error:
            raise ControlClosed(str(error)) from error
        if descriptor is not None:
            self._to_pass.append(os.dup(descriptor))
        self.flush()
        if len(self._unsent) > MAX_UNSENT:
            raise ControlClosed("the other end does not read")

    def flush(self) -> None:
        """Send as much of what was kept as the other end takes.

        Raises:
            ControlClosed: the other end is gone.
        """
        try:
            while self._unsent:
                if self._to_pass:
                    # It goes with the next octets, which are no later than its message.
                    sent = socket.send_fds(self._socket, [self._unsent], [self._to_pass[0]])
                    os.close(self._to_pass.popleft())
                else:
                    sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise ControlClosed(str(error)) from error

    def receive(self) -> list[Mapping[str, Any]]:
        """Return the messages that have come in whole; does not wait.

        Raises:
            ControlClosed: the other end is gone, and nothing that it had sent is left.
        """
        messages: list[Mapping[str, Any]] = []
        try:
            while True:
                data = self._read()
                if not data:
                    if messages:
                        break
                    raise ControlClosed("end of file")
                messages += [_decode(payload) for payload in self._unframer.feed(data)]
        except BlockingIOError:
            pass
        except (OSError, WireError) as error:
            raise ControlClosed(str(error)) from error
        return messages

    def _read(self) -> bytes:
        if not self._takes_descriptors:
            return self._socket.recv(_CHUNK)
        data, passed, _, _ = socket.recv_fds(self._socket, _CHUNK, MAX_PASSED)
        self._passed.extend(passed)
        return data

    def take_descriptor(self) -> int:
        """The descriptor that came with a message; the caller closes it.

        Raises:
            ControlClosed: the other end has passed none.
        """
        if not self._passed:
            raise ControlClosed("a message without its descriptor")
        return self._passed.popleft()

    def close(self) -> None:
        """Close this end, and the descriptors that were not taken."""
        for descriptors in (self._to_pass, self._passed):
            while descriptors:
                os.close(descriptors.popleft())
        self._socket.close()


def _decode(payload: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise WireError("a message without an operation")
    return message


def pair() -> tuple[Channel, socket.socket]:
    """Make a channel: the supervisor's end, and the child's socket for after the fork."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
