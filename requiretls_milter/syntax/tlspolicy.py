"""Entries of Postfix's smtp_tls_policy_maps: a TLS level for a next hop, and names to match. Pure.

postconf(5): a level, then attributes as ``name=value``, apart from each other by blanks or commas.
Of the attributes only ``match`` has a say in a forecast that we can make.
"""

from __future__ import annotations

import re

from requiretls_milter.model import TlsLevel, TlsPolicy
from requiretls_milter.syntax import names, nexthop

MAX_MATCHES = 100
"""Names in one entry; Postfix has no limit of its own."""

_NO_EFFECT = frozenset({"connection_reuse", "policy_ttl", "policy_string"})
"""Attributes that change nothing of what a delivery ends with."""

_OUR_SNI = "servername=hostname"
"""What the probe does too: SNI is the name of the MX host."""

_NOT_MIRRORED = frozenset(
    {
        *("ciphers", "protocols", "exclude", "servername", "tafile", "enable_rpk"),
        *("policy_type", "policy_domain", "mx_host_pattern", "policy_failure"),
    }
)
_LEVELS = {level.value: level for level in TlsLevel if level is not TlsLevel.HALF_DANE}
_TOKEN = re.compile(r"\{([^{}]*)\}|([^\s,]+)")
"""A word, or ``{ name = value }``, in which the value may have blanks."""
_BLANK = re.compile(r"[\s,]")
_NAME = re.compile(r"\.?[!-9;-~]+", re.ASCII)


class TlsPolicyError(ValueError):
    """An entry that Postfix would not take, or that cannot be mirrored; the text says why."""


def parse(text: str) -> TlsPolicy:
    """Read an entry's value, such as ``secure match=example.org:.example.org``.

    Raises:
        TlsPolicyError: it is none that we know.
    """
    word, *attributes = _tokens(text) or [""]
    level = _LEVELS.get(word.lower())
    if level is None:
        raise TlsPolicyError(f"expected a level, one of {', '.join(_LEVELS)}, got {word[:40]!r}")
    if level is TlsLevel.NONE:
        return TlsPolicy(level)  # Postfix ignores the rest (tls_policy_lookup_one())
    match: list[str] = []
    for attribute in attributes:
        match += _matches(attribute, level)
    if len(match) > MAX_MATCHES:
        raise TlsPolicyError(f"more than {MAX_MATCHES} names to match")
    return TlsPolicy(level, tuple(match))


def as_mirrored(text: str) -> tuple[str, tuple[str, ...]]:
    """An entry's value without the attributes that cannot be mirrored, and their names."""
    kept, dropped = [], []
    for word in _tokens(text):
        name = word.partition("=")[0].lower()
        if name in _NOT_MIRRORED and word.lower() != _OUR_SNI:
            dropped.append(name)
        else:
            kept.append(f"{{ {word} }}" if _BLANK.search(word) else word)
    return " ".join(kept), tuple(dropped)


def _tokens(text: str) -> list[str]:
    return [
        "=".join(part.strip() for part in braced.split("=", 1)) or plain
        for braced, plain in _TOKEN.findall(text)
    ]


def _matches(attribute: str, level: TlsLevel) -> list[str]:
    name, equals, value = attribute.partition("=")
    key = name.lower()
    if not equals:
        raise TlsPolicyError(f"expected attributes as name=value, got {attribute[:40]!r}")
    if key in _NO_EFFECT or attribute.lower() == _OUR_SNI:
        return []
    if key in _NOT_MIRRORED:
        raise TlsPolicyError(f"the attribute {key} cannot be mirrored")
    if key != "match":
        raise TlsPolicyError(f"Postfix knows no attribute {name[:40]!r}")
    if level not in (TlsLevel.VERIFY, TlsLevel.SECURE):
        raise TlsPolicyError(f"match= goes with the levels verify and secure, not with {level}")
    names = [part for part in value.split(":") if part]
    if not names or not all(_NAME.fullmatch(part) for part in names):
        raise TlsPolicyError(f"expected match=NAME:NAME, got {attribute[:40]!r}")
    return [part.lower() for part in names]


def key(text: str) -> str:
    """The canonical key of an entry: a next hop, or the ``.domain`` of its parents.

    ``[host]`` and ``[host]:25`` are one here.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("."):
        return "." + names.to_alabel(text[1:])
    return str(nexthop.parse(text))
