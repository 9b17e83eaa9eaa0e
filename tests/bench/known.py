"""The rows that there are, each in a module that is imported when it is measured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.rows import Effort, Row


@dataclass(frozen=True)
class Known:
    """A row: the module with the function that measures it.

    Attributes:
        inside: it measures code in its own process; else processes that it starts.
    """

    module: str
    function: str
    inside: bool = False

    def measure(self, effort: Effort) -> Row:
        """Measure it."""
        found = getattr(importlib.import_module(f"tests.bench.{self.module}"), self.function)
        row = found(effort)
        assert isinstance(row, Row)
        return row


ROWS: Mapping[str, Known] = {
    "plain": Known("mail", "plain"),
    "asked": Known("mail", "asked"),
    "warm": Known("warm", "warm"),
    "judge": Known("judge", "judged", inside=True),
    "scrape": Known("scrape", "scraped", inside=True),
    "store": Known("store", "store", inside=True),
    "memory": Known("memory", "memory"),
    "startup": Known("startup", "startup"),
    "cli": Known("cli", "cli"),
    "day": Known("day", "day", inside=True),
    "scale": Known("scale", "scale", inside=True),
    "tarpits": Known("tarpits", "tarpits", inside=True),
    "cold": Known("cold", "assessed"),
    "postfix": Known("postfix", "postfix"),
    "peers": Known("peers", "peers", inside=True),
}
"""In the order in which they are run; those that need the lab, with its network, come last."""
