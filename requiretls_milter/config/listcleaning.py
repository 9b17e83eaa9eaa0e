"""A list of domains as it came from elsewhere becomes one that the configuration takes. Pure.

Every line is looked at, however many are wrong. A line that is right stays as it is, with its
comment; one that is not, but says which domain was meant, has that domain; a domain that stands
twice goes; and what names no domain stays as a comment, so that nothing is lost unseen.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.syntax.text import printable, quoted

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""What spreadsheets write before a text, and how the rest is encoded."""

_BETWEEN = re.compile(r"[\s,;]+")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not as it should be.

    Attributes:
        line: its number.
        why: what is wrong with it.
        instead: the domains that are written in its place; () if none can be told.
    """

    line: int
    why: str
    instead: tuple[str, ...] = ()


@dataclass(slots=True)
class Cleaned:
    """A list that was cleaned.

    Attributes:
        lines: of the clean list.
        domains: each, canonical, with the line on which it stood first.
        findings: the lines that were not right.
        repeated: lines that were left out, since an earlier one has their domain.
    """

    lines: list[str] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    findings: list[BadLine] = field(default_factory=list)
    repeated: int = 0

    @property
    def unusable(self) -> int:
        """How many lines name no domain."""
        return sum(not one.instead for one in self.findings)

    @property
    def text(self) -> str:
        """The clean list."""
        return "".join(f"{line}\n" for line in self.lines)


def clean(content: bytes) -> Cleaned:
    """Clean a list: the octets of a text file, one domain on a line."""
    cleaned = Cleaned()
    lines = _decoded(content).split("\n")
    if lines and not lines[-1].strip():
        lines.pop()  # what follows the last end of line is no line
    for number, line in enumerate(lines, start=1):
        _take(cleaned, number, line.strip())
    return cleaned


def _decoded(content: bytes) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # That of older spreadsheets in the west; a name that is wrong so is found nowhere.
        return content.decode("cp1252", "replace")


def _take(cleaned: Cleaned, number: int, line: str) -> None:
    written, mark, comment = line.partition("#")
    written = written.strip()
    if not written:
        cleaned.lines.append(line)
        return
    found: tuple[str, ...] = (written,)
    canonical: tuple[str, ...]
    try:
        canonical = (domain_pattern(written),)
        if "." not in written:  # allowed, and mostly the heading of a column
            raise PatternError(f"{quoted(written)} has no dot")
    except PatternError as error:
        meant = (error.instead,) if error.instead else _several(written)
        found = canonical = meant if all("." in one for one in meant) else ()
        cleaned.findings.append(BadLine(number, error.why, found))
        if not found:
            cleaned.lines.append(f"# not a domain: {printable(line)}")
            return
    for text, domain in zip(found, canonical, strict=True):
        if domain in cleaned.domains:
            cleaned.repeated += 1
            continue
        cleaned.domains[domain] = number
        cleaned.lines.append(f"{text}  {mark}{comment}".rstrip() if mark else text)


def _several(written: str) -> tuple[str, ...]:
    """The domains of a line that has nothing but several; () if it has anything else."""
    pieces = [one for one in _BETWEEN.split(written) if one]
    try:
        return tuple(map(domain_pattern, pieces))
    except PatternError:
        return ()


def sentence(finding: BadLine) -> str:
    """What is wrong with a line, and what to write instead."""
    if not finding.instead:
        return finding.why
    return f"{finding.why}; write {' and '.join(quoted(one) for one in finding.instead)}"
