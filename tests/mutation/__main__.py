"""``make mutate``: print the mutants that no test notices.

.venv/bin/python -m tests.mutation [--sample N] [--seed N] [MODULE]...
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from tests.mutation import equivalent
from tests.mutation.mutants import PACKAGE, Mutant, Site, sites
from tests.mutation.trial import Fate, fate_of

PURE = (
    "forecast/*.py",
    "milter/requirement.py",
    "milter/tag.py",
    "milter/recipient.py",
    "milter/settings.py",
    "milter/transaction.py",
    "rules.py",
    "syntax/*.py",
)
"""What is changed: values in, values out; all that it does, a fast test can see."""

WANTED = 95
"""Percent of the mutants that are no equivalents."""


@click.command()
@click.option("--sample", default=80, show_default=True, help="So many mutants; 0: all.")
@click.option("--seed", type=int, help="Which ones; a new sample if not said.")
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
def main(sample: int, seed: int | None, modules: tuple[str, ...]) -> None:
    """Change one thing at a time in the pure MODULES, all if none is named, and run their tests.

    Exit status 1 if fewer than 95 % of the mutants are killed, those aside that are listed as
    equivalents (tests/mutation/equivalent.toml), or if that list is out of date.
    """
    paths = [path for glob in modules or PURE for path in sorted(PACKAGE.glob(glob))]
    if not paths:
        raise click.UsageError(f"no such module: {' '.join(modules)}")
    same = equivalent.load()
    if fate_of(None) is not Fate.SURVIVED:
        raise click.ClickException("the tests fail without any mutant")
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    began = time.monotonic()
    fates: Counter[str] = Counter()
    for mutant in _drawn(paths, seed, sample):
        listed = any(entry.is_about(mutant) for entry in same)
        fate = Fate.EQUIVALENT if listed else fate_of(mutant)
        fates[fate] += 1
        click.echo(fate.value[0], nl=False, err=True)
        if fate is Fate.SURVIVED:
            click.echo(f"\nsurvived, in {mutant.within or 'the module'}:\n{mutant.diff}")
    tried = fates[Fate.KILLED] + fates[Fate.SURVIVED]
    rate = 100 * fates[Fate.KILLED] / max(1, tried)
    click.echo(
        f"\n{tried + fates[Fate.EQUIVALENT]} mutants (--seed {seed}): {fates[Fate.KILLED]} killed, "
        f"{fates[Fate.SURVIVED]} survived, {fates[Fate.EQUIVALENT]} equivalent: "
        f"{rate:.1f} % killed, {WANTED} wanted; {time.monotonic() - began:.0f} s"
    )
    stale = [entry for entry in same if not entry.is_current()]
    for entry in stale:
        click.echo(f"no longer there, take it off the list of equivalents: {entry}", err=True)
    sys.exit(bool(stale) or (tried > 0 and rate < WANTED))


def _drawn(paths: list[Path], seed: int, sample: int) -> Iterator[Mutant]:
    """So many mutants, by chance; all of them where *sample* is 0, or more than there are."""
    found: list[Site] = [site for path in paths for site in sites(path)]
    random.Random(seed).shuffle(found)  # noqa: S311 - nothing to guess
    drawn = 0
    for site in found:
        mutant = site.mutant()
        if mutant is not None:
            yield mutant
            drawn += 1
        if drawn == sample:
            return


if __name__ == "__main__":
    main()
