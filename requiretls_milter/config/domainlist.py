"""Lists of domains for one rule, as text files: ``domains_file`` of ``[rules.list.NAME]``.

A domain or ``.pattern`` on each line, in Unicode or as A-labels, as the names of rules have it.
What follows a ``#`` is a comment. A domain that stands twice in a file counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.syntax.text import quoted

MAX_LIST_BYTES = 8 * 1024 * 1024
"""Bytes of a file with domains; 100,000 take some 2 MB."""

MAX_DOMAINS = 100_000
"""Domains in all lists together: with more, a reload takes seconds (docs/domains.md)."""

MAX_LISTED_MISTAKES = 20
"""Mistakes of one file that are told one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class DomainList:
    """The domains of a file, canonical, in its order.

    As JSON it is an object with both, so that the processes of the service get what the file
    held; as text of the configuration it is the path.
    """

    path: str
    domains: tuple[str, ...]

    def as_json(self) -> dict[str, str]:
        """What :meth:`from_json` reads."""
        return {"path": self.path, "domains": "\n".join(self.domains)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DomainList:
        """Read what a process of the service has written; the domains are canonical already."""
        return cls(str(value["path"]), tuple(str(value["domains"]).splitlines()))


@dataclass(slots=True)
class Lines:
    """What a file with domains holds.

    Attributes:
        domains: each with the line on which it stands first.
        mistakes: the line of each, and what is wrong there: the first ones.
        wrong: how many mistakes there are.
        repeated: how many lines have a domain that stands on an earlier one too.
        dotless: the first name without a dot: allowed, but mostly the heading of a column.
    """

    domains: dict[str, int] = field(default_factory=dict)
    mistakes: list[tuple[int, str]] = field(default_factory=list)
    wrong: int = 0
    repeated: int = 0
    dotless: str = ""

    def refuse(self, line: int, why: str) -> None:
        """Note a mistake."""
        self.wrong += 1
        if len(self.mistakes) < MAX_LISTED_MISTAKES:
            self.mistakes.append((line, why))


def read_lines(content: bytes) -> Lines:
    """Read the domains in a file's *content*; every line that is none is a mistake."""
    found = Lines()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        found.refuse(1, "the file is UTF-16: save it as UTF-8")
        return found
    # a spreadsheet saves text with a byte order mark
    for number, octets in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        written = octets.partition(b"#")[0].strip()
        if not written:
            continue
        try:
            domain = domain_pattern(written.decode("utf-8"))
        except UnicodeDecodeError:
            found.refuse(number, f"{quoted(written.decode('latin-1'))} is not UTF-8")
        except PatternError as error:
            hint = f"; write {error.instead}" if error.instead else ""
            found.refuse(number, f"{error.why}{hint}")
        else:
            found.repeated += domain in found.domains
            found.domains.setdefault(domain, number)
            if "." not in domain.strip("."):
                found.dotless = found.dotless or domain
    return found
