"""Text that a stranger wrote, made fit for a log line, a header field or a reply."""

from __future__ import annotations

import os

MAX_TEXT = 200
"""Characters kept of a stranger's text: model.Reply says so."""


def printable(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """Replace all but printable US-ASCII by ``?`` and cut to *limit* characters.

    Postfix does the same to the replies of servers (printable()). Without CR,
    LF, NUL and 8-bit characters the text cannot break out of where it is put.
    """
    if isinstance(text, bytes):
        text = text[:limit].decode("latin-1")
    return "".join(c if " " <= c <= "~" else "?" for c in text[:limit])


def error_text(error: BaseException, limit: int = MAX_TEXT) -> str:
    """Give an exception as one printable line; its class where it says nothing.

    An error of the system by its own text, which asyncio hides ("Connect call failed").
    """
    text = str(error).strip()
    if isinstance(error, OSError) and error.errno and error.strerror:
        hidden = error.strerror.startswith("Connect call failed")
        text = os.strerror(error.errno) if hidden else error.strerror
    return printable(text or type(error).__name__, limit)
