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

from tests.lab import recipes, submission
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import POSTFIX, SENDMAIL, Site, postconf_of
from tests.lab.sendmail import Sendmail
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.lab

OWN_TIMEOUTS = {
    "smtp_connect_timeout": "30s",
    "smtp_helo_timeout": "300s",
    "smtp_starttls_timeout": "300s",
}
"""Postfix's own: those of the lab are shorter, and doctor says so."""


AnySite = Site[Postfix] | Site[Sendmail]


@pytest.fixture(scope="module", params=[*POSTFIX, *SENDMAIL])
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[AnySite]:
    version = request.param
    sound = {"socket_mode": "0660"}
    if version in SENDMAIL:
        with recipes.sendmail(lab, SENDMAIL[version], milter=sound) as sendmail:
            yield sendmail
    else:
        recipe = "postfix-3.11" if version == "postfix-3.11" else "postfix-3.7"
        with recipes.postfix(
            lab, POSTFIX[version], recipe, main=OWN_TIMEOUTS, milter=sound
        ) as postfix:
            yield postfix


def findings(site: AnySite) -> list[dict[str, str]]:
    """What doctor finds beside this MTA."""
    if isinstance(site.mta, Sendmail):
        where = ["--sendmail-cf", str(site.mta.root / "etc/mail/sendmail.cf")]
    else:
        where = postconf_of(site.mta)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "doctor", "--format", "json"),
            *("--config", str(site.milter.config_file), *where),
        ],
        stdout=subprocess.PIPE,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_recipe_to_the_letter_gets_no_warning(site: AnySite) -> None:
    found = findings(site)
    assert [one for one in found if one["severity"] != "ok"] == []
    said = {one["check"]: one["found"] for one in found}
    if isinstance(site.mta, Sendmail):
        assert {"attached", "socket_directory", "ruleset", "certificates"} <= set(said)
    elif site.mta.name == "postfix-3.11":
        assert "is delivered at level dane" in said["level"]
    else:
        assert said["route"] == "mail with route=requiretls goes by smtp-strict, at level dane-only"


@pytest.mark.parametrize("site", ["postfix-3.7"], indirect=True)
def test_a_route_that_is_taken_away_is_an_error(site: Site[Postfix]) -> None:
    table = "milter_header_checks"
    recipes.install(site.mta, table, "/^X-RequireTLS:.*; route=mixed;/ FILTER smtp-strict:\n")
    try:
        (error,) = [one for one in findings(site) if one["severity"] == "error"]
    finally:
        recipes.install(site.mta, table, recipes.text(f"postfix-3.7/{table}"))
    assert error["check"] == "route"
    assert "but Postfix does not move it" in error["found"]


@pytest.mark.parametrize("site", SENDMAIL, indirect=True)
def test_what_doctor_calls_unsafe_sendmail_does_too(site: Site[Sendmail]) -> None:
    directory = site.mta.milter.outside
    mode = directory.stat().st_mode
    directory.chmod(0o775)
    try:
        (error,) = [one for one in findings(site) if one["severity"] != "ok"]
        with pytest.raises(submission.Refused) as refused:
            site.send(recipes.LOCAL_RECIPIENT, tls=False)
        with pytest.raises(submission.Refused, match=r"^starttls: 454 4\.7\.0 "):
            site.send(recipes.LOCAL_RECIPIENT)
    finally:
        directory.chmod(mode)
    assert (error["check"], error["severity"]) == ("socket_directory", "error")
    assert refused.value.reply.code == 451
    assert site.mta.log.grep("milter.sock unsafe")
