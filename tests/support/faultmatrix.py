"""docs/reliability.md as its tests read it: the faults, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"


@dataclass(frozen=True)
class Row:
    """A fault, and what the page says of it; ``test`` is ``path::name``."""

    section: str
    fault: str
    mail: str
    reply: str
    metric: str
    line: str
    test: str


def rows() -> Iterator[Row]:
    """All of them, as they stand there."""
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        section = line.removeprefix("### ") if line.startswith("### ") else section
        found = re.fullmatch(r"\| (.*) \| `(tests/\S+::\w+)` \|", line)
        if found:
            fault, mail, reply, metric, log = found[1].split(" | ")
            yield Row(section, fault, mail, reply, metric, log, found[2])


ROWS = {row.fault: row for row in rows()}
