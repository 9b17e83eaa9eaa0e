"""The status page: what ``status`` says, for a browser. Pure.

A tired person sees first whether the service is well, then what is wrong, then the domains that are
not ready. The page has a bounded size: of the domains it shows :data:`MAX_SHOWN`, and counts all.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from requiretls_milter.engine.overview import (
    Overview,
    age,
    ruled,
    verdict,
    watched_summary,
    watched_word,
    word,
)
from requiretls_milter.engine.web.page import Page
from requiretls_milter.engine.web.webpage import dot, page
from requiretls_milter.ipc.wire import DomainStatus, WatchedStatus
from requiretls_milter.syntax.markup import element
from requiretls_milter.syntax.moments import moment

REFRESH = 15
"""Seconds until a browser asks for the page again."""

SOON = 2
"""The same while the service starts."""

MAX_SHOWN = 200
"""Domains on the page: those that are not ready first. More than a person reads; with names and
texts of the greatest length they take a third of a megabyte."""

GOOD, WARNING, BAD = "good", "warning", "bad"
"""Classes of the style."""

_ICONS = {GOOD: dot("#1a7f37"), WARNING: dot("#bf8700"), BAD: dot("#cf222e")}

STYLE = """
:root {
  --back: #f4f6f8; --card: #fff; --text: #1b222c; --dim: #57606a; --line: #d8dee4; --link: #0550ae;
  --good: #166b2e; --warning: #8a5a00; --bad: #b3151f;
  --good-back: #dff5e4; --warning-back: #fff3cf; --bad-back: #ffe3e3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0f1419; --card: #181f27; --text: #e6edf3; --dim: #9aa5b1; --line: #323b46;
    --link: #79b8ff; --good: #5fd07a; --warning: #f0c14b; --bad: #ff8a84;
    --good-back: #12301b; --warning-back: #3a2e0c; --bad-back: #451a1c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 66rem; background: var(--back); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere;
  font-variant-ligatures: none;
}
header, section {
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  margin: 0 0 1rem; padding: 1rem 1.25rem;
}
header { border-left: .6rem solid; }
header p { margin: 0; color: var(--text); }
header.good { background: var(--good-back); border-color: var(--good); }
header.warning { background: var(--warning-back); border-color: var(--warning); }
header.bad { background: var(--bad-back); border-color: var(--bad); }
h1 { margin: .1rem 0; font-size: 2.2rem; line-height: 1.2; }
h2 { margin: 0 0 .6rem; font-size: 1.15rem; }
.good { color: var(--good); } .warning { color: var(--warning); } .bad { color: var(--bad); }
ul { margin: .5rem 0; padding-left: 1.3rem; color: var(--text); }
header ul.problems { font-size: 1.1rem; font-weight: 600; }
.counts { margin: 0 0 .7rem; }
.counts span { margin-right: 1.2rem; white-space: nowrap; }
.counts .good, .counts .warning, .counts .bad { font-weight: 600; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; }
tr + tr, tbody tr { border-top: 1px solid var(--line); }
thead th { white-space: nowrap; color: var(--dim); font-weight: 400; font-size: .9rem; }
tbody th { font-weight: 600; }
.domains tbody th { min-width: 16rem; }
.domains td.state, .domains td.time { white-space: nowrap; }
.domains td.state, .facts td.bad { font-weight: 600; }
.facts th { width: 9.5rem; color: var(--dim); font-weight: 400; }
.more, small, footer { color: var(--dim); font-size: .9rem; }
small { display: block; }
.more { margin: .7rem 0 0; }
footer { padding: 0 .3rem; }
footer a { color: var(--link); margin-right: .8rem; }
@media (max-width: 52rem) {
  body { padding: .6rem; }
  header, section { padding: .8rem .9rem; }
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, tbody, tr, th, td { display: block; width: auto; padding: 0; }
  tbody tr { padding: .5rem 0; }
  .facts th { width: auto; }
  .domains td.time { display: inline; margin-right: 1rem; font-size: .9rem; }
  td.time::before { content: attr(data-label) " "; color: var(--dim); }
}
"""


def render(overview: Overview, host: str) -> Page:
    """Write the page.

    Args:
        overview: of the service, with all its domains.
        host: the name of this host.
    """
    problems = list(overview.problems())
    domains = overview.condition.domains
    unready = sum(one.ready is False for one in domains)
    if problems:
        kind, state = BAD, "Degraded" if overview.service.serves else "Failed"
    else:
        kind, state = WARNING if unready else GOOD, "Well"
    header = element(
        "header",
        element("p", f"requiretls-milter {overview.reply.version} on ", element("b", host)),
        element("h1", state, class_=kind),
        *_list("problems", problems),
        *_list("notes", list(overview.notes())),
        element("p", _summary(overview, unready)),
        class_=kind,
    )
    return page(
        f"{state}: requiretls-milter on {host}",
        [
            header,
            _domains(overview),
            *_watched(overview),
            _service(overview),
            _footer(overview.now),
        ],
        style=STYLE,
        icon=_ICONS[kind],
        refresh=REFRESH,
    )


def starting(host: str) -> Page:
    """The page while the engine has not heard of the service yet."""
    header = element(
        "header",
        element("p", "requiretls-milter on ", element("b", host)),
        element("h1", "Starting", class_=WARNING),
        element("p", "The engine runs. Nothing is known of the other processes yet."),
        class_=WARNING,
    )
    return page(
        f"Starting: requiretls-milter on {host}",
        [header],
        style=STYLE,
        icon=_ICONS[WARNING],
        refresh=SOON,
        status=503,
    )


def _list(name: str, texts: Sequence[str]) -> list[Element]:
    return [element("ul", *(element("li", text) for text in texts), class_=name)] if texts else []


def _summary(overview: Overview, unready: int) -> str:
    """What is said below the state: how long it runs, and whether all domains are ready."""
    configured = overview.condition.domains_configured
    up = f"Up {age(overview.now - overview.service.since)}."
    if not configured:
        return up
    if unready:
        verb = "is" if unready == 1 else "are"
        return f"{up} {unready} of {configured} configured domains {verb} not ready."
    known = overview.condition.domains
    if len(known) >= configured and all(one.ready for one in known):
        return f"{up} All configured domains are ready: {configured} of {configured}."
    return f"{up} No configured domain is known to be not ready."


def _domains(overview: Overview) -> Element:
    condition, now = overview.condition, overview.now
    title = element("h2", "Configured domains")
    if not condition.domains_configured:
        return element("section", title, element("p", "None has a rule of its own."))
    by_state = {
        state: sum(one.ready is state for one in condition.domains) for state in (False, None, True)
    }
    counts = [
        element("span", f"{by_state[state]} {name}", class_=kind)
        for state, name, kind in (
            (False, "not ready", BAD),
            (None, "unknown", WARNING),
            (True, "ready", GOOD),
        )
        if by_state[state]
    ]
    if (left := condition.domains_configured - len(condition.domains)) > 0:
        counts.append(element("span", f"{left} not assessed yet"))
    shown = condition.domains[:MAX_SHOWN]
    parts = [title, element("p", *counts, class_="counts")]
    if shown:
        parts.append(_table(shown, now))
    if (more := len(condition.domains) - len(shown)) > 0:
        text = f"{more} more are counted, and not shown: requiretls-milter status shows 1000."
        parts.append(element("p", text, class_="more"))
    return element("section", *parts, id="domains")


def _table(domains: Sequence[DomainStatus], now: float) -> Element:
    names = ("Domain", "State", "Forecast of REQUIRETLS mail", "Seen", "Like that for")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    return element(
        "table",
        element("thead", head),
        element("tbody", *(_row(one, now) for one in domains)),
        class_="domains",
    )


def _row(one: DomainStatus, now: float) -> Element:
    kind = {True: GOOD, False: BAD, None: WARNING}[one.ready]
    forecast = [element("small", one.text)] if one.text else []
    return element(
        "tr",
        element("th", one.domain, scope="row"),
        element("td", word(one), class_=f"state {kind}"),
        element("td", f"{verdict(one)}; {ruled(one)}", *forecast),
        element("td", f"{age(now - one.assessed_at)} ago", class_="time", data_label="seen"),
        element("td", age(now - one.since), class_="time", data_label="like that for"),
    )


def _watched(overview: Overview) -> list[Element]:
    condition = overview.condition
    if not condition.domains_watched:
        return []
    names = ("Domain", "State", "What breaks or ends first", "Seen")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    rows = (_watched_row(one, overview.now) for one in condition.watched)
    parts = [
        element("h2", "Watched domains"),
        element("p", watched_summary(condition), class_="counts"),
    ]
    if condition.watched:
        body = element("tbody", *rows)
        parts.append(element("table", element("thead", head), body, class_="domains"))
    return [element("section", *parts, id="watched")]


def _watched_row(one: WatchedStatus, now: float) -> Element:
    kind = {"broken": BAD, "ends": WARNING, None: GOOD}[one.severity]
    return element(
        "tr",
        element("th", one.domain, scope="row"),
        element("td", watched_word(one), class_=f"state {kind}"),
        element("td", one.verdict),
        element("td", f"{age(now - one.observed_at)} ago", class_="time", data_label="seen"),
    )


def _service(overview: Overview) -> Element:
    rows = (
        element(
            "tr",
            element("th", row.name, scope="row"),
            element("td", row.text, **({} if row.is_well else {"class_": BAD})),
        )
        for row in overview.rows()
    )
    table = element("table", element("tbody", *rows), class_="facts")
    return element("section", element("h2", "Service"), table, id="service")


def _footer(now: float) -> Element:
    paths = ("report", "metrics", "healthz", "readyz")
    links = (element("a", f"/{path}", href=path) for path in paths)
    said = element("p", "As of ", element("b", moment(now)), f". Renewed every {REFRESH} s.")
    return element("footer", said, element("p", *links))
