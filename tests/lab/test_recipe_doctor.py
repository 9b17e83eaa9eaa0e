"""``doctor`` beside an MTA that follows a recipe to the letter has nothing to warn of.

The lines are those of docs/recipes, which the pages show as they stand; ``[mta]`` is what
``mta import`` writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import POSTFIX, Site, postconf_of
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.lab

OWN_TIMEOUTS = {
    "smtp_connect_timeout": "30s",
    "smtp_helo_timeout": "300s",
    "smtp_starttls_timeout": "300s",
}
"""Postfix's own: those of the lab are shorter, and doctor says so."""


@pytest.fixture(scope="module", params=POSTFIX)
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix]]:
    recipe = "postfix-3.11" if request.param == "postfix-3.11" else "postfix-3.7"
    with recipes.postfix(
        lab,
        POSTFIX[request.param],
        recipe,
        main=OWN_TIMEOUTS,
        milter={"socket_mode": "0660"},
    ) as running:
        yield running


def findings(site: Site[Postfix]) -> list[dict[str, str]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "doctor", "--format", "json"),
            *("--config", str(site.milter.config_file), *postconf_of(site.mta)),
        ],
        stdout=subprocess.PIPE,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_recipe_to_the_letter_gets_no_warning(site: Site[Postfix]) -> None:
    found = findings(site)
    assert [one for one in found if one["severity"] != "ok"] == []
    by_tag = [one["found"] for one in found if one["check"] == "route"]
    if site.mta.name == "postfix-3.11":
        assert by_tag == []
    else:
        assert by_tag == ["mail with route=requiretls goes by smtp-strict, at level dane-only"]


@pytest.mark.parametrize("site", ["postfix-3.7"], indirect=True)
def test_a_route_that_is_taken_away_is_an_error(site: Site[Postfix]) -> None:
    table = "milter_header_checks"
    recipes.install(site.mta, table, "/^X-RequireTLS:.*; route=mixed;/ FILTER smtp-strict:\n")
    try:
        wrong = [one for one in findings(site) if one["severity"] == "error"]
    finally:
        recipes.install(site.mta, table, recipes.text(f"postfix-3.7/{table}"))
    (error,) = wrong
    assert error["check"] == "route"
    assert "but Postfix does not move it" in error["found"]
