"""What recipients become by tables that are read and by tables that are asked.

Asked is a real process in the place of postmap; the real one is in the lab
(``tests/lab/test_aliases_asked.py``).
"""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.expander import AHEAD, TURN, Expander, ExpanderKeeper, expanded_here
from requiretls_milter.syntax.expansion import ExpansionError
from requiretls_milter.telemetry.counting import Counters

PROGRAM = """\
#!{python} -IS
import json, os, sys
_, _q, _dash, table, static = sys.argv
nothing = static.partition(":")[2]
keys = sys.stdin.read().split("\\n")[:-1]
with open({here!r} + "/asked", "a") as file:
    file.write(table + " " + " ".join(keys) + "\\n")
entries = json.load(open({here!r} + "/tables")).get(table)
if entries is None:
    sys.exit("postmap: fatal: " + table + ": gone")
for key in keys:
    print(key + "\\t" + entries.get(key, nothing))
"""


class Kit:
    """An expander, and the tables that its postmap has."""

    def __init__(self, directory: Path, maps: Sequence[str], **mta: Any) -> None:
        self.directory = directory
        program = directory / "postmap"
        program.write_text(PROGRAM.format(python=sys.executable, here=str(directory)))
        program.chmod(stat.S_IRWXU)
        settings = {
            "aliases": "ask",
            "postmap": str(program),
            "virtual_alias_maps": list(maps),
            "myorigin": "mine.test",
            "mydestination": ["mine.test"],
            "recipient_delimiter": "+",
        }
        self.config = Config.model_validate({"mta": settings | mta})
        self.counters = Counters()
        self.expander = Expander(self.config, self.counters)

    def tables(self, **tables: Mapping[str, str]) -> None:
        text = {f"{kind}:x": entries for kind, entries in tables.items()}
        (self.directory / "tables").write_text(json.dumps(text))

    async def becomes(self, recipient: str) -> str:
        try:
            return " ".join((await self.expander.expand(recipient)).addresses)
        except ExpansionError as error:
            return str(error)

    @property
    def asked(self) -> list[list[str]]:
        """For each run of postmap the table and its keys."""
        path = self.directory / "asked"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
async def kits(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Kit] = []

    def make(*maps: str, **mta: Any) -> Kit:
        made.append(Kit(tmp_path, maps, **mta))
        return made[-1]

    yield make
    for kit in made:
        await kit.expander.close()


async def test_all_keys_of_an_address_are_asked_for_in_one_run(kits: Any) -> None:
    kit = kits("ldap:x")
    kit.tables(ldap={"bob@mine.test": "bob@z.test"})
    assert await kit.becomes("Bob+Ext@Mine.test") == "bob+Ext@z.test"
    first, second = kit.asked
    assert first == [
        *("ldap:x", "bob+ext@mine.test", "bob@mine.test", "bob+ext", "bob", "@mine.test"),
    ]
    assert second == ["ldap:x", "bob+ext@z.test", "bob@z.test", "@z.test"]
    await kit.becomes("bob+ext@mine.test")
    assert len(kit.asked) == 2


async def test_tables_of_patterns_have_whole_addresses_as_they_are_written(kits: Any) -> None:
    kit = kits("pcre:x")
    kit.tables(pcre={"bob@mine.test": "no@z.test", "@mine.test": "no@z.test"})
    assert await kit.becomes("Bob+Ext@Mine.test") == "Bob+Ext@Mine.test"
    assert kit.asked == [["pcre:x", "Bob+Ext@Mine.test"]]


async def test_a_key_is_looked_up_in_all_tables_before_the_next(kits: Any) -> None:
    kit = kits("ldap:x", "mysql:x")
    kit.tables(ldap={"@x.test": "all@z.test"}, mysql={"a@x.test": "one@z.test"})
    assert await kit.becomes("a@x.test") == "one@z.test"
    assert await kit.becomes("b@x.test") == "all@z.test"


async def test_a_part_of_an_address_goes_past_a_table_of_patterns_to_the_next(kits: Any) -> None:
    kit = kits("pcre:x", "ldap:x")
    kit.tables(pcre={"@x.test": "no@z.test"}, ldap={"@x.test": "all@z.test"})
    assert await kit.becomes("b@x.test") == "all@z.test"


async def test_others_have_a_turn_while_a_long_alias_is_expanded(kits: Any) -> None:
    steps = 4 * TURN
    chain = ", ".join(f"{{ u{n}@x.test = u{n + 1}@x.test }}" for n in range(steps))
    kit = kits(f"inline:{{ {chain} }}")
    kit.expander.texts.look()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    assert await kit.becomes("u0@x.test") == f"u{steps}@x.test"
    task.cancel()
    assert 3 <= turns <= 5


async def test_the_members_of_a_list_take_one_run_for_each_table(kits: Any) -> None:
    kit = kits("ldap:x", "pcre:x")
    members = ", ".join(f"m{number}@x.test" for number in range(40))
    kit.tables(ldap={"list@x.test": members, "m7@x.test": "seven@z.test"}, pcre={})
    became = (await kit.becomes("list@x.test")).split()
    assert len(became) == 40
    assert "seven@z.test" in became
    assert len(kit.asked) == 6  # the list, its members, and what one of these becomes


async def test_the_keys_of_so_many_members_are_asked_for_at_once(kits: Any) -> None:
    kit = kits("ldap:x")
    kit.tables(ldap={"list@x.test": ", ".join(f"m{n}@x.test" for n in range(2 * AHEAD))})
    assert len((await kit.becomes("list@x.test")).split()) == 2 * AHEAD
    _, keys, _ = kit.asked
    assert keys[:4] == ["ldap:x", "m0@x.test", "m1@x.test", "m2@x.test"]
    assert keys[-1] == f"m{AHEAD}@x.test"


