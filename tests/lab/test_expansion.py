"""What a recipient becomes: :mod:`requiretls_milter.syntax.expansion` beside the real cleanup(8).

Tables are made at random. Each recipient is sent by itself to a Postfix that discards all mail, and
what its log says of it is compared with what is expanded here, from the same text.
"""

from __future__ import annotations

import random
import smtplib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from requiretls_milter.syntax.expansion import (
    ExpansionError,
    Lookup,
    Rewriting,
    Tables,
    expand,
)
from requiretls_milter.syntax.mailbox import Origin, read_one
from requiretls_milter.syntax.tables import source_entries
from tests.lab import submission
from tests.lab.lab import Lab
from tests.lab.postfix import _write as write
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

RECIPIENTS = 40
LIMITS = {"expansion": 12, "recursion": 6, "length": 60}
NAMES = ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps", "virtual_alias_maps_2")

HOME = Rewriting(
    Origin("home.test"),
    local_names=frozenset({"home.test", "also.test"}),
    local_addresses=frozenset({"127.0.0.1"}),
    expansion_limit=LIMITS["expansion"],
    recursion_limit=LIMITS["recursion"],
    length_limit=LIMITS["length"],
)
ODDITIES = {
    "delimiters": replace(HOME, delimiter="+-"),
    "plus": replace(HOME, delimiter="+", origin=Origin("home.test", "test")),
    "no-extensions": replace(HOME, delimiter="+", extends_virtual=False, extends_canonical=False),
    "none": HOME,
}
"""Settings, each with tables of its own."""

USERS = ("ann", "bob", "Cy", "d.e", '"f g"', "owner-list", "list-request", "h")
EXTENSIONS = ("", "", "", "+x", "-y", "+x-y")
DOMAINS = (
    "home.test",
    "also.test",
    "a.test",
    "b.test",
    "A.test",
    "out.test",
    "[127.0.0.1]",
    "host",
)


def address(chance: random.Random) -> str:
    user = chance.choice(USERS)
    extension = chance.choice(EXTENSIONS)
    user = f'"{user[1:-1]}{extension}"' if user.startswith('"') else user + extension
    return user if chance.random() < 0.25 else f"{user}@{chance.choice(DOMAINS)}"


def key(chance: random.Random) -> str:
    return f"@{chance.choice(DOMAINS)}" if chance.random() < 0.2 else address(chance)


def result(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.15:
        return f"@{chance.choice(DOMAINS)}"
    if kind < 0.25:
        return f"Some Name <{address(chance)}>"
    return chance.choice((", ", ",", " ", "\n    ")).join(
        address(chance) for _ in range(chance.choice((1, 1, 1, 2, 3, 6)))
    )


def texts(chance: random.Random) -> Mapping[str, str]:
    """The sources of all tables; a key stands in one once, since texthash takes no other."""
    made = {}
    for name, size in zip(NAMES, (3, 3, 16, 6), strict=True):
        entries = {key(chance).lower(): result(chance) for _ in range(size)}
        lines = (f"{one}\t{to}\n" for one, to in entries.items())
        made[name] = "# a comment\n" + "".join(lines)
    return made


def tables(sources: Mapping[str, str]) -> Tables[Lookup]:
    def lookup(name: str) -> Lookup:
        return {one.casefold(): to for one, to in source_entries(sources[name])}.get

    return Tables(
        recipient_canonical=(lookup(NAMES[0]),),
        canonical=(lookup(NAMES[1]),),
        virtual_alias=(lookup(NAMES[2]), lookup(NAMES[3])),
    )


def settings(lab: Lab, rewriting: Rewriting) -> dict[str, str]:
    extended = [
        word
        for word, wanted in (
            ("canonical", rewriting.extends_canonical),
            ("virtual", rewriting.extends_virtual),
        )
        if wanted
    ]
    paths = {name: f"texthash:{lab.front.inside('etc')}/{name}" for name in NAMES}
    return {
        "myorigin": "home.test",
        "mydomain": "test",
        "mydestination": "home.test, also.test",
        "append_dot_mydomain": "yes" if rewriting.origin.mydomain else "no",
        "local_recipient_maps": "",
        "recipient_delimiter": rewriting.delimiter,
        "propagate_unmatched_extensions": ", ".join(extended),
        "virtual_alias_expansion_limit": str(rewriting.expansion_limit),
        "virtual_alias_recursion_limit": str(rewriting.recursion_limit),
        "virtual_alias_address_length_limit": str(rewriting.length_limit),
        "recipient_canonical_maps": paths[NAMES[0]],
        "canonical_maps": paths[NAMES[1]],
        "virtual_alias_maps": f"{paths[NAMES[2]]}, {paths[NAMES[3]]}",
        "virtual_alias_domains": "",
        "transport_maps": "static:discard:",
        "smtputf8_enable": "no",
        "smtpd_soft_error_limit": "1000",
        "smtpd_hard_error_limit": "1000",
    }


@pytest.fixture(scope="module")
def discarding(lab: Lab) -> Iterator[Lab]:
    before = lab.front.parameters
    yield lab
    lab.front.restore(before)


def by_postfix(lab: Lab, smtp: smtplib.SMTP, recipient: str) -> list[str] | None:
    """What Postfix delivers to in a recipient's place; None if it does not take the message."""
    text = submission.message("expansion", ["x@x.test"])
    try:
        accepted = submission.transact(smtp, [recipient], text)
    except submission.Refused as refused:
        if (refused.stage, refused.reply.code) != ("data", 451):
            raise
        return None
    queue_id = accepted.queue_id
    eventually(lambda: any(lab.front.log.grep(f": {queue_id}: removed")))
    return [read_one(one.to, HOME.origin) for one in lab.front.log.deliveries(queue_id)]


def by_us(recipient: str, found: Tables[Lookup], rewriting: Rewriting) -> list[str] | None:
    try:
        return list(expand(recipient, found, rewriting).addresses)
    except ExpansionError:
        return None


@pytest.mark.parametrize("oddity", ODDITIES)
def test_recipients_are_expanded_as_cleanup_does(discarding: Lab, oddity: str) -> None:
    lab, rewriting = discarding, ODDITIES[oddity]
    chance = random.Random(oddity)  # noqa: S311 - tables, not secrets
    sources = texts(chance)
    for name, text in sources.items():
        write(lab.front.directory / "etc" / name, text)
    lab.front.reload(parameters=settings(lab, rewriting))
    found = tables(sources)
    recipients = list(dict.fromkeys(address(chance) for _ in range(RECIPIENTS)))
    with lab.session() as smtp:
        told = {one: by_postfix(lab, smtp, one) for one in recipients}
    ours = {one: by_us(one, found, rewriting) for one in recipients}

    def sets(all_of: Mapping[str, list[str] | None]) -> Mapping[str, object]:
        return {one: to if to is None else sorted(to) for one, to in all_of.items()}

    assert sets(ours) == sets(told)
