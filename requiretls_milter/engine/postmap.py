"""Tables of Postfix that are no text, asked by ``postmap -q -``: many keys in one run.

:meth:`Postmap.find` gives an answer for each key: what the table has for it, that it has nothing,
or a :class:`Failure`. Answers are kept for a while, and keys that several callers want at the same
time are looked up once. Nothing here waits for longer than ``limits.alias_timeout`` for a run.

A run reads keys from its standard input and writes a line for each. Behind the table stands a
second one that has an entry for everything, a word that is made anew for each run, so that "no
entry" is told from "no answer". postmap ends at the first key for which a table fails, so that a
run that failed is made again for each half of its keys: those that can be answered are answered. If
both halves fail, the table does.

What is asked are addresses: they are in no log line, and are forgotten with the answers.

Log lines: ``event=alias_query_failed`` (``table``, ``result``, ``error``) at level warning, once
for each cause until the table answers again.
"""

from __future__ import annotations

import asyncio
import functools
import re
import secrets
import shutil
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks, Life
from requiretls_milter.config import Limits
from requiretls_milter.engine.programs import give, kill_session
from requiretls_milter.syntax.secrecy import table_name, without_secrets
from requiretls_milter.syntax.tables import path_within, split_table
from requiretls_milter.syntax.text import error_text, printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer, PostmapResult

MAX_KEYS = 200
"""Keys of one run."""

MAX_KEY = 2_000
"""Octets of a key: an address that Postfix takes has a thousand, and quotes may be added."""

MAX_OUTPUT = 1 << 20
"""Octets that one run may write; an alias with a thousand members takes a twentieth of it."""

MAX_STDERR = 4_096
"""Octets of its standard error that are kept for the log; the rest is thrown away."""

LAST_WORDS = 0.5
"""Seconds for what is left of its output after its end."""

CLOSE_WAIT = 2.0
"""Seconds for what was killed to end."""

FLOOD_PAUSE = 0.05
"""Seconds between two reads of a standard error beyond :data:`MAX_OUTPUT` octets."""

FAILURE_LIFE = 5.0
"""Seconds for which a failure is the answer, and a table that did not end its run is not asked."""

ANSWER_OCTETS = 1_024
"""Octets of memory that an answer may take on average, with its key, while it is kept."""

_PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin:/bin"

_CHUNK = 1 << 16

_MISREAD = re.compile(r'(, line \d+: [^"]*").*')
_QUOTED = re.compile(r'"[^"]*(?:"|$)')
_USER = re.compile(r"//\S*@")

