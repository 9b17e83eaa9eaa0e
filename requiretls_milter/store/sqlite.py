"""One file on this host: ``sqlite:///PATH``.

All of SQLite runs in a thread of its own, so that a slow disk holds up no assessment. The file
belongs to this engine alone. A file of another program is never written to. A damaged file is
renamed, with the time in its name, and the service goes on with an empty one; only the oldest
of several such files is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.store.base import (
    MAX_BYTES,
    MAX_LISTED,
    MAX_RECORDS,
    SWEEP_INTERVAL,
    Change,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
    digest,
    size,
)
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters

APPLICATION_ID = 0x52544C53
"""``RTLS``, in the header of the file: it tells our file from another program's."""

MIGRATIONS = (
    (
        """
        CREATE TABLE record (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            value BLOB NOT NULL,
            written REAL NOT NULL,
            keep_until REAL NOT NULL,
            used REAL NOT NULL,
            octets INTEGER NOT NULL,
            PRIMARY KEY (kind, key)
        ) STRICT
        """,
        "CREATE INDEX record_keep_until ON record (keep_until)",
        "CREATE INDEX record_used ON record (kind, used)",
    ),
    (
        # A record that was written without a digest cannot be checked for damage.
        "DELETE FROM record",
        "ALTER TABLE record ADD COLUMN digest BLOB NOT NULL DEFAULT x''",
    ),
)
"""The statements that lead from each version of the schema (user_version) to the next."""

BUSY_WAIT = 0.5
"""Seconds to wait for another process that has locked the file."""

MAX_ASKED = 10_000
"""Records that are wanted at once: more than evidence is found at once (limits.flights)."""

MAX_QUEUED = 64
"""Operations that wait for the disk; more are refused at once."""

SWEEP_GRACE = 86_400.0
"""Seconds for which they stay nevertheless: a clock that is ahead for an hour loses nothing."""

USED_STEP = 3_600.0
"""Seconds after which it is worth noting that a record was used again."""

NOTED_BYTES = 4 << 20
"""Octets of memory for the uses that are noted until the next write: those of 10,000 usual keys."""

EVICTED = 8
"""Records that are evicted at once, if there are many: one at a time is not worth the work."""

CHECK_PAUSE = 0.01
"""Seconds between two pieces of a check: the disk and this process have other work."""

CHECKED = 200
"""Records that are read at once by a check: some milliseconds."""

CHECKS = (
    "SELECT rowid, kind, octets, digest FROM record WHERE rowid > ? ORDER BY rowid LIMIT ?",
    "SELECT kind, key FROM record INDEXED BY sqlite_autoindex_record_1 "
    "WHERE (kind, key) > (?, ?) ORDER BY kind, key LIMIT ?",
)
"""The table, then the index of its keys, from one place on; each sweep reads the one of times. The
first one counts, too: the digest stands behind the value, so that all pages of a record are read.
"""

_STARTS: tuple[tuple[Any, ...], ...] = ((-1,), ("", ""))
"""Where each of them begins."""

MAX_DAMAGED = 3
"""Damaged files that are kept."""

WAL_LIMIT = 4 << 20
"""Octets to which the write-ahead log shrinks again after having grown. SQLite puts it into the
file at 1,000 pages, that is as many."""

# A record is written after the earlier one was deleted; a leftover row (SQLITE_CONSTRAINT) means
# that index and table disagree.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)

_NO_TEXT = "SQLite says what is wrong in octets that are no text"
"""The meaning of a UnicodeDecodeError: a message that quotes a damaged name cannot be decoded."""

_log = log.get_logger("store")

T = TypeVar("T")


class _Damaged(Exception):
    """The file is no database, or not one of ours; the text says how that shows.

    It is set aside, and the caller begins with an empty one.
    """


@dataclass(slots=True)
class _Total:
    """The number and size of the records of one kind."""

    records: int = 0
    octets: int = 0


