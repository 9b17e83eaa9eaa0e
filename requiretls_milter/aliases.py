"""Tables of aliases in text: read from it, and again when it changes.

``[mta] aliases`` has a recipient expanded as Postfix will do it
(:mod:`requiretls_milter.syntax.expansion`). With ``"static"`` each worker holds the tables, and a
callback looks up what is in memory; with ``"ask"`` the engine does
(:mod:`requiretls_milter.engine.expander`). They are read in a thread of their own, so that a file
system that hangs holds up nothing. A table that cannot be read has no answer, and whoever needs it
is not expanded.

A table that postmap(1) compiles is what Postfix has: its text counts as long as the compiled file
is not older. What was read stays until postmap has run again.

Log lines: ``event=alias_table_read`` (``table``, ``entries``, ``seconds``), and at level warning
``event=alias_table_unreadable`` (``table``, ``error``), once for each cause.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import Aliases
from requiretls_milter.syntax.expansion import (
    Expansion,
    ExpansionError,
    Lookup,
    Rewriting,
    Tables,
    expand,
)
from requiretls_milter.syntax.mailbox import Origin
from requiretls_milter.syntax.secrecy import table_name
from requiretls_milter.syntax.tables import (
    COMPILED,
    TEXTUAL,
    inline_entries,
    source_entries,
    split_table,
    static_result,
)
from requiretls_milter.telemetry.labels import Bound
from requiretls_milter.telemetry.log import get_logger

if TYPE_CHECKING:
    from requiretls_milter.config import Config, Mta
    from requiretls_milter.telemetry.counting import Counters

LOOK_AGAIN = 2.0
"""Seconds between two looks at the files; Postfix itself looks when mail comes."""

FIRST_READ = 5.0
"""Seconds for which tables are waited for that were not read yet: by a worker when it starts or
takes a new configuration, in the engine by recipients."""

MAX_SOURCE_BYTES = 64 * 1024 * 1024
"""Octets of a table's text."""

HOT = 1.0
"""Seconds since its last change for which a text may still be being written."""

T = TypeVar("T")

_log = get_logger("aliases")

Seen = tuple[int, int, int]
"""What tells that a file is another one: device and inode, size, time of its last change."""


class UnreadableError(RequiretlsMilterError):
    """A table cannot be read; the text says why."""


