"""The logs of this host, for a command that was given none.

The milter's lines are in the journal if the unit writes them, in a file of their own (``serve
--log-file``), or with the mail (``serve --syslog mail``). Those of Postfix are in a file if a
syslog daemon or Postfix itself writes one, and else in the journal. Many hosts have them in both
places: then the file is read alone, so that no delivery is read twice.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from requiretls_milter.reports.logs.sources import JOURNAL, MAIL_JOURNAL
from requiretls_milter.reports.logs.times import DAY

OWN = ("var/log/requiretls-milter/requiretls-milter.log", "var/log/requiretls-milter.log")
"""Where the init scripts write, and where an administrator may."""

MAIL = ("var/log/mail.log", "var/log/maillog", "var/log/mail", "var/log/postfix.log")
"""Debian, Red Hat and Alpine, SUSE; what Postfix's manual has for maillog_file."""

_ROTATED = re.compile(r"(?:[.-]\d+)?(?:\.(?:gz|xz|bz2|zst))?")
"""What logrotate appends to a name."""


def milter_logs(days: int, now: float, root: Path = Path("/")) -> list[str]:
    """Where the milter's lines are; with one file of mail more than needed rather than one less.

    Args:
        days: how far back; a file that was not written since is left out.
        now: seconds since the epoch.
        root: of the file system.
    """
    own = _files(OWN, days, now, root)
    if shutil.which("journalctl"):
        return [JOURNAL, *own]
    return own or _files(MAIL, days, now, root)


def all_logs(days: int, now: float, root: Path = Path("/")) -> list[str]:
    """Where the lines of the milter and of Postfix are; arguments as of :func:`milter_logs`."""
    mail = _files(MAIL, days, now, root)
    if not mail and shutil.which("journalctl"):
        mail = [MAIL_JOURNAL]
    return list(dict.fromkeys([*milter_logs(days, now, root), *mail]))


def _files(names: tuple[str, ...], days: int, now: float, root: Path) -> list[str]:
    found = []
    for name in names:
        path = root / name
        for file in sorted(path.parent.glob(f"{path.name}*")):
            is_rotated = _ROTATED.fullmatch(file.name.removeprefix(path.name))
            if is_rotated and file.is_file() and file.stat().st_mtime >= now - days * DAY:
                found.append(str(file))
    return found
