"""Installations put to work: imported, forecast, and delivered by the real Postfix.

    python -m tests.lab.installed SEED COUNT [START [VERSION [ALIASES]]]

runs COUNT installations of :mod:`tests.lab.installations`, and ends with status 1 where a letter
ended otherwise than was forecast and no warning of ``mta import`` explains it. ALIASES is how
recipients are expanded, ``ask`` or ``static``.

Each installation is a Postfix of its own, several of them side by side. One milter forecasts for
one after the other: it is given the section that ``mta import`` writes, and reloads.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from requiretls_milter.model import Aliases
from tests.lab import netns, roots, submission
from tests.lab.errors import LabError
from tests.lab.installations import LMTP_PORT, Installation, Letter, Place, at_random, settle
from tests.lab.lab import MYDOMAIN, Lab, write_once
from tests.lab.labconfig import NO_BUDGETS
from tests.lab.log import Delivery, parse
from tests.lab.milter import TcpMilter
from tests.lab.postfix import RESOLV_CONF, TIMEOUTS, Postfix, Tables
from tests.lab.sweep import PATIENCE, PROBE
from tests.support import addresses
from tests.support.lmtpserver import LmtpServer
from tests.support.paths import REPOSITORY
from tests.support.waiting import NotInTime, eventually, log_written

PORT = 8689
"""Of the milter, which Postfix of any root can reach by TCP."""

AHEAD = 6
"""Installations that are made while another one is at work."""

SLOW = 25.0
"""Seconds for a delivery."""

EXPANDED = "only with mta.aliases"
"""In warnings that explain nothing here: recipients are expanded."""

ASKED = 'only with aliases = "ask"'
"""In warnings of tables that are no text."""

_LOCAL = frozenset({"local", "virtual", "discard", "pipe"})
_FIELDS = {"no": "TLS-Required: No", "header": "Require-TLS-ESMTP: yes"}
_LARGE = "0123456789\n" * 1000


# ---------------------------------------------------------------- one Postfix


class InstalledPostfix(Postfix):
    """A Postfix with the files of an installation."""

    def __init__(self, lab: Lab, root: Path, made: Installation, number: int) -> None:
        """Plan it; *number* makes its address."""
        name = f"in-{made.name}"
        super().__init__(
            root,
            name,
            f"127.25.{1 + number // 250}.{1 + number % 250}",
            certificate=lab.plan.pki.issue(f"mta.{MYDOMAIN}").path,
            ca_file=lab.ca_file,
        )
        self.made = made
        self.configure(
            {
                "myhostname": f"mta.{MYDOMAIN}",
                "mydomain": MYDOMAIN,
                "smtpd_milters": f"inet:{addresses.MILTER}:{PORT}",
                "non_smtpd_milters": f"inet:{addresses.MILTER}:{PORT}",
                "milter_default_action": "tempfail",
                # Else the queue manager ends a letter by the failure of one before it.
                "default_destination_concurrency_failed_cohort_limit": "100",
                # A session that is used again has no tls= in the log.
                "smtp_connection_cache_on_demand": "no",
                "lmtp_connection_cache_on_demand": "no",
                **TIMEOUTS,
                **{key: self._placed(value) for key, value in made.main.items()},
            },
            self._placed(made.services),
        )

    def _placed(self, text: str) -> str:
        words = {
            "@ETC@": self.inside("etc"),
            "@MAIL@": self.inside("mail"),
            "@UID@": str(roots.UID_POSTFIX),
            "@GID@": str(roots.GID_POSTFIX),
        }
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    def _write_tables(self, tables: Tables) -> None:
        self._write_files({name: self._placed(text) for name, text in self.made.files.items()})

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "etc/master.cf"
        line = "smtp      unix  -       -       n       -       -       smtp\n"
        text = path.read_text()
        assert line in text
        path.write_text(text.replace(line, line + self._placed(self.made.smtp)))

    @property
    def tells_tls(self) -> bool:
        """Whether its log has the field tls=, as that of Postfix 3.11 has."""
        return "smtp_log_tls_feature_status" in self.defaults()

    def kept(self, letter: Letter) -> str:
        """The queue ID of a letter that was delivered here; "" for none."""
        for line in self.log.grep(f"to=<{re.escape(letter.recipient)}>"):
            found = parse(line)
            if found is not None and _is_local(found):
                return found.queue_id
        return ""

    def gives_up(self, letter: Letter) -> bool:
        """Whether it keeps a letter of sendmail(1) in maildrop, since its aliases never end."""
        return any(self.log.grep(f"unreasonable .* for {re.escape(letter.recipient)} --"))

    def send(self, letter: Letter, ca_file: Path) -> str:
        """Give it a letter; the queue ID, or nothing if it came by sendmail(1)."""
        note = ["X-Note: gr\u00fcn"] if letter.utf8 else []
        if letter.asks in _FIELDS:
            note.append(_FIELDS[letter.asks])
        body = _LARGE if letter.large else "gr\u00fcn\n" if letter.eight_bit else "hello\n"
        text = submission.message(self.made.name, [letter.recipient], headers=note, body=body)
        if letter.by_sendmail:
            options = ["-O", "requiretls=yes"] if letter.asks == "requiretls" else []
            options += ["-R", "hdrs", "-V", "abc"] if letter.dsn else []
            options += ["-B", "8BITMIME"] if letter.eight_bit else []
            sender = letter.sender or "<>"
            text = text.replace("\r\n", "\n")
            self.sendmail(["-f", sender, *options, letter.recipient], text)
            return ""
        parameters = ["REQUIRETLS"] if letter.asks == "requiretls" else []
        parameters += ["SMTPUTF8"] if letter.utf8 else []
        parameters += ["BODY=8BITMIME"] if letter.eight_bit else []
        parameters += ["RET=HDRS", "ENVID=abc"] if letter.dsn else []
        parameters += [f"SIZE={len(text.encode())}"] if letter.large else []
        return submission.send(
            self.address,
            [letter.recipient],
            text,
            ca_file=ca_file,
            sender=letter.sender,
            parameters=parameters,
        ).queue_id


# ---------------------------------------------------------------- the milter


class InstallationsMilter(TcpMilter):
    """A milter that mirrors one installation after the other."""

    def __init__(self, lab: Lab) -> None:
        """Plan it; it listens on TCP, where each Postfix finds it."""
        super().__init__(
            lab,
            milter={"socket": f"inet:{PORT}@{addresses.MILTER}"},
            probe=PROBE,
            rules={"tag_wait": PATIENCE},
            limits=NO_BUDGETS,
        )

    def mirror(self, section: Mapping[str, Any], aliases: Aliases) -> None:
        """Take the section ``[mta]`` that ``mta import`` wrote, and expand recipients by it."""
        self.forget()
        expands = any(name.endswith("_maps") for name in section)
        self.reload(mta={**section, **({"aliases": aliases} if expands else {})})


@dataclass(frozen=True)
class Imported:
    """What ``mta import`` made of an installation."""

    section: Mapping[str, Any]
    warnings: tuple[str, ...]


def imported(mta: Postfix, aliases: Aliases = Aliases.ASK) -> Imported:
    """Run the command, as an operator does; *aliases* is how recipients will be expanded."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "requiretls_milter", "mta", "import"),
            *("--postconf", f"chroot {mta.root} /usr/sbin/postconf"),
            *("--config-dir", mta.inside("etc")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    warnings = tuple(
        line.removeprefix("warning: ")
        for line in done.stderr.splitlines()
        if line.startswith("warning: ")
        and EXPANDED not in line
        and not (aliases is Aliases.ASK and ASKED in line)
    )
    return Imported(tomllib.loads(done.stdout)["mta"], warnings)


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class End:
    """How a letter ends: status code, outcome and tls= word; of local mail the code alone."""

    code: str
    outcome: str
    tls: str


LOCAL = End("local", "", "")


@dataclass(frozen=True)
class Result:
    """A letter, what was forecast and what happened; ``refused`` if Postfix did not take it."""

    letter: Letter
    forecast: End | None = None
    happened: End | None = None
    refused: str = ""
    note: str = ""
    """What Postfix's log says, for a letter that ended otherwise than was forecast."""
    expanded: bool = True
    """Whether the milter knew what its recipient becomes."""

    @property
    def equal(self) -> bool:
        return bool(self.refused) or self.forecast == self.happened


@dataclass
class Outcome:
    """An installation, its warnings and the results of its letters."""

    made: Installation
    warnings: tuple[str, ...]
    results: list[Result] = field(default_factory=list)

    @property
    def different(self) -> list[Result]:
        told = any(ASKED in text for text in self.warnings)
        return [one for one in self.results if not (one.equal or (told and not one.expanded))]


_OUTCOMES = {"sent": "deliver", "deferred": "defer", "bounced": "bounce"}
_BY_CLASS = {"2": "deliver", "4": "defer", "5": "bounce"}


def _is_local(found: Delivery) -> bool:
    """Whether no server was to have it; what the queue manager gives up is error(8)'s, too."""
    if found.transport == "error":
        return not found.reason.startswith(("delivery temporarily", "mail transport"))
    return found.transport in _LOCAL


def _forecast(line: Mapping[str, Any]) -> End:
    if line["reason"] == "local":
        return LOCAL
    code = str(line.get("forecast", "silent"))
    return End(code, _BY_CLASS.get(code[:1], code), str(line.get("tls") or ""))


def _happened(found: Delivery) -> End:
    # The service of master.cf stands before the process, its program in the name of the log.
    if _is_local(found):
        return LOCAL
    return End(found.dsn, _OUTCOMES.get(found.status, found.status), found.tls or "")


@dataclass
class Work:
    """The lab with the milter, and the installations on their way."""

    lab: Lab
    root: Path
    numbers: Iterator[int]
    aliases: Aliases

    def prepare(self, made: Installation) -> tuple[InstalledPostfix, Imported]:
        """Start a Postfix, and import its configuration."""
        mta = InstalledPostfix(self.lab, self.root, made, next(self.numbers))
        try:
            mta.start()
            return mta, imported(mta, self.aliases)
        except BaseException:
            mta.stop()
            raise

    def forecast(
        self, milter: InstallationsMilter, mta: InstalledPostfix, section: Mapping[str, Any]
    ) -> list[tuple[Letter, dict[str, Any], str]]:
        """Send the letters: the milter's line for each, or the reason of a refusal."""
        milter.mirror(section, self.aliases)

        def one(letter: Letter) -> tuple[Letter, dict[str, Any], str]:
            try:
                queue_id = mta.send(letter, self.lab.ca_file)
            except submission.Refused as refused:
                return letter, {}, str(refused)
            except OSError as error:
                mta.log.read()
                raise LabError("\n".join([str(mta.made), *mta.log.lines[-30:]])) from error
            wanted = {"queue_id": queue_id} if queue_id else {"to": letter.recipient}

            def told() -> list[dict[str, Any]]:
                lines = milter.look("recipient")
                return [line for line in lines if wanted.items() <= line.items()]

            # There is no line of local mail that asks for nothing.
            with suppress(NotInTime):
                eventually(lambda: told() or mta.kept(letter), "a forecast", wait=PATIENCE)
            if not told():
                log_written()
            if not told() and mta.gives_up(letter):
                return letter, {}, "Postfix expands it too often"
            line = next(iter(told()), {"queue_id": queue_id or "none", "reason": "silent"})
            if not told() and mta.kept(letter):
                line = {"queue_id": mta.kept(letter), "reason": "local"}
            return letter, line, ""

        with ThreadPoolExecutor(len(mta.made.letters)) as pool:
            return list(pool.map(one, mta.made.letters))

    def finish(
        self,
        mta: InstalledPostfix,
        warnings: tuple[str, ...],
        sent: Sequence[tuple[Letter, dict[str, Any], str]],
    ) -> Outcome:
        """Wait for the deliveries, and compare."""
        outcome = Outcome(mta.made, warnings)
        try:
            for letter, line, refused in sent:
                if refused:
                    outcome.results.append(Result(letter, refused=refused))
                    continue
                queue_id, happened = str(line["queue_id"]), None
                with suppress(NotInTime):
                    happened = _happened(mta.log.wait(queue_id, 1, SLOW)[0])
                ours = _forecast(line)
                if not happened or (not happened.tls and not mta.tells_tls):
                    ours = replace(ours, tls="")
                note = ""
                if ours != happened:
                    told = [*mta.log.grep(f"{queue_id}: "), *mta.log.grep(" (fatal|panic): ")]
                    note = "\n".join([*told, str({k: line[k] for k in _SHOWN if k in line})])
                expanded = not line.get("not_expanded")
                outcome.results.append(Result(letter, ours, happened, note=note, expanded=expanded))
        finally:
            mta.stop()
        return outcome


_SHOWN = ("nexthop", "transport", "forecast", "tls", "reason", "mx", "text", "carried")


def run(
    lab: Lab, root: Path, installations: Iterable[Installation], aliases: Aliases = Aliases.ASK
) -> Iterator[Outcome]:
    """Run installations, and yield what came of each in their order."""
    waiting = list(installations)
    work = Work(lab, root, itertools.count(), aliases)
    ready: list[Future[tuple[InstalledPostfix, Imported]]] = []
    ends: list[Future[Outcome]] = []
    with (
        ThreadPoolExecutor(3) as before,
        ThreadPoolExecutor(12) as after,
        LmtpServer(addresses.MILTER, LMTP_PORT),
        InstallationsMilter(lab) as running,
    ):
        milter = cast(InstallationsMilter, running)
        for place in range(len(waiting)):
            while len(ready) < min(len(waiting), place + AHEAD):
                ready.append(before.submit(work.prepare, waiting[len(ready)]))
            mta, made = ready[place].result()
            sent = work.forecast(milter, mta, made.section)
            ends.append(after.submit(work.finish, mta, made.warnings, sent))
            while ends and ends[0].done():
                yield ends.pop(0).result()
        for end in ends:
            yield end.result()


def explained(outcome: Outcome, twin: Outcome) -> list[Result]:
    """The results that differ and that nothing explains.

    A difference is explained if a warning names the setting that is unlike in the installation's
    twin, and if without that setting the letter ends as forecast.
    """
    told = any(outcome.made.quirk in text for text in outcome.warnings)
    if not outcome.made.quirk or not told:
        return outcome.different
    wrong = {one.letter for one in twin.different}
    return [one for one in outcome.different if one.letter in wrong]


def unexplained(
    lab: Lab,
    root: Path,
    seed: int,
    count: int,
    places: Sequence[Place],
    *,
    start: int = 0,
    version: tuple[int, int] = (3, 11),
    aliases: Aliases = Aliases.ASK,
    say: Any = lambda text: None,
) -> tuple[int, int, list[str]]:
    """Run *count* installations: how many letters, how many explained, and what is unexplained."""
    made = list(at_random(seed, count, places, start=start, version=version))
    letters = explanations = 0
    doubtful: list[Outcome] = []
    found: list[str] = []
    for outcome in run(lab, root, made, aliases):
        letters += sum(not one.refused for one in outcome.results)
        if outcome.different and outcome.made.quirk:
            doubtful.append(outcome)
        elif outcome.different:
            found.append(report(outcome, outcome.different))
            say(found[-1])
    alike = at_random(seed, count, places, start=start, version=version, quirks=False)
    twins = {one.name: one for one in alike}
    names = [outcome.made.name for outcome in doubtful]
    again = run(lab, root, (twins[name] for name in names), aliases)
    for outcome, twin in zip(doubtful, again, strict=True):
        wrong = explained(outcome, twin)
        explanations += len(outcome.different) - len(wrong)
        if wrong:
            found.append(report(outcome, wrong))
            say(found[-1])
    return letters, explanations, found


def report(outcome: Outcome, wrong: Sequence[Result]) -> str:
    """Show what differs, and the installation."""
    rows = [f"=== {outcome.made}", *(f"warning: {text}" for text in outcome.warnings)]
    for one in wrong:
        rows += [str(one.letter), f"  forecast {one.forecast}", f"  happened {one.happened}"]
        rows += [f"  {line}" for line in one.note.splitlines()]
    return "\n".join(rows)


def prepared_root(recipe: roots.Recipe) -> Path:
    """The root of a Postfix, with the resolver of the lab."""
    with netns.outside():
        root = roots.ensure(recipe)
    write_once(root / "etc/resolv.conf", RESOLV_CONF)
    return root


def main(seed: int, count: int, start: int, version: str, aliases: Aliases) -> int:
    """Run, and say what is unexplained."""
    began = time.monotonic()
    with Lab(downstream=False) as lab:
        places = settle(lab)
        recipe = {"3.7": roots.POSTFIX_3_7, "3.10": roots.POSTFIX_3_10}.get(version)
        root = prepared_root(recipe or roots.POSTFIX_3_11)
        major, minor = map(int, version.split("."))
        letters, explanations, found = unexplained(
            *(lab, root, seed, count, places),
            start=start,
            version=(major, minor),
            aliases=aliases,
            say=lambda text: print(text, flush=True),
        )
    print(
        f"{count} installations, {letters} letters, {explanations} differences explained by a "
        f"warning, {len(found)} installations unexplained, {time.monotonic() - began:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    given = [*sys.argv[1:], *("0", "3.11", "ask")[len(sys.argv) - 3 :]]
    sys.exit(main(int(given[0]), int(given[1]), int(given[2]), given[3], Aliases(given[4])))
