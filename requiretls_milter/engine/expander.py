"""What recipients become, by all tables of Postfix (``[mta] aliases = "ask"``).

:meth:`Expander.expand` does what :mod:`requiretls_milter.syntax.expansion` says. Tables in text are
read (:mod:`requiretls_milter.aliases`), and all others asked (:mod:`.postmap`), also those that
postmap(1) has compiled and whose text cannot be read. For each address that needs postmap all its
keys are asked for at once, and those of the addresses behind it: an alias with a hundred members
takes one run for each table, not a hundred.

One for all workers has one cache, and starts no more processes than one may. What comes here are
addresses: they are kept in memory only, and are in no log line of the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.aliases import (
    FIRST_READ,
    TextTable,
    TextTables,
    all_items,
    mapped,
    rewriting,
    tables_of,
)
from requiretls_milter.config import Config
from requiretls_milter.engine.postmap import Answer, Failure, Postmap
from requiretls_milter.model import Aliases
from requiretls_milter.syntax.expansion import (
    Expansion,
    ExpansionError,
    Found,
    Key,
    Search,
    expanding,
    keys_of,
    lookups,
)
from requiretls_milter.syntax.secrecy import table_name
from requiretls_milter.syntax.tables import (
    COMPILED,
    TEXTUAL,
    UNREADABLE,
    is_fixed,
    split_table,
    static_result,
)
from requiretls_milter.telemetry.counting import Counters

AHEAD = 100
"""Addresses behind the one that is looked up whose keys are asked for with it."""

TURN = 50
"""Steps after which others have a turn on the loop: two milliseconds."""

Known = dict[tuple[str, str], Answer]
"""What one expansion knows already, by table and key."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table.

    Attributes:
        item: as main.cf names it.
        fixed: its keys are fixed strings.
        result: what a static one has for every key.
        text: its entries, if they can be read.
    """

    item: str
    fixed: bool
    result: str | None
    text: TextTable | None

    @property
    def is_asked(self) -> bool:
        """Whether postmap has to be asked now.

        What stands in a text alone it could read no better than we; and it takes some that no
        daemon of Postfix opens.
        """
        if self.is_hidden or self.result is not None:
            return False
        if self.text is None:
            return True
        return self.text.entries is None and split_table(self.item)[0] in COMPILED

    @property
    def is_hidden(self) -> bool:
        """Whether it stands for a table that ``[mta]`` cannot name."""
        return split_table(self.item)[0] == UNREADABLE

    def spelled(self, key: Key) -> str | None:
        """The key as Postfix looks it up in this table; None if it does not."""
        if self.fixed:
            return key.text.casefold()
        return None if key.partial else key.text


class Expander:
    """Expands recipients by the tables of one configuration; within one asyncio loop.

    Args:
        config: the configuration.
        counters: of the engine.
    """

    def __init__(self, config: Config, counters: Counters) -> None:
        mta, limits = config.mta, config.limits
        named = tables_of(mta)
        self.of = mta, limits
        """What it was made of."""
        self.texts = TextTables(
            dict.fromkeys(item for item in all_items(named) if _has_text(item)),
            limits.alias_entries,
            counters,
        )
        self._postmap = Postmap(mta.postmap_command, mta.alias_life, limits, counters)
        self._tables = mapped(named, self._table)
        self._rewriting = rewriting(mta)
        self._patience = limits.assessment_timeout
        self._reading: asyncio.Task[None] | None = None

    def _table(self, item: str) -> _Table:
        text = self.texts[item] if _has_text(item) else None
        return _Table(item, is_fixed(item), static_result(item), text)

    def __len__(self) -> int:
        """The number of answers of postmap that are kept."""
        return len(self._postmap)

    def start(self) -> None:
        """Read the tables in text from now on; recipients wait for the first time."""
        self.texts.watch(0.0)
        self._reading = asyncio.create_task(asyncio.to_thread(self.texts.await_look, FIRST_READ))

    async def close(self) -> None:
        """End all that is under way."""
        self.texts.stop()
        if self._reading is not None:
            await self._reading
        await self._postmap.close()

    async def expand(self, recipient: str) -> Expansion:
        """Expand a recipient, within ``limits.assessment_timeout``.

        Raises:
            ExpansionError: it is not known what it becomes.
        """
        try:
            async with asyncio.timeout(self._patience):
                if self._reading is not None and not self._reading.done():
                    await asyncio.shield(self._reading)
                return await self._expanded(recipient)
        except TimeoutError:
            raise ExpansionError(f"not known within {self._patience:g} s") from None

    async def _expanded(self, recipient: str) -> Expansion:
        steps = expanding(recipient, self._tables, self._rewriting)
        known: Known = {}
        taken = 0
        found: Found = None
        while True:
            try:
                search = steps.send(found)
            except StopIteration as end:
                expansion: Expansion = end.value
                return expansion
            found = await self._found(search, known)
            taken += 1
            if taken % TURN == 0:
                await asyncio.sleep(0)

    async def _found(self, search: Search[_Table], known: Known) -> Found:
        for key, table in lookups(search):
            text = table.spelled(key)
            if text is None:
                continue
            answer = await self._answer(table, text, search, known)
            if isinstance(answer, Failure):
                raise ExpansionError(f"{table_name(table.item)}: {answer.error}")
            if answer is not None:
                return key, answer
        return None

    async def _answer(
        self, table: _Table, text: str, search: Search[_Table], known: Known
    ) -> Answer:
        if table.result is not None:
            return table.result
        if table.is_hidden:
            return Failure("it cannot be named in mta")
        if table.text is not None and not table.is_asked:
            entries = table.text.entries
            return Failure(table.text.error) if entries is None else entries.get(text)
        if (table.item, text) not in known:
            await self._ask({table.item: {text: None}}, search, known)
        return known[table.item, text]

    async def _ask(
        self, wanted: dict[str, dict[str, None]], search: Search[_Table], known: Known
    ) -> None:
        """Ask for keys by table, and with them for what this search and those after it may need."""
        keys = tuple(self._keys(search))
        for table in search.tables:
            if table.is_asked:
                texts = (table.spelled(key) for key in keys)
                wanted.setdefault(table.item, {}).update(
                    (text, None)
                    for text in texts
                    if text is not None and (table.item, text) not in known
                )
        answers = await asyncio.gather(*map(self._postmap.find, wanted, wanted.values()))
        for item, found in zip(wanted, answers, strict=True):
            _add(known, item, found)

    def _keys(self, search: Search[_Table]) -> Iterator[Key]:
        yield from search.keys
        for address in search.addresses[search.place + 1 : search.place + 1 + AHEAD]:
            yield from keys_of(address, self._rewriting)


def _add(known: Known, item: str, found: Mapping[str, Answer]) -> None:
    known.update(((item, key), answer) for key, answer in found.items())


def _has_text(item: str) -> bool:
    return split_table(item)[0] in TEXTUAL and static_result(item) is None


def expanded_here(recipient: str, config: Config) -> Expansion:
    """Expand a recipient in this process, for a command; see :meth:`Expander.expand`."""

    async def expanded() -> Expansion:
        expander = Expander(config, Counters())
        try:
            await asyncio.to_thread(expander.texts.look)
            return await expander.expand(recipient)
        finally:
            await expander.close()

    return asyncio.run(expanded())


class ExpanderKeeper:
    """The expander of the configuration that is in force.

    Args:
        counters: of the engine.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._expander: Expander | None = None

    @property
    def expander(self) -> Expander | None:
        """None if the engine expands no recipients."""
        return self._expander

    def configure(self, config: Config) -> Expander | None:
        """Make another one, unless nothing that it is made of has changed.

        Returns:
            The former one if there was another: the caller closes it.
        """
        before = self._expander
        if before is not None and before.of == (config.mta, config.limits):
            return None
        self._expander = None
        if config.mta.aliases is Aliases.ASK:
            self._expander = Expander(config, self._counters)
            self._expander.start()
        return before
