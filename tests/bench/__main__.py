"""``make bench``: print what the milter costs.

.venv/bin/python -m tests.bench [--quick] [--json] [--against REV] [ROW...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.bench import machine
from tests.bench.against import compared
from tests.bench.known import ROWS
from tests.bench.rows import FULL, QUICK, Effort, Row
from tests.bench.trees import RevisionError

WIDTH = 110
"""Columns where the output is no terminal."""


@click.command(help="Measure what the milter costs; all rows unless some are named.")
@click.option("--quick", is_flag=True, help="Only show that it works: the figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--against", metavar="REV", help="Compare with an earlier commit, in turn.")
@click.option("--rounds", default=3, show_default=True, help="Of a comparison.")
@click.option("--tree", type=click.Path(path_type=Path), hidden=True)
@click.argument("rows", nargs=-1, type=click.Choice(list(ROWS)))
def main(
    quick: bool,
    as_json: bool,
    against: str | None,
    rounds: int,
    tree: Path | None,
    rows: Sequence[str],
) -> None:
    """Run the rows and print them as they come, or all together as JSON."""
    facts = machine.facts()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    if not as_json:
        console.print(_facts(facts), soft_wrap=True)
    effort = QUICK if quick else FULL
    if tree is not None:
        effort = replace(effort, tree=tree)
    found = []
    for row in (
        _measured(effort, rows) if against is None else _against(against, rows, rounds, quick)
    ):
        found.append(row)
        if not as_json:
            show(console, row)
    if as_json:
        print(json.dumps({"machine": facts, "quick": quick, "rows": list(map(_plain, found))}))
    sys.exit(0)


def _measured(effort: Effort, rows: Sequence[str]) -> Iterator[Row]:
    for name, known in ROWS.items():
        if not rows or name in rows:
            yield known.measure(effort)


def _against(revision: str, rows: Sequence[str], rounds: int, quick: bool) -> Sequence[Row]:
    try:
        return compared(revision, rows, rounds, quick=quick)
    except RevisionError as error:
        raise click.ClickException(str(error)) from error


def _facts(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['cores']} cores ({facts['processor']}), Python {facts['python']}, "
        f"Linux {facts['kernel']}, load average before: {facts['load_before']}"
    )


def _plain(row: Row) -> dict[str, Any]:
    data = asdict(row)
    return {key: data[key] for key in ("name", "title", "notes", "data", "skipped")}


def show(console: Console, row: Row) -> None:
    """Print a row as a table."""
    console.print()
    if row.skipped:
        console.print(f"{row.name}: not measured: {row.skipped}", soft_wrap=True)
        return
    table = Table(
        title=f"{row.name}: {row.title}", title_justify="left", title_style="bold", box=None
    )
    for position, column in enumerate(row.columns):
        text = position == 0 or column in ("milter", "of")
        table.add_column(column, justify="left" if text else "right", no_wrap=True)
    for line in row.lines:
        table.add_row(*line)
    console.print(table)
    for note in row.notes:
        console.print(f"  {note}", soft_wrap=True, style="dim")


if __name__ == "__main__":
    main()
