"""``simulate`` on a Postfix that carries no requirement: what it says is what mail then gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import POSTFIX, Site, scenario, server
from tests.lab.test_simulate import Case, domain, simulated

pytestmark = pytest.mark.lab

OLD = scenario("sim-old", server(requiretls="none"))
OLD_GOOD = scenario("sim-oldgood")


@pytest.fixture(scope="module")
def old(lab: Lab) -> Iterator[Site[Postfix]]:
    lab.add((OLD, OLD_GOOD))
    rule = {"mode": "reject", "require": True}
    with recipes.postfix(
        lab,
        POSTFIX["postfix-3.7"],
        "postfix-3.7",
        main={"smtp_tls_security_level": "dane"},
        rules={"recipient": {domain(item): rule for item in (OLD, OLD_GOOD)}},
    ) as running:
        yield running


def test_postfix_3_7_delivers_what_its_milter_does_not_refuse(old: Site[Postfix]) -> None:
    status, found = simulated(old.mta, old.milter, Case("old", OLD, ()))
    assert found["mta"]["version"].startswith("Postfix 3.7.")
    assert (found["nexthop"]["by"], found["mta"]["carries"]) == ("postfix", "nothing")
    assert (found["source"], found["carried"]) == ("rule", "none")
    # The MTA itself would deliver; the milter is what refuses, and check says the same.
    assert found["forecast"]["outcome"] == "deliver"
    checked = json.loads(
        subprocess.run(
            [
                *(sys.executable, "-m", "requiretls_milter", "check", domain(OLD)),
                *("--config", str(old.milter.config_file), "--format", "json"),
            ],
            capture_output=True,
            timeout=60,
        ).stdout
    )
    assert (checked[0]["carried"], checked[0]["carried_by"]) == ("none", "rule")
    assert checked[0]["rule"]["reply"] == found["reply"]
    refusal = old.refusal(f"u@{domain(OLD)}")
    assert found["reply"] == f"{refusal.reply.code} {refusal.reply.text}"
    assert status == 1

    status, found = simulated(old.mta, old.milter, Case("good", OLD_GOOD, ()))
    sent = old.send(f"u@{domain(OLD_GOOD)}")
    assert (status, found["action"], found["route"]) == (0, "accept", "requiretls")
    assert old.milter.recipient(sent.queue_id)["forecast"] == found["forecast"]["status"]
