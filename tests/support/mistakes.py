"""Mistakes of a configuration, as they are told."""

from __future__ import annotations

import re

_PLACE = re.compile(r"[^:]+:(?:\d+:\d+:)? ")


def without_place(mistake: str) -> str:
    """A mistake without ``FILE:LINE:COLUMN:``, which each one begins with."""
    match = _PLACE.match(mistake)
    assert match is not None, mistake
    return mistake[match.end() :]
