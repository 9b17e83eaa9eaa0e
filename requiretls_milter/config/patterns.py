"""The domains of rules and lists: ``example.org`` itself, ``.example.org`` for its subdomains.

People write many other things in the place of a domain: an address, a URL, ``*.example.org``. Each
is told with the domain that was probably meant. Pure.
"""

from __future__ import annotations

import re

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.names import DomainNameError, is_address, to_alabel
from requiretls_milter.syntax.text import quoted

MAX_SHOWN = 260
"""Characters of a domain that is to be written instead: as many as a domain has."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:(?://)?(?=[^0-9])", re.IGNORECASE | re.ASCII)
_PORT = re.compile(r":[0-9a-z-]*", re.IGNORECASE | re.ASCII)
_WRAPPING = " \t\r\n\"'<>;,\u201c\u201d\u201e\u2018\u2019\u00a0\ufeff"
_BETWEEN = re.compile(r"[\s,;]+")


class PatternError(RequiretlsMilterError, ValueError):
    """Text that is neither a domain nor a pattern for subdomains.

    Conclude: the line or key that has it is a mistake of the configuration.

    Attributes:
        why: what is wrong with it.
        instead: the domain or pattern that was probably meant; "" if that cannot be told.
    """

    def __init__(self, why: str, instead: str = "") -> None:
        self.why = why
        self.instead = instead
        super().__init__(f"{why}; write {quoted(instead, MAX_SHOWN)}" if instead else why)


def domain_pattern(text: str) -> str:
    """Return *text* in A-labels and lower case.

    Raises:
        PatternError: it is no domain.
    """
    try:
        return _pattern(text)
    except DomainNameError as error:
        raise PatternError(_why(text) or str(error), _instead(text)) from None


def domain(text: str) -> str:
    """The same of a domain alone: no pattern.

    Raises:
        PatternError: it is no domain.
    """
    try:
        return to_alabel(text)
    except DomainNameError as error:
        raise PatternError(_why(text) or str(error), _instead(text).removeprefix(".")) from None


def matched_by(pattern: str) -> str:
    """A domain that a pattern matches: one of its subdomains, or the domain itself."""
    return f"x{pattern}" if pattern.startswith(".") else pattern


def _pattern(text: str) -> str:
    return "." + to_alabel(text[1:]) if text.startswith(".") else to_alabel(text)


def _why(text: str) -> str:
    """What it is instead of a domain; "" if it is nothing that people write often."""
    bare = text.strip(_WRAPPING)
    given = quoted(text)
    if bare in ("*", "."):
        return f"{given} is not a domain name: a rule for all domains is [rules] itself"
    pieces = _BETWEEN.split(bare)
    if len(pieces) > 1:
        several = sum("." in piece for piece in pieces) > 1
        why = "but several: write each by itself" if several else "but has more beside one"
        return f"{given} is not a domain name, {why}"
    if bare.startswith("*."):
        return f'{given} is not a domain name: subdomains are written with a leading dot, no "*"'
    if "@" in bare:
        return f"{given} is an address, not a domain name"
    if is_address(bare.removeprefix("[").partition("]")[0]):
        return f"{given} is an IP address, not a domain name"
    if "://" in bare or "/" in bare:
        return f"{given} is a URL, not a domain name"
    if ":" in bare or bare.startswith("["):
        return f"{given} is not a domain name: it has no port and no brackets"
    return ""


def _instead(text: str) -> str:
    """The domain that was probably meant, if what is around it is taken away."""
    pieces = _BETWEEN.split(text.strip(_WRAPPING))
    if len(pieces) > 1:  # a line of a spreadsheet, or of a table
        pieces = [piece for piece in pieces if "." in piece]
    if len(pieces) != 1:
        return ""
    bare = pieces[0].strip(_WRAPPING)
    if match := _SCHEME.match(bare):
        bare = bare[match.end() :]
    bare = bare.partition("/")[0].rpartition("@")[2].strip(_WRAPPING)
    host, bracket, _ = bare.removeprefix("[").partition("]")
    bare = host if bracket else host.partition(":")[0] if _PORT.search(host) else host
    bare = bare.removeprefix("*")
    dot = "." if bare.startswith(".") else ""
    name = bare.strip(".")
    if not name or is_address(name):
        return ""
    try:
        return _pattern(dot + name)
    except DomainNameError:
        return ""
