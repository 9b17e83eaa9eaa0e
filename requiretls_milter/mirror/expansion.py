"""What Postfix makes of recipients: canonical maps and virtual aliases as keys of ``[mta]``. Pure.

The tables are only named here. The service reads their text itself
(:mod:`requiretls_milter.aliases`), or asks them (:mod:`requiretls_milter.engine.postmap`), so that
they stay current. Whether it does is the operator's choice (``aliases``), and no key that is
mirrored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from requiretls_milter.config.values import lookup_table
from requiretls_milter.mirror.domainlists import domain_list, origin_names
from requiretls_milter.mirror.postconf import Parameters, Postfix, is_yes
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.syntax.names import DomainNameError, to_alabel
from requiretls_milter.syntax.secrecy import has_secrets
from requiretls_milter.syntax.tables import (
    TEXTUAL,
    UNREADABLE,
    split_list,
    split_table,
)

MAPS = {
    "virtual_alias_maps": (
        "an alias may leave by SMTP after the milter was told of a local recipient: the forecast "
        "is for where it leads only with mta.aliases"
    ),
    "recipient_canonical_maps": (
        "a recipient may be rewritten after the milter was told of it: the forecast is for what "
        "it becomes only with mta.aliases"
    ),
    "canonical_maps": (
        "a recipient may be rewritten after the milter was told of it: the forecast is for what "
        "it becomes only with mta.aliases"
    ),
}
"""The parameters, each with what its tables do to a forecast if recipients are not expanded."""

_CLASSES = {
    "canonical_maps": "canonical_classes",
    "recipient_canonical_maps": "recipient_canonical_classes",
}
_LIMITS = {
    "virtual_alias_expansion_limit": 100_000,
    "virtual_alias_recursion_limit": 10_000,
    "virtual_alias_address_length_limit": 100_000,
}
"""Limits of Postfix, each with the largest value that ``[mta]`` takes."""
_WITHOUT_FILE = frozenset({"inline", "static"})
_PATTERN_FILES = frozenset({"regexp", "pcre", "cidr"})


@dataclass(slots=True)
class Expanding:
    """The keys of ``[mta]``, and what they cannot express.

    Attributes:
        values: the keys.
        warnings: sentences that hold in any case.
        while_off: sentences that hold only while recipients are not expanded.
        while_not_asked: sentences that hold only while tables that are no text are not asked.
        notes: what is expanded with ``aliases = "static"``, and what is not.
    """

    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    while_off: list[str] = field(default_factory=list)
    while_not_asked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def mirror_expansion(postfix: Postfix) -> Expanding:
    """Make the keys; without tables there are none."""
    main = postfix.settings_of("cleanup", "cleanup")  # which expands recipients
    made = Expanding()
    for parameter, why in MAPS.items():
        items = _tables(main, parameter)
        if not items:
            continue
        made.while_off.append(f"{parameter} = {shown(main[parameter])}: {why}")
        named = [_named(item, postfix) for item in items]
        made.values[parameter] = named
        _tell(parameter, dict(zip(items, named, strict=True)), made)
    if not made.values:
        return made
    made.values |= _settings(main, postfix)
    if made.while_not_asked and postfix.postmap:
        made.values["postmap"] = postfix.postmap
    origin = main.get("myorigin", "")
    if origin and not _alabels(origin_names(main, postfix)):
        made.warnings.append(
            f"myorigin = {shown(origin)}: not known: a user without a domain, in a table or as a "
            "recipient, is taken for one of myhostname"
        )
    made.warnings += _apart(main, postfix)
    made.notes += _not_followed(main)
    return made


def _tables(main: Parameters, parameter: str) -> list[str]:
    """The tables of a parameter; none if they do not apply to recipients of the envelope."""
    classes = main.get(_CLASSES.get(parameter, ""), "envelope_recipient")
    return split_list(main.get(parameter, "")) if "envelope_recipient" in classes else []


def _named(item: str, postfix: Postfix) -> str:
    """A table as the service finds it.

    A file that it reads is below the directory that Postfix sees as ``/``; for others postmap is
    asked, which sees what Postfix sees.
    """
    kind, name = split_table(item)
    if kind in _PATTERN_FILES and name[:1] not in ("/", "{"):
        item = f"{item.removesuffix(name)}{postfix.settings['queue_directory']}/{name}"
    if kind in TEXTUAL - _WITHOUT_FILE:
        path = name if name.startswith("/") else f"{postfix.settings['queue_directory']}/{name}"
        here = postfix.root / path.lstrip("/")
        item = f"{item.removesuffix(name)}{here}"
    unreadable = f"{UNREADABLE}:{kind if kind.isalnum() and kind.isascii() else 'name'}"
    if has_secrets(item):
        return unreadable
    try:
        return lookup_table(item) if item.isascii() else unreadable
    except ValueError:
        return unreadable


def _tell(parameter: str, items: Mapping[str, str], made: Expanding) -> None:
    kinds = {item: split_table(named)[0] for item, named in items.items()}
    read = [item for item, kind in kinds.items() if kind in TEXTUAL]
    hidden = [item for item, kind in kinds.items() if kind == UNREADABLE]
    asked = [item for item in items if item not in (*read, *hidden)]
    if read:
        made.notes.append(
            f'with aliases = "static", recipients are expanded by {parameter}: {examples(read)}'
        )
    if asked:
        made.notes.append(f'with aliases = "ask", they are expanded by {examples(asked)} too')
        made.while_not_asked.append(
            f"{parameter}: {examples(asked)}: not text that can be read: a recipient that could be "
            'in it is expanded only with aliases = "ask"; else it is forecast as the milter was '
            "told of it"
        )
    if hidden:
        made.warnings.append(
            f"{parameter}: {examples(hidden)}: cannot be named in mta: a recipient that could be "
            "in it is not expanded, and is forecast as the milter was told of it"
        )


def _settings(main: Parameters, postfix: Postfix) -> dict[str, Any]:
    delimiter = main.get("recipient_delimiter", "")
    values: dict[str, Any] = {
        "recipient_delimiter": delimiter[:16] if delimiter.isascii() else "",
    }
    origin = _alabels(origin_names(main, postfix))
    if origin and origin[0] != main.get("myhostname", ""):
        values["myorigin"] = origin[0]
    values["mydestination"] = domain_list(main, "mydestination", postfix).plain
    values["append_dot_mydomain"] = is_yes(main, "append_dot_mydomain")
    extended = split_list(main.get("propagate_unmatched_extensions", "canonical virtual"))
    values["propagate_unmatched_extensions"] = [
        word for word in ("canonical", "virtual") if word in extended
    ]
    for name, largest in _LIMITS.items():
        text = main.get(name, "")
        if text.isdecimal() and text.isascii() and int(text) > 0:
            values[name] = min(int(text), largest)
    return values


def _alabels(texts: Iterable[str]) -> list[str]:
    found = []
    for text in texts:
        try:
            found.append(to_alabel(text))
        except DomainNameError:
            continue
    return list(dict.fromkeys(found))


def _apart(main: Parameters, postfix: Postfix) -> Iterator[str]:
    """Warn of services for which other tables hold, or none."""
    for service in postfix.running("cleanup"):
        for parameter in MAPS:
            value = service.settings.get(parameter, "")
            if service.settings and value != main.get(parameter, ""):
                yield (
                    f"{parameter} = {shown(value)} ({service}): the tables of the service cleanup "
                    "are mirrored, not these"
                )
    for service in postfix.running("smtpd"):
        if "no_address_mappings" in split_list(
            service.settings.get("receive_override_options", "")
        ) and service.settings.get("smtpd_milters", ""):
            yield (
                f"receive_override_options = no_address_mappings ({service}): recipients that come "
                "here are expanded only if a filter brings their mail back"
            )


def _not_followed(main: Parameters) -> Iterator[str]:
    """Say what local(8) does with recipients of this host, which is not known here."""
    if main.get("mydestination", "") and main.get("local_transport", "").startswith("local"):
        maps = main.get("alias_maps", "")
        named = f" (alias_maps = {shown(maps)})" if maps else ""
        yield (
            f"not followed are aliases(5){named} and .forward files: a user of this host whose "
            "mail they forward looks local"
        )
