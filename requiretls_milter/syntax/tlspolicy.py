"""Entries of smtp_tls_policy_maps of Postfix: a TLS level for a next hop, and names to match.

An entry is a level, then attributes ``name=value``, separated by blanks or commas (postconf(5)). A
forecast can consider only one attribute, ``match``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import TlsLevel, TlsPolicy
from requiretls_milter.syntax import names, nexthop
from requiretls_milter.syntax.text import quoted

MAX_SHOWN = 40
"""Characters of a word that a message quotes."""

MAX_MATCHES = 100
"""Names in one entry; Postfix has no limit of its own."""

_NO_EFFECT = frozenset({"connection_reuse", "policy_ttl", "policy_string"})
"""Attributes that do not change how a delivery ends."""

_OUR_SNI = "servername=hostname"
"""What a probe does too: its SNI is the name of the MX host."""

_NOT_MIRRORED = frozenset(
    {
        *("ciphers", "protocols", "exclude", "servername", "tafile", "enable_rpk"),
        *("policy_type", "policy_domain", "mx_host_pattern", "policy_failure"),
    }
)
"""Attributes that a forecast cannot consider."""

_ONCE = frozenset(
    {
        *("ciphers", "protocols", "servername", "exclude"),
        *("policy_ttl", "policy_type", "policy_domain", "policy_failure"),
    }
)
_YES_OR_NO = frozenset({"connection_reuse", "enable_rpk"})
_OF_SERVICE = frozenset(
    {"policy_ttl", "policy_string", "policy_domain", "mx_host_pattern", "policy_failure"}
)

LEVELS: Mapping[str, TlsLevel] = {
    level.value: level for level in TlsLevel if level is not TlsLevel.HALF_DANE
}
"""The levels that can be configured, by the word that Postfix has for each."""

_TOKEN = re.compile(r"\{([^{}]*)\}|([^\s,]+)")
"""A word, or ``{ name = value }``, in which the value may have blanks."""
_BLANK = re.compile(r"[\s,]")
_NAME = re.compile(r"\.?[!-9;-~]+", re.ASCII)


class TlsPolicyError(RequiretlsMilterError, ValueError):
    """An entry that Postfix would not accept, or that cannot be mirrored; the message says which.

    Conclude: a forecast has to be made without this entry, so that no rule should act on mail for
    its next hop; in the configuration the entry is a mistake.
    """


def parse(text: str) -> TlsPolicy:
    """Read the value of an entry, such as ``secure match=example.org:.example.org``.

    Raises:
        TlsPolicyError: Postfix would not accept it, or a forecast cannot consider it.
    """
    word, *attributes = _tokens(text) or [""]
    level = LEVELS.get(word.lower())
    if level is None:
        raise TlsPolicyError(
            f"expected a level, one of {', '.join(LEVELS)}, got {quoted(word, MAX_SHOWN)}"
        )
    if level is TlsLevel.NONE:
        return TlsPolicy(level)  # Postfix ignores the rest (tls_policy_lookup_one())
    match: list[str] = []
    for attribute in attributes:
        match += _matches(attribute, level)
    if len(match) > MAX_MATCHES:
        raise TlsPolicyError(f"more than {MAX_MATCHES} names to match")
    return TlsPolicy(level, tuple(match))


def as_mirrored(text: str) -> tuple[str, tuple[str, ...]]:
    """The value of an entry without the attributes that cannot be mirrored, and their names.

    Raises:
        TlsPolicyError: Postfix would not accept one of these attributes.
    """
    kept, dropped = [], []
    words = _tokens(text)
    if words and LEVELS.get(words[0].lower()) is not TlsLevel.NONE:
        _check(words[0].lower(), words[1:])
    for word in words:
        name = word.partition("=")[0].lower()
        if name in _NOT_MIRRORED and word.lower() != _OUR_SNI:
            dropped.append(name)
        else:
            kept.append(f"{{ {word} }}" if _BLANK.search(word) else word)
    return " ".join(kept), tuple(dropped)


def _check(level: str, attributes: Sequence[str]) -> None:
    """Refuse attributes that Postfix does not accept (tls_policy_lookup_one())."""
    seen: set[str] = set()
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        name = name.lower()
        if name in seen and name in _ONCE:
            raise TlsPolicyError(f"the attribute {name} stands there twice")
        seen.add(name)
        if name in _YES_OR_NO and value.lower() not in ("yes", "no"):
            raise TlsPolicyError(f"expected {name}=yes or {name}=no")
        if name in ("ciphers", "tafile") and not value:
            raise TlsPolicyError(f"the attribute {name} has no value")
        if name == "servername" and not names.valid_hostname(value):
            raise TlsPolicyError(f"expected a host name in {quoted(attribute, MAX_SHOWN)}")
        if name == "tafile" and level not in ("verify", "secure"):
            raise TlsPolicyError(f"tafile= is for the levels verify and secure, not for {level}")
    if not _OF_SERVICE.isdisjoint(seen) and "policy_type" not in seen:
        raise TlsPolicyError("attributes of a policy service without policy_type=")


def _tokens(text: str) -> list[str]:
    return [
        "=".join(part.strip() for part in braced.split("=", 1)) or plain
        for braced, plain in _TOKEN.findall(text)
    ]


def _matches(attribute: str, level: TlsLevel) -> list[str]:
    name, equals, value = attribute.partition("=")
    key = name.lower()
    if not equals:
        raise TlsPolicyError(
            f"expected attributes as name=value, got {quoted(attribute, MAX_SHOWN)}"
        )
    if key in _NO_EFFECT or attribute.lower() == _OUR_SNI:
        return []
    if key in _NOT_MIRRORED:
        raise TlsPolicyError(f"the attribute {key} cannot be mirrored")
    if key != "match":
        raise TlsPolicyError(f"Postfix has no attribute {quoted(name, MAX_SHOWN)}")
    if level not in (TlsLevel.VERIFY, TlsLevel.SECURE):
        raise TlsPolicyError(f"match= is for the levels verify and secure, not for {level}")
    names = [part for part in value.split(":") if part]
    if not names or not all(_NAME.fullmatch(part) for part in names):
        raise TlsPolicyError(f"expected match=NAME:NAME, got {quoted(attribute, MAX_SHOWN)}")
    return [part.lower() for part in names]


def key(text: str) -> str:
    """The canonical key of an entry: a next hop, or ``.domain`` for the subdomains of a domain.

    As in Postfix ``[host]`` and ``[host]:25`` are different keys.

    Raises:
        NextHopError: *text* is neither.
        DomainNameError: ``.domain`` is not one.
    """
    if text.startswith("."):
        return "." + names.to_alabel(text[1:])
    return nexthop.parse(text).destination
