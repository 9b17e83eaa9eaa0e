"""Aliases that leave by SMTP: forecast where they lead, beside the real Postfix.

The tables are those that an operator has: 100,000 entries compiled by postmap(1), and a few in
another text. ``mta import`` names them, the milter reads their texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.syntax.tables import COMPILED
from tests.lab import submission
from tests.lab.aliasing import ENTRIES, HOME, LACKS, MAIN, SENDER, SENT, STRICT, at, send
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.milter import Milter
from tests.lab.postfix import Tables
from tests.lab.processes import run
from tests.lab.sweep import PATIENCE, PROBE
from tests.support import addresses
from tests.support.memory import resident
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

GOOD = Scenario("alias-good", "dane/enforce", (Domain(mx=(Mx(),)),))
LACKING = Scenario(
    "alias-lacking", "dane/enforce", (Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)
REWRITTEN = at(GOOD, "rewritten")


def virtual() -> str:
    """The entries that lead out, among 100,000 that lead nowhere."""
    told = {
        f"good@{HOME}": at(GOOD, "one"),
        f"lacking@{HOME}": at(LACKING, "two"),
        f"both@{HOME}": f"{at(GOOD, 'three')}, {at(LACKING, 'four')}",
        "bare": f"Some One <{at(LACKING, 'five')}>",
        f"step@{HOME}": "further+x, good",
        f"@catch.{HOME}": f"@{LACKING.domain_name(LACKING.domains[0])}",
        f"a@{HOME}": f"b@{HOME}",
        f"b@{HOME}": f"a@{HOME}",
    }
    many = (f"user{number}@{HOME}\tuser{number}@nowhere.test\n" for number in range(ENTRIES))
    return "".join(f"{key}\t{value}\n" for key, value in told.items()) + "".join(many)


ALIASES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    f"good@{HOME}": {at(GOOD, "one"): SENT},
    f"lacking@{HOME}": {at(LACKING, "two"): LACKS},
    f"both@{HOME}": {at(GOOD, "three"): SENT, at(LACKING, "four"): LACKS},
    f"bare+ext@{HOME}": {at(LACKING, "five+ext"): LACKS},
    f"step@{HOME}": {at(GOOD, "six+x"): SENT, at(GOOD, "one"): SENT},
    f"any+ext@catch.{HOME}": {at(LACKING, "any+ext"): LACKS},
    REWRITTEN: {at(LACKING, "seven"): LACKS},
}
"""Recipients, and with what the delivery to each of their expansions ends."""


@pytest.fixture(scope="module")
def kind(lab: Lab) -> str:
    """A type of table that this Postfix compiles."""
    known = run(
        ["/usr/sbin/postconf", "-c", lab.front.inside("etc"), "-m"], root=lab.front.root
    ).split()
    return next(one for one in ("lmdb", "hash", "cdb") if one in known)


def write(lab: Lab, name: str, text: str) -> Path:
    path = lab.front.directory / "etc" / name
    path.write_text(text)
    return path


def postmap(lab: Lab, kind: str, text: str) -> None:
    write(lab, "virtual", text)
    run(
        [
            "/usr/sbin/postmap",
            "-c",
            lab.front.inside("etc"),
            f"{kind}:{lab.front.inside('etc/virtual')}",
        ],
        root=lab.front.root,
    )


@pytest.fixture(scope="module")
def imported(lab: Lab, kind: str) -> Iterator[Mirror]:
    """Postfix with its tables, and what ``mta import`` makes of it."""
    before = lab.front.parameters
    lab.add([GOOD, LACKING])
    postmap(lab, kind, virtual())
    write(lab, "more", f"further@{HOME} {at(GOOD, 'six')}\n")
    long_ago = (1_000_000_000, 1_000_000_000)
    os.utime(lab.front.directory / "etc/more", long_ago)
    own = {lab.plan.recipients(item)[0].partition("@")[2] for item in (GOOD, LACKING)}
    kept = {name: to for name, to in lab.plan.transport.items() if name not in own}
    lab.front.reload(
        Tables({**kept, MYDOMAIN: ("inbox", f"[{addresses.MAILBOX}]")}, lab.plan.tls_policy),
        {
            **MAIN,
            "recipient_delimiter": "+",
            "canonical_maps": f"inline:{{ {{ {REWRITTEN} = {at(LACKING, 'seven')} }} }}",
            "virtual_alias_maps": (
                f"texthash:{lab.front.inside('etc/more')} {kind}:{lab.front.inside('etc/virtual')}"
            ),
            "virtual_alias_domains": f"catch.{HOME}",
        },
    )
    command = f"chroot {lab.front.root} /usr/sbin/postconf"
    yield mirror(Postconf(command, lab.front.inside("etc")).read())
    lab.front.restore(before)
    lab.update()


@pytest.fixture(scope="module")
def milter(lab: Lab, imported: Mirror) -> Iterator[Milter]:
    rules = {
        "tag_wait": PATIENCE,
        "decide_wait": PATIENCE,
        "sender": {STRICT.partition("@")[2]: {"mode": "reject"}},
    }
    with Milter(
        lab,
        mta={**imported.mta, "aliases": "static"},
        probe=PROBE,
        rules=rules,
        limits={"message_wait": PATIENCE},
    ) as running:
        yield running


def by_smtp(lab: Lab, recipient: str, sender: str = SENDER) -> submission.Accepted:
    return send(lab.front.address, recipient, lab, sender)


def forecasts(milter: Milter, queue_id: str, count: int) -> dict[str, tuple[str, str]]:
    """What is forecast for each address that a recipient becomes."""
    lines = milter.wait("expansion", count=count, queue_id=queue_id)
    return {line["expansion"]: (line["forecast"], line["tls"]) for line in lines}


@pytest.mark.parametrize("recipient", ALIASES)
def test_each_address_is_forecast_as_postfix_delivers_to_it(
    lab: Lab, milter: Milter, recipient: str
) -> None:
    ends = ALIASES[recipient]
    sent = by_smtp(lab, recipient)
    deliveries = lab.deliveries(sent.queue_id, len(ends))
    assert {one.to: (one.dsn, one.tls) for one in deliveries} == ends
    assert forecasts(milter, sent.queue_id, len(ends)) == ends
    line = milter.recipient(sent.queue_id)
    worst = LACKS if LACKS in ends.values() else SENT
    assert (line["forecast"], line["tls"], line["expansions"]) == (*worst, len(ends))


def test_mail_of_sendmail_is_expanded_too(lab: Lab, milter: Milter) -> None:
    lab.front.sendmail(
        ["-f", SENDER, "-O", "requiretls=yes", "lacking"], "Subject: alias\nTo: lacking\n\nx\n"
    )
    (line,) = milter.wait("expansion", to=f"lacking@{HOME}")
    assert (line["forecast"], line["expansion"]) == ("5.7.30", at(LACKING, "two"))
    (delivery,) = lab.deliveries(line["queue_id"])
    assert (delivery.dsn, delivery.tls) == LACKS


def test_a_circle_is_left_to_postfix_which_takes_no_such_message(lab: Lab, milter: Milter) -> None:
    with pytest.raises(submission.Refused) as refused:
        by_smtp(lab, f"a@{HOME}", STRICT)
    assert (refused.value.stage, refused.value.reply.code) == ("data", 451)


def test_a_hundred_thousand_entries_are_read_by_each_worker_within_bounds(milter: Milter) -> None:
    read = [line for line in milter.events("alias_table_read") if line["entries"] > ENTRIES]
    workers = {name: pid for name, pid in milter.pids().items() if name.startswith("worker-")}
    assert len(read) == len(workers)
    assert max(line["seconds"] for line in read) < 5
    for pid in workers.values():
        assert resident(pid) < 160 << 20


@pytest.mark.parametrize("recipient", [f"lacking@{HOME}", f"both@{HOME}", f"any@catch.{HOME}"])
def test_a_rule_refuses_at_rcpt_what_leads_to_a_server_that_lacks_it(
    lab: Lab, milter: Milter, recipient: str
) -> None:
    with pytest.raises(submission.Refused) as refused:
        by_smtp(lab, recipient, STRICT)
    reply = refused.value.reply
    assert (refused.value.stage, reply.code, reply.text[:6]) == ("rcpt", 550, "5.7.30")
    assert "alias-lacking" not in reply.text
    milter.wait("expansion", to=f"<{recipient}>", action="reject")


def test_it_refuses_none_that_leads_to_a_server_that_offers_it(lab: Lab, milter: Milter) -> None:
    sent = by_smtp(lab, f"good@{HOME}", STRICT)
    assert forecasts(milter, sent.queue_id, 1) == {at(GOOD, "one"): SENT}


def test_an_alias_that_is_changed_counts_once_postmap_has_run(
    lab: Lab, milter: Milter, kind: str
) -> None:
    text = virtual()
    changed = text.replace(f"good@{HOME}\t{at(GOOD, 'one')}", f"good@{HOME}\t{at(LACKING, 'one')}")
    before = len(milter.events("alias_table_read"))
    postmap(lab, kind, changed)
    compiled = lab.front.directory / f"etc/virtual{COMPILED[kind]}"
    assert compiled.stat().st_mtime_ns >= (lab.front.directory / "etc/virtual").stat().st_mtime_ns
    workers = sum(name.startswith("worker-") for name in milter.pids())
    eventually(lambda: len(milter.events("alias_table_read")) >= before + workers)
    sent = by_smtp(lab, f"good@{HOME}")
    (delivery,) = lab.deliveries(sent.queue_id)
    assert (delivery.dsn, delivery.tls) == LACKS
    assert forecasts(milter, sent.queue_id, 1) == {at(LACKING, "one"): LACKS}
