"""smtp_requiretls_policy of Postfix as the ``requiretls_policy`` of ``[mta]``. Pure.

Postfix goes through a list of actions and lookup tables; the first that says
something decides (smtp_reqtls_policy_eval() in smtp_reqtls_policy.c). Ours is
one table. Both look for the name, then for its parents as ``.parent``, so that
a list of tables becomes one table, if what an earlier table decides is never
overruled by a later one's more specific name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from requiretls_milter.config.fields import policy_pattern
from requiretls_milter.mirror.postconf import Entries, split_list, without_braces
from requiretls_milter.model import RequiretlsPolicy
from requiretls_milter.syntax.names import patterns
from requiretls_milter.syntax.text import MAX_QUOTED, escape

ANY = "*"
DEFAULT = "default"

ACTIONS = {
    policy.value: policy for policy in RequiretlsPolicy if policy is not RequiretlsPolicy.INVALID
}

MAX_NAMED = 5
"""Names that a warning gives as examples."""

Value = str | Mapping[str, str]
"""As it stands in TOML: a word, or a table of them."""


@dataclass(slots=True)
class _Merged:
    """The list as far as it was read.

    ``names`` are patterns and single addresses; ``networks`` what is said of
    all addresses of IPv4 and of IPv6.
    """

    names: dict[str, RequiretlsPolicy] = field(default_factory=dict)
    networks: dict[int, RequiretlsPolicy] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    complete: bool = True

    def add_table(self, table: str, entries: Entries) -> None:
        """Take a table in that Postfix searches by name and ``.parent``."""
        new: dict[str, RequiretlsPolicy] = {}
        never = []
        for key, result in entries:
            try:
                if not key.isascii():  # Postfix asks in A-label form
                    raise ValueError
                pattern = policy_pattern(key)
            except ValueError:
                pattern = ANY
            if pattern == ANY:  # no special key in Postfix: just no name of a domain
                never.append(key)
            elif not self._decided(pattern):
                new[pattern] = action(result)
        if never:
            self.warnings.append(f"{table}: Postfix never looks for {examples(never)}")
        self.names.update(new)

    def add_cidr(self, table: str, entries: Entries) -> None:
        """Take a table of networks in: single addresses, and what is said of all of them."""
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
        """Note that Postfix knows more than we do."""
        self.complete = False
        self.warnings.append(warning)

    def _decided(self, pattern: str) -> bool:
        """Whether an earlier table has said all that there is to say of *pattern*."""
        try:
            return ipaddress.ip_address(pattern).version in self.networks or pattern in self.names
        except ValueError:
            # what Postfix would have found before it came to the pattern in a later table
            return any(key in self.names for key in patterns(pattern))


def action(text: str) -> RequiretlsPolicy:
    """An action of the list, or the result of a table: one word, in any case."""
    return ACTIONS.get(text.strip().lower(), RequiretlsPolicy.INVALID)


def examples(names: Iterable[str]) -> str:
    """A few of many names, as they may stand in a comment."""
    listed = [escape(name)[:MAX_QUOTED] for name in names]
    more = len(listed) - MAX_NAMED
    shown = ", ".join(listed[:MAX_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def mirror_policy(
    text: str, tables: Mapping[str, Entries | None], mydomain: str
) -> tuple[Value, tuple[str, ...]]:
    """What ``requiretls_policy`` has to be, and what it cannot say.

    Args:
        text: smtp_requiretls_policy, macros expanded.
        tables: the entries of each table in it, None where it cannot be read.
        mydomain: that of ``[mta]``, which the value ``default`` refers to.
    """
    merged = _Merged()
    fallback = RequiretlsPolicy.ENFORCE  # no match (smtp_reqtls_policy.c)
    for item in split_list(text):
        if ":" not in item:
            fallback = action(item)
            if fallback is RequiretlsPolicy.INVALID:
                merged.warnings.append(f"Postfix knows no {item}: it defers with 4.7.10")
            break
        kind, _, name = item.removeprefix("proxy:").removeprefix("debug:").partition(":")
        if kind == "static":
            fallback = action(without_braces(name))
            break
        entries = tables.get(item)
        if entries is None:
            merged.incomplete(f"{item[:100]}: such a table cannot be read: taken for empty")
        elif kind == "cidr":
            merged.add_cidr(item[:100], entries)
        else:
            merged.add_table(item[:100], entries)
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
                f"{fallback.value} here: a table of [mta] has no key for all addresses"
            )
    if not merged.names:
        return fallback.value
    return {**{key: policy.value for key, policy in merged.names.items()}, ANY: fallback.value}
