"""Aliases in tables that are no text, which are asked: forecast beside the real Postfix.

A Postfix of its own has tables of each kind that Debian packs, among them one of 100,000 entries
whose text is gone. ``mta import`` names them, and the milter asks them by Postfix's own postmap(1).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import roots, submission
from tests.lab.aliasing import ENTRIES, HOME, LACKS, MAIN, SENDER, SENT, STRICT, at, send
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.installations import Installation
from tests.lab.installed import PORT, Imported, InstalledPostfix, imported, prepared_root
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.labconfig import NO_BUDGETS
from tests.lab.milter import TcpMilter
from tests.lab.processes import run
from tests.lab.sweep import PATIENCE, PROBE
from tests.support import addresses
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

GOOD = Scenario("ask-good", "dane/enforce", (Domain(mx=(Mx(),)),))
LACKING = Scenario(
    "ask-lacking", "dane/enforce", (Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)


def ending(to: str) -> tuple[str, str]:
    return LACKS if "ask-lacking" in to else SENT


GOES: Mapping[str, tuple[str, ...]] = {
    f"Re.One+x@{HOME}": (at(GOOD, "re.One+x"),),
    f"rel-two@{HOME}": (at(LACKING, "two"),),
    f"pc-three+ext@{HOME}": (at(LACKING, "three"), at(GOOD, "copy-three+ext")),
    f"sq-four+ext@{HOME}": (at(LACKING, "four+ext"),),
    f"user7@{HOME}": (at(GOOD, "u7"),),
    f"any+ext@all.{HOME}": (at(LACKING, "any+ext"),),
    f"soc-five@{HOME}": (at(LACKING, "five"),),
    f"piped@{HOME}": (at(GOOD, "six"),),
    f"steps@{HOME}": (at(LACKING, "four"), at(LACKING, "two")),
}
"""Recipients, and to which addresses their mail goes."""

REGEXP = f"""\
/^(re\\..*)@home\\.test$/ $1@{at(GOOD, "")[1:]}
/^rel-/ {at(LACKING, "two")}
/^@home\\.test$/ never@{MYDOMAIN}
/^circle@/ circle@{HOME}, x@{HOME}
/^x@/ circle2@{HOME}
/^circle2@/ y@{HOME}
/^y@/ circle2@{HOME}
"""
PCRE = f"""\
/^pc-(.*?)\\+(.*)@/ {at(LACKING, "$1")}, {at(GOOD, "copy-$1+$2")}
/^steps@/ sq-four@{HOME} rel-two@{HOME}
"""
SQL = "dbpath = @ETC@/aliases.sqlite\nquery = SELECT goto FROM alias WHERE address='%s'\n"
ROWS = {f"sq-four@{HOME}": at(LACKING, "four")}
TABLES = (
    "regexp:@ETC@/re proxy:pcre:@ETC@/pcre sqlite:@ETC@/sql lmdb:@ETC@/many "
    "unionmap:{inline:{{piped@home.test=@SIX@}},inline:{{nothing=x}}} hash:@ETC@/hashed"
)


class Tabled(InstalledPostfix):
    """A Postfix with tables that are no text; it has them before it starts."""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "etc/aliases.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE alias (address TEXT, goto TEXT)")
            database.executemany("INSERT INTO alias VALUES (?, ?)", ROWS.items())
            database.commit()
        users = {f"user{number}@{HOME}": at(GOOD, f"u{number}") for number in range(ENTRIES)}
        self._compile("lmdb:many", {**users, f"@all.{HOME}": f"@{at(LACKING, '')[1:]}"})
        self._compile("hash:hashed", {f"soc-five@{HOME}": at(LACKING, "five")})

    def _compile(self, table: str, entries: Mapping[str, str]) -> None:
        """Have postmap make a table, and remove the text."""
        kind, _, name = table.partition(":")
        path = self.directory / "etc" / name
        path.write_text("".join(f"{key} {value}\n" for key, value in entries.items()))
        run(
            ["/usr/sbin/postmap", "-c", self.inside("etc"), f"{kind}:{self.inside('etc')}/{name}"],
            root=self.root,
        )
        path.unlink()


@pytest.fixture(scope="module")
def mta(lab: Lab) -> Iterator[Tabled]:
    """A Postfix with all these tables."""
    try:
        root = prepared_root(roots.POSTFIX_3_11_TABLES)
    except LabUnavailable as reason:
        unavailable(reason)
    lab.add([GOOD, LACKING])
    main = {
        **MAIN,
        "local_transport": "discard",
        "recipient_delimiter": "+",
        "virtual_alias_domains": f"all.{HOME}",
        "virtual_alias_maps": TABLES.replace("@SIX@", at(GOOD, "six")),
    }
    files = {"re": REGEXP, "pcre": PCRE, "sql": SQL}
    made = Tabled(lab, root, Installation("asked", main, "", "", files, ()), 2200)
    with contextlib.ExitStack() as stack:
        stack.callback(made.stop)
        made.start()
        yield made


@pytest.fixture(scope="module")
def section(mta: Tabled) -> Imported:
    return imported(mta)


@dataclass
class Asked:
    """The Postfix, its milter, and the program in the place of postmap."""

    mta: Tabled
    milter: TcpMilter
    hangs: Path
    """While there is such a file, postmap does nothing."""

    def send(self, recipient: str, lab: Lab, sender: str = SENDER) -> submission.Accepted:
        return send(self.mta.address, recipient, lab, sender)

    def counted(self, result: str) -> float:
        return self.milter.metric("alias_queries_total", result=result)


@pytest.fixture(scope="module")
def asked(lab: Lab, mta: Tabled, section: Imported) -> Iterator[Asked]:
    program = mta.directory / "chroot"
    hangs = mta.directory / "hang"
    real, *arguments = shlex.split(str(section.section["postmap"]))
    program.write_text(f'#!/bin/sh\n[ -e {hangs} ] && exec sleep 60\nexec {real} "$@"\n')
    program.chmod(0o755)
    postmap = shlex.join([str(program), *arguments])
    milter = TcpMilter(
        lab,
        mta={**section.section, "aliases": "ask", "postmap": postmap, "alias_life": 1},
        milter={"socket": f"inet:{PORT}@{addresses.MILTER}"},
        probe=PROBE,
        rules={
            "tag_wait": PATIENCE,
            "decide_wait": PATIENCE,
            "sender": {STRICT.partition("@")[2]: {"mode": "reject"}},
        },
        limits={**NO_BUDGETS, "message_wait": PATIENCE, "alias_timeout": 3},
    )
    with milter:
        yield Asked(mta, milter, hangs)


def test_the_import_says_which_tables_are_asked_and_how(section: Imported) -> None:
    assert [one.partition(":")[0] for one in section.section["virtual_alias_maps"]] == [
        *("regexp", "proxy", "sqlite", "lmdb", "unionmap", "hash"),
    ]
    assert "/usr/sbin/postmap -c " in section.section["postmap"]


@pytest.mark.parametrize("recipient", GOES)
def test_each_address_is_forecast_as_postfix_delivers_to_it(
    lab: Lab, asked: Asked, recipient: str
) -> None:
    ends = {to: ending(to) for to in GOES[recipient]}
    sent = asked.send(recipient, lab)
    deliveries = asked.mta.log.wait(sent.queue_id, len(ends))
    assert {one.to.lower(): (one.dsn, one.tls) for one in deliveries} == {
        to.lower(): end for to, end in ends.items()
    }
    lines = asked.milter.wait("expansion", count=len(ends), queue_id=sent.queue_id)
    assert {line["expansion"].lower(): (line["forecast"], line["tls"]) for line in lines} == {
        to.lower(): end for to, end in ends.items()
    }


@pytest.mark.parametrize(
    "recipient", [f"rel-two@{HOME}", f"pc-three+x@{HOME}", f"sq-four@{HOME}", f"a@all.{HOME}"]
)
def test_a_rule_refuses_at_rcpt_what_leads_to_a_server_that_lacks_it(
    lab: Lab, asked: Asked, recipient: str
) -> None:
    with pytest.raises(submission.Refused) as refused:
        asked.send(recipient, lab, STRICT)
    reply = refused.value.reply
    assert (refused.value.stage, reply.code, reply.text[:6]) == ("rcpt", 550, "5.7.30")
    assert "ask-lacking" not in reply.text
    asked.milter.wait("expansion", to=f"<{recipient}>", action="reject")


def test_it_refuses_none_that_leads_to_a_server_that_offers_it(lab: Lab, asked: Asked) -> None:
    sent = asked.send(f"user99999@{HOME}", lab, STRICT)
    (line,) = asked.milter.wait("expansion", queue_id=sent.queue_id)
    assert (line["forecast"], line["expansion"]) == ("2.0.0", at(GOOD, "u99999"))


def test_a_user_in_no_table_stays_here(lab: Lab, asked: Asked) -> None:
    """/^@home.test$/ of the regexp table is never asked: it has no parts of addresses."""
    sent = asked.send(f"nobody@{HOME}", lab)
    assert asked.milter.recipient(sent.queue_id)["reason"] == "local"
    (delivery,) = asked.mta.log.wait(sent.queue_id, 1)
    assert delivery.to == f"nobody@{HOME}"


def test_a_circle_is_left_to_postfix_which_takes_no_such_message(lab: Lab, asked: Asked) -> None:
    with pytest.raises(submission.Refused) as refused:
        asked.send(f"circle@{HOME}", lab, STRICT)
    assert (refused.value.stage, refused.value.reply.code) == ("data", 451)


def test_an_entry_that_changes_counts_once_the_life_of_the_answer_is_over(
    lab: Lab, asked: Asked
) -> None:
    recipient = f"sq-changed@{HOME}"
    with contextlib.closing(sqlite3.connect(asked.mta.directory / "etc/aliases.sqlite")) as rows:
        for to in (at(GOOD, "new"), at(LACKING, "new")):
            rows.execute("DELETE FROM alias WHERE address = ?", (recipient,))
            rows.execute("INSERT INTO alias VALUES (?, ?)", (recipient, to))
            rows.commit()
            time.sleep(1.1)  # mta.alias_life
            sent = asked.send(recipient, lab)
            (line,) = asked.milter.wait("expansion", queue_id=sent.queue_id)
            (delivery,) = asked.mta.log.wait(sent.queue_id, 1)
            assert (line["expansion"], line["forecast"]) == (to, delivery.dsn)


def test_mail_goes_on_while_postmap_hangs_and_when_it_is_killed(lab: Lab, asked: Asked) -> None:
    """What is not known in time is forecast as the client gave it, refused by no rule, counted."""
    hung, killed = asked.counted("timeout"), asked.counted("failed")
    asked.hangs.touch()
    try:
        sent = asked.send(f"rel-hanging@{HOME}", lab, STRICT)
        line = asked.milter.recipient(sent.queue_id)
        assert line["not_expanded"]
        assert (line["reason"], line["action"]) == ("local", "accept")
        (delivery,) = asked.mta.log.wait(sent.queue_id, 1)
        assert (delivery.dsn, delivery.to) == ("5.7.30", at(LACKING, "two"))
        eventually(lambda: asked.counted("timeout") > hung)
        time.sleep(5.5)  # the tables are asked again
        done = _killed_meanwhile(asked)
        sent = asked.send(f"rel-killed@{HOME}", lab, STRICT)
        assert done() > 0
        assert asked.milter.recipient(sent.queue_id)["not_expanded"]
        eventually(lambda: asked.counted("failed") > killed)
    finally:
        asked.hangs.unlink()
    time.sleep(5.5)
    sent = asked.send(f"rel-two@{HOME}", lab)
    assert asked.milter.wait("expansion", queue_id=sent.queue_id)
    eventually(lambda: asked.milter.metric("alias_lookups_total", result="unknown") >= 2)


def _killed_meanwhile(asked: Asked) -> Callable[[], int]:
    """Kill whatever runs as postmap, in another thread, for two seconds; how much that was."""
    killed: list[int] = []
    engine = asked.milter.pids()["engine"]

    def kill() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            children = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
            for child in map(int, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                    killed.append(child)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()

    def done() -> int:
        thread.join()
        return len(killed)

    return done
