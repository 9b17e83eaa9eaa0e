"""Aliases in tables behind servers, which are asked: forecast beside the real Postfix.

OpenLDAP, MariaDB and PostgreSQL, and scripted servers of tcp_table(5) and socketmap_table(5). Each
is asked alone by the milter, and all are tables of one Postfix.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.lab import roots, submission
from tests.lab.aliasing import HOME, LACKS, MAIN, SENDER, SENT, STRICT, at, send
from tests.lab.databases import PASSWORD, Database, MariaDb, OpenLdap, PostgreSql
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.installations import Installation
from tests.lab.installed import PORT, Imported, InstalledPostfix, imported, prepared_root
from tests.lab.lab import Lab
from tests.lab.labconfig import NO_BUDGETS
from tests.lab.milter import TcpMilter
from tests.lab.sweep import PATIENCE, PROBE
from tests.support import addresses
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.tableserver import TableServer

pytestmark = pytest.mark.lab

GOOD = Scenario("served-good", "dane/enforce", (Domain(mx=(Mx(),)),))
LACKING = Scenario(
    "served-lacking", "dane/enforce", (Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)
DATABASES = {database.kind: database for database in (OpenLdap, MariaDb, PostgreSql)}
KINDS = (*DATABASES, "tcp", "socketmap")
TIMEOUT = 5
"""Seconds of a run of postmap, which takes one on a busy machine."""


def entries(kind: str) -> dict[str, str]:
    """The aliases of a table."""
    return {
        f"{kind}-good@{HOME}": at(GOOD, kind),
        f"{kind}-lacking@{HOME}": at(LACKING, kind),
        f"{kind}-both@{HOME}": f"{at(GOOD, 'one')}, {at(LACKING, 'two')}",
    }


@dataclass
class Served:
    """The Postfix, its tables by type, their servers, and the milter."""

    lab: Lab
    mta: InstalledPostfix
    servers: Mapping[str, Database | TableServer]
    made: Imported
    milter: TcpMilter

    def table(self, kind: str) -> str:
        """As ``mta import`` names it."""
        named: list[str] = self.made.section["virtual_alias_maps"]
        return next(one for one in named if one.removeprefix("proxy:").startswith(f"{kind}:"))

    def ask(self, *tables: str) -> None:
        """Have the milter ask these tables alone."""
        section = {**self.made.section, "virtual_alias_maps": list(tables)}
        self.milter.reload(mta={**section, "aliases": "ask", "alias_life": 1})

    def send(self, recipient: str, sender: str = SENDER) -> submission.Accepted:
        return send(self.mta.address, recipient, self.lab, sender)

    def write(self, name: str, text: str) -> str:
        """Write a table's file; its path as Postfix sees it."""
        (self.mta.directory / "etc" / name).write_text(text)
        return f"{self.mta.inside('etc')}/{name}"


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Served]:
    with contextlib.ExitStack() as stack:
        try:
            root = prepared_root(roots.POSTFIX_3_11_TABLES)
            databases = {
                kind: stack.enter_context(database(entries(kind)))
                for kind, database in DATABASES.items()
            }
        except LabUnavailable as reason:
            unavailable(reason)
        servers: dict[str, Database | TableServer] = {**databases}
        files = {f"{kind}.cf": one.settings for kind, one in databases.items()}
        named = [f"{'proxy:' * (kind == 'mysql')}{kind}:@ETC@/{kind}.cf" for kind in DATABASES]
        for kind in ("tcp", "socketmap"):
            server = stack.enter_context(TableServer(kind, entries(kind)))
            servers[kind] = server
            named.append(server.table)
        lab.add([GOOD, LACKING])
        main = {
            **MAIN,
            "local_transport": "discard",
            "virtual_alias_domains": "",  # else trivial-rewrite looks domains up in all tables
            # Else smtpd looks a recipient up too, before it asks the milter.
            "receive_override_options": "no_unknown_recipient_checks",
            "virtual_alias_maps": " ".join(named),
        }
        mta = InstalledPostfix(lab, root, Installation("served", main, "", "", files, ()), 2201)
        stack.callback(mta.stop)
        mta.start()
        milter = TcpMilter(
            lab,
            milter={"socket": f"inet:{PORT}@{addresses.MILTER}"},
            probe=PROBE,
            rules={
                "tag_wait": PATIENCE,
                "decide_wait": PATIENCE,
                "sender": {STRICT.partition("@")[2]: {"mode": "reject"}},
            },
            limits={**NO_BUDGETS, "message_wait": PATIENCE, "alias_timeout": TIMEOUT},
        )
        stack.enter_context(milter)
        yield Served(lab, mta, servers, imported(mta), milter)


# ---------------------------------------------------------------- servers that answer


