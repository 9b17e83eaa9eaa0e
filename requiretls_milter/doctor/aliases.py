"""Checks of the tables of aliases: can the service read, or ask, what Postfix expands by?"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

from requiretls_milter.aliases import AliasTables
from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.doctor.permissions import READ, closed_to
from requiretls_milter.model import Aliases
from requiretls_milter.reports.expanding import expand
from requiretls_milter.syntax.expansion import ExpansionError
from requiretls_milter.telemetry.counting import Counters

SEE_TABLES = "See docs/mta-import.md for the tables that can be read."

SEE_ASKING = (
    "Try postmap -q as the user of the service. Under systemd it needs the drop-in "
    "systemd/variants/postfix-aliases.conf. See docs/mta-import.md."
)

NOBODY = "requiretls-milter-doctor"
"""The user that is looked up to find out whether all tables answer."""


def examine(config: Config) -> Iterator[Finding]:
    """Find out whether the running service has all tables of aliases."""
    if config.mta.aliases is Aliases.STATIC:
        yield from _read(config)
    elif config.mta.aliases is Aliases.ASK:
        yield _asked(config)


def _asked(config: Config) -> Finding:
    """Have the service expand a recipient that nobody has: each table is then asked."""
    recipient = f"{NOBODY}@{config.mta.myorigin or config.mta.myhostname or 'localhost'}"
    found = expand(recipient, config)
    by = "the running service"
    if found.why_not_service:
        by = f"user {_name(os.geteuid())}, not by a service: {found.why_not_service}"
    if isinstance(found.result, ExpansionError):
        return warning(
            "aliases", f"{found.result}: recipients are not expanded (asked by {by})", SEE_ASKING
        )
    return ok("aliases", f"all tables of aliases answer (asked by {by})")


def _read(config: Config) -> Iterator[Finding]:
    """Read each table, and find out whether the user of the running service may read it too."""
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


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


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
