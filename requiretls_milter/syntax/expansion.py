"""What a recipient becomes in Postfix before it is delivered: canonical maps and virtual aliases.

cleanup(8) completes the address, rewrites it by recipient_canonical_maps and canonical_maps (one
address becomes one other, :func:`_canonical`), and expands it by virtual_alias_maps (one becomes
many, :func:`_aliases`). :func:`expanding` does the same, and leaves the lookups to its caller: it
is a generator of what is to be looked up (cleanup_map11.c, cleanup_map1n.c, mail_addr_map.c and
mail_addr_find.c of Postfix). :func:`expand` looks up at once, in tables that are in memory.

Where Postfix would not take the message, or where a table or a result cannot be read, there is an
:class:`ExpansionError`: nothing is known then of what the recipient becomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.mailbox import (
    AddressError,
    Origin,
    local_to_external,
    read_list,
    read_one,
    to_external,
)
from requiretls_milter.syntax.names import address_literal
from requiretls_milter.syntax.text import quoted

MAX_CANONICAL = 10
"""Times that one address is rewritten by canonical maps (MAX_RECURSION of cleanup_map11.c)."""

MAX_STEPS = 10_000
"""Addresses that are looked up for one recipient: a third of a second. Postfix has only its own two
limits, whose product would take half a minute here; a real alias takes a few hundred."""

UNSPLIT = frozenset({"postmaster", "mailer-daemon", "double-bounce"})
"""Local parts in which Postfix sees no extension (split_addr.c)."""

T = TypeVar("T")

Lookup = Callable[[str], str | None]
"""Looks a key up, in lower case and with the quotes that it needs; None if the table has it not.

It raises :class:`ExpansionError` if it cannot tell.
"""


class ExpansionError(RequiretlsMilterError):
    """It is not known what Postfix makes of a recipient; the text says why.

    Conclude: the recipient is what the client wrote.
    """


@dataclass(frozen=True, slots=True)
class Tables(Generic[T]):
    """The lookup tables of cleanup(8), each parameter's in their order."""

    recipient_canonical: Sequence[T] = ()
    canonical: Sequence[T] = ()
    virtual_alias: Sequence[T] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """What an address is looked up by.

    Attributes:
        text: with the quotes that it needs; a table of fixed strings has it in lower case.
        partial: it is a part of the address, which Postfix does not look up in tables of patterns
            (maps_find() with DICT_FLAG_FIXED).
        unmatched: the extension that it leaves out.
    """

    text: str
    partial: bool = False
    unmatched: str = ""


@dataclass(frozen=True, slots=True)
class Search(Generic[T]):
    """A search in tables: the first of the keys counts that any of the tables has.

    Attributes:
        keys: in the order in which they count. Each is looked up in all tables before the next.
        tables: in their order.
        addresses: all that the recipient has become so far.
        place: of these, the one whose keys are looked up; those behind it come after it.
    """

    keys: Sequence[Key]
    tables: Sequence[T]
    addresses: Sequence[str] = ()
    place: int = 0


Found = tuple[Key, str] | None
"""The key that counts, and the text that a table has for it; None if no table has any of them."""

Steps = Generator[Search[T], Found, "Expansion"]
"""Yields what to search for, is sent what was found, and returns what becomes of the recipient."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The settings of Postfix that decide how addresses are looked up and expanded.

    Attributes:
        origin: what completes an address.
        delimiter: recipient_delimiter.
        local_names: the domains whose users are looked up without a domain too (mydestination), in
            lower case; that of :attr:`origin` is among them anyway.
        local_addresses: the same for address literals (inet_interfaces, proxy_interfaces).
        extends_canonical: propagate_unmatched_extensions has ``canonical``.
        extends_virtual: propagate_unmatched_extensions has ``virtual``.
        expansion_limit: addresses of one recipient.
        recursion_limit: expansions one after the other.
        length_limit: octets of one address.
    """

    origin: Origin
    delimiter: str = ""
    local_names: frozenset[str] = frozenset()
    local_addresses: frozenset[str] = frozenset()
    extends_canonical: bool = True
    extends_virtual: bool = True
    expansion_limit: int = 1000
    recursion_limit: int = 1000
    length_limit: int = 1000

    def is_local(self, domain: str) -> bool:
        """Whether Postfix looks up the users of a domain without it (resolve_local.c)."""
        folded = domain.casefold()
        if folded == self.origin.myorigin.casefold():
            return True
        name = folded.removesuffix(".")
        if name in self.local_names:
            return True
        if name.startswith("[") and name.endswith("]"):
            return address_literal(name[1:-1].removeprefix("ipv6:")) in self.local_addresses
        return False


@dataclass(frozen=True, slots=True)
class Expansion:
    """What becomes of a recipient.

    Attributes:
        given: the address as the client wrote it, complete.
        addresses: where the message goes in its place, each once, in the order of the tables. All
            addresses are in internal form: without quotes.
    """

    given: str
    addresses: tuple[str, ...]

    @property
    def unchanged(self) -> bool:
        """Whether the message goes to the address that was given, and to no other."""
        return len(self.addresses) == 1 and same(self.addresses[0], self.given)


def same(one: str, other: str) -> bool:
    """Whether Postfix takes two addresses for one, when it expands them or drops duplicates."""
    return one.casefold() == other.casefold()


