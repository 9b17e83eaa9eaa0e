"""The fuzzer's command line; ``make fuzz`` runs it with all targets."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from tests.fuzz import runs
from tests.fuzz.table import TARGETS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[TARGET]...", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option("--seconds", default=60.0, show_default=True, help="For each target.")
@click.option("--jobs", default=0, help="Targets at once; as many as there are cores if not said.")
@click.option("--option", "options", multiple=True, help="For libFuzzer, such as -runs=1000.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Run one target with this input alone, and without atheris.",
)
def main(
    names: tuple[str, ...],
    seconds: float,
    jobs: int,
    options: tuple[str, ...],
    replay: Path | None,
) -> None:
    """Fuzz the targets, all if none is named; exit status 1 if one of them fails.

    A crash is told with its traceback and kept as a file in .fuzz/crashes.
    """
    targets = [TARGETS[name] for name in names or TARGETS]
    if replay is not None:
        if len(targets) != 1:
            raise click.UsageError("--replay wants one target")
        targets[0].load()(replay.read_bytes())
        return
    reason = runs.available()
    if reason:
        raise click.ClickException(reason)
    began = time.monotonic()
    outcomes = []
    for outcome in runs.fuzz(targets, seconds, options, jobs=jobs or os.cpu_count() or 1):
        _tell(outcome)
        outcomes.append(outcome)
    executions = sum(outcome.executions for outcome in outcomes)
    failed = [outcome.target for outcome in outcomes if outcome.failed]
    click.echo(f"{executions:,} executions in {time.monotonic() - began:.0f} s")
    if failed:
        click.echo(f"failed: {', '.join(failed)}")
        sys.exit(1)


def _tell(outcome: runs.Outcome) -> None:
    line = (
        f"{outcome.target:18} {outcome.executions:>12,} executions  "
        f"{outcome.branches:>6} branches  {outcome.inputs:>5} inputs"
    )
    if outcome.failed:
        line += "\n" + outcome.output[-6000:]
        for crash in outcome.crashes:
            line += f"\nagain: python -m tests.fuzz {outcome.target} --replay {crash}\n"
    click.echo(line)


if __name__ == "__main__":
    main()
