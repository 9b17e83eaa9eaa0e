"""A TCP connection with a mail server: one reader and one timer for the whole session.

asyncio's own functions for sockets register a socket for each wait and make a timer for each limit;
a session with a server waits a dozen times.

**Taking leave.** smtp(8) says QUIT and closes, without a wait for the reply. If the reply comes
after that, the kernel answers it by a reset, which some servers log as an error. So we end only our
own direction, and keep the socket until the server has ended its own (:class:`Leaving`). Nobody
waits for that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from requiretls_milter.bounded import BoundedMap

READ_SIZE = 16_384
"""Octets read from a socket at once: a TLS record."""

MAX_UNREAD = 65_536
"""Octets that are read ahead; then the server has to wait."""

MAX_LEAVING = 200
"""Connections that wait for the server's end at once: as many sessions begin within a second at
most (limits.probes_per_minute)."""


class Leaving:
    """Sockets whose own direction is ended, until the server has ended its own.

    Args:
        seconds: after which a socket is closed in any case.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: BoundedMap[socket.socket, asyncio.TimerHandle] = BoundedMap()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, leaving: socket.socket) -> None:
        """End our direction; close the socket later. Beyond the bound the oldest is closed now."""
        loop = asyncio.get_running_loop()
        try:
            leaving.shutdown(socket.SHUT_WR)
        except OSError:  # the server was quicker
            leaving.close()
            return
        loop.add_reader(leaving.fileno(), self._readable, loop, leaving)
        self._open.put(leaving, loop.call_later(self._seconds, self._close, loop, leaving))
        if len(self._open) > MAX_LEAVING:
            self._close(loop, next(iter(self._open)))

    def close(self) -> None:
        """Close all of them."""
        loop = asyncio.get_running_loop()
        for leaving in list(self._open):
            self._close(loop, leaving)

    def _readable(self, loop: asyncio.AbstractEventLoop, leaving: socket.socket) -> None:
        try:
            ended = not leaving.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ended = True
        if ended:
            self._close(loop, leaving)

    def _close(self, loop: asyncio.AbstractEventLoop, leaving: socket.socket) -> None:
        timer = self._open.pop(leaving)
        if timer is not None:
            timer.cancel()
            loop.remove_reader(leaving.fileno())
            leaving.close()


class Connection:
    """A connection, for one task.

    :meth:`connect`, :meth:`receive` and :meth:`send` raise OSError for what becomes of the
    connection, and TimeoutError (which is one) beyond :meth:`limit`.

    Args:
        address: of the server; no name is looked up.

    Raises:
        OSError: out of descriptors, or there is no such address family here.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._descriptor = self._socket.fileno()
        self._loop = asyncio.get_running_loop()
        self._until = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._is_overdue = False
        self._waiter: asyncio.Future[None] | None = None
        self._unread = bytearray()
        self._is_reading = False
        self._ended = False
        self._is_left = False
        self._error: OSError | None = None

    def limit(self, until: float) -> None:
        """Set the time (of the loop) at which a wait ends with TimeoutError."""
        self._until = until
        self._is_overdue = False
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._time_has_passed)

    def _time_has_passed(self) -> None:
        self._timer = None
        if self._until > self._loop.time():
            self.limit(self._until)  # it was put off
            return
        self._is_overdue = True
        self._wake()

    async def connect(self, port: int) -> None:
        """Connect."""
        number = self._socket.connect_ex((self._address, port))
        if number == errno.EINPROGRESS:
            self._loop.add_writer(self._descriptor, self._wake)
            try:
                await self._wait()
            finally:
                self._loop.remove_writer(self._descriptor)
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        self._read()

    async def receive(self) -> bytes:
        """What the server has sent; b"" once it has ended its direction."""
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._read()
            await self._wait()
        if self._is_overdue:
            raise TimeoutError
        data = bytes(self._unread)
        self._unread.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Send octets."""
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < len(data):
            async with asyncio.timeout_at(self._until):
                await self._loop.sock_sendall(self._socket, data[sent:])

    def close(self) -> None:
        """Close it at once; without effect on one that is left."""
        self._let_go()
        if not self._is_left:
            self._socket.close()

    def leave(self, leaving: Leaving) -> None:
        """Have it end in good order: nothing more is sent or received."""
        self._let_go()
        self._is_left = True
        leaving.add(self._socket)

    def _let_go(self) -> None:
        self._stop_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------ waiting

    async def _wait(self) -> None:
        """Until something happens."""
        if self._is_overdue:
            raise TimeoutError
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._is_overdue:
            raise TimeoutError

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self) -> None:
        if not self._is_reading and not self._ended:
            self._is_reading = True
            self._loop.add_reader(self._descriptor, self._readable)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error, data = error, b""
        self._unread += data
        if not data:
            self._ended = True
        if self._ended or len(self._unread) >= MAX_UNREAD:
            self._stop_reading()
        self._wake()
