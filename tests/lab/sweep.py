"""Sending scenarios through milter and Postfix: is what happens what was forecast?

    python -m tests.lab.sweep SEED COUNT

does so with COUNT scenarios at random, and ends with status 1 where one differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.lab import labconfig
from tests.lab.further import at_random
from tests.lab.lab import Lab
from tests.lab.milter import Milter
from tests.support import addresses
from tests.support.scenario import Scenario

PARALLEL = 24
"""SMTP sessions at once."""

PATIENCE = 29.0
"""Seconds that the end of a message waits for its forecast: here even for servers that hang."""

PROBE = {
    "plain_mail": "full",
    # The lab's address without a route is asked for its error too.
    "allow_networks": [*addresses.NETWORKS, f"{addresses.NO_ROUTE}/32"],
}
"""``[probe]``: find out whatever can be found out."""

Ending = dict[str, tuple[str, str]]
"""Recipient to status code and tls= token."""

AT_ONCE = 400
"""Scenarios in one lab: more make its start slow."""


def knowing_all(lab: Lab, **sections: Any) -> Milter:
    """A milter that mirrors each of the lab's transports, and waits for the slowest server."""
    return mirroring(lab, labconfig.all_transports(), **sections)


def mirroring(lab: Lab, transports: Mapping[str, Any], **sections: Any) -> Milter:
    """A milter that knows *transports*, and waits for the slowest server."""
    rules = {"tag_wait": PATIENCE}
    sections = {"limits": labconfig.NO_BUDGETS, **sections}
    return Milter(lab, transport=transports, probe=PROBE, rules=rules, **sections)


def send(lab: Lab, milter: Milter, scenario: Scenario) -> tuple[Scenario, Ending, Ending]:
    """Send it: what the milter's log forecasts, what Postfix's log says then."""
    recipients = len(lab.recipients(scenario))
    accepted = lab.send(scenario, authenticated=True)
    forecasts = {
        _address(str(line["to"])): (str(line["forecast"]), str(line["tls"] or ""))
        for line in milter.recipients(accepted.queue_id, recipients, timeout=60)
    }
    deliveries = lab.deliveries(accepted.queue_id, recipients)
    return scenario, forecasts, {item.to: (item.dsn, item.tls or "") for item in deliveries}


def _address(logged: str) -> str:
    """An address of the milter's log, which is ASCII, as Postfix logs it."""
    return logged.strip("<>").encode("ascii").decode("unicode_escape")


def differences(made: Iterable[tuple[Scenario, Any, Any]]) -> list[str]:
    """A line for each scenario whose forecast is not what came of it."""
    return [f"{item.id}: forecast {ours}, was {was}" for item, ours, was in made if ours != was]


def sweep(lab: Lab, milter: Milter, scenarios: Sequence[Scenario]) -> list[str]:
    """Send all of them at once; what was not as forecast."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return differences(pool.map(lambda item: send(lab, milter, item), scenarios))


@contextmanager
def _running(scenarios: Sequence[Scenario]) -> Iterator[tuple[Lab, Milter]]:
    with (
        Lab(scenarios, profiles=labconfig.profiles_told_apart()) as lab,
        knowing_all(lab) as milter,
    ):
        yield lab, milter


def main(seed: int, count: int) -> int:
    """Sweep, and say what differs."""
    scenarios = at_random(seed, count)
    different = 0
    for start in range(0, count, AT_ONCE):
        part = scenarios[start : start + AT_ONCE]
        with _running(part) as (lab, milter):
            for line in sweep(lab, milter, part):
                different += 1
                print(line)
    print(f"{count - different} of {count} scenarios ended as forecast")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
