"""The mutants that mean the same as the code, each with the reason: no test could tell them."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import PACKAGE, Mutant

LIST = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """An entry of the list: in ``within`` of ``module``, ``was`` may become ``becomes``."""

    module: str
    within: str
    was: str
    becomes: str
    why: str

    def is_about(self, mutant: Mutant) -> bool:
        """Whether *mutant* is this one."""
        return (self.module, self.within, self.was, self.becomes) == (
            mutant.module,
            mutant.within,
            mutant.was,
            mutant.becomes,
        )

    def is_current(self) -> bool:
        """Whether the module still has the line."""
        return set(self.was.splitlines()) <= _lines(self.module)

    def __str__(self) -> str:
        return f"{self.module}, {self.within}: {self.was}"


@functools.cache
def _lines(module: str) -> frozenset[str]:
    path = PACKAGE / module
    text = path.read_text() if path.exists() else ""
    return frozenset(map(str.strip, text.splitlines()))


def load() -> list[Equivalent]:
    """Read the list."""
    return [Equivalent(**entry) for entry in tomllib.loads(LIST.read_text()).get("mutant", [])]
