"""The root of the exceptions that this package raises."""

from __future__ import annotations


class RequiretlsMilterError(Exception):
    """Base of every exception of this package; each subclass says what its catcher concludes."""