@dataclass(slots=True)
class TextTable:
    """One table.

    Attributes:
        item: as main.cf names it.
        entries: by key in lower case; None if it cannot be read. Replaced as a whole.
        error: why it cannot be read.
        full: whether that is since it has too many entries.
        tried: the files that were read last, with or without success; None if that was too early.
    """

    item: str
    entries: Mapping[str, str] | None = None
    error: str = "it was not read yet"
    full: bool = False
    tried: tuple[Seen, ...] | None = None

    def lookup(self, key: str) -> str | None:
        """Look a key up, in lower case."""
        entries = self.entries
        if entries is None:
            raise ExpansionError(f"{self.name}: {self.error}")
        return entries.get(key)

    @property
    def name(self) -> str:
        """The table's name, fit for a sentence."""
        return table_name(self.item)

    @property
    def source(self) -> Path | None:
        """The file with its text; None if it has none."""
        kind, name = split_table(self.item)
        return Path(name) if kind in TEXTUAL - {"inline", "static"} else None

    def look(self, room: int) -> bool:
        """Read the table if it has changed; return whether there are new entries.

        Args:
            room: how many entries it may have.
        """
        kind, name = split_table(self.item)
        try:
            if kind == "inline":
                return self._look_at_inline(name, room)
            if kind == "texthash":
                return self._look_at_text(Path(name), room)
            if kind in COMPILED:
                return self._look_at_compiled(Path(name), Path(name + COMPILED[kind]), room)
            self._fail(f"a table of type {kind} has no text that can be read")
        except OSError as error:
            self.tried = None
            self._fail(error.strerror or str(error))
        except UnreadableError as error:
            self._fail(str(error))
        return False

    def _fail(self, error: str) -> None:
        if self.entries is not None or error != self.error:
            _log.warning("alias_table_unreadable", table=self.name, error=error)
        self.entries, self.error = None, error

    def _look_at_inline(self, name: str, room: int) -> bool:
        if self.tried is not None:
            return False
        self.tried = ()
        pairs = inline_entries(name)
        if pairs is None:
            raise UnreadableError("Postfix would not take it")
        # Of two with one key Postfix has the last one here.
        self._keep({key.casefold(): value for key, value in pairs.items()}.items(), room)
        return True

    def _look_at_text(self, path: Path, room: int) -> bool:
        seen = _seen(path.stat())
        if self.tried == (seen,):
            return False
        is_hot = abs(time.time() - seen[2] / 1e9) < HOT
        self.tried = None if is_hot else (seen,)
        self._keep(source_entries(_read(path)), room, once=True)
        return True

    def _look_at_compiled(self, path: Path, made: Path, room: int) -> bool:
        compiled = _seen(made.stat())
        if self.entries is not None and self.tried is not None and self.tried[0] == compiled:
            return False  # Postfix has what was read
        source = _seen(path.stat())
        if self.tried == (compiled, source):
            return False
        self.tried = (compiled, source)
        if source[2] > compiled[2]:
            raise UnreadableError("its text was changed after postmap had been run")
        text = _read(path)
        if _seen(path.stat()) != source:
            self.tried = None
            raise UnreadableError("its text is being changed")
        self._keep(source_entries(text), room)
        return True

    def _keep(self, entries: Iterable[tuple[str, str]], room: int, *, once: bool = False) -> None:
        """Replace the entries; of two with one key postmap keeps the first.

        Args:
            entries: keys and values.
            room: how many there may be.
            once: Postfix does not open the table if a key stands in it twice.
        """
        found: dict[str, str] = {}
        self.full = False
        for key, value in entries:
            folded = key.casefold()
            if folded in found:
                if once:
                    raise UnreadableError("a key stands twice in it: Postfix does not open it")
                continue
            if len(found) >= room:
                self.full = True
                raise UnreadableError("more than limits.alias_entries entries")
            found[folded] = value
        self.entries, self.error = found, ""


