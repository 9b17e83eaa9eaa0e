"""``doctor``: what of this installation is right, what is not, and what to do about it.

The findings come from two places: :mod:`requiretls_milter.doctor.mta` compares
the configuration with the Postfix that asks us, without I/O of its own, and
:mod:`requiretls_milter.doctor.host` looks at this host: sockets, the running
service, the resolver, the world outside.
"""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from requiretls_milter.syntax.text import one_line

WIDTH = 96
"""Characters of a line of text."""

FAILED = 1
"""Exit status where there is an error."""


class Severity(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    ``check`` is a word for scripts; ``found`` a sentence; ``advice`` says what
    to do, and is empty where nothing is.
    """

    check: str
    severity: Severity
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """A finding that needs no action."""
    return Finding(check, Severity.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """Something that will surprise somebody, or may."""
    return Finding(check, Severity.WARNING, found, advice)


def error(check: str, found: str, advice: str) -> Finding:
    """Something that keeps us from doing our work, or makes what we say wrong."""
    return Finding(check, Severity.ERROR, found, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """0, or :data:`FAILED` where there is an error."""
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return FAILED if failed else 0


def to_text(findings: Sequence[Finding]) -> str:
    """The findings for people, in the order in which things were looked at."""
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
    """The findings for scripts: one array."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
