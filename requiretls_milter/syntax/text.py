"""Foreign text made fit for a log line, a header field, a reply or a terminal.

Text from a client, a server or a file is not written anywhere before it has passed through one of
two families of functions (R62). Both return printable US-ASCII on one line, so that the text cannot
break out of its place. They differ in what becomes of the other characters:

- :func:`printable` replaces each by ``?``, as Postfix does. The length stays, the original is lost:
  for replies, header fields and evidence.
- :func:`escape`, :func:`escaped`, :func:`quoted` and :func:`visible` write each as Python does
  (``\\n``, ``\\xe9``, ``\\u2603``), so that the original can be told: for
  logs and for messages to people.
"""

from __future__ import annotations

import os

MAX_TEXT = 200
"""Characters that :func:`printable` keeps by default: those that :class:`model.Reply` has."""

MAX_QUOTED = 60
"""Characters that :func:`escaped` and :func:`quoted` keep: as many as a sentence has room for."""

LINE_WIDTH = 96
"""Characters of a line of text that people read: findings, comments in a file, the manual."""

_CUT = "..."
"""The end of a text that was cut."""


def bounded(text: str, limit: int) -> str:
    """Cut *text* to *limit* characters; ``...`` at its end says that something is missing."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def printable(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """Replace all but printable US-ASCII by ``?`` and cut to *limit* characters (R62).

    Postfix does the same to the replies of servers (printable()). Octets are read as Latin-1, one
    character each.
    """
    if isinstance(text, bytes):
        text = text[:limit].decode("latin-1")
    text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def escape(text: str) -> str:
    """Write *text* in printable US-ASCII that can be read back; backslashes are doubled."""
    return text.encode("unicode_escape").decode("ascii")


def escaped(text: str, limit: int = MAX_QUOTED) -> str:
    """:func:`escape` *text* and cut the result to *limit* characters, with ``...`` at its end."""
    return bounded(escape(text[: limit + 1]), limit)


def quoted(text: str, limit: int = MAX_QUOTED) -> str:
    """:func:`escaped` in double quotes, which do not count for *limit*."""
    return f'"{escaped(text, limit)}"'


def visible(text: str) -> str:
    """Escape what is not printable US-ASCII, but leave backslashes as they are.

    For a sentence that may hold parts that have been escaped already.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else escape(c) for c in text)


def one_line(text: str) -> str:
    """Write *text* as one line for a terminal or a comment: blanks and line ends become one blank.

    Characters outside US-ASCII are escaped; control characters become ``?``.
    """
    ascii_text = " ".join(text.split()).encode("ascii", "backslashreplace")
    return printable(ascii_text, len(ascii_text))


def quantity(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 next hop``, ``1,204 next hops``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def error_text(error: BaseException, limit: int = MAX_TEXT) -> str:
    """The text of an exception as one printable line; if it has none, the name of its class.

    An error of the operating system is given by the system's own text, which asyncio hides
    ("Connect call failed").
    """
    text = str(error).strip()
    if isinstance(error, OSError) and error.errno and error.strerror:
        hidden = error.strerror.startswith("Connect call failed")
        text = os.strerror(error.errno) if hidden else error.strerror
    return printable(text or type(error).__name__, limit)
