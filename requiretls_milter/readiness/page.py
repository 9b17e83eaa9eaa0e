"""The report on readiness as one HTML page: :func:`page`. Pure.

The page needs nothing else: no script, no picture, no font, no other file, and its
Content-Security-Policy allows none. A plot has its text beside it, and a table with its figures.
Long lists are cut, and say so; the JSON of the same report has all.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from requiretls_milter import __version__
from requiretls_milter.readiness import figures as figuring
from requiretls_milter.readiness import words
from requiretls_milter.readiness.figures import Figures, Share
from requiretls_milter.readiness.sections import OF_ANY, OF_NEXT_HOPS
from requiretls_milter.readiness.style import STYLE
from requiretls_milter.readiness.values import Readiness
from requiretls_milter.syntax.markup import (
    Child,
    document,
    element,
    style_sheet,
    style_sources,
)
from requiretls_milter.syntax.moments import moment
from requiretls_milter.syntax.text import quantity

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {style_sources(STYLE)}; base-uri 'none'; form-action 'none'"
)
"""What the page may do: use its own style sheet, and nothing else."""


def page(report: Readiness) -> str:
    """Make the page of a report."""
    found = figuring.figures(report)
    sections = [
        (title, name, body)
        for title, name, make in (OF_NEXT_HOPS if report.destinations else OF_ANY)
        if (body := make(report, found)) is not None
    ]
    main = element("main", *_first_screen(report, found), _contents(sections))
    for title, name, body in sections:
        main.append(
            element(
                "section",
                element("h2", title, id=name),
                *body,
                aria_labelledby=name,
            )
        )
    return document(element("html", _head(), element("body", main, _footer()), lang="en"))


def _head() -> Element:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", words.title()),
        style_sheet(STYLE),
    )


# ---------------------------------------------------------------- the first screen


def _first_screen(report: Readiness, found: Figures) -> list[Child]:
    about = f"About {words.period(report)}. Judged for {report.mta}. Made {moment(report.made_at)}."
    parts: list[Child] = [
        element("h1", words.title()),
        element("p", about, class_="about"),
        element("p", words.answer(report, found), class_=f"answer {found.answer}"),
        element("dl", *_three(found), class_="figures"),
    ]
    if not report.resolver_validates:
        parts.insert(3, element("p", words.NOT_VALIDATING, class_="warning", role="alert"))
    if report.left_out or report.left_out_mail:
        parts.append(element("p", _left_out(report), class_="note"))
    return parts


def _three(found: Figures) -> list[Element]:
    step = found.one_step
    reach = (
        f"{words.share_of(step, found)} of the mail"
        if found.counts_mail
        else words.of(Share(step.domains, found.total.domains), "next hop")
    )
    return [
        _figure(
            "Mail that would be delivered with REQUIRETLS",
            found.mail.percent,
            words.of(found.mail, "recipient")
            if found.counts_mail
            else "nothing tells how much there is",
        ),
        _figure(
            "Next hops that are ready", found.domains.percent, words.of(found.domains, "next hop")
        ),
        _figure("Next hops that lack one step", f"{step.domains:,}", reach),
    ]


def _figure(name: str, value: str, detail: str) -> Element:
    return element(
        "div",
        element("dt", name),
        element("dd", value, class_="value"),
        element("dd", detail, class_="detail"),
    )


def _left_out(report: Readiness) -> str:
    hops = quantity(report.left_out, "next hop")
    mail = quantity(report.left_out_mail, "recipient")
    return f"Not assessed, and counted as not known: {hops}, {mail} in all."


def _contents(sections: Sequence[tuple[str, str, Sequence[Child]]]) -> Element:
    items = [element("li", element("a", title, href=f"#{name}")) for title, name, _ in sections]
    return element("nav", element("ul", *items), aria_label="Contents")


def _footer() -> Element:
    return element(
        "footer",
        element(
            "p",
            "A next hop is ready if a message with REQUIRETLS would be delivered to it today as "
            "RFC 8689 section 4.2.1 requires. What was not found out does not count as ready. ",
            "The whole report, with all next hops: ",
            element("code", "requiretls-milter report --format json"),
            f". Made by requiretls-milter {__version__}.",
        ),
    )
