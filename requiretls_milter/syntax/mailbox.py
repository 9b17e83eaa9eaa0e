"""Envelope addresses as Postfix writes and reads them: quotes, lists, missing domains.

Postfix knows an address in two forms. The *external* one is that of RFC 5322, with quotes where a
local part needs them; lookup tables have their keys and results in it. The *internal* one has none:
``john doe@example.org``. Functions here do for one address what quote_822_local.c, tok822_parse.c
and the "local" rewriting of trivial-rewrite(8) do.

A text in which Postfix would find something that is not read here (a group, a source route with a
comment) is an :class:`AddressError`, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.text import quoted


class AddressError(RequiretlsMilterError, ValueError):
    """A text that Postfix may take for other addresses than this program would.

    Conclude: what it stands for is not known.
    """


class _Token(NamedTuple):
    """A word (``a``), a quoted string (``"``), an address literal (``[``) or an operator."""

    kind: str
    text: str


_WORDS = frozenset({"a", '"', "["})
_NEEDS_QUOTES = re.compile(r'[\x00-\x20\x7f()<>@,;:\\"\[\]]|^\.|\.\.|\.\Z|^\Z')
_TO_ESCAPE = re.compile(r'["\\\r]')
_COMPLETE = re.compile(
    r"[^\x00-\x20\x7f()<>@,;:\\\".\[\]|%!]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]|%!]+)*"
    r"@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+",
    re.ASCII,
)
"""An address of the usual kind, to which Postfix adds nothing."""
_BLANKS = " \t\r\n"

_TOKEN = re.compile(
    r"""
    (?P<blank>[\ \t\r\n]+)
    | "(?P<string>(?:[^"\\]|\\.)*)"
    | \[(?P<literal>[^\]\\]*)\]
    | (?P<operator>[|%!<>@,.])
    | (?P<atom>[^\x00-\x20\x7f()<>@,;:\\".\[\]|%!]+)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What Postfix adds to an address that lacks something.

    Attributes:
        myorigin: for an address without a domain.
        mydomain: for a domain without a dot; "" adds nothing (append_dot_mydomain = no).
    """

    myorigin: str
    mydomain: str = ""


# ---------------------------------------------------------------- quotes


def to_external(address: str) -> str:
    """Write an address in internal form with the quotes that its local part needs."""
    at = address.rfind("@")
    local, domain = (address[:at], address[at:]) if at >= 0 else (address, "")
    return _quoted_if_needed(local) + domain


def local_to_external(local: str) -> str:
    """Write a local part without a domain with the quotes that it needs."""
    return _quoted_if_needed(local)


def to_internal(address: str) -> str:
    """Write an address in external form without quotes; one that cannot be read stays as it is."""
    if '"' not in address and "\\" not in address:
        return address
    try:
        return "".join(token.text for token in _tokens(address))
    except AddressError:
        return address


def routed_to(address: str, origin: Origin) -> str:
    """The address that a local part names which has an operator of its own; "" for none.

    Of an address in a domain of its own Postfix drops the domain and reads what is left: the
    percent hack (``user%example.org``), a bang path (``example.org!user``) and an address in quotes
    (resolve_addr() of trivial-rewrite(8)).

    Args:
        address: in internal form, with its domain.
        origin: what completes an address.
    """
    local = address[: address.rfind("@")]
    if not any(operator in local for operator in "@!%"):
        return ""
    try:
        return _completed(list(_tokens(local)), Origin("", origin.mydomain))
    except AddressError:
        return ""


def _quoted_if_needed(local: str) -> str:
    if not _NEEDS_QUOTES.search(local):
        return local
    return '"' + _TO_ESCAPE.sub(r"\\\g<0>", local) + '"'


# ---------------------------------------------------------------- lists


def read_list(text: str, origin: Origin) -> list[str]:
    """The addresses in a list, each complete and in internal form.

    Addresses are separated by commas, or by blanks: two words with no operator between them belong
    to two addresses. Of ``Name <user@example.org>`` only what stands in brackets counts.

    Raises:
        AddressError: the text has anything else in it.
    """
    if _COMPLETE.fullmatch(text):
        return [text]
    return [_completed(part, origin) for part in _parts(list(_tokens(text)), text)]


def read_one(text: str, origin: Origin) -> str:
    """One address in external form, as a client gives it: complete, and in internal form.

    Raises:
        AddressError: the text is empty, or more than an address.
    """
    bare = text.strip(_BLANKS)
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if _COMPLETE.fullmatch(bare):
        return bare
    tokens = list(_tokens(bare))
    if len(list(_between_words(tokens))) != 1 or any(token.kind in "<>," for token in tokens):
        raise AddressError(f"not one address: {quoted(text)}")
    return _completed(tokens, origin)


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise AddressError(f"not a plain list of addresses: {quoted(text)}")
        place = match.end()
        if match["operator"] is not None:
            yield _Token(match["operator"], match["operator"])
        elif match["atom"] is not None:
            yield _Token("a", match["atom"])
        elif match["string"] is not None:
            string = re.sub(r"[\t\r\n]", " ", re.sub(r"\\(.)", r"\1", match["string"]))
            yield _Token('"', string)
        elif match["literal"] is not None:
            yield _Token("[", f"[{match['literal']}]")


def _parts(tokens: Sequence[_Token], text: str) -> Iterator[Sequence[_Token]]:
    """Split a list into its addresses: at commas, behind brackets, and between two words."""
    part: list[_Token] = []
    for token in tokens:
        if token.kind == ",":
            yield from _addresses(part, text)
            part = []
        else:
            part.append(token)
            if token.kind == ">":
                yield from _addresses(part, text)
                part = []
    yield from _addresses(part, text)


def _addresses(part: Sequence[_Token], text: str) -> Iterator[Sequence[_Token]]:
    kinds = [token.kind for token in part]
    if "<" in kinds or ">" in kinds:  # what stands before the bracket is a name
        begin = kinds.index("<") + 1 if "<" in kinds else 0
        inside = list(_between_words(part[begin:-1]))
        if begin == 0 or kinds[-1] != ">" or len(inside) != 1 or "<" in kinds[begin:]:
            raise AddressError(f"not an address in brackets: {quoted(text)}")
        yield from inside
    else:
        yield from _between_words(part)


def _between_words(part: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
    begin = 0
    for place in range(1, len(part)):
        if part[place].kind in _WORDS and part[place - 1].kind in _WORDS:
            yield part[begin:place]
            begin = place
    if part:
        yield part[begin:]


# ---------------------------------------------------------------- complete addresses


def _completed(tokens: Sequence[_Token], origin: Origin) -> str:
    """Complete an address, as trivial-rewrite(8) does in the local context (rewrite.c)."""
    address = list(tokens)
    kinds = [token.kind for token in address]
    if "@" not in kinds:
        if "!" in kinds:
            bang = kinds.index("!")
            address = [*address[bang + 1 :], _Token("@", "@"), *address[:bang]]
        elif "%" in kinds:
            percent = len(kinds) - 1 - kinds[::-1].index("%")
            address[percent] = _Token("@", "@")
        elif origin.myorigin:
            address += [_Token("@", "@"), *_tokens(origin.myorigin)]
    kinds = [token.kind for token in address]
    if "@" in kinds:
        at = len(kinds) - 1 - kinds[::-1].index("@")
        domain = kinds[at + 1 :]
        if origin.mydomain and domain and "[" not in domain and "." not in domain:
            address += [_Token(".", "."), *_tokens(origin.mydomain)]
    kinds = [token.kind for token in address]
    if len(kinds) > 1 and kinds[-1] == "." and kinds[-2] not in (".", "@"):
        del address[-1]
    return "".join(token.text for token in address)