@pytest.mark.parametrize("kind", KINDS)
def test_an_alias_is_forecast_where_it_leads(served: Served, kind: str) -> None:
    served.ask(served.table(kind))
    sent = served.send(f"{kind}-both@{HOME}")
    ends = {at(GOOD, "one"): SENT, at(LACKING, "two"): LACKS}
    deliveries = served.mta.log.wait(sent.queue_id, 2)
    assert {one.to: (one.dsn, one.tls) for one in deliveries} == ends
    lines = served.milter.wait("expansion", count=2, queue_id=sent.queue_id)
    assert {line["expansion"]: (line["forecast"], line["tls"]) for line in lines} == ends


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_refuses_what_leads_to_a_server_that_lacks_it(served: Served, kind: str) -> None:
    served.ask(served.table(kind))
    with pytest.raises(submission.Refused) as refused:
        served.send(f"{kind}-lacking@{HOME}", STRICT)
    assert (refused.value.stage, refused.value.reply.text[:6]) == ("rcpt", "5.7.30")
    assert served.send(f"{kind}-good@{HOME}", STRICT).queue_id


def test_all_tables_together_are_asked_in_their_order(served: Served) -> None:
    served.ask(*served.made.section["virtual_alias_maps"])
    for kind in KINDS:
        sent = served.send(f"{kind}-good@{HOME}")
        (line,) = served.milter.wait("expansion", queue_id=sent.queue_id)
        (delivery,) = served.mta.log.wait(sent.queue_id, 1)
        assert line["expansion"] == delivery.to == at(GOOD, kind)


# ---------------------------------------------------------------- servers that do not


@pytest.mark.parametrize("kind", KINDS)
def test_while_the_server_is_dead_no_rule_refuses_and_the_log_says_why(
    served: Served, kind: str
) -> None:
    """Postfix itself puts the mail off, since it looks the alias up too; nothing is lost."""
    table, recipient = served.table(kind), f"{kind}-lacking@{HOME}"
    served.servers[kind].stop()
    served.ask(table)
    try:
        with pytest.raises(submission.Refused) as refused:
            served.send(recipient, STRICT)
        assert (refused.value.stage, refused.value.reply.code) == ("data", 451)
        (line,) = served.milter.wait("alias_query_failed", table=table)
        # That of tcp_table(5) goes on trying.
        result = "timeout" if kind == "tcp" else "failed"
        assert (line["level"], line["result"]) == ("warning", result)
        assert str(served.servers[kind].port) in line["error"]
    finally:
        served.servers[kind].start()
        served.mta.reload(parameters={})
    time.sleep(5.5)  # a failure is the answer so long
    with pytest.raises(submission.Refused) as refused:
        served.send(recipient, STRICT)
    assert (refused.value.stage, refused.value.reply.code) == ("rcpt", 550)


def test_a_server_that_takes_queries_and_never_answers_holds_up_no_mail(served: Served) -> None:
    """The run is over in time; until then, and for a while after it, nothing is known."""
    server = served.servers["tcp"]
    assert isinstance(server, TableServer)
    served.ask(served.table("tcp"))
    server.hang()
    try:
        with submission.session(served.mta.address, ca_file=served.lab.ca_file) as smtp:
            smtp.docmd("MAIL", f"FROM:<{STRICT}> REQUIRETLS")
            for _ in range(2):
                began = time.monotonic()
                code, _ = smtp.docmd("RCPT", f"TO:<tcp-lacking@{HOME}>")
                took = time.monotonic() - began
                assert (code, took < TIMEOUT + 3) == (250, True)
            assert took < 2, "the table is left alone"
        served.milter.wait("alias_query_failed", table=served.table("tcp"), result="timeout")
    finally:
        server.stop()
        server.start()


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize(
    ("kind", "was", "becomes"),
    [
        *((kind, PASSWORD, f"not-{PASSWORD}") for kind in DATABASES),
        *((kind, "127.0.0.1:", "127.0.0.2:") for kind in DATABASES),
        *((kind, f" = {PASSWORD}", f" {PASSWORD}") for kind in ("ldap", "mysql")),
        ("pgsql", f":{PASSWORD}@", f":%zz{PASSWORD}@"),
    ],
)
def test_whatever_is_wrong_with_its_file_no_password_is_told(
    served: Served, kind: str, was: str, becomes: str
) -> None:
    """It is wrong, or there is no server, or a line is no setting, or a URL is none."""
    server = served.servers[kind]
    assert isinstance(server, Database)
    assert was in server.settings
    table = f"{kind}:{served.write(f'{kind}-wrong.cf', server.settings.replace(was, becomes))}"
    served.ask(table)
    before = len(served.milter.events("alias_query_failed"))
    sent = served.send(f"{kind}-good@{HOME}", STRICT)
    line = served.milter.recipient(sent.queue_id)
    assert (line["action"], table in line["not_expanded"]) == ("accept", True)
    failed = served.milter.wait("alias_query_failed", count=before + 1)[-1]
    assert len(failed["error"]) > 20
    assert PASSWORD not in served.milter.log_file.read_text()


def test_what_is_imported_names_the_files_alone(served: Served) -> None:
    assert PASSWORD not in f"{served.made}"
    assert all(served.table(kind) for kind in KINDS)
