"""A connection with a server: its limits, what breaks it, and how it is left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from requiretls_milter.evidence import connection as connection_module
from requiretls_milter.evidence.connection import MAX_UNREAD, Connection, Leaving
from tests.support.waiting import until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(serve: Serve, seconds: float = 5.0) -> AsyncIterator[Connection]:
    """A connection with a server that does *serve*."""
    served: list[asyncio.Task[None]] = []

    async def served_to_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(served_to_end(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    one = Connection("127.0.0.1")
    one.limit(asyncio.get_running_loop().time() + seconds)
    try:
        await one.connect(server.sockets[0].getsockname()[1])
        yield one
    finally:
        one.close()
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served)


async def test_what_the_server_says_is_received_to_its_end() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"one", b"two"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    async with connected(serve) as one:
        said = b""
        while data := await one.receive():
            said += data
        assert said == b"onetwo"
        assert await one.receive() == b""


async def test_a_wait_has_a_limit_and_the_next_one_its_own() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"late")
        await reader.read()
        writer.close()

    loop = asyncio.get_running_loop()
    async with connected(serve, 100.0) as one:
        one.limit(loop.time() + 0.05)
        with pytest.raises(TimeoutError):
            await one.receive()
        one.limit(loop.time() + 5)
        await one.send(b"go on\n")
        assert await one.receive() == b"late"


async def test_what_keeps_coming_does_not_put_the_limit_off() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with connected(serve) as one:
        one.limit(asyncio.get_running_loop().time() + 0.1)
        with pytest.raises(TimeoutError):
            await received_for_ever(one)


async def received_for_ever(one: Connection) -> None:
    while True:
        await one.receive()


async def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    written = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.transport.set_write_buffer_limits(0)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                written += 65_536

    async with connected(serve) as one:
        await one.receive()
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.2)
        assert MAX_UNREAD <= len(await one.receive()) < 2 * MAX_UNREAD
        for _ in range(100):
            await one.receive()
        assert written > before


async def test_a_reset_is_an_error_after_what_was_said_before() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"said")
        await reader.readline()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with connected(serve) as one:
        await one.send(b"\n")
        assert await one.receive() == b"said"
        with pytest.raises(ConnectionResetError):
            await one.receive()


async def test_much_that_is_sent_waits_for_the_server_within_the_limit() -> None:
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        received.set_result(len(await reader.readexactly(20_000_000)))
        writer.close()

    async with connected(serve) as one:
        await one.send(bytes(20_000_000))
        assert await received == 20_000_000

    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        writer.close()

    async with connected(deaf) as one:
        one.limit(asyncio.get_running_loop().time() + 0.1)
        with pytest.raises(TimeoutError):
            await one.send(bytes(20_000_000))


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    one = Connection("127.0.0.1")
    one.limit(asyncio.get_running_loop().time() + 5)
    with pytest.raises(ConnectionRefusedError):
        await one.connect(port)
    one.close()


# ---------------------------------------------------------------- taking leave


async def seen_to_end(answer: bytes, pause: float = 0.0) -> tuple[bytes, BaseException | None]:
    """What a server reads after its answer to QUIT, and which error it meets."""
    ended = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            await asyncio.sleep(pause)
            writer.write(answer)
            await writer.drain()
            rest = await reader.read()
            await asyncio.sleep(0.05)  # a reset for the answer would have come by now
            writer.write(b"")
            failed = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert not failed, failed
            ended.set_result((rest, None))
        except OSError as error:
            ended.set_result((b"", error))
        finally:
            writer.close()

    leaving = Leaving(2.0)
    async with connected(serve) as one:
        await one.send(b"QUIT\r\n")
        one.leave(leaving)
        result: tuple[bytes, BaseException | None] = await ended
    await until(lambda: len(leaving) == 0)
    return result


@pytest.mark.parametrize("pause", [0.0, 0.2])
async def test_the_server_sees_an_orderly_end_although_nobody_waits_for_its_reply(
    pause: float,
) -> None:
    assert await seen_to_end(b"221 2.0.0 Bye\r\n", pause) == (b"", None)


async def test_a_server_that_never_ends_its_side_is_closed_after_a_while() -> None:
    leaving = Leaving(0.1)
    async with connected(silent_for_ever) as one:
        one.leave(leaving)
        assert len(leaving) == 1
        await until(lambda: len(leaving) == 0)


async def silent_for_ever(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1)
    writer.close()


async def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_LEAVING", 3)
    leaving = Leaving(5.0)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            one = await stack.enter_async_context(connected(silent_for_ever))
            one.leave(leaving)
        assert len(leaving) == 3
        leaving.close()
        assert len(leaving) == 0