def expand(recipient: str, tables: Tables[Lookup], rewriting: Rewriting) -> Expansion:
    """Expand a recipient by tables of fixed strings.

    Args:
        recipient: an envelope address as the client wrote it, with or without ``<>``.
        tables: of cleanup(8).
        rewriting: its settings.

    Raises:
        ExpansionError: it is not known what the recipient becomes.
    """
    steps = expanding(recipient, tables, rewriting)
    found: Found = None
    try:
        while True:
            search = steps.send(found)
            found = None
            for key, lookup in lookups(search):
                text = lookup(key.text.casefold())
                if text is not None:
                    found = key, text
                    break
    except StopIteration as end:
        expansion: Expansion = end.value
        return expansion


def lookups(search: Search[T]) -> Iterator[tuple[Key, T]]:
    """Yield each lookup of a search, in the order in which they count."""
    for key in search.keys:
        for table in search.tables:
            yield key, table


def expanding(recipient: str, tables: Tables[T], rewriting: Rewriting) -> Steps[T]:
    """Expand a recipient step by step; the arguments are those of :func:`expand`.

    The generator knows no table: it names those of *tables* in which to search.

    Raises:
        ExpansionError: it is not known what the recipient becomes.
    """
    try:
        given = read_one(recipient, rewriting.origin)
        address = yield from _canonical(given, tables.recipient_canonical, rewriting)
        address = yield from _canonical(address, tables.canonical, rewriting)
        found = yield from _aliases(address, tables.virtual_alias, rewriting)
    except AddressError as error:
        raise ExpansionError(str(error)) from error
    return Expansion(given, tuple({one.casefold(): one for one in reversed(found)}.values())[::-1])


def _canonical(
    address: str, tables: Sequence[T], rewriting: Rewriting
) -> Generator[Search[T], Found, str]:
    """Rewrite an address until nothing changes; Postfix gives up silently after some times."""
    if not tables:
        return address
    for _ in range(MAX_CANONICAL):
        search = Search(keys_of(address, rewriting), tables)
        found = _mapped(
            address, (yield search), rewriting.origin, extend=rewriting.extends_canonical
        )
        if found is None:
            return address
        before, address = address, found[0]
        if same(before, address):
            return address
    return address


def _aliases(
    recipient: str, tables: Sequence[T], rewriting: Rewriting
) -> Generator[Search[T], Found, list[str]]:
    """Expand an address, each result in its turn; one that expands to itself is kept."""
    addresses = [recipient]
    if not tables:
        return addresses
    done: set[str] = set()
    place = steps = 0
    while place < len(addresses):
        if len(addresses) > rewriting.expansion_limit:
            raise ExpansionError(f"{quoted(recipient)} expands to too many addresses")
        for count in itertools.count():
            address = addresses[place]
            if address.casefold() in done:
                break
            if count >= rewriting.recursion_limit:
                raise ExpansionError(f"{quoted(recipient)} expands too often, perhaps in a circle")
            steps += 1
            if steps > MAX_STEPS:
                raise ExpansionError(f"{quoted(recipient)} takes more than {MAX_STEPS} steps")
            search = Search(keys_of(address, rewriting), tables, addresses, place)
            found = _mapped(
                address, (yield search), rewriting.origin, extend=rewriting.extends_virtual
            )
            if found is None:
                break
            if any(len(one.encode()) > rewriting.length_limit for one in found):
                raise ExpansionError(f"{quoted(recipient)} expands to an address that is too long")
            addresses[place] = found[0]
            addresses += found[1:]
            if any(same(one, address) for one in found):
                done.add(address.casefold())
        place += 1
    return addresses


# ---------------------------------------------------------------- one lookup


def _mapped(address: str, found: Found, origin: Origin, *, extend: bool) -> list[str] | None:
    """Read what was found for an address: its addresses, or None if no table has it."""
    if found is None:
        return None
    key, text = found
    if text.startswith("@"):  # the same user in another domain
        at = address.rfind("@")
        user = address[:at] if at >= 0 else address
        text = to_external(user.removesuffix(key.unmatched) + text)
    addresses = read_list(text, origin)
    if not addresses:
        raise ExpansionError(f"the result for {quoted(key.text)} is no address")
    return [_extended(one, key.unmatched) for one in addresses] if extend else addresses


def keys_of(address: str, rewriting: Rewriting) -> tuple[Key, ...]:
    """The keys of an address: itself, without extension, its user, its domain."""
    return tuple(key for key in _keys(address, rewriting) if key.text)


def _keys(address: str, rewriting: Rewriting) -> Iterator[Key]:
    bare, extension = without_extension(address, rewriting.delimiter)
    yield Key(to_external(address))
    if extension:
        yield Key(to_external(bare), True, extension)
    at = address.rfind("@")
    if at < 0:
        return
    if rewriting.is_local(address[at + 1 :]):
        yield Key(local_to_external(address[:at]), True)
        if extension:
            yield Key(local_to_external(bare[: bare.rfind("@")]), True, extension)
    yield Key(address[at:], True)


def without_extension(address: str, delimiter: str) -> tuple[str, str]:
    """Split an address into one without extension, and the extension with its delimiter.

    Postfix sees none in postmaster and the like; nor, if ``-`` is a delimiter, in the owner of a
    list (split_addr.c).
    """
    at = address.rfind("@")
    local, domain = (address[:at], address[at:]) if at >= 0 else (address, "")
    lower = local.lower()
    if not delimiter or lower in UNSPLIT:
        return address, ""
    if "-" in delimiter and (lower.startswith("owner-") or lower[1:].endswith("-request")):
        return address, ""
    place = next((i for i, character in enumerate(local) if character in delimiter), 0)
    if place == 0:  # none, or nothing before it
        return address, ""
    return local[:place] + domain, local[place:]


def _extended(address: str, extension: str) -> str:
    at = address.rfind("@")
    return address[:at] + extension + address[at:] if at >= 0 else address + extension
