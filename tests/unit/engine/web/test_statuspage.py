"""The status page: what a person sees first, and what hostile servers can make of it."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from requiretls_milter.engine.overview import FileState
from requiretls_milter.engine.web.statuspage import MAX_SHOWN, REFRESH, STYLE, render, starting
from requiretls_milter.ipc.wire import ProcessStatus, WatchedStatus
from tests.support.html import Node, parse
from tests.support.overviews import NOW, domain_status, overview

HOST = "mail.example.org"

WHOLE = tuple(
    ProcessStatus(name=name, pid=number, ready=True, since=NOW - 90_000)
    for number, name in enumerate(("supervisor", "engine", "worker-1"), start=812)
)


def shown(**more: Any) -> Node:
    return parse(render(overview(**{"processes": WHOLE} | more), HOST).body)


def facts(root: Node) -> dict[str, Node]:
    return {row.one("th").text: row.one("td") for row in root.one("table", "facts").all("tr")}


def rows(root: Node) -> list[list[str]]:
    body = root.one("table", "domains").one("tbody")
    return [[one.text for one in [*row.all("th"), *row.all("td")]] for row in body.all("tr")]


def test_a_service_that_is_well_is_said_to_be_so_first() -> None:
    root = shown(domains=(domain_status("a.example", True),), domains_configured=1)
    assert root.one("title").text == "Well: requiretls-milter on mail.example.org"
    header = root.one("header", "good")
    assert header.one("h1").text == "Well"
    assert "Up 1 d 1 h. All configured domains are ready: 1 of 1." in header.text
    assert not header.all("li")


@pytest.mark.parametrize(
    ("more", "said", "row"),
    [
        ({"problems": ("worker-1 is not ready",)}, "worker-1 is not ready", ""),
        ({"reload_succeeded": False}, "the last reload failed", "Configuration"),
        ({"file": FileState(usable=False)}, "a restart would fail", "Configuration"),
        ({"suspended": True}, "rules are suspended", ""),
        ({"resolver_validates": False}, "not seen to validate", "Resolver"),
        ({"outbound": {"smtp": False, "dns": True}}, "down (smtp)", "Outbound"),
        ({"store_up": False}, "the store does not work", "Store"),
    ],
)
def test_what_is_wrong_stands_at_the_top_and_marks_its_row(
    more: dict[str, Any], said: str, row: str
) -> None:
    root = shown(**more)
    assert root.one("title").text.startswith("Degraded: ")
    header = root.one("header", "bad")
    assert header.one("h1").text == "Degraded"
    assert said in header.one("ul", "problems").one("li").text
    marked = [name for name, cell in facts(root).items() if cell.attributes]
    assert marked == ([row] if row else [])


def test_a_service_that_does_not_serve_has_failed() -> None:
    root = shown(serves=False, problems=("worker-1 is not ready",))
    assert root.one("header", "bad").one("h1").text == "Failed"


def test_a_process_that_is_not_ready_is_named() -> None:
    processes = (*WHOLE, ProcessStatus(name="worker-2"))
    cell = facts(shown(processes=processes))["Processes"]
    assert cell.text.endswith("1 of 2 workers ready, 0 connections, NOT READY: worker-2")
    assert cell.attributes["class"] == "bad"


def test_what_is_worth_knowing_makes_no_state_worse() -> None:
    header = shown(file=FileState(differs=True)).one("header", "good")
    assert "reload, or restart" in header.one("ul", "notes").text


def test_a_domain_that_is_not_ready_is_the_second_thing_to_see() -> None:
    domains = [domain_status("bad.example", False), domain_status("good.example", True)]
    root = shown(domains=tuple(domains), domains_configured=3)
    header = root.one("header", "warning")
    assert header.one("h1").text == "Well", "the service is not at fault"
    assert "1 of 3 configured domains is not ready." in header.text
    counts = [one.text for one in root.one("p", "counts").all("span")]
    assert counts == ["1 not ready", "1 ready", "1 not assessed yet"]
    assert rows(root)[0] == [
        "bad.example",
        "NOT READY",
        "5.7.30 requiretls_not_offered; mode monitor acceptsmx1.bad.example[192.0.2.1] does not "
        "offer REQUIRETLS",
        "3 min ago",
        "2 d 7 h",
    ]


def test_watched_domains_have_a_part_of_their_own() -> None:
    watched = WatchedStatus(
        domain="own.example", severity="ends", verdict="<b>", problems=1, observed_at=NOW - 60
    )
    root = shown(watched=(watched,), domains_watched=1)
    assert rows(root) == [["own.example", "ENDS SOON", "<b>", "1 min ago"]]
    assert not shown().all("table", "domains")


@pytest.mark.parametrize(
    ("ready", "configured", "said"),
    [
        ((None, True), 2, "No configured domain is known to be not ready."),
        ((True,), 2, "No configured domain is known to be not ready."),
        ((), 2, "No configured domain is known to be not ready."),
        ((True, True), 2, "All configured domains are ready: 2 of 2."),
        ((False, False), 2, "2 of 2 configured domains are not ready."),
    ],
)
def test_all_are_said_to_be_ready_only_if_all_are_known_to_be(
    ready: tuple[bool | None, ...], configured: int, said: str
) -> None:
    domains = tuple(domain_status(f"{n}.example", one) for n, one in enumerate(ready))
    root = shown(domains=domains, domains_configured=configured)
    assert root.one("header").text.endswith(said)


def test_without_rules_of_their_own_no_domain_is_spoken_of() -> None:
    root = shown()
    assert "None has a rule of its own." in root.text
    assert not root.all("table", "domains")
    assert root.one("header").text.endswith("Up 1 d 1 h.")


def test_the_time_is_told_so_that_a_page_that_is_old_is_seen_to_be() -> None:
    assert f"As of 2027-01-15T08:00:00Z. Renewed every {REFRESH} s." in shown().one("footer").text


def test_while_the_service_starts_there_is_a_page_which_a_probe_does_not_take_for_well() -> None:
    page = starting(HOST)
    assert page.status == 503
    assert parse(page.body).one("h1").text == "Starting"


# ---------------------------------------------------------------- hostile texts, many domains

HOSTILE = "</small></td><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--\u202e\x1b"


def test_no_text_of_a_server_or_of_the_mta_becomes_markup() -> None:
    usual = shown(domains=(domain_status("a.example", False),), domains_configured=1)
    root = shown(
        domains=(domain_status("a.example", False, text=HOSTILE, status=HOSTILE),),
        domains_configured=1,
        mta_version=HOSTILE,
        config_path=HOSTILE,
        problems=(HOSTILE,),
        version=HOSTILE,
        nameservers=(HOSTILE,),
        store=HOSTILE,
        limits={HOSTILE: 1},
    )
    assert root.tags() == usual.tags() | {"ul", "li"}
    printed = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    for text in (root.one("small").text, facts(root)["MTA"].text, root.one("li").text):
        assert printed in text


def many(number: int, text: str = "", width: int = 0) -> Any:
    made = (
        domain_status(f"{n:05}{'x' * width}.example", n % 2 == 1, text=text) for n in range(number)
    )
    return tuple(sorted(made, key=lambda one: bool(one.ready)))


def test_of_many_domains_those_that_are_not_ready_are_shown_and_all_are_counted() -> None:
    root = shown(domains=many(4_990), domains_configured=5_000)
    assert {row[1] for row in rows(root)} == {"NOT READY"}
    assert len(rows(root)) == MAX_SHOWN
    counts = [one.text for one in root.one("p", "counts").all("span")]
    assert counts == ["2495 not ready", "2495 ready", "10 not assessed yet"]
    assert "4790 more are counted, and not shown" in root.one("p", "more").text


def test_a_page_is_bounded_whatever_stands_in_it() -> None:
    usual = render(overview(domains=many(5_000), domains_configured=5_000), HOST)
    assert len(usual.body) < 100_000
    worst = many(5_000, text="&" * 200, width=240)
    assert len(render(overview(domains=worst, domains_configured=5_000), HOST).body) < 400_000


def test_a_page_for_5000_domains_takes_milliseconds() -> None:
    one = overview(domains=many(5_000), domains_configured=5_000)
    taken = []
    for _ in range(5):
        started = time.thread_time()
        render(one, HOST)
        taken.append(time.thread_time() - started)
    assert min(taken) < 0.1


# ---------------------------------------------------------------- colours


def schemes() -> list[dict[str, str]]:
    """The colours of the light scheme, and of the dark one."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks]


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "back"),
    [
        *((text, "card") for text in ("text", "dim", "good", "warning", "bad")),
        *((kind, f"{kind}-back") for kind in ("good", "warning", "bad")),
        *(("text", f"{kind}-back") for kind in ("good", "warning", "bad")),
        ("dim", "back"),
        ("link", "back"),
    ],
)
def test_each_text_can_be_read_on_its_background(
    scheme: dict[str, str], text: str, back: str
) -> None:
    """WCAG 2, level AA: a contrast of 4.5 at least."""
    bright, dark = sorted((luminance(scheme[text]), luminance(scheme[back])), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5