class SqliteBackend:
    """Implements :class:`requiretls_milter.store.base.Backend`.

    Args:
        path: of the file, which is created if need be; its directory is not.
        counters: where damaged files and evictions are counted.
        max_records: records of all kinds; beyond that, the least used of the kind
            that has most are evicted.
        max_bytes: octets of all records, likewise.
        wall: a clock, in seconds since the epoch.
        thread: runs all operations, one after another; closed with the backend.
    """

    shared = False
    open_deadline = 10.0
    read_deadline = 1.0
    write_deadline = 5.0

    def __init__(
        self,
        path: str,
        counters: Counters,
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        wall: Callable[[], float] = time.time,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.name = f"sqlite://{path}"
        self._file = _File(path, counters, max_records, max_bytes, wall)
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="store")
        self._slots = threading.BoundedSemaphore(MAX_QUEUED)
        self._asked: list[_Asked] = []
        self._is_reading = False

    async def open(self) -> None:
        """Open the file, or check that it still is the one that is open."""
        await self._run(self._file.open)

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """Read a record as it is, even if its time is over.

        What is asked for until the thread has read what was asked for before is read together: to
        have a thread do something takes many times as long as to read a record.
        """
        if len(self._asked) >= MAX_ASKED:
            raise StoreError(f"the disk does not answer: {MAX_ASKED} records wait for it")
        loop = asyncio.get_running_loop()
        asked = _Asked(kind, key, now, loop.create_future())
        self._asked.append(asked)
        if not self._is_reading:
            self._is_reading = True
            loop.call_soon(self._read_asked)
        return await asked.record

    def _read_asked(self) -> None:
        asked = [one for one in self._asked if not one.record.done()]
        self._asked.clear()
        self._is_reading = bool(asked)
        if asked:
            reading = asyncio.ensure_future(self._run(lambda: self._file.get_all(asked)))
            reading.add_done_callback(lambda reading: self._hand_out(asked, reading))

    def _hand_out(
        self, asked: Sequence[_Asked], reading: asyncio.Future[list[Record | StoreError | None]]
    ) -> None:
        for number, one in enumerate(asked):
            if one.record.done():
                continue  # nobody waits for it any more
            if reading.cancelled():
                one.record.cancel()
            elif (error := reading.exception()) is not None:
                one.record.set_exception(error)
            elif isinstance(found := reading.result()[number], StoreError):
                one.record.set_exception(found)
            else:
                one.record.set_result(found)
        self._read_asked()

    async def write(self, changes: Sequence[Change]) -> None:
        """Make all changes, or none."""
        await self._run(lambda: self._file.write(changes))

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """List keys of a kind, the most recently used, with records that lack their values."""
        return await self._run(lambda: self._file.listing(kind))

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Grant it: the file belongs to this engine alone."""
        return ""

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Do nothing: no other engine waits."""

    async def check(self) -> None:
        """Read all of the file and count its records, in pieces between which others are served.

        A file of 100,000 records takes seconds: nobody waits for that. What is damaged shows by
        itself when it is read (:func:`digest`); this finds it before it is needed.
        """
        while await self._run(self._file.check):  # noqa: ASYNC110 - a pause, not a wait
            await asyncio.sleep(CHECK_PAUSE)

    async def close(self) -> None:
        """Close the file; an operation that hangs on the disk is abandoned."""
        try:
            await self._run(self._file.close)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise StoreError(f"the disk does not answer: {MAX_QUEUED} operations wait for it")
        future = self._thread.submit(work)
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)


class _Asked(NamedTuple):
    """A record that is wanted at a time, and what becomes of it."""

    kind: StoreKind
    key: str
    now: float
    record: asyncio.Future[Record | None]


