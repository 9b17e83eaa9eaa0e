"""docs/partner.md, followed step by step on each MTA: what the page promises is what one sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.following import Operator
from tests.lab.lab import Lab
from tests.lab.recipes import POSTFIX, SENDMAIL, scenario
from tests.support.consolepage import commands
from tests.support.paths import REPOSITORY
from tests.support.scenario import Server

pytestmark = pytest.mark.lab

COMMANDS = list(commands((REPOSITORY / "docs" / "partner.md").read_text(encoding="utf-8")))

SECTIONS = {
    "Postfix 3.11": ("postfix-3.11", scenario("partner-new"), Server(requiretls="none")),
    "Postfix 3.7 to 3.10": ("postfix-3.7", scenario("partner-old"), Server(starttls="none")),
    "Sendmail": ("sendmail-8.18", scenario("partner-sendmail"), Server(starttls="none")),
}
"""Section of the page to an MTA, a partner, and what the partner's server becomes in the end."""


def test_these_are_the_sections_of_the_page() -> None:
    assert {command.section for command in COMMANDS} == set(SECTIONS)


@pytest.fixture(params=SECTIONS)
def section(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def operator(section: str, lab: Lab) -> Iterator[Operator]:
    name, partner, _ = SECTIONS[section]
    lab.add([partner])
    domain = partner.domain_name(partner.domains[0])
    if name in SENDMAIL:
        with recipes.plain_sendmail(lab, SENDMAIL[name]) as sendmail:
            made = Operator(lab, sendmail, domain)
            yield made
            made.stop()
    else:
        with recipes.plain_postfix(lab, POSTFIX[name]) as postfix:
            made = Operator(lab, postfix, domain)
            yield made
            made.stop()


def test_each_step_shows_what_the_page_says(section: str, lab: Lab, operator: Operator) -> None:
    _, partner, lost = SECTIONS[section]
    is_lost = False
    for command in COMMANDS:
        if command.section != section:
            continue
        if "the partner loses" in command.step and not is_lost:
            is_lost = True
            lab.plan_server(partner, lost)
            lab.update_servers()
        operator.follow(command)
    assert is_lost
