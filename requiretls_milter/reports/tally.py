"""Many reports in a few words: a line for each, a summary, and what has changed. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from requiretls_milter.reports.check import exit_status

if TYPE_CHECKING:
    from requiretls_milter.reports.check import NextHopReport

_WORDS = {
    "deliver": "would be delivered",
    "bounce": "would fail permanently",
    "defer": "would be deferred",
    "unknown": "unknown",
}

MALFORMED = 2
"""Exit status if a line of a file is no next hop."""


def line(report: NextHopReport) -> str:
    """Say in one line what would become of mail to a next hop, and why."""
    forecast = report["forecast"]
    why = f": {forecast['text']}" if forecast["text"] else ""
    reply = report["rule"]["reply"]
    ruled = f"; the rule answers {' '.join(reply.split(' ')[:2])}" if reply is not None else ""
    return f"{report['nexthop']}  {_verdict(forecast['status'], forecast['reason'])}{why}{ruled}"


def _verdict(status: str, reason: str) -> str:
    """Both words; one if they are the same ("unknown")."""
    return status if status == reason else f"{status} {reason}"


class Tally:
    """Counts reports; it takes the same memory for any number of them."""

    def __init__(self) -> None:
        self.done = 0
        self.malformed = 0
        self._outcomes: Counter[str] = Counter()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._statuses: set[int] = set()
        self._ruled = 0

    def add(self, report: NextHopReport) -> None:
        """Count one."""
        forecast = report["forecast"]
        self.done += 1
        self._outcomes[forecast["outcome"]] += 1
        self._verdicts[forecast["status"], forecast["reason"]] += 1
        self._statuses.add(exit_status([report]))
        self._ruled += report["rule"]["reply"] is not None

    @property
    def exit_status(self) -> int:
        """The worst of all: 2 (a malformed line) over 1 over 75 over 0."""
        if self.malformed:
            return MALFORMED
        return next((status for status in (1, 75) if status in self._statuses), 0)

    def outcomes(self) -> str:
        """Say how many would be delivered, and so on."""
        said = [f"{self._outcomes[outcome]} {words}" for outcome, words in _WORDS.items()]
        if self.malformed:
            said.append(f"{self.malformed} malformed")
        ruled = f"; a rule answers {self._ruled} of them" if self._ruled else ""
        return ", ".join(said) + ruled

    def summary(self, seconds: float) -> str:
        """Say how many there were, how fast, and with which verdicts, the commonest first."""
        rate = f", {self.done / seconds:.1f}/s" if seconds > 0 else ""
        lines = [f"{self.done} next hops in {seconds:.1f} s{rate}: {self.outcomes()}"]
        for (status, reason), count in self._verdicts.most_common():
            lines.append(f"{count:>8}  {_verdict(status, reason)}")
        return "\n".join(lines)


class VerdictChanges:
    """Remembers the verdict of each next hop, and tells when it becomes another."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def take(self, report: NextHopReport) -> str | None:
        """Note a report; return what has changed, "" for the first one, None if nothing has."""
        name, forecast = report["nexthop"], report["forecast"]
        verdict = _verdict(forecast["status"], forecast["reason"])
        before = self._last.get(name)
        self._last[name] = verdict
        if before is None:
            return ""
        if before == verdict:
            return None
        return f"{name}  was {before}, is {verdict}: {forecast['text']}"