class _File:
    """The file, for use in its thread. Every method may raise StoreError."""

    def __init__(
        self,
        path: str,
        counters: Counters,
        max_records: int,
        max_bytes: int,
        wall: Callable[[], float],
    ) -> None:
        self._path = Path(path)
        self._counters = counters
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._wall = wall
        self._db: sqlite3.Connection | None = None
        self._opened: tuple[int, int] = (0, 0)
        self._totals: dict[str, _Total] = {}
        self._begin_check(0)
        self._used: BoundedMap[tuple[StoreKind, str], float] = BoundedMap(
            max_weight=NOTED_BYTES, weigh=entry_octets
        )
        self._swept = 0.0

    # ------------------------------------------------------------ opening

    def open(self) -> None:
        """Open the file, or check that it still is the one that is open."""
        with self._errors():
            self._ready()

    def close(self) -> None:
        """Close the file; SQLite puts the write-ahead log into it."""
        with self._errors():
            self._close()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _ready(self) -> sqlite3.Connection:
        if self._db is not None and self._identity() != self._opened:
            self._close()  # the file was removed, or replaced by another one
        if self._db is None:
            self._prepare()
            try:
                self._db = self._connect()
            except _Damaged as error:
                self._set_aside(str(error))
                self._prepare()
                self._db = self._connect()
            self._opened = self._identity()
            (last,) = self._db.execute("SELECT coalesce(max(rowid), 0) FROM record").fetchone()
            self._begin_check(last)
        return self._db

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _prepare(self) -> None:
        """Create the file if need be, and make sure that only our user has access to it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{self._path} is no file")
            if found.st_uid != os.geteuid():
                raise StoreError(f"{self._path} belongs to uid {found.st_uid}, not to us")
            if stat.S_IMODE(found.st_mode) != 0o600:
                os.fchmod(descriptor, 0o600)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _connect(self) -> sqlite3.Connection:
        """Open an existing file, check that it is sound, and bring its schema up to date."""
        db = sqlite3.connect(self._path, timeout=BUSY_WAIT, isolation_level=None)
        db.text_factory = _text
        try:
            # The file is ours as long as we run: a second engine must not count what it holds,
            # and no memory is shared, in which a truncated file would mean SIGBUS.
            db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
            version = self._examine(db)
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}").fetchone()
            _migrate(db, version)
            try:
                db.execute(
                    "SELECT kind, key, value, written, keep_until, used, octets, digest "
                    "FROM record LIMIT 0"
                )
            except sqlite3.OperationalError as error:
                raise _Damaged(f"not our schema: {error}") from error
        except sqlite3.DatabaseError as error:
            db.close()
            if _code(error) in _DAMAGED:
                raise _Damaged(str(error)) from error
            raise
        except UnicodeDecodeError as error:
            db.close()
            raise _Damaged(_NO_TEXT) from error
        except BaseException:
            db.close()
            raise
        return db

    def _examine(self, db: sqlite3.Connection) -> int:
        """Return the version of the schema of a file that is sound and ours."""
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self._path} is a database of another program")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self._path} was written by a later version of this program "
                f"(schema {version}, we know {len(MIGRATIONS)})"
            )
        return int(version)

    def _set_aside(self, why: str) -> None:
        """Rename the damaged file; its log first, which must never meet the new file."""
        self._db = None
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = f"{self._path}.damaged-{stamp}"
        number = 1
        while os.path.lexists(aside):
            number += 1
            aside = f"{self._path}.damaged-{stamp}-{number}"
        try:
            for suffix in ("-wal", "-shm", "-journal", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
            self._forget_oldest()
        except OSError as error:
            raise StoreError(f"{self._path} is damaged and cannot be renamed: {error}") from error
        self._counters.inc("store_damaged_total")
        _log.error("store_damaged", file=str(self._path), set_aside=aside, why=why)

    def _forget_oldest(self) -> None:
        files = [
            path
            for path in self._path.parent.glob(f"{glob.escape(self._path.name)}.damaged-*")
            if not path.name.endswith(("-wal", "-shm", "-journal"))
        ]
        files.sort(key=lambda path: path.name)
        for path in files[:-MAX_DAMAGED]:
            for suffix in ("-wal", "-shm", "-journal", ""):
                Path(f"{path}{suffix}").unlink(missing_ok=True)

    # ------------------------------------------------------------ the check

    def _begin_check(self, last: int) -> None:
        """Count anew, and look at everything up to the row *last*, which is the last one now."""
        self._totals = {}
        self._last_row = last
        self._pass = 0
        self._place = _STARTS[0]

    def check(self) -> bool:
        """Look at a further piece of the file; returns whether there is more."""
        with self._errors():
            if self._pass >= len(CHECKS):
                return False
            rows = self._open_now().execute(CHECKS[self._pass], (*self._place, CHECKED)).fetchall()
            if self._pass == 0:
                self._count(rows)
                rows = [row[:1] for row in rows]
            if rows:
                self._place = rows[-1]
            else:
                self._pass += 1
                self._place = _STARTS[self._pass] if self._pass < len(CHECKS) else ()
            return True

    def _count(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for rowid, kind, octets, _ in rows:
            if not isinstance(kind, str) or not isinstance(octets, int):
                raise _Damaged(f"row {rowid} is no record")
            if rowid <= self._last_row:  # else it was counted when it was written
                self._add(kind, octets)

    def _is_counted(self, rowid: int) -> bool:
        """Whether a row is in the totals: the check has come so far, or it was written since."""
        return self._pass > 0 or rowid <= self._place[0] or rowid > self._last_row

    # ------------------------------------------------------------ records

    def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """Read a record as it is, even if its time is over."""
        with self._errors():
            found = self._open_now().execute(
                "SELECT value, written, keep_until, digest, used "
                "FROM record WHERE kind = ? AND key = ?",
                (kind.value, key),
            )
            row = found.fetchone()
            if row is None:
                return None
            *columns, used = row
            record = _undamaged(kind, key, *columns)
            if abs(now - used) > USED_STEP:
                self._used.put((kind, key), now)
            return record

    def get_all(self, asked: Sequence[_Asked]) -> list[Record | StoreError | None]:
        """Read some records; in the place of one that cannot be read stands why."""
        found: list[Record | StoreError | None] = []
        for kind, key, now, _ in asked:
            try:
                found.append(self.get(kind, key, now))
            except StoreError as error:
                found.append(error)
        return found

    def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """List keys of a kind, the most recently used, with records that lack their values."""
        with self._errors():
            rows = self._open_now().execute(
                "SELECT key, written, keep_until FROM record WHERE kind = ? "
                "ORDER BY used DESC LIMIT ?",
                (kind.value, MAX_LISTED),
            )
            # Rows without values cannot be checked by digest; a time that is no number is damage.
            return [
                (key, Record(b"", written, until))
                for key, written, until in rows
                if isinstance(written, float) and isinstance(until, float)
            ]

    def write(self, changes: Sequence[Change]) -> None:
        """Make all changes, or none."""
        with self._errors(writing=True):
            db = self._ready()
            db.execute("BEGIN IMMEDIATE")
            for kind, key, record in changes:
                self._replace(db, kind, key, record)
            for (kind, key), used in self._used.items():
                db.execute(
                    "UPDATE record SET used = ? WHERE kind = ? AND key = ?",
                    (used, kind.value, key),
                )
            evicted = self._make_room(db)
            db.execute("COMMIT")
            self._used.clear()
            if evicted:
                self._counters.inc("store_evicted_total", by=evicted)
            self._require_checkpoints(db)

    def _require_checkpoints(self, db: sqlite3.Connection) -> None:
        """Make SQLite say why its log is not put into the file; by itself it says nothing."""
        try:
            length = os.stat(f"{self._path}-wal").st_size
        except OSError:
            return
        if length > 2 * WAL_LIMIT:
            db.execute("PRAGMA wal_checkpoint").fetchone()

    def _open_now(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"{self._path} is not open")
        return self._db

    def _replace(
        self, db: sqlite3.Connection, kind: StoreKind, key: str, record: Record | None
    ) -> None:
        gone = db.execute(
            "DELETE FROM record WHERE kind = ? AND key = ? RETURNING kind, octets, rowid",
            (kind.value, key),
        ).fetchall()
        self._gone(gone)
        if record is None:
            return
        octets = size(key, record.value)
        times = (record.written, record.keep_until, record.written)
        row = db.execute(
            "INSERT INTO record (kind, key, value, written, keep_until, used, octets, digest) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (kind.value, key, record.value, *times, octets, digest(kind, key, record)),
        ).lastrowid
        if row is not None and self._is_counted(row):
            self._add(kind.value, octets)

    # ------------------------------------------------------------ bounds

    def _count_all(self, db: sqlite3.Connection) -> None:
        """Count at once; what is left of the check looks at the indexes."""
        rows = db.execute("SELECT kind, count(*), sum(octets) FROM record GROUP BY kind")
        self._totals = {kind: _Total(records, octets) for kind, records, octets in rows}
        if self._pass == 0:
            self._pass, self._place = 1, _STARTS[1]

    def _add(self, kind: str, octets: int) -> None:
        totals = self._totals.setdefault(kind, _Total())
        totals.records += 1
        totals.octets += octets

    def _gone(self, rows: Sequence[tuple[str, int, int]]) -> None:
        for kind, octets, rowid in rows:
            if self._is_counted(rowid):
                totals = self._totals[kind]
                totals.records -= 1
                totals.octets -= octets

    def _make_room(self, db: sqlite3.Connection) -> int:
        """Sweep, and evict the least used records if there are too many; returns how many.

        They are taken from the kind that has most: a flood of one kind costs the
        others nothing.
        """
        now = self._wall()
        if not 0 <= now - self._swept < SWEEP_INTERVAL:
            self._swept = now
            self._sweep(db, now - SWEEP_GRACE)
        evicted, swept = 0, False
        while True:
            totals = self._totals.values()
            records = sum(total.records for total in totals) - self._max_records
            octets = sum(total.octets for total in totals) - self._max_bytes
            if records <= 0 and octets <= 0:
                return evicted
            if not swept:
                swept = True
                self._sweep(db, now)
                continue
            measure = _records_of if records > 0 else _octets_of
            kind, most = max(self._totals.items(), key=lambda one: measure(one[1]))
            gone = db.execute(
                "DELETE FROM record WHERE rowid IN (SELECT rowid FROM record WHERE kind = ? "
                "ORDER BY used LIMIT ?) RETURNING kind, octets, rowid",
                (kind, max(records, min(EVICTED, most.records // 20), 1)),
            ).fetchall()
            self._gone(gone)
            evicted += len(gone)
            if not gone:
                self._count_all(db)

    def _sweep(self, db: sqlite3.Connection, until: float) -> None:
        self._gone(
            db.execute(
                "DELETE FROM record WHERE keep_until <= ? RETURNING kind, octets, rowid", (until,)
            ).fetchall()
        )

    # ------------------------------------------------------------ errors

    @contextmanager
    def _errors(self, *, writing: bool = False) -> Iterator[None]:
        """Turn SQLite's errors into those of a store, and close a connection that is of no use."""
        try:
            yield
        except _Damaged as error:
            self._close()
            self._set_aside(str(error))
            raise StoreError(f"{self._path} was damaged: {error}") from error
        except UnicodeDecodeError as error:
            with contextlib.suppress(sqlite3.Error):
                self._close()
            self._set_aside(_NO_TEXT)
            raise StoreError(f"{self._path} was damaged: {_NO_TEXT}") from error
        except sqlite3.DatabaseError as error:
            code = _code(error)
            text = f"{self._path}: {error}"
            if code in _DAMAGED:
                with contextlib.suppress(sqlite3.Error):
                    self._close()
                self._set_aside(str(error))
                raise StoreError(f"{self._path} was damaged: {error}") from error
            if writing and code in _UNWRITABLE and self._rolled_back():
                raise StoreUnwritableError(text) from error
            with contextlib.suppress(sqlite3.Error):
                self._close()
            raise StoreError(text) from error

    def _rolled_back(self) -> bool:
        """Whether the connection is as before the transaction."""
        if self._db is None:
            return False
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._count_all(self._db)
        except sqlite3.Error:
            return False
        return True


def _text(octets: bytes) -> str:
    """Decode a key or other text; damaged octets must not make the whole file unreadable."""
    return octets.decode("ascii", "replace")


def _undamaged(
    kind: StoreKind, key: str, value: object, written: object, until: object, kept: object
) -> Record:
    """Make a record of columns, which may hold anything if a page was damaged."""
    if isinstance(value, bytes) and isinstance(written, float) and isinstance(until, float):
        record = Record(value, written, until)
        if kept == digest(kind, key, record):
            return record
    raise StoreDataError(f"{kind}:{key} is damaged: not what its digest says")


def _records_of(total: _Total) -> int:
    return total.records


def _octets_of(total: _Total) -> int:
    return total.octets


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring the schema from a version to the last one: all the way, or not at all."""
    if version == len(MIGRATIONS):
        return
    db.execute("BEGIN EXCLUSIVE")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    if version:
        _log.info("store_migrated", before=version, after=len(MIGRATIONS))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if the error is not from SQLite itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