async def test_a_compiled_table_is_asked_if_its_text_cannot_be_read(
    kits: Any, tmp_path: Path
) -> None:
    text = tmp_path / "virtual"
    kit = kits(f"hash:{text}", "ldap:x")
    kit.tables(ldap={"b@y.test": "c@y.test"})
    kit.expander.texts.look()
    assert "gone" in await kit.becomes("a@x.test")
    assert f"hash:{text}" in [asked[0] for asked in kit.asked]
    before = len(kit.asked)
    text.write_text("a@x.test b@y.test\n")
    (tmp_path / "virtual.db").touch()
    kit.expander.texts.look()
    assert await kit.becomes("a@x.test") == "c@y.test"
    assert not any(run[0].startswith("hash") for run in kit.asked[before:])


async def test_a_text_that_postfix_does_not_open_is_never_asked(kits: Any, tmp_path: Path) -> None:
    text = tmp_path / "virtual"
    text.write_text("a@x.test b@y.test\na@x.test c@y.test\n")
    kit = kits(f"texthash:{text}")
    kit.tables()
    kit.expander.texts.look()
    assert "a key stands twice" in await kit.becomes("a@x.test")
    assert kit.asked == []


async def test_what_is_known_without_postmap_is_never_asked(kits: Any) -> None:
    kit = kits("ldap:x", "inline:{ { c@x.test = d@x.test } }", "static:all@z.test", "unreadable:x")
    kit.tables(ldap={"a@x.test": "b@x.test, c@x.test"})
    kit.expander.texts.look()
    assert await kit.becomes("a@x.test") == "all@z.test"
    assert {table for table, *_ in kit.asked} == {"ldap:x"}


async def test_a_table_that_cannot_be_named_is_told(kits: Any) -> None:
    kit = kits("ldap:x", "unreadable:x")
    kit.tables(ldap={})
    assert await kit.becomes("a@x.test") == "unreadable:x: it cannot be named in mta"
    assert {table for table, *_ in kit.asked} == {"ldap:x"}


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("a@x.test", "a@x.test"),
        ("b@x.test", "in a circle"),
        ("no\x01body@x.test", "not a plain list"),
        (",", "is no address"),
        ("v" * 1001 + "@x.test", "too long"),
    ],
)
async def test_what_postfix_would_not_take_is_not_expanded(
    kits: Any, result: str, why: str
) -> None:
    kit = kits("ldap:x", virtual_alias_recursion_limit=20)
    kit.tables(ldap={"a@x.test": result, "b@x.test": "a@x.test"})
    assert why in await kit.becomes("a@x.test")


async def test_canonical_maps_are_asked_too(kits: Any) -> None:
    kit = kits("pcre:x", canonical_maps=["ldap:x"])
    kit.tables(ldap={"a@x.test": "b@x.test"}, pcre={"b@x.test": "c@x.test"})
    assert await kit.becomes("a@x.test") == "c@x.test"


async def test_a_table_that_does_not_answer_is_told_by_name(kits: Any) -> None:
    kit = kits("mysql:/etc/postfix/x.cf")
    kit.tables()
    assert await kit.becomes("a@x.test") == (
        "mysql:/etc/postfix/x.cf: mysql:/etc/postfix/x.cf: gone"
    )


async def test_a_table_that_does_not_answer_is_told_without_its_password(kits: Any) -> None:
    kit = kits("mysql:{ { password = geheim } }")
    kit.tables()
    assert await kit.becomes("a@x.test") == "mysql:{...}: mysql:{...}: gone"


async def test_it_takes_no_longer_than_an_assessment(
    kits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = kits("ldap:x")
    (kit.directory / "postmap").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(kit.expander, "_patience", 0.2)
    began = time.monotonic()
    assert await kit.becomes("a@x.test") == "not known within 0.2 s"
    assert time.monotonic() - began < 2


async def test_a_command_expands_by_itself(tmp_path: Path) -> None:
    kit = Kit(tmp_path, ["inline:{ { a@x.test = b@x.test } }", "ldap:x"])
    kit.tables(ldap={"b@x.test": "c@x.test"})
    found = await asyncio.to_thread(expanded_here, "a@x.test", kit.config)
    assert found.addresses == ("c@x.test",)
    assert not any(run[0].startswith("inline") for run in kit.asked)


# ---------------------------------------------------------------- configurations


async def test_a_configuration_that_changes_nothing_of_it_leaves_what_is_kept(kits: Any) -> None:
    kit = kits("ldap:x")
    kit.tables(ldap={})
    keeper = ExpanderKeeper(kit.counters)
    assert keeper.configure(kit.config) is None
    first = keeper.expander
    assert first is not None
    await first.expand("a@x.test")
    assert keeper.configure(kit.config) is None
    kept = keeper.expander
    assert kept is first
    assert len(first) == 2
    off = Config.model_validate({"mta": {"aliases": "off"}})
    assert keeper.configure(off) is first
    assert keeper.expander is None
    await first.close()


async def test_recipients_wait_for_the_first_look_at_the_texts(kits: Any) -> None:
    kit = kits("inline:{ { a@x.test = b@x.test } }")
    keeper = ExpanderKeeper(kit.counters)
    keeper.configure(kit.config)
    made = keeper.expander
    assert made is not None
    assert (await made.expand("a@x.test")).addresses == ("b@x.test",)
    await made.close()
