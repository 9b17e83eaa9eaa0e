"""Checks of the tables of aliases: can the service read what Postfix expands recipients by?"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

from requiretls_milter.aliases import AliasTables
from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.doctor.host import READ, closed_to
from requiretls_milter.model import Aliases
from requiretls_milter.telemetry.counting import Counters

SEE_TABLES = "See docs/mta-import.md for the tables that can be read."


def examine(config: Config) -> Iterator[Finding]:
    """Read each table, and find out whether the user of the running service may read it too."""
    if config.mta.aliases is not Aliases.STATIC:
        return
    texts = AliasTables(config.mta, config.limits.alias_entries, Counters()).texts
    texts.look()
    closed = dict(_closed(config, texts.sources))
    for name, why in {**closed, **texts.unreadable}.items():
        yield warning(
            "aliases",
            f"{name}: {why}: a recipient that could be in it is not expanded",
            SEE_TABLES,
        )
    if not closed and not texts.unreadable:
        yield ok("aliases", f"recipients are expanded by {texts.entries} entries")


def _closed(config: Config, sources: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield the tables that the service's user may not read; it is the owner of its socket."""
    try:
        uid = os.stat(config.engine.socket).st_uid
        user = pwd.getpwuid(uid)
    except (OSError, KeyError):
        return  # it does not run, which another check says
    groups = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    for name, path in sources.items():
        why = closed_to(path, Path("/"), uid, groups, READ)
        if why:
            yield name, f"user {user.pw_name}: {why}"
