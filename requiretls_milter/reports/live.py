"""``check`` as it runs: next hops come in, reports go out, and a line says how far it has come."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from requiretls_milter.reports import hopfile
from requiretls_milter.reports.assess import (
    Assessed,
    GivenHop,
    Judging,
    MalformedError,
    each,
    listed,
    parse_all,
    to_json,
    to_text,
)
from requiretls_milter.reports.check_text import resolver_line
from requiretls_milter.reports.finder import Finder
from requiretls_milter.reports.progress import ProgressLine, bar, waiting_for
from requiretls_milter.reports.tally import Tally, VerdictChanges, line
from requiretls_milter.syntax.moments import moment

if TYPE_CHECKING:
    from requiretls_milter.reports.check import NextHopReport

AssessedHop = Assessed["NextHopReport"]

TICK = 0.25
"""Seconds between two progress lines."""


class ReportSink(Protocol):
    """What becomes of the reports."""

    def add(self, one: AssessedHop) -> None:
        """Take a report."""
        ...

    def end(self) -> None:
        """All reports have come."""
        ...


@dataclass(slots=True)
class Options:
    """What the command line asks for beside the next hops.

    Attributes:
        output: ``text``, ``json`` or ``jsonl``.
        file: where the next hops come from; None if they are on the command line.
        watch: seconds from one round to the next; None for a single round.
        refresh: look anew, whatever a running engine knows already.
    """

    output: str
    file: TextIO | None = None
    watch: float | None = None
    refresh: bool = False


async def check(given: Sequence[GivenHop], judging: Judging, options: Options) -> int:
    """Assess next hops and print what is found; return the exit status.

    With ``watch`` it goes on until it is interrupted.

    Args:
        given: those of the command line.
        judging: how they are judged.
        options: how they are read and printed.

    Raises:
        OSError: the file cannot be read, or the output cannot be written.
    """
    progress = ProgressLine(sys.stderr)
    run = _Run(judging, options, progress)
    async with Finder(judging.config, judging.trust, refresh=options.refresh) as finder:
        if options.watch is None:
            return await run.one_round(run.hops(given), finder)
        hops = [hop async for hop in run.hops(given)]
        while True:
            began = time.monotonic()
            await run.one_round(listed(hops), finder)
            await run.pause(began + options.watch - time.monotonic())
            await finder.begin_round(anew=True)


class _Run:
    """One call of the command."""

    def __init__(self, judging: Judging, options: Options, progress: ProgressLine) -> None:
        self._judging = judging
        self._options = options
        self._progress = progress
        self._malformed = 0
        self._changes = VerdictChanges() if options.watch is not None else None
        self._is_told = False
        self.total: int | None = None

    async def hops(self, given: Sequence[GivenHop]) -> AsyncIterator[GivenHop]:
        """Give the next hops of the command line, then those of the file; tell which are none."""
        file = self._options.file
        for one in given:
            yield one
        if file is None:
            self.total = len(given)
            return
        in_file = hopfile.count_of(file)
        self.total = None if in_file is None else len(given) + in_file
        async for read in hopfile.read(file):
            for one in self._parsed(read):
                yield one

    def _parsed(self, read: hopfile.HopLine) -> Sequence[GivenHop]:
        if read.is_too_long:
            self._tell(read, f"more than {hopfile.MAX_LINE} characters")
            return ()
        try:
            return parse_all([read.text], self._judging.config.mta, self._judging.transport)
        except MalformedError as error:
            for mistake in error.mistakes:
                self._tell(read, mistake)
            return ()

    def _tell(self, read: hopfile.HopLine, mistake: str) -> None:
        self._progress.clear()
        self._malformed += 1
        click.echo(f"error: line {read.number}: {mistake}", err=True)

    async def one_round(self, hops: AsyncIterator[GivenHop], finder: Finder) -> int:
        """Assess all next hops once; return the exit status."""
        tally, began = Tally(), time.monotonic()
        output = self._output()
        ticking = asyncio.create_task(self._tick(tally, began))
        try:
            async for one in each(hops, finder, self._judging):
                tally.add(one.report)
                self._progress.clear()
                output.add(one)
        finally:
            ticking.cancel()
            self._progress.clear()
        output.end()
        tally.malformed = self._malformed
        if self._options.file is not None and self._changes is None:
            told = tally.summary(time.monotonic() - began)
            click.echo(told, err=self._options.output != "text")
        return tally.exit_status

    async def pause(self, seconds: float) -> None:
        """Wait for the next round."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._progress.show(f"watching {self.total} next hops, again in {left:.0f} s")
            await asyncio.sleep(min(1.0, left))
        self._progress.clear()

    async def _tick(self, tally: Tally, began: float) -> None:
        while self._progress.is_shown:
            await asyncio.sleep(TICK)
            seconds = time.monotonic() - began
            names = waiting_for(self._judging.pending.values())
            if self._options.file is None:
                self._progress.show(f"{tally.done} of {self.total}, {seconds:.0f} s: {names}")
                continue
            rate = f"{tally.done / seconds:.1f}/s"
            done = f"{tally.done}"
            if self.total is not None:
                done = f"{bar(tally.done, self.total)} {tally.done} of {self.total}"
            self._progress.show(f"{done}, {rate}, {tally.outcomes()}: {names}")

    # ------------------------------------------------------------ output

    def _output(self) -> ReportSink:
        if self._options.output == "json":
            return _Json()
        if self._options.output == "jsonl":
            return _Each(lambda one: json.dumps(one.report))
        if self._changes is not None:
            changes = self._changes
            return _Each(lambda one: self._changed(one, changes))
        if self._options.file is not None and not self._judging.detailed:
            return _Each(lambda one: self._with_resolver(one.report, line(one.report)))
        return _Each(self._block)

    def _block(self, one: AssessedHop) -> str:
        text = to_text([one.report], now=time.time())
        blank = "\n" if self._is_told else ""
        return self._with_resolver(one.report, blank + text)

    def _changed(self, one: AssessedHop, changes: VerdictChanges) -> str | None:
        change = changes.take(one.report)
        if change is None:
            return None
        if not change:
            return self._with_resolver(one.report, line(one.report))
        return self._with_resolver(one.report, f"{moment(time.time())}  {change}")

    def _with_resolver(self, report: NextHopReport, text: str) -> str:
        """Put before the first text that nothing counts as secure, if that is so."""
        first, self._is_told = not self._is_told, True
        if first and not report["resolver_validates"]:
            return f"{resolver_line()}\n{text}"
        return text


class _Each:
    """Prints each report as soon as it comes, and at once, as far as a pipe goes."""

    def __init__(self, text_of: Callable[[AssessedHop], str | None]) -> None:
        self._text_of = text_of

    def add(self, one: AssessedHop) -> None:
        text = self._text_of(one)
        if text is not None:
            click.echo(text)
            sys.stdout.flush()

    def end(self) -> None:
        """Nothing is left."""


class _Json:
    """Prints one array, in the order of the next hops, when all reports have come."""

    def __init__(self) -> None:
        self._found: list[AssessedHop] = []

    def add(self, one: AssessedHop) -> None:
        self._found.append(one)

    def end(self) -> None:
        self._found.sort(key=lambda one: one.number)
        click.echo(to_json([one.report for one in self._found]))
