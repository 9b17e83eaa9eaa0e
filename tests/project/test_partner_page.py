"""docs/partner.md agrees with the recipes; the lab follows it (tests/lab/test_partner_page.py)."""

from __future__ import annotations

import re

import pytest

from requiretls_milter import config
from requiretls_milter.doctor.sendmailcf import DEFAULT_PATH
from tests.support.consolepage import Command, commands
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "partner.md").read_text(encoding="utf-8")
RECIPES = REPOSITORY / "docs" / "recipes"
COMMANDS = list(commands(PAGE))
SECTIONS = {
    "Postfix 3.11": "postfix-3.11",
    "Postfix 3.7 to 3.10": "postfix-3.7",
    "Sendmail": "sendmail",
}


def test_each_mta_has_a_section() -> None:
    assert list(dict.fromkeys(command.section for command in COMMANDS)) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_configuration_is_good(section: str) -> None:
    written = [
        command.text.partition("\n")[2].removesuffix("END")
        for command in COMMANDS
        if command.section == section and "config.toml <<" in command.text
    ]
    assert len(written) == 2
    loaded = config.parse("".join(written).encode(), section)
    assert loaded.rules.recipient["partner.example"].require
    assert config.warnings(loaded) == ()


@pytest.mark.parametrize("section", list(SECTIONS)[:2])
def test_each_parameter_is_that_of_the_recipe(section: str) -> None:
    recipe = (RECIPES / SECTIONS[section] / "main.cf").read_text(encoding="utf-8")
    text = "\n".join(command.text for command in COMMANDS if command.section == section)
    assert text.count("postconf -e") > 3
    for line in re.findall(r"'(\w+ = [^']*)'", text):
        # What the recipe for older versions leaves to the operator.
        if line != "smtp_tls_security_level = dane":
            assert line in recipe.splitlines(), line


def test_each_file_that_is_copied_is_there() -> None:
    copied = re.findall(r"/usr/share/doc/requiretls-milter/(\S+)", PAGE)
    assert len(copied) > 3
    assert all((REPOSITORY / name).exists() for name in copied)
    assert f"> {DEFAULT_PATH}" in PAGE
    for section in list(SECTIONS)[:2]:
        for table in (RECIPES / SECTIONS[section]).glob("*_checks"):
            assert f"regexp:/etc/postfix/{table.name}" in PAGE


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ("head\nx  2.0.0 ok\nfoot\n", True),
        ("x  2.0.0 ok", True),
        ("head\nx  2.0.0\n", False),
        ("head\nY  2.0.0 ok\n", False),
        ("", False),
    ],
)
def test_three_dots_stand_for_any_text(output: str, seen: bool) -> None:
    assert Command("", "", "", "...\nx  ... ok\n...\n").is_seen(output) is seen


def test_a_command_goes_on_to_its_end() -> None:
    page = "## A\n### 1. B\n```console\n# cat > x <<'END'\n# no command\nEND\n# true\nsaid\n```\n"
    first, second = commands(page)
    assert (first.text, first.seen) == ("cat > x <<'END'\n# no command\nEND", "")
    assert (second.section, second.step, second.text, second.seen) == (
        "A",
        "1. B",
        "true",
        "said\n",
    )