_log = log.get_logger("engine.postmap")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a table has no answer for a key."""

    error: str


Answer = str | Failure | None
"""What a table has for a key; None if it has nothing."""


class _RunError(Exception):
    """A run gave no answers: what it is counted as, and why."""

    def __init__(self, result: PostmapResult, error: str) -> None:
        super().__init__(error)
        self.result = result
        self.error = error


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Answer
    life: Life


@dataclass(slots=True)
class _Table:
    """A table that is asked.

    Attributes:
        item: as main.cf names it.
        waiting: keys that no run has taken yet, each once.
        runs: under way.
        paused_until: on the monotonic clock.
        told: the failure that was logged last; "" since it has answered.
    """

    item: str
    waiting: deque[str] = field(default_factory=deque)
    runs: int = 0
    paused_until: float = 0.0
    why_paused: str = ""
    told: str = ""

    @property
    def name(self) -> str:
        """Its name, fit for a sentence."""
        return table_name(self.item)


class Postmap:
    """Looks up keys in tables; within one asyncio loop.

    Args:
        command: program and first arguments; () for the usual program.
        life: seconds for which an answer is kept.
        limits: ``[limits]``.
        counters: counts runs, and what was kept.
        clocks: for the lives of answers.
    """

    def __init__(
        self,
        command: Sequence[str],
        life: float,
        limits: Limits,
        counters: Counters,
        clocks: Clocks = SYSTEM_CLOCKS,
    ) -> None:
        self._command = tuple(command)
        self._life = life
        self._limits = limits
        self._counters = counters
        self._clocks = clocks
        self._tables: dict[str, _Table] = {}
        self._turns: deque[_Table] = deque()
        self._kept: BoundedMap[tuple[str, str], _Kept] = BoundedMap(
            limits.alias_answers,
            max_weight=limits.alias_answers * ANSWER_OCTETS,
            weigh=entry_octets,
        )
        self._flying: dict[tuple[str, str], asyncio.Future[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[int] = set()
        self._closed = False

    def __len__(self) -> int:
        """The number of answers that are kept."""
        return len(self._kept)

    async def find(self, item: str, keys: Iterable[str]) -> Mapping[str, Answer]:
        """Look keys up in a table, as main.cf names it; an answer for each of them. Never raises.

        Args:
            item: ``type:name``; adapters such as ``proxy:`` are left out.
            keys: as Postfix looks them up.
        """
        table = self._tables.setdefault(item, _Table(item))
        found: dict[str, Answer] = {}
        awaited: dict[str, asyncio.Future[Answer]] = {}
        for key in keys:
            answer = self._at_once(table, key)
            if isinstance(answer, asyncio.Future):
                awaited[key] = answer
            else:
                found[key] = answer
        self._begin()
        for key, future in awaited.items():
            found[key] = await asyncio.shield(future)
        return found

    async def close(self) -> None:
        """Kill what runs; whoever waits gets a failure.

        No task is cancelled: asyncio would wait for ever for a process that it is starting.
        """
        self._closed = True
        for pid in self._running:
            kill_session(pid)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WAIT)
        for table in self._tables.values():
            self._drop(table, "given up")

    # ------------------------------------------------------------ what is known

    def _at_once(self, table: _Table, key: str) -> Answer | asyncio.Future[Answer]:
        """What is known of a key, or the future that will have it."""
        if not _can_be_asked(key):
            return Failure("a key that postmap cannot be asked for")
        place = table.item, key
        kept = self._kept.get(place)
        if kept is not None and not kept.life.is_over(
            self._clocks.wall(), self._clocks.monotonic()
        ):
            self._kept.touch(place)
            failed = isinstance(kept.answer, Failure)
            self._count(CacheResult.HELD if failed else CacheResult.HIT)
            return kept.answer
        flying = self._flying.get(place)
        if flying is not None:
            self._count(CacheResult.JOINED)
            return flying
        if self._closed:
            return Failure("given up")
        if self._clocks.monotonic() < table.paused_until:
            self._count(CacheResult.HELD)
            return Failure(table.why_paused)
        if len(self._flying) >= self._limits.alias_keys:
            self._counters.inc("saturated_total", (Bound.ALIAS_KEYS,))
            return Failure("too many keys wait for postmap")
        self._count(CacheResult.MISS)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._flying[place] = future
        if not table.waiting:
            self._turns.append(table)
        table.waiting.append(key)
        return future

    def _count(self, result: CacheResult) -> None:
        self._counters.inc("cache_requests_total", (Layer.ALIAS, result))

    def _settle(self, table: _Table, answers: Mapping[str, Answer]) -> None:
        """Keep answers, and give them to those who wait."""
        wall, monotonic = self._clocks.wall(), self._clocks.monotonic()
        for key, answer in answers.items():
            seconds = FAILURE_LIFE if isinstance(answer, Failure) else self._life
            kept = _Kept(answer, Life.of(seconds, wall, monotonic))
            if evicted := self._kept.put((table.item, key), kept):
                self._counters.inc("saturated_total", (Bound.ALIAS_ANSWERS,), evicted)
            future = self._flying.pop((table.item, key), None)
            if future is not None and not future.done():
                future.set_result(answer)

    # ------------------------------------------------------------ runs

    def _begin(self) -> None:
        """Begin as many runs as may be, of the tables in turn; of one no more than half of them."""
        if self._closed:
            return
        limit = self._limits.alias_processes
        of_one = max(1, limit // 2)
        for _ in range(len(self._turns)):
            if len(self._tasks) >= limit:
                self._counters.inc("saturated_total", (Bound.ALIAS_PROCESSES,))
                return
            table = self._turns.popleft()
            if not table.waiting:
                continue
            if table.runs >= of_one:
                self._turns.append(table)
                continue
            keys = [table.waiting.popleft() for _ in range(min(MAX_KEYS, len(table.waiting)))]
            if table.waiting:
                self._turns.append(table)
            table.runs += 1
            task = asyncio.get_running_loop().create_task(self._answer(table, keys))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._ended, table))

    def _ended(self, table: _Table, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        table.runs -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("postmap_failed", error=repr(error), exc_info=error)
        self._begin()

    async def _answer(self, table: _Table, keys: Sequence[str]) -> None:
        """Look keys up and settle them, whatever happens."""
        answers: Mapping[str, Answer] = dict.fromkeys(keys, Failure("given up"))
        try:
            answers = await self._looked_up(table, keys)
        finally:
            self._settle(table, answers)
            if self._clocks.monotonic() < table.paused_until:
                self._drop(table, table.why_paused)

    def _drop(self, table: _Table, why: str) -> None:
        """Have all keys fail that wait for a run."""
        self._settle(table, dict.fromkeys(table.waiting, Failure(why)))
        table.waiting.clear()

    async def _looked_up(self, table: _Table, keys: Sequence[str]) -> Mapping[str, Answer]:
        """Look keys up; if the run fails, each half of them.

        A key whose value cannot be had spoils its half, and both halves its table: the runs for
        *n* keys are no more than twice the logarithm of *n*.
        """
        try:
            found: Mapping[str, Answer] = await self._run(table, keys)
        except _RunError as error:
            alone = len(keys) == 1
            if not alone and error.result is not PostmapResult.TIMEOUT:
                return await self._halves(table, keys, error)
            return dict.fromkeys(keys, self._failure(table, error))
        table.told = ""
        return found

    async def _halves(
        self, table: _Table, keys: Sequence[str], error: _RunError
    ) -> Mapping[str, Answer]:
        middle = len(keys) // 2
        found: dict[str, Answer] = {}
        bad: list[Sequence[str]] = []
        for half in (keys[:middle], keys[middle:]):
            try:
                found |= await self._run(table, half)
            except _RunError as again:
                bad.append(half)
                error = again
        for half in bad:
            if len(bad) == 2 or error.result is PostmapResult.TIMEOUT or len(half) == 1:
                found |= dict.fromkeys(half, self._failure(table, error))
            else:
                found |= await self._halves(table, half, error)
        return found

    def _failure(self, table: _Table, error: _RunError) -> Failure:
        if error.result is PostmapResult.TIMEOUT:
            table.paused_until = self._clocks.monotonic() + FAILURE_LIFE
            table.why_paused = error.error
        if table.told != error.error:
            table.told = error.error
            _log.warning(
                "alias_query_failed", table=table.name, result=error.result, error=error.error
            )
        return Failure(error.error)

    async def _run(self, table: _Table, keys: Sequence[str]) -> Mapping[str, Answer]:
        """Run postmap once.

        Raises:
            _RunError: it gave no answers.
        """
        try:
            found = await self._asked(table, keys)
        except _RunError as error:
            self._counters.inc("alias_queries_total", (error.result,))
            raise
        self._counters.inc("alias_queries_total", (PostmapResult.ANSWERED,))
        return found

    async def _asked(self, table: _Table, keys: Sequence[str]) -> Mapping[str, Answer]:
        kind, name = split_table(table.item)
        nothing = f"none-{secrets.token_hex(8)}"
        program = self._command or (shutil.which("postmap", path=_PATH) or "",)
        if not program[0]:
            raise _RunError(PostmapResult.FAILED, "there is no program postmap")
        item = f"{kind}:{path_within(program, name)}"
        try:
            process = await asyncio.create_subprocess_exec(
                *(*program, "-q", "-", item, f"static:{nothing}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env={"PATH": _PATH, "LC_ALL": "C"},
            )
        except (OSError, ValueError) as error:
            raise _RunError(PostmapResult.FAILED, f"{program[0]}: {error_text(error)}") from error
        self._running.add(process.pid)
        if self._closed:
            kill_session(process.pid)
        lines = "".join(f"{key}\n" for key in keys)
        said, written = bytearray(), bytearray()
        reading = asyncio.create_task(_keep_beginning(process.stderr, said))
        late = False
        complete, status = True, 0
        try:
            async with asyncio.timeout(self._limits.alias_timeout):
                writing = asyncio.create_task(give(process.stdin, lines.encode()))
                try:
                    complete = await _read(process.stdout, written)
                    status = await process.wait() if complete else -1
                finally:
                    writing.cancel()
        except TimeoutError:
            late = True
        finally:
            self._running.discard(process.pid)
            kill_session(process.pid)
            await _ended(process, reading)
        why = _last_words(bytes(said), keys)
        if late:
            self._counters.inc("saturated_total", (Bound.ALIAS_TIMEOUT,))
            text = f"no answer within {self._limits.alias_timeout} s"
            raise _RunError(PostmapResult.TIMEOUT, f"{text}: {why}" if why else text)
        if not complete:
            raise _RunError(PostmapResult.FAILED, f"more than {MAX_OUTPUT} octets in its answer")
        if status != 0:
            raise _RunError(PostmapResult.FAILED, why or f"postmap ended with status {status}")
        return _parsed(bytes(written), keys, nothing)


def _can_be_asked(key: str) -> bool:
    """Whether a key can be a line of postmap's input."""
    try:
        octets = key.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(octets) <= MAX_KEY and not any(one in key for one in "\0\n\r")


