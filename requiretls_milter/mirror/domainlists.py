"""Lists of domains in main.cf: mydestination, relay_domains and the like. Pure.

Postfix goes through such a list from its beginning; the first item that matches decides, and one
with ``!`` decides that the domain is not in the list (match_list.c). An item is a name, a file with
further items, or a table whose keys are names. relay_domains matches subdomains too
(match_hostname()), the others names alone (match_string()).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from requiretls_milter.config.routes import ANY
from requiretls_milter.config.values import route_key
from requiretls_milter.mirror.postconf import Parameters, Postfix, is_outside, list_items
from requiretls_milter.syntax.names import patterns
from requiretls_milter.syntax.tables import split_list, static_result

MAX_DEPTH = 10
"""Files within files that are followed."""

WITH_SUBDOMAINS = "relay_domains"
"""The list in which ``.example.org`` stands for subdomains."""


@dataclass(slots=True)
class DomainList:
    """A list, as far as it can be read.

    Attributes:
        members: keys of transport(5), ``*`` for all domains, each with whether it is in the list.
            The most specific one decides.
        unknown: items that cannot be read.
        unicode: names in Unicode, which Postfix does not take for their A-labels.
    """

    members: dict[str, bool] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    unicode: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The keys in the list."""
        return [name for name, is_in in self.members.items() if is_in]

    @property
    def plain(self) -> list[str]:
        """The keys in the list that are neither addresses nor ``*``."""
        return [name for name in self.names if name[0] not in "[*"]

    def matches(self, key: str) -> bool:
        """Whether a domain, or the subdomains of one, are in the list."""
        return next((self.members[one] for one in covering(key) if one in self.members), False)

    def add(self, keys: Sequence[str], *, negated: bool) -> None:
        """Add keys of one item, behind those of the items before it."""
        new = [key for key in keys if not any(name in self.members for name in covering(key))]
        self.members.update(dict.fromkeys(new, not negated))


def covering(key: str) -> Iterator[str]:
    """Yield the keys that match a domain or a pattern, the most specific first."""
    yield from patterns(key)
    yield ANY


def domain_list(main: Parameters, parameter: str, postfix: Postfix) -> DomainList:
    """Read a list of domains."""
    made = DomainList()
    subdomains = parameter == WITH_SUBDOMAINS
    parents = split_list(main.get("parent_domain_matches_subdomains", WITH_SUBDOMAINS))
    with_parents = subdomains and parameter in parents
    for item, negated in _items(main.get(parameter, ""), postfix):
        if static_result(item) is not None:
            made.add([ANY], negated=negated)
            break  # it matches each domain
        names: Sequence[str] | None = (item,)
        is_table = is_outside(item)
        if is_table:
            names = None if item.startswith("/") else postfix.domains.get(item)
        if names is None:
            made.unknown.append(item)
            continue
        made.unicode += (name for name in names if not name.isascii())
        keys: list[str] = []
        for name in names:
            if name.startswith(".") and (with_parents or not subdomains):
                continue  # no domain begins with a dot, and here nothing else is looked up
            try:
                keys.append(_key(name))
            except ValueError:
                if not is_table:  # Postfix never looks up such a key
                    made.unknown.append(name)
        if with_parents:
            keys += [f".{key}" for key in keys if not key.startswith("[")]
        made.add(keys, negated=negated)
    return made


def origin_names(main: Parameters, postfix: Postfix) -> list[str]:
    """The names of myorigin: itself, or those in its file (Debian: /etc/mailname)."""
    origin = main.get("myorigin", "")
    entries = postfix.tables.get(origin) if is_outside(origin) else ((origin, ""),)
    return [name for name, _ in entries or () if name]


def _key(name: str) -> str:
    if "@" in name or name == ANY:
        raise ValueError(name)
    return route_key(name)


def _items(
    text: str, postfix: Postfix, *, negated: bool = False, depth: int = 0
) -> Iterator[tuple[str, bool]]:
    """Yield the items of a list with those of its files; of one that is not read, itself."""
    for item in list_items(text, postfix.version):
        name = item.lstrip("!")
        is_negated = negated ^ (len(item) - len(name)) % 2 == 1
        inner = postfix.domains.get(name) if name.startswith("/") else None
        if inner is None or depth > MAX_DEPTH:
            yield name, is_negated
            continue
        for line in inner:
            yield from _items(line, postfix, negated=is_negated, depth=depth + 1)
