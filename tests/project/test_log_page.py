"""docs/log.md and docs/exit-status.md say what the code does: each event, key, word and status."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
import structlog

from requiretls_milter import cli
from requiretls_milter.commands.common import USAGE
from requiretls_milter.milter import account
from requiretls_milter.reports.logs.milter import of_logfmt
from requiretls_milter.rules import Why
from tests.support.logevents import written
from tests.support.milterlogs import written_line
from tests.support.paths import REPOSITORY

LOG = (REPOSITORY / "docs/log.md").read_text(encoding="utf-8")
STATUSES = (REPOSITORY / "docs/exit-status.md").read_text(encoding="utf-8")

AT_THE_END = ["waited", "downgraded", "expansions", "not_expanded", "reply", "text"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def rows(text: str) -> list[list[str]]:
    """The cells of the tables, without the heads."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [line.split(" | ") for line in lines if not line.startswith("`event=`")]


def section(heading: str) -> str:
    found = re.search(rf"^##+ {heading}$(.*?)(?=^## |\Z)", LOG, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


EVENTS = {cells[0].strip("`"): cells for cells in rows(section("All other events"))}


def test_each_event_of_the_code_is_in_the_page_and_no_other() -> None:
    assert sorted(EVENTS) == sorted(written())


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_keys_and_levels_of_an_event_are_those_of_the_code(event: str) -> None:
    keys, levels = written()[event]
    _, told_levels, told_keys, _ = EVENTS[event]
    assert set(re.findall(r"`(\w+)`", told_keys)) == keys
    if levels:
        assert set(told_levels.split(", ")) == levels


def test_the_keys_of_a_recipient_are_in_the_order_of_the_line() -> None:
    told = [cells[0].strip("`") for cells in rows(section("The line of a recipient"))]
    assert told == [
        *("queue_id", "action", "to"),
        *account.OUTCOME,
        "sender",
        *account.DETAILS,
        *AT_THE_END,
    ]
    line = [key for key in of_logfmt(written_line()) if key in told]
    assert line == [key for key in told if key in line]


@pytest.mark.parametrize("name", ["README.md", "docs/log.md"])
def test_the_example_is_a_line_that_the_milter_writes(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    (block,) = re.findall(
        r"^    (level=info event=recipient .*?)\n\n", text, re.MULTILINE | re.DOTALL
    )
    shown = re.sub(r"\n +", " ", block)
    assert shown == written_line().partition(" ")[2]


def test_each_word_of_why_is_explained() -> None:
    assert [cells[0].strip("`") for cells in rows(section("why"))] == [why.value for why in Why]


# ---------------------------------------------------------------- exit statuses


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, str]]:
    """Each command that tells its exit statuses, with what its help says of them."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        elif command.help and "Exit status" in command.help:
            text = command.help.partition("Exit status")[2]
            yield f"{before}{name}", text.partition("\n\n")[0]


def numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b(?:0|1|2|75)\b(?!\.\d)", text)}


@pytest.mark.parametrize(("command", "told"), list(commands(cli.commands)))
def test_the_statuses_of_a_command_are_those_of_its_help(command: str, told: str) -> None:
    table = {cells[0].strip("`"): cells[1] for cells in rows(STATUSES)}
    assert numbers(told) == numbers(table[command].partition("([")[0])


def test_each_command_of_the_table_tells_its_statuses() -> None:
    told = [name for name, _ in commands(cli.commands)]
    assert sorted(cells[0].strip("`") for cells in rows(STATUSES)) == sorted(told)


@pytest.mark.parametrize(
    "status", [cli.SOFTWARE, cli.UNWRITTEN, cli.INTERRUPTED, cli.BROKEN_PIPE, USAGE]
)
def test_the_statuses_of_every_command_are_explained(status: int) -> None:
    assert f"\n| {status} | " in STATUSES
