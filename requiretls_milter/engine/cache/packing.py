"""Evidence as octets: how a shelf keeps it.

A piece of evidence is a dozen objects, most of which say nothing (no error, not partial). As octets
it takes a third of the memory, and is made into objects again in some microseconds, for a gathering
that needs it. These octets never leave the process, so that nothing hostile is read here.

Certificates stay apart: servers that have a chain in common share its octets
(:class:`Certificates`).
"""

from __future__ import annotations

import enum
import marshal
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    TlsaEvidence,
    TlsaRecord,
)

CERTIFICATES_OCTETS = 4 << 20
"""Octets of memory for certificates that were seen lately, by which equal ones are found: some
2,500. The issuers of nearly all servers are among a few hundred."""

Evidence = MxEvidence | MtaStsEvidence | AddressLookup | TlsaEvidence | ProbeEvidence

Packed = bytes | tuple[bytes, ...]
"""Evidence as octets; behind those of a session the certificates of its chain."""


class Certificates:
    """Finds certificates that are kept already, so that equal ones are in memory once."""

    def __init__(self) -> None:
        self._known: BoundedMap[bytes, bytes] = BoundedMap(
            max_weight=CERTIFICATES_OCTETS,
            weigh=lambda der, _: entry_octets(der, None),
            lasting=True,
        )

    def shared(self, chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The same chain (DER), of octets that others have, too."""
        return tuple(map(self._shared, chain))

    def _shared(self, der: bytes) -> bytes:
        known = self._known.get(der)
        if known is None:
            self._known.put(der, der)
            return der
        self._known.touch(der)
        return known


def pack(evidence: Evidence) -> Packed:
    """Make octets of a piece of evidence; ``expires`` is left out, and is to be kept beside it."""
    form = _FORMS[type(evidence)]
    packed = marshal.dumps((form.number, *form.plain(evidence)))
    return (packed, *evidence.chain) if isinstance(evidence, ProbeEvidence) else packed


def unpack(packed: Packed, expires: float) -> Evidence:
    """Make evidence of its octets.

    Args:
        packed: see :func:`pack`.
        expires: when it ends.
    """
    chain: tuple[bytes, ...] = ()
    if isinstance(packed, tuple):
        packed, *rest = packed
        chain = tuple(rest)
    number, *values = marshal.loads(packed)  # noqa: S302 - our own octets
    found: Evidence = _KINDS[number].whole(values, expires=expires, chain=chain)
    return found


_APART = frozenset({"expires", "chain"})
"""Fields that are kept beside the others."""


class _Form:
    """How the values of a class become plain ones, which :mod:`marshal` takes, and back.

    Args:
        kind: a dataclass of the model.
        convert: for those fields that are not plain, a function for each way.
    """

    number = 0

    def __init__(self, kind: type, **convert: tuple[Callable[[Any], Any], Callable[[Any], Any]]):
        self._kind = kind
        names = [one.name for one in fields(kind)]
        kept = [name for name in names if name not in _APART]
        self._apart = [(place, name) for place, name in enumerate(names) if name in _APART]
        self._get = attrgetter(*kept)
        self._convert = [(kept.index(name), *both) for name, both in convert.items()]

    def plain(self, value: Any) -> list[Any]:
        """The values of its fields, but for those that are kept beside them."""
        values = list(self._get(value))
        for place, to_plain, _ in self._convert:
            values[place] = to_plain(values[place])
        return values

    def whole(self, values: list[Any], **apart: Any) -> Any:
        """Make the object of these values, which are changed, and of those kept beside them."""
        for place, _, to_whole in self._convert:
            values[place] = to_whole(values[place])
        for place, name in self._apart:
            values.insert(place, apart[name])
        return self._kind(*values)


def _word(kind: type[enum.Enum]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A member of an enumeration, by its place; None stays."""
    members = tuple(kind)
    places: dict[Any, int | None] = {member: place for place, member in enumerate(members)}
    places[None] = None
    return places.__getitem__, lambda place: None if place is None else members[place]


def _many(form: _Form) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return (
        lambda values: tuple(tuple(form.plain(value)) for value in values),
        lambda values: tuple(form.whole(list(value)) for value in values),
    )


def _perhaps(form: _Form) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return (
        lambda value: None if value is None else tuple(form.plain(value)),
        lambda value: None if value is None else form.whole(list(value)),
    )


_REPLY = _perhaps(_Form(Reply))
_FORMS = {
    MxEvidence: _Form(MxEvidence, outcome=_word(DnsOutcome), records=_many(_Form(MxRecord))),
    MtaStsEvidence: _Form(
        MtaStsEvidence, policy=_perhaps(_Form(MtaStsPolicy, mode=_word(MtaStsMode)))
    ),
    AddressLookup: _Form(AddressLookup, outcome=_word(DnsOutcome)),
    TlsaEvidence: _Form(TlsaEvidence, outcome=_word(DnsOutcome), records=_many(_Form(TlsaRecord))),
    ProbeEvidence: _Form(
        ProbeEvidence,
        stage=_word(ProbeStage),
        failure=_word(ProbeFailure),
        reply=_REPLY,
        starttls_reply=_REPLY,
    ),
}
_KINDS = tuple(_FORMS.values())
for _number, _form in enumerate(_KINDS):
    _form.number = _number