def _parsed(written: bytes, keys: Sequence[str], nothing: str) -> Mapping[str, Answer]:
    """Read a line for each key; of one key alone, the value may have line ends in it.

    Raises:
        _RunError: they are not the lines of these keys.
    """
    begins = [f"{key}\t".encode() for key in keys]
    lines = written.split(b"\n") if len(keys) > 1 else [written[:-1], written[-1:].strip(b"\n")]
    whole = len(lines) == len(keys) + 1 and not lines[-1]
    if not whole or not all(map(bytes.startswith, lines, begins)):
        raise _RunError(PostmapResult.FAILED, "its answer is not as postmap writes it")
    values = (line[len(begin) :] for line, begin in zip(lines, begins, strict=False))
    return {key: _value(value, nothing) for key, value in zip(keys, values, strict=True)}


def _value(octets: bytes, nothing: str) -> Answer:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return Failure("its result is not UTF-8")
    if text == nothing:
        return None
    return text or Failure("its result is empty")


def _last_words(said: bytes, keys: Sequence[str]) -> str:
    """Why postmap failed: the last line of its standard error in which there is no address; or "".

    The very last one says no more than that a query failed. A password of the table's file may
    stand in a line of it that postmap does not understand, in what a library quotes, and in the URL
    of a server: none of them is told.
    """
    lines = [
        line
        for line in said.decode("utf-8", "replace").splitlines()
        if line.strip() and not any(key in line for key in keys)
    ]
    telling = [line for line in lines if ": query error" not in line] or lines
    if not telling:
        return ""
    text = telling[-1].partition(": ")[2] or telling[-1]
    for word in ("warning: ", "error: ", "fatal: "):
        text = text.removeprefix(word)
    text = _QUOTED.sub('"..."', _MISREAD.sub(r"\1", text))
    return printable(_USER.sub("//...@", without_secrets(text)))


async def _ended(process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    """Wait for the end of a process that was killed, and of its output: asyncio waits for both.

    If a process that has left its session keeps the output open, that is not waited for.
    """
    rest = asyncio.create_task(_keep_beginning(process.stdout, bytearray(MAX_STDERR)))
    end = asyncio.create_task(process.wait())
    _, late = await asyncio.wait({reading, rest, end}, timeout=LAST_WORDS)
    for task in late:
        task.cancel()


async def _read(stream: asyncio.StreamReader | None, into: bytearray) -> bool:
    """Read to the end; False if that is more than :data:`MAX_OUTPUT`."""
    while stream is not None and (data := await stream.read(_CHUNK)):
        into += data
        if len(into) > MAX_OUTPUT:
            return False
    return True


async def _keep_beginning(stream: asyncio.StreamReader | None, said: bytearray) -> None:
    """Read to the end, so that the process does not wait for us; keep the beginning.

    One that floods it does wait, so that others have the loop, until its time is over.
    """
    left = MAX_OUTPUT
    while stream is not None and (data := await stream.read(_CHUNK)):
        said += data[: MAX_STDERR - len(said)]
        left -= len(data)
        if left < 0:
            await asyncio.sleep(FLOOD_PAUSE)
