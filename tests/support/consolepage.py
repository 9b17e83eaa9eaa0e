"""A page of commands: what stands in its ``console`` blocks, section by section.

A command follows ``# ``; one with ``<<'END'`` goes on to the line ``END``. The lines below it, to
the next command, are what must be seen: ``...`` stands for any text on a line, or, alone on a line,
for any lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PROMPT = "# "
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY = "..."


@dataclass(frozen=True)
class Command:
    """One command of a page, and what must be seen; "" if the page does not say."""

    section: str
    step: str
    text: str
    seen: str

    def is_seen(self, output: str) -> bool:
        """Whether *output* is what must be seen."""
        lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
        return re.fullmatch("".join(map(_pattern, self.seen.splitlines())), lines) is not None

    def __str__(self) -> str:
        """Where it stands, for a failure to say."""
        return f"{self.section}, {self.step}: {self.text}"


def _pattern(line: str) -> str:
    if line == _ANY:
        return r"(?:[^\n]*\n)*"
    return re.escape(line.rstrip()).replace(re.escape(_ANY), r"[^\n]*") + r"\n"


def commands(page: str) -> Iterator[Command]:
    """Each command of a page, in order."""
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for step in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
            for block in _BLOCK.findall(step):
                for text, seen in _of_block(block):
                    yield Command(title, step.partition("\n")[0], text, seen)


def _of_block(block: str) -> Iterator[tuple[str, str]]:
    text, seen, is_open = "", "", False
    for line in block.splitlines():
        if is_open:
            text += f"\n{line}"
            is_open = line != "END"
        elif line.startswith(_PROMPT):
            if text:
                yield text, seen
            text, seen = line.removeprefix(_PROMPT), ""
            is_open = text.endswith("<<'END'")
        else:
            seen += f"{line}\n"
    yield text, seen
