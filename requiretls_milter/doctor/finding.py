"""A finding of ``doctor``: a sentence, its severity and an advice; how findings are printed."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from requiretls_milter.syntax.text import LINE_WIDTH, one_line

FAILED = 1
"""Exit status if there is an error."""


class Severity(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    ``check`` is a word for scripts, ``found`` a sentence. ``advice`` says what
    to do; it is empty if there is nothing to do.
    """

    check: str
    severity: Severity
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """Make a finding that needs no action."""
    return Finding(check, Severity.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """Make a finding of something that will or may surprise the operator or a user."""
    return Finding(check, Severity.WARNING, found, advice)


def error(check: str, found: str, advice: str) -> Finding:
    """Make a finding of something that stops the milter from working, or makes forecasts wrong."""
    return Finding(check, Severity.ERROR, found, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 0, or :data:`FAILED` if there is an error."""
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return FAILED if failed else 0


def to_text(findings: Sequence[Finding]) -> str:
    """Print the findings for people, in the order of the checks."""
    lines: list[str] = []
    for finding in findings:
        lines += _wrapped(f"{finding.severity.value:8} ", one_line(finding.found))
        if finding.advice:
            lines += _wrapped(" " * 9 + "-> ", one_line(finding.advice))
    counts = [
        _count(sum(one.severity is severity for one in findings), severity.value)
        for severity in (Severity.ERROR, Severity.WARNING)
    ]
    return "\n".join([*lines, "", ", ".join(counts)])


def to_json(findings: Sequence[Finding]) -> str:
    """Print the findings for scripts: one array."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        LINE_WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
