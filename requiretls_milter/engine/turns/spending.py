"""What was used of the budgets outlives the engine: a restart is no reason to call hosts anew.

Only debts that last are stored (:data:`~requiretls_milter.evidence.budgets.WORTH_KEEPING`), in one
record for each kind of budget, every few seconds and only if something changed. So most of the
time nothing is written, and a flood costs a write in :data:`SAVE_INTERVAL`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.evidence.budgets import KINDS, MAX_DEBTS, Budgets, Debt
from requiretls_milter.store.base import StoreKind
from requiretls_milter.syntax.strict import StrictModel, decoded

SAVE_INTERVAL = 5.0
"""Seconds between two writes: what is spent within them may be lost if the engine is killed."""

MAX_KEY = 300
"""Characters of a key: an address or network, and a zone."""

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Key = Annotated[str, Field(max_length=MAX_KEY)]


class _Spending(StrictModel):
    v: Literal[1] = 1
    at: _Seconds
    debts: Annotated[tuple[tuple[_Key, tuple[_Seconds, ...]], ...], Field(max_length=MAX_DEBTS)]


class SpendingKeeper:
    """Stores what was spent, and gives it back to the next engine.

    Args:
        budgets: what is stored.
        records: where.
        node: this host: others of a fleet have budgets of their own.
        clocks: only the wall clock counts.
    """

    def __init__(
        self, budgets: Budgets, records: RecordStore, node: str, clocks: Clocks = SYSTEM_CLOCKS
    ) -> None:
        self._budgets = budgets
        self._records = records
        self._node = node
        self._wall = clocks.wall
        self._saved_changes = 0
        self._stored: set[str] = set()

    async def load(self) -> None:
        """Take over what an earlier engine had spent; what a store says is bounded."""
        now = self._wall()
        for kind in KINDS:
            found = await self._records.read(StoreKind.BUDGET, self._key(kind), decode, now)
            if found is not None:
                self._stored.add(kind)
                debts = (Debt(key, seconds) for key, seconds in found.debts)
                self._budgets.restore(kind, debts, now - found.at)

    async def save(self) -> None:
        """Store what is worth it, if anything was spent since the last time."""
        if self._budgets.changes == self._saved_changes:
            return
        self._saved_changes = self._budgets.changes
        now = self._wall()
        for kind in KINDS:
            debts = self._budgets.debts(kind)
            if debts:
                longest = max(max(debt.seconds) for debt in debts)
                value = _Spending(at=now, debts=debts).model_dump_json().encode()
                await self._records.write(
                    StoreKind.BUDGET, self._key(kind), value, now + longest, now
                )
                self._stored.add(kind)
            elif kind in self._stored:
                await self._records.delete(StoreKind.BUDGET, self._key(kind))
                self._stored.discard(kind)

    def _key(self, kind: str) -> str:
        return f"{kind}@{self._node}"


def decode(value: bytes) -> _Spending:
    """Decode a record.

    Raises:
        RecordError: the bytes are no record of ours.
    """
    return decoded(_Spending.model_validate_json, value, RecordError, "record")