def _seen(found: os.stat_result) -> Seen:
    return found.st_dev << 64 | found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> str:
    """Read a regular file; octets that are not UTF-8 become surrogates."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableError("not a regular file")
        content = file.read(MAX_SOURCE_BYTES + 1)
    if len(content) > MAX_SOURCE_BYTES:
        raise UnreadableError(f"a text of more than {MAX_SOURCE_BYTES} octets")
    return content.decode("utf-8", "surrogateescape")


class TextTables:
    """Tables that are read from their text, and again when that changes.

    Args:
        items: as main.cf names them.
        max_entries: of all tables together.
        counters: counts that there were more.
    """

    def __init__(self, items: Iterable[str], max_entries: int, counters: Counters) -> None:
        self._max_entries = max_entries
        self._counters = counters
        self._tables = {item: TextTable(item) for item in items}
        self._stopped = threading.Event()
        self._looked = threading.Event()

    def __getitem__(self, item: str) -> TextTable:
        """The table of that name."""
        return self._tables[item]

    @property
    def unreadable(self) -> dict[str, str]:
        """The tables that cannot be read, and why."""
        return {table.name: table.error for table in self._tables.values() if table.entries is None}

    @property
    def entries(self) -> int:
        """How many entries the tables have that can be read."""
        return sum(len(table.entries or ()) for table in self._tables.values())

    @property
    def sources(self) -> dict[str, Path]:
        """The file with the text of each table that has one."""
        tables = ((table.name, table.source) for table in self._tables.values())
        return {name: source for name, source in tables if source is not None}

    def look(self) -> None:
        """Read what has changed since the last time."""
        room = self._max_entries
        for table in self._tables.values():
            started = time.monotonic()
            was_full = table.full
            is_new = table.look(room)
            size = len(table.entries or ())
            if is_new:
                seconds = round(time.monotonic() - started, 3)
                _log.info("alias_table_read", table=table.name, entries=size, seconds=seconds)
            if table.full and not was_full:
                self._counters.inc("saturated_total", (Bound.ALIAS_ENTRIES,))
            room -= size

    def watch(self, wait: float) -> None:
        """Look from now on, in a thread; wait at most *wait* seconds for the first time."""
        threading.Thread(target=self._watch, name="aliases", daemon=True).start()
        self.await_look(wait)

    def await_look(self, wait: float) -> None:
        """Wait at most *wait* seconds until the tables were looked at for the first time."""
        self._looked.wait(wait)

    def stop(self) -> None:
        """Look no more; nobody waits any more."""
        self._stopped.set()
        self._looked.set()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - logged; the tables that are left stay
                _log.exception("alias_tables_failed", error=repr(error))
            self._looked.set()
            self._stopped.wait(LOOK_AGAIN)


class AliasTables:
    """What expands recipients by tables in text (``aliases = "static"``).

    Args:
        mta: ``[mta]``.
        max_entries: of all tables together.
        counters: counts that there were more.
    """

    def __init__(self, mta: Mta, max_entries: int, counters: Counters) -> None:
        self._rewriting = rewriting(mta)
        named = tables_of(mta)
        self.texts = TextTables(
            (item for item in dict.fromkeys(all_items(named)) if static_result(item) is None),
            max_entries,
            counters,
        )
        self._of_cleanup = mapped(named, self._lookup)

    def _lookup(self, item: str) -> Lookup:
        result = static_result(item)
        if result is not None:
            return lambda _key: result
        return self.texts[item].lookup

    def expand(self, recipient: str) -> Expansion:
        """Expand a recipient; see :func:`requiretls_milter.syntax.expansion.expand`."""
        return expand(recipient, self._of_cleanup, self._rewriting)


class AliasKeeper:
    """The tables of the configuration that is in force; for one thread.

    Args:
        counters: of the worker.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._of: tuple[Mta, int] | None = None
        self._tables: AliasTables | None = None

    def tables(self, config: Config) -> AliasTables | None:
        """The tables of *config*; None if recipients are not expanded.

        New ones are waited for, :data:`FIRST_READ` seconds at most.
        """
        wanted = (config.mta, config.limits.alias_entries)
        if self._of == wanted:
            return self._tables
        if self._tables is not None:
            self._tables.texts.stop()
        self._of, self._tables = wanted, None
        if config.mta.aliases is Aliases.STATIC:
            self._tables = AliasTables(*wanted, self._counters)
            self._tables.texts.watch(FIRST_READ)
        return self._tables


def tables_of(mta: Mta) -> Tables[str]:
    """The tables of cleanup(8) in ``[mta]``, by name."""
    return Tables(
        recipient_canonical=mta.recipient_canonical_maps,
        canonical=mta.canonical_maps,
        virtual_alias=mta.virtual_alias_maps,
    )


def all_items(named: Tables[str]) -> tuple[str, ...]:
    """The names of all tables."""
    return (*named.recipient_canonical, *named.canonical, *named.virtual_alias)


def mapped(named: Tables[str], make: Callable[[str], T]) -> Tables[T]:
    """The same tables, each as *make* makes it of its name."""
    return Tables(
        recipient_canonical=tuple(map(make, named.recipient_canonical)),
        canonical=tuple(map(make, named.canonical)),
        virtual_alias=tuple(map(make, named.virtual_alias)),
    )


def rewriting(mta: Mta) -> Rewriting:
    """The settings of cleanup(8) in ``[mta]``."""
    return Rewriting(
        Origin(mta.myorigin or mta.myhostname, mta.mydomain if mta.append_dot_mydomain else ""),
        delimiter=mta.recipient_delimiter,
        local_names=frozenset(mta.mydestination),
        local_addresses=frozenset(mta.my_addresses),
        extends_canonical="canonical" in mta.propagate_unmatched_extensions,
        extends_virtual="virtual" in mta.propagate_unmatched_extensions,
        expansion_limit=mta.virtual_alias_expansion_limit,
        recursion_limit=mta.virtual_alias_recursion_limit,
        length_limit=mta.virtual_alias_address_length_limit,
    )
