"""A store that does not fail: memory stands in for whatever its backend cannot do now.

No caller waits for the backend to write: what is put is held in memory and written by a task
of the store's own, many records at a time. A reader waits for the read deadline at most, and
only once: after a failure memory answers at once, until the task finds the backend working again
and has written what came in between. A backend that is slow all the time counts as one that fails.

The backend may have lost a record that memory still has (it was evicted, or flushed, or the file is
a new one), or may have an earlier one (a replica that lags, an attacker that plays back what was
written before). Then the record in memory is the answer until its time is over. A damaged record of
the backend is replaced by the one in memory, or removed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.store.base import (
    LONGEST,
    MAX_KEY,
    MAX_VALUE,
    Backend,
    Change,
    Listed,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
    alive,
    taken_in_turns,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.slowness import Slowness
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import Bound, StoreOperation

MIRROR_RECORDS = 50_000
"""Records that memory holds beside a backend, of all kinds."""

MIRROR_BYTES = 16 << 20
"""Octets of memory that these take."""

MAX_PENDING = 10_000
"""Changes that wait to be written, unless configured. Beyond that the oldest are given up: they
stay in memory only."""

PENDING_BYTES = 16 << 20
"""Octets of memory that these take at most."""

BATCH = 200
"""Changes that are written at once."""

FIRST_PAUSE = 1.0
"""Seconds after a first failure until the backend is tried again."""

LAST_PAUSE = 30.0
"""Seconds to which that pause doubles."""

JITTER = 0.2
"""Part of a pause that is added at random: a fleet should not come back all at once."""

START_WAIT = 5.0
"""Seconds for which the start of the engine waits for the store, at most."""

CLOSE_WAIT = 2.0
"""Seconds for which the end of the engine waits for the last records to be written."""

_log = log.get_logger("store")

T = TypeVar("T")


class SteadyStore:
    """Implements :class:`requiretls_milter.store.base.Store`; no operation raises StoreError.

    Args:
        backend: where records are kept.
        counters, gauges: where failures are counted, and ``store_up`` is shown.
        memory: the stand-in.
        max_pending: changes that wait to be written.
        first_pause, last_pause: the shortest and the longest time between two attempts
            to reach the backend again, in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        counters: Counters,
        gauges: Gauges,
        *,
        memory: MemoryStore | None = None,
        max_pending: int = MAX_PENDING,
        first_pause: float = FIRST_PAUSE,
        last_pause: float = LAST_PAUSE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._backend = backend
        self._counters = counters
        self._gauges = gauges
        self._memory = MemoryStore(MIRROR_RECORDS, MIRROR_BYTES) if memory is None else memory
        self._first_pause = first_pause
        self._last_pause = last_pause
        self._jitter = jitter
        self._pending: BoundedMap[tuple[StoreKind, str], Record | None] = BoundedMap(
            max_pending, max_weight=PENDING_BYTES, weigh=entry_octets
        )
        self._readable = False
        self._slowness = Slowness()
        self._down_since: float | None = None
        self._up_since = 0.0
        self._pause = 0.0
        self._work: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()

    @property
    def shared(self) -> bool:
        """Whether the backend is a fleet's."""
        return self._backend.shared

    @property
    def up(self) -> bool:
        """Whether the backend can be read, and the last write to it succeeded."""
        return self._readable and self._down_since is None

    @property
    def pending(self) -> int:
        """The number of changes that wait to be written."""
        return len(self._pending)

    @property
    def max_pending(self) -> float:
        """How many changes may wait."""
        return self._pending.limit

    # ------------------------------------------------------------ start and end

    async def start(self) -> None:
        """Open the backend, or go on in memory until that works."""
        self._gauges.set("store_up", 0.0)
        self._wake.set()
        self._work = asyncio.create_task(self._run(), name="store")
        try:
            async with asyncio.timeout(START_WAIT):
                await self._tried.wait()
        except TimeoutError:
            _log.warning("store_slow", store=self._backend.name, seconds=START_WAIT)

    async def close(self) -> None:
        """Write what is left to write, if that takes no longer than :data:`CLOSE_WAIT`."""
        tasks = {task for task in (self._work, self._check) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WAIT)
        try:
            async with asyncio.timeout(CLOSE_WAIT):
                if self._readable:
                    await self._write_all()
                await self._backend.close()
        except (StoreError, TimeoutError) as error:
            self._count(StoreOperation.WRITE)
            _log.warning(
                "store_not_closed",
                store=self._backend.name,
                error=str(error) or type(error).__name__,
                unwritten=len(self._pending),
            )

    # ------------------------------------------------------------ records

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """Read a record; None if there is none or its time is over."""
        if (kind, key) in self._pending:
            waiting = self._pending.get((kind, key))
            return waiting.value if waiting is not None and alive(waiting, now) else None
        if not self._readable:
            return await self._memory.get(kind, key, now)
        try:
            record = await self._read(self._backend.get(kind, key, now))
        except StoreDataError as error:
            self._count(StoreOperation.DECODE)
            _log.warning("store_record_bad", store=self._backend.name, error=str(error))
            if (kind, key) not in self._pending:  # unless it has just been replaced
                self._change(kind, key, self._memory.record(kind, key))
        except StoreError as error:
            self._failed(StoreOperation.READ, error)
        else:
            mine = self._memory.record(kind, key)
            if record is not None and alive(record, now) and not _is_later(mine, record, now):
                self._memory.keep(kind, key, record, now)
                return record.value
        return await self._memory.get(kind, key, now)

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Keep a record in the place of an earlier one, unless it is too long or over."""
        record = Record(value, now, min(keep_until, now + LONGEST))
        if len(value) > MAX_VALUE or len(key) > MAX_KEY or not key.isascii():
            self._count(StoreOperation.WRITE)
            _log.warning("store_record_long", kind=kind, key=key[:100], octets=len(value))
            record = Record(b"", now, now)
        if not alive(record, now):
            await self.delete(kind, key)
            return
        self._memory.keep(kind, key, record, now)
        self._change(kind, key, record)

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        await self._memory.delete(kind, key)
        self._change(kind, key, None)

    def _change(self, kind: StoreKind, key: str, record: Record | None) -> None:
        if lost := self._pending.put((kind, key), record):
            self._counters.inc("saturated_total", (Bound.STORE_QUEUE,))
            self._counters.inc("store_evicted_total", by=lost)
        self._wake.set()

    async def listing(self, kind: StoreKind, now: float) -> list[Listed]:
        """List the records of a kind whose time is not over."""
        if self._readable:
            try:
                listed = await self._bounded(
                    self._backend.listing(kind), self._backend.open_deadline
                )
            except StoreError as error:
                # A listing is long: that it took too long says little of other operations.
                self._count(StoreOperation.LIST)
                _log.warning("store_not_listed", store=self._backend.name, error=str(error))
            else:
                return [
                    Listed(key, record.written, record.keep_until)
                    async for piece in taken_in_turns(listed)
                    for key, record in piece
                    if alive(record, now)
                ]
        return await self._memory.listing(kind, now)

    # ------------------------------------------------------------ claims

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """See :meth:`Store.claim`; granted if the fleet cannot be asked."""
        if not self._readable or not self.shared:
            return ""
        try:
            return await self._read(self._backend.claim(kind, key, seconds))
        except StoreError as error:
            self._failed(StoreOperation.CLAIM, error)
            return ""

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """See :meth:`Store.release`. If it fails, the claim ends by itself.

        A forecast waits for this, so that it has the deadline of a read.
        """
        if not token or not self._readable:
            return
        try:
            if (kind, key) in self._pending:
                await self._read(self._write([(kind, key, self._pending.get((kind, key)))]))
            await self._read(self._backend.release(kind, key, token))
        except StoreError as error:
            self._failed(StoreOperation.CLAIM, error)

    # ------------------------------------------------------------ writing, and coming back

    async def _run(self) -> None:
        """Open and write, and try again after a failure; runs as a task."""
        while True:
            await self._wake.wait()
            if self._down_since is not None:
                await asyncio.sleep(self._pause * (1.0 + JITTER * self._jitter()))
            await self._try()
            self._tried.set()

    async def _try(self) -> None:
        operation = StoreOperation.OPEN
        try:
            if not self.up:
                await self._bounded(self._backend.open(), self._backend.open_deadline)
                self._readable = True
            operation = StoreOperation.WRITE
            await self._write_all()
        except StoreError as error:
            if self._down_since is not None:
                self._back_off()
            self._failed(operation, error)
            return
        if self._readable:  # a read may have failed while we wrote
            self._wake.clear()
            self._is_up()

    async def _write_all(self) -> None:
        while self._pending:
            batch = [
                (kind, key, record)
                for ((kind, key), record), _ in zip(
                    self._pending.items(), range(BATCH), strict=False
                )
            ]
            await self._write(batch)

    async def _write(self, batch: list[Change]) -> None:
        await self._bounded(self._backend.write(batch), self._backend.write_deadline)
        for kind, key, record in batch:
            # It may have been changed again while it was written.
            if self._pending.get((kind, key)) is record:
                self._pending.pop((kind, key))

    async def _read(self, work: Awaitable[T]) -> T:
        """Do what mail waits for; raises StoreError if that takes long all the time."""
        began = time.monotonic()
        result = await self._bounded(work, self._backend.read_deadline)
        self._slowness.note(began, time.monotonic())
        if self._slowness.is_too_much and self._readable:
            seconds = self._slowness.mean
            self._failed(StoreOperation.READ, StoreError(f"slow: {seconds:.2f} s for each answer"))
        return result

    async def _bounded(self, work: Awaitable[T], seconds: float) -> T:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(seconds):
                result = await work
        except TimeoutError as error:
            raise StoreError(f"no answer within {seconds:g} s") from error
        except StoreError:
            raise
        except Exception as error:
            _log.exception("store_failed", store=self._backend.name, error=repr(error))
            raise StoreError(f"internal error: {error!r}") from error
        if task is not None and task.cancelling() > before:
            # A client library may take a cancellation for its own (asyncio.wait_for does so
            # before Python 3.12); this task was meant, and must end.
            raise asyncio.CancelledError
        return result

    def _failed(self, operation: StoreOperation, error: StoreError) -> None:
        self._count(operation)
        writing = operation in (StoreOperation.WRITE, StoreOperation.CLAIM)
        if not (writing and isinstance(error, StoreUnwritableError)):
            self._readable = False
        self._wake.set()
        if self._down_since is not None:
            return
        self._down_since = time.monotonic()
        if self._down_since - self._up_since > self._last_pause:
            self._pause = 0.0
        self._back_off()
        self._gauges.set("store_up", 0.0)
        _log.warning("store_lost", store=self._backend.name, operation=operation, error=str(error))

    def _back_off(self) -> None:
        self._pause = min(max(2 * self._pause, self._first_pause), self._last_pause)

    def _is_up(self) -> None:
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            _log.info("store_back", store=self._backend.name, seconds=round(seconds, 3))
        if self._down_since is not None or not self._up_since:
            self._slowness.forget()
            self._up_since = time.monotonic()
            self._down_since = None
            self._gauges.set("store_up", 1.0)
            if self._check is None or self._check.done():
                self._check = asyncio.create_task(self._check_backend(), name="store check")

    async def _check_backend(self) -> None:
        """Find damage before it is met; what is damaged is left to the backend."""
        try:
            await self._backend.check()
        except StoreError as error:
            if self._readable:  # else a reader has met it as well
                self._failed(StoreOperation.READ, error)

    def _count(self, operation: StoreOperation) -> None:
        self._counters.inc("store_errors_total", (operation,))


def _is_later(mine: Record | None, record: Record, now: float) -> bool:
    """Whether the record in memory was written after the one of the backend, and is good."""
    return mine is not None and mine.written > record.written and alive(mine, now)
