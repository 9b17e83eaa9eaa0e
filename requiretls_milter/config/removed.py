"""Keys that the configuration had and has no longer: for one release they are let pass.

A file that has one of them is read as if it had not, whatever the value, and ``config check`` and
``serve`` warn of it. To remove a key: delete its field from the schema, add it to :data:`REMOVED`,
and say so in CHANGELOG.md; docs/configuration.md lists the table. The release after that takes the
key out of the table: then it is an unknown key, which is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from requiretls_milter.config.mistakes import ANY_NAME, dotted

REMOVED: Mapping[tuple[str, ...], str] = {
    ("mta", "mx_session_limit"): "it had no effect on a forecast",
    ("mta", "transport", ANY_NAME, "mx_session_limit"): "it had no effect on a forecast",
}
"""The path of each key, and why it was removed."""


def without_removed(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a configuration, as TOML has it, without these keys; and a warning for each."""
    kept: Any = dict(raw)
    warnings: list[str] = []
    for pattern, why in REMOVED.items():
        found: list[tuple[str, ...]] = []
        kept = _without(kept, pattern, (), found)
        warnings += (
            f"{dotted(path)}: this key was removed, since {why}; delete it: the next release "
            "refuses it"
            for path in found
        )
    return kept, tuple(warnings)


def _without(
    table: object, pattern: tuple[str, ...], above: tuple[str, ...], found: list[tuple[str, ...]]
) -> object:
    """A copy of the *table* at *above* without the keys below it that match *pattern*.

    Anything else where a table belongs is left for the schema to refuse.
    """
    if not isinstance(table, dict):
        return table
    kept = dict(table)
    first, *rest = pattern
    for name in table if first == ANY_NAME else {first} & table.keys():
        if rest:
            kept[name] = _without(table[name], tuple(rest), (*above, name), found)
        else:
            del kept[name]
            found.append((*above, name))
    return kept
