"""The secret that the milters of a fleet share: a file that only they can read."""

from __future__ import annotations

from requiretls_milter.errors import RequiretlsMilterError

LEAST = 32
"""Octets of a secret, at least: ``openssl rand -hex 16`` writes as many."""

MOST = 1_024
"""Octets of a secret, at most: a longer file is another one."""


class SecretError(RequiretlsMilterError, ValueError):
    """A file is no secret; the text says which and why.

    Conclude: the configuration has a mistake, and the service cannot start.
    """


def read_secret(path: str) -> bytes:
    """Read a secret, without the blanks and line ends around it.

    Raises:
        SecretError: the file cannot be read, or is too short or too long to be one.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror or error}") from error
    secret = content.strip()
    if len(content) > MOST:
        raise SecretError(f"{path} is longer than {MOST} octets")
    if len(secret) < LEAST:
        raise SecretError(f"{path} is shorter than {LEAST} octets")
    return secret
