"""A finding of ``doctor``: a sentence, its severity and an advice; how findings are printed."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.console import RenderableType
from rich.text import Text

from requiretls_milter.reports.printing import BAD, GOOD, UNSURE, hanging, printed
from requiretls_milter.syntax.text import one_line, quantity

FAILED = 1
"""Exit status if there is an error."""


class Severity(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


_STYLES = {Severity.OK: GOOD, Severity.WARNING: UNSURE, Severity.ERROR: f"bold {BAD}"}

_WORD = max(map(len, Severity))
"""Columns of the longest severity."""


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


def to_text(findings: Sequence[Finding], *, width: int | None = None) -> str:
    """Print the findings for people, in the order of the checks; in colour on a terminal.

    Args:
        findings: what was found.
        width: columns; None for those of the terminal.
    """
    parts: list[RenderableType] = []
    for finding in findings:
        word = Text(f"{finding.severity.value:{_WORD}}", _STYLES[finding.severity])
        parts.append(hanging(word, one_line(finding.found)))
        if finding.advice:
            parts.append(hanging("->", one_line(finding.advice), indent=_WORD + 1))
    counts = [
        (severity, sum(one.severity is severity for one in findings))
        for severity in (Severity.ERROR, Severity.WARNING)
    ]
    told = Text(", ").join(
        Text(quantity(number, severity.value), _STYLES[severity])
        if number
        else Text(f"no {severity.value}s")
        for severity, number in counts
    )
    return printed(*parts, "", told, width=width)


def to_json(findings: Sequence[Finding]) -> str:
    """Print the findings for scripts: one array."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)
