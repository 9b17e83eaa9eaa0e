"""What sendmail.cf says: options, mail filters and rulesets. Only :func:`read` does I/O.

The file is what m4 made of sendmail.mc, and what the daemon reads. Of its lines three kinds matter
here: ``O Name=value`` (an option), ``Xname, S=..., F=..., T=...`` (a filter) and ``Sname``
with the ``R`` lines below it (a ruleset). A line that begins with a blank continues the one before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from requiretls_milter.doctor.times import sendmail_seconds
from requiretls_milter.errors import RequiretlsMilterError

DEFAULT_PATH = Path("/etc/mail/sendmail.cf")

MAX_BYTES = 4 * 1024 * 1024
"""Size of a file that is read: one made by m4 has some 50 kB."""

_BELOW_ROOT = Path("etc/mail/sendmail.cf")

_OPTION = re.compile(r"O\s*([A-Za-z][\w.]*)\s*(?:=\s*(.*))?")


class SendmailError(RequiretlsMilterError):
    """Nothing is known of any Sendmail: its configuration cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A mail filter: the address of its socket, its flags and its time limits in seconds."""

    name: str
    socket: str = ""
    flags: str = ""
    timeouts: Mapping[str, int] = field(default_factory=dict)

    def timeout(self, letter: str) -> int:
        """The time limit that applies: C (connect), S (send), R (read) or E (end of message)."""
        return self.timeouts.get(letter, DEFAULT_TIMEOUTS[letter])


DEFAULT_TIMEOUTS: Mapping[str, int] = {"C": 300, "S": 10, "R": 10, "E": 300}
"""Seconds that Sendmail waits unless the filter's ``T=`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Sendmail:
    """One sendmail.cf.

    Attributes:
        version: of the configuration files from which m4 made it, such as ``8.18.1/Debian-6``.
        options: by name in lower case; the last one counts. Of DaemonPortOptions see ``daemons``.
        daemons: the value of each DaemonPortOptions.
        filters: by name.
        rulesets: their ``R`` lines by the ruleset's name in lower case.
        root: the directory that Sendmail sees as ``/``.
        is_outdated: sendmail.mc was changed later.
    """

    version: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    daemons: tuple[str, ...] = ()
    filters: Mapping[str, Filter] = field(default_factory=dict)
    rulesets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = Path("/")
    is_outdated: bool = False

    def option(self, name: str) -> str:
        """The value of an option; "" if it is not set."""
        return self.options.get(name.lower(), "")

    def is_true(self, name: str) -> bool:
        """Whether a boolean option is on, by Sendmail's own reading (atobool)."""
        return name.lower() in self.options and self.option(name)[:1].lower() in ("", "t", "y")

    def blames_not(self, word: str) -> bool:
        """Whether DontBlameSendmail names *word*."""
        return word.lower() in re.split(r"[\s,]+", self.option("DontBlameSendmail").lower())

    def path(self, name: str) -> Path:
        """A file that Sendmail names, as this program sees it."""
        return self.root / name.lstrip("/")


def read(path: Path) -> Sendmail:
    """Read a sendmail.cf.

    If its name ends with ``/etc/mail/sendmail.cf``, paths in it are below what stands before that.

    Raises:
        SendmailError: it cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        source = path.with_suffix(".mc")
        is_outdated = source.exists() and source.stat().st_mtime > path.stat().st_mtime
    except OSError as error:
        raise SendmailError(f"{path}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise SendmailError(f"{path}: is larger than {MAX_BYTES} bytes")
    absolute = path.absolute()
    root = absolute.parents[2] if absolute.match(str(_BELOW_ROOT)) else Path("/")
    return parse(content.decode("utf-8", "replace"), root=root, is_outdated=is_outdated)


def parse(text: str, *, root: Path = Path("/"), is_outdated: bool = False) -> Sendmail:
    """Read the text of a sendmail.cf.

    Raises:
        SendmailError: it is none: it does not say of which version it is.
    """
    options: dict[str, str] = {}
    daemons: list[str] = []
    filters: dict[str, Filter] = {}
    rulesets: dict[str, list[str]] = {}
    ruleset: list[str] = []
    version, is_sendmail = "", False
    for line in _logical_lines(text):
        kind, rest = line[0], line[1:].strip()
        if kind == "V":
            is_sendmail = True
        elif kind == "D" and rest.startswith("Z"):
            version = rest[1:].strip()
        elif kind == "O" and (match := _OPTION.fullmatch(line)):
            name, value = match[1].lower(), (match[2] or "").strip()
            options[name] = value
            if name == "daemonportoptions":
                daemons.append(value)
        elif kind == "X" and rest:
            found = _filter(rest)
            filters[found.name] = found
        elif kind == "S" and rest:
            ruleset = rulesets.setdefault(re.split(r"[\s=]", rest)[0].lower(), [])
        elif kind == "R":
            ruleset.append(rest)
    if not is_sendmail:
        raise SendmailError("this is no sendmail.cf: it has no line V")
    return Sendmail(
        version,
        options,
        tuple(daemons),
        filters,
        {name: tuple(lines) for name, lines in rulesets.items()},
        root,
        is_outdated,
    )


def fields(text: str) -> dict[str, str]:
    """Read ``Key=value, Key=value``; keys in lower case, without what has no ``=``."""
    pairs = (item.partition("=") for item in text.split(","))
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}


def _filter(text: str) -> Filter:
    """Read a line ``X``; of each key only the first letter counts."""
    name, _, rest = text.partition(",")
    found = {key[:1]: value for key, value in fields(rest).items()}
    return Filter(
        name.strip(),
        found.get("s", ""),
        "".join(found.get("f", "").split()),
        _timeouts(found.get("t", "")),
    )


def _timeouts(text: str) -> dict[str, int]:
    found = {}
    for item in text.split(";"):
        letter, _, value = item.strip().partition(":")
        seconds = sendmail_seconds(value.strip())
        if letter and seconds is not None:
            found[letter[0].upper()] = seconds
    return found


def _logical_lines(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += " " + line.strip()
        elif not line[0].isspace():
            lines.append(line.rstrip())
    return lines
