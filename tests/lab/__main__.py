"""python -m tests.lab up | run-oracle | record | build

``up`` keeps a lab with all recorded scenarios running until Ctrl-C; ``run-oracle`` replays the
recordings; ``record`` replays them and writes what this Postfix does otherwise in their place;
``build`` only makes the roots.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from tests.lab import roots, versions
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.lab import Lab
from tests.lab.oracle import Outcome, recorded, replay
from tests.support.paths import ORACLE
from tests.support.scenario import load


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make the roots (done by itself when needed)")
    up = commands.add_parser("up", help="keep a lab running")
    up.add_argument("--downstream", action="store_true", help="with a second Postfix")
    oracle = commands.add_parser("run-oracle", help="replay the recorded scenarios")
    oracle.add_argument("--only", nargs="+", metavar="ID", default=[])
    oracle.add_argument("--verbose", action="store_true", help="a line for each scenario")
    commands.add_parser("record", help="replay, and write the recordings of this version")
    arguments = parser.parse_args()
    # SIGTERM is to end us as Ctrl-C does: through every "finally".
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "build":
            for recipe in roots.ALL:
                print(roots.ensure(recipe))
            for sentence in versions.moved():
                print(f"another version: {sentence}", file=sys.stderr)
            return 0
        if arguments.command == "up":
            return _up(arguments.downstream)
        if arguments.command == "record":
            return _record()
        return _run_oracle(arguments.only, arguments.verbose)
    except LabUnavailable as error:
        print(f"no lab on this machine: {error}", file=sys.stderr)
        return 69
    except LabError as error:
        print(f"the lab failed: {error}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 130


def _up(downstream: bool) -> int:
    with Lab(load().scenarios, downstream=downstream) as lab:
        print(lab.summary())
        print("stop with Ctrl-C", flush=True)
        while True:
            time.sleep(3600)


def _run_oracle(only: list[str], verbose: bool) -> int:
    scenarios = [item for item in load().scenarios if not only or item.id in only]
    missing = set(only) - {item.id for item in scenarios}
    if missing:
        print(f"no such scenario: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2
    with Lab(scenarios) as lab:
        began = time.monotonic()
        outcomes = replay(lab, scenarios)
        took = time.monotonic() - began
        started = lab.timings["all"]
    different = _tell(outcomes, verbose)
    print(
        f"{len(outcomes) - different} of {len(outcomes)} scenarios equal to the recording; "
        f"lab up in {started:.1f} s, replayed in {took:.1f} s"
    )
    now, then = versions.running("postfix-3.11"), load().postfix
    if now != then:
        print(f"this is Postfix {now}, the recordings are of {then}: what differs is listed only")
        return 0
    return 1 if different else 0


def _tell(outcomes: list[Outcome], verbose: bool) -> int:
    """Print what is not as recorded; returns of how many scenarios."""
    different = 0
    for outcome in outcomes:
        if outcome.differences:
            different += 1
            print(f"DIFFERENT {outcome.scenario.id}: {outcome.scenario.desc}")
            for line in outcome.differences:
                print(f"    {line}")
        elif verbose:
            for item in outcome.deliveries:
                print(f"equal {outcome.scenario.id} {item.status} {item.dsn} {item.tls}")
    return different


def _record() -> int:
    scenarios = load().scenarios
    with Lab(scenarios) as lab:
        outcomes = replay(lab, scenarios)
    different = _tell(outcomes, verbose=False)
    version = versions.running("postfix-3.11")
    data = json.loads(ORACLE.read_text(encoding="utf-8"))
    made = recorded(data, outcomes, version)
    ORACLE.write_text(json.dumps(made, indent=1), encoding="utf-8")
    print(f"{ORACLE}: Postfix {version}, {different} of {len(outcomes)} scenarios changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
