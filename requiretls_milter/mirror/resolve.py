"""Ask a running Postfix where it would send mail: its trivial-rewrite(8), over private/rewrite.

smtpd(8) asks the same service for the macros ``{rcpt_mailer}`` and ``{rcpt_host}`` that it gives to
milters, so that the answer is what a milter gets. Nothing is delivered, and nothing is logged.

The protocol is that of Postfix's own processes (attr_scan0.c, resolve_clnt.c): attributes, each a
name and a value that end with NUL, and an empty name at the end. Postfix 3.6 and later greet with
the name of the protocol first. It is no public interface; an answer that is not understood is an
error, and the caller falls back on the configuration.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.mailbox import to_internal

TIMEOUT = 5.0
"""Seconds for an answer, which takes milliseconds; tables over a network take longer."""

MAX_ANSWER = 64 * 1024
"""Octets of an answer: a few addresses."""

ERROR = 1 << 2
"""RESOLVE_FLAG_ERROR: the address is not valid, and its mail bounces (5.1.3)."""

FAILED = 1 << 3
"""RESOLVE_FLAG_FAIL: a lookup table could not be used."""

DIRECTORY, SERVICE = "private", "rewrite"


class ResolveError(RequiretlsMilterError):
    """Postfix cannot be asked, or gives no answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where Postfix would send mail to an address: what it tells milters as macros."""

    transport: str
    nexthop: str
    recipient: str


def resolve(queue: Path, sender: str, address: str) -> Resolved:
    """Ask where mail to *address* goes.

    Args:
        queue: the queue directory, as this program sees it.
        sender: the reverse-path without ``<>``, for tables by sender.
        address: an envelope address as a client writes it, without ``<>``.

    Raises:
        ResolveError: there is no answer. Only root and Postfix's own user may ask.
    """
    if "\0" in sender + address:
        raise ResolveError("an address with a NUL")
    request = {
        "request": "resolve",
        "sender": to_internal(sender),
        "address": to_internal(address),
    }
    octets = (
        b"".join(
            f"{name}\0{value}\0".encode("utf-8", "surrogateescape")
            for name, value in request.items()
        )
        + b"\0"
    )
    try:
        answer = _exchange(queue / DIRECTORY, octets)
    except TimeoutError:
        raise ResolveError(f"{queue}: no answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise ResolveError(f"{queue}/{DIRECTORY}/{SERVICE}: {error.strerror or error}") from error
    flags = answer.get("flags", "")
    if not flags.isdecimal() or int(flags) & FAILED:
        raise ResolveError("Postfix cannot resolve the address now: see its log")
    if int(flags) & ERROR:
        raise ResolveError("Postfix takes it for no valid address: its mail bounces (5.1.3)")
    return Resolved(answer["transport"], answer["nexthop"], answer["recipient"])


def _exchange(directory: Path, request: bytes) -> dict[str, str]:
    """Send a request and return the attributes of its answer, the last one of each name."""
    deadline = time.monotonic() + TIMEOUT
    # A path may be longer than the address of a unix socket (108 octets).
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(f"/proc/self/fd/{descriptor}/{SERVICE}")
            connection.sendall(request)
            received = b""
            while len(received) <= MAX_ANSWER:
                for attributes in _lists(received):
                    if {"transport", "nexthop", "recipient"} <= attributes.keys():
                        return attributes
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(4096)
                if not data:
                    break
                received += data
    finally:
        os.close(descriptor)
    raise ResolveError("the answer of Postfix is not understood")


def _lists(octets: bytes) -> Iterator[dict[str, str]]:
    """Yield each list of attributes that has come in whole."""
    words = octets.split(b"\0")[:-1]
    attributes: dict[str, str] = {}
    place = 0
    while place < len(words):
        if not words[place]:
            yield attributes
            attributes = {}
            place += 1
        elif place + 1 < len(words):
            name, value = words[place], words[place + 1]
            attributes[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
            place += 2
        else:
            return
