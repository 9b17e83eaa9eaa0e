"""Translate Postfix's smtp_requiretls_policy into ``requiretls_policy`` of ``[mta]``. Pure.

Postfix goes through a list of actions and lookup tables; the first one with a
result decides (smtp_reqtls_policy_eval() in smtp_reqtls_policy.c). ``[mta]``
has one table. Both look up the name, then its parents as ``.parent``. So a list
of tables can be merged into one table, provided that a more specific name of a
later table never overrides what an earlier table decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from requiretls_milter.config.values import policy_pattern
from requiretls_milter.mirror.postconf import Entries
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.model import RequiretlsPolicy
from requiretls_milter.syntax.names import patterns
from requiretls_milter.syntax.tables import split_list, split_table, without_braces

ANY = "*"
DEFAULT = "default"

ACTIONS = {
    policy.value: policy for policy in RequiretlsPolicy if policy is not RequiretlsPolicy.INVALID
}

Value = str | Mapping[str, str]
"""The value in TOML: a word, or a table of words."""


@dataclass(slots=True)
class _Merged:
    """The list as far as it has been read.

    ``names`` has the policies of patterns and single addresses, ``networks``
    those of all IPv4 and of all IPv6 addresses. ``complete`` is false once
    something in the list could not be read.
    """

    names: dict[str, RequiretlsPolicy] = field(default_factory=dict)
    networks: dict[int, RequiretlsPolicy] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    complete: bool = True

    def add_table(self, table: str, entries: Entries) -> None:
        """Merge a table that Postfix searches by name and ``.parent``."""
        new: dict[str, RequiretlsPolicy] = {}
        unused = []
        for key, result in entries:
            try:
                if not key.isascii():  # Postfix looks up A-labels
                    raise ValueError
                pattern = policy_pattern(key)
            except ValueError:
                pattern = ANY
            if pattern == ANY:  # no special key in Postfix, and no domain name
                unused.append(key)
            elif not self._decided(pattern):
                new[pattern] = action(result)
        if unused:
            self.warnings.append(f"{table}: Postfix never looks up {examples(unused)}")
        self.names.update(new)

    def add_cidr(self, table: str, entries: Entries) -> None:
        """Merge a table of networks: its single addresses, and entries for all addresses."""
        others = []
        for pattern, result in entries:
            try:
                network = ipaddress.ip_network(pattern, strict=False)
            except ValueError:
                others.append(pattern)
                continue
            if network.prefixlen == 0:
                self.networks.setdefault(network.version, action(result))
            elif network.num_addresses != 1:
                others.append(pattern)
            elif network.version not in self.networks:
                self.names.setdefault(str(network.network_address), action(result))
        if others:
            self.incomplete(f"{table}: networks are not mirrored: {examples(others)}")

    def incomplete(self, warning: str) -> None:
        """Note that Postfix reads an entry that is not mirrored."""
        self.complete = False
        self.warnings.append(warning)

    def _decided(self, pattern: str) -> bool:
        """Whether an earlier table decides for every name that *pattern* matches."""
        try:
            return ipaddress.ip_address(pattern).version in self.networks or pattern in self.names
        except ValueError:
            # the keys that Postfix would have found in an earlier table than this pattern's
            return any(key in self.names for key in patterns(pattern))


def action(text: str) -> RequiretlsPolicy:
    """Parse an action of the list or a result of a table: one word in any case."""
    return ACTIONS.get(text.strip().lower(), RequiretlsPolicy.INVALID)


def mirror_policy(
    text: str, tables: Mapping[str, Entries | None], mydomain: str
) -> tuple[Value, tuple[str, ...]]:
    """Return the value of ``requiretls_policy``, and warnings of what it cannot express.

    Args:
        text: smtp_requiretls_policy, macros expanded.
        tables: the entries of each table in it; None if the table cannot be read.
        mydomain: that of ``[mta]``, to which the value ``default`` refers.
    """
    merged = _Merged()
    fallback = RequiretlsPolicy.ENFORCE  # no match (smtp_reqtls_policy.c)
    for item in split_list(text):
        if ":" not in item:
            fallback = action(item)
            if fallback is RequiretlsPolicy.INVALID:
                merged.warnings.append(
                    f"Postfix does not know {shown(item)}: it defers with 4.7.10"
                )
            break
        kind, name = split_table(item)
        if kind == "static":
            fallback = action(without_braces(name))
            break
        entries = tables.get(item)
        if entries is None:
            merged.incomplete(f"{shown(item)}: such a table cannot be read: mirrored as empty")
        elif kind == "cidr":
            merged.add_cidr(shown(item), entries)
        else:
            merged.add_table(shown(item), entries)
    return _value(merged, fallback, mydomain.lower()), tuple(merged.warnings)


def _value(merged: _Merged, fallback: RequiretlsPolicy, mydomain: str) -> Value:
    relaxed = RequiretlsPolicy.OPPORTUNISTIC
    own = {mydomain: relaxed, f".{mydomain}": relaxed, "localhost": relaxed}
    if (
        merged.complete
        and merged.names == own
        and merged.networks == {4: relaxed, 6: relaxed}
        and fallback is RequiretlsPolicy.ENFORCE
    ):
        return DEFAULT
    for version, policy in sorted(merged.networks.items()):
        if policy is not fallback:
            merged.warnings.append(
                f"a next hop that is an IPv{version} address: {policy.value} in Postfix, but "
                f"{fallback.value} in the mirror: [mta] has no key for all addresses"
            )
    if not merged.names:
        return fallback.value
    return {**{key: policy.value for key, policy in merged.names.items()}, ANY: fallback.value}
