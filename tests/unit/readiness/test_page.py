"""The page: what is on it, that nothing of it becomes markup or code, and how large it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness, ServerState
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.model import Feature, InboundProblem
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.readiness.page import CONTENT_SECURITY_POLICY, page
from requiretls_milter.readiness.sections import MAX_ROWS
from requiretls_milter.readiness.values import Accuracy, Downgrade, Readiness
from tests.support.html import Node, parse
from tests.support.readinesses import (
    NOW,
    below,
    clear,
    days,
    large,
    listed,
    own,
    ready,
    report,
    unknown,
)

MAX_OCTETS = 2_000_000

SMALL = report(ready(), below(), clear(), unknown())

HOSTILE = (
    "</td></table></svg></style><script>hacked=1</script><img src=x onerror=hacked=1>"
    "\"'><style>*{top:0}</style>&lt;\u202e\u0000\x1b[31m\u2028<!--"
)


def read(made: Readiness) -> Node:
    return parse(page(made).encode("ascii"))


def section(root: Node, name: str) -> Node:
    (found,) = [one for one in root.all("section") if one.attributes["aria-labelledby"] == name]
    return found


def rows(node: Node, caption: str) -> list[list[str]]:
    (found,) = [one for one in node.all("table") if one.one("caption").text == caption]
    return [
        [cell.text for cell in row.content if isinstance(cell, Node)] for row in found.all("tr")
    ]


# ---------------------------------------------------------------- what is on it


def test_the_first_screen_is_one_sentence_and_three_figures() -> None:
    root = read(replace(SMALL, since=NOW - 86_400, until=NOW))
    assert root.one("h1").text == "Can REQUIRETLS be switched on?"
    assert root.one("p", "answer").text == (
        "Not for all mail: 55.5 % of the mail would be delivered with REQUIRETLS today, the rest "
        "would not. It can be switched on for 1 next hop of 4."
    )
    assert "from 2026-11-28 to 2026-11-29" in root.one("p", "about").text
    values = [one.text for one in root.all("dd", "value")]
    assert values == ["55.5 %", "25 %", "1"]
    details = [one.text for one in root.all("dd", "detail")]
    assert details == ["10 of 18 recipients", "1 of 4 next hops", "27.7 % of the mail"]


def test_each_next_hop_that_is_not_ready_is_listed_with_what_it_lacks() -> None:
    listed_rows = rows(section(read(SMALL), "not-ready"), "Next hops that are not ready")
    assert listed_rows[1] == [
        "below.example",
        "5",
        "5.7.30",
        "requiretls_not_offered",
        "REQUIRETLS",
        "mx.below.example[192.0.2.1] does not offer REQUIRETLS",
    ]
    assert [row[0] for row in listed_rows[2:]] == ["clear.example", "unknown.example"]


def test_the_sections_are_those_that_an_engineer_needs() -> None:
    names = [one.attributes["aria-labelledby"] for one in read(large()).all("section")]
    assert names == [
        "outcome",
        "reasons",
        "below",
        "policies",
        "history",
        "downgrades",
        "own",
        "accuracy",
        "not-ready",
    ]


def test_policies_and_levels_are_told_apart() -> None:
    found = section(read(SMALL), "policies")
    assert rows(found, "Policy of the next hop")[1:] == [
        ["DANE", "1", "1", "55.5 %", "27.7 %"],
        ["neither", "0", "1", "0 %", "11.1 %"],
        ["not known", "0", "1", "0 %", "5.5 %"],
    ]
    assert [row[0] for row in rows(found, "TLS level at which our MTA would deliver")[1:]] == [
        "dane",
        "may",
        "not known",
    ]


def test_downgrades_own_servers_and_accuracy_are_told() -> None:
    root = read(
        replace(
            SMALL,
            destinations=(*SMALL.destinations, replace(below("lost.example"), downgraded_at=NOW)),
            downgrades=(Downgrade("mx.d7.example", Feature.STARTTLS, NOW - 86_400, NOW),),
            own=own(),
            accuracy=Accuracy(equal=98, later=3, unknown=2, different=2, waiting=1),
        )
    )
    lost = rows(section(root, "downgrades"), "Downgrades")
    assert lost[1] == ["lost.example", "something it offered before", "2026-11-29", "missing"]
    assert lost[2][:2] == ["mx.d7.example", "starttls"]
    assert lost[2][3] == "there again since 2026-11-29T12:00:00Z"
    ours = rows(section(root, "own"), "Our own domains, as others see them")
    assert ["example.org", "mx1.example.org", "ends", "the certificate ends on 2026-12-08"] in ours
    assert ["example.net", "mx1.example.net", "ready", ""] in ours
    assert "100 forecasts that can be compared, 98 % came true" in section(root, "accuracy").text


def test_the_history_is_told_in_words_and_in_a_table() -> None:
    found = section(read(replace(SMALL, days=days(100), is_kept=True)), "history")
    told = found.one("figcaption").text
    assert told.startswith("Ready on 2026-08-22: 40 % of the mail, 32 % of the next hops; on ")
    assert "100 days with a report" in told
    assert rows(found, "History, the latest day first")[1][0] == "2026-11-29"
    assert "86 earlier days not shown: report --format json has all" in found.text


@pytest.mark.parametrize(
    ("kept", "told"),
    [(False, "No history: the running service keeps it"), (True, "No earlier report is kept")],
)
def test_why_there_is_no_history_is_told(kept: bool, told: str) -> None:
    assert told in section(read(replace(SMALL, is_kept=kept)), "history").text


def test_of_a_list_nothing_is_said_about_mail() -> None:
    root = read(report(*map(listed, (ready(), below())), source=MailSource.LIST))
    assert [one.text for one in root.all("dd", "value")] == ["not known", "50 %", "1"]
    heads = {cell.text for cell in root.all("th") if cell.attributes.get("scope") == "col"}
    assert not heads & {"recipients", "of the mail"}


def test_a_resolver_that_does_not_validate_is_told_first() -> None:
    root = read(replace(SMALL, resolver_validates=False))
    assert root.one("p", "warning").text.startswith("The resolver does not validate DNSSEC")
    assert not read(SMALL).all("p", "warning")


def test_what_was_not_assessed_is_told() -> None:
    root = read(replace(SMALL, left_out=7, left_out_mail=1234))
    assert "counted as not known: 7 next hops, 1,234 recipients" in root.one("p", "note").text


def test_a_report_on_nothing_is_a_page_too() -> None:
    root = read(report())
    assert root.one("p", "answer").text == "Nothing is known: no next hop was assessed."
    assert root.all("svg") == []
    assert [one.attributes["id"] for one in root.all("h2")] == ["history", "downgrades", "own"]


# ---------------------------------------------------------------- everybody can read it


@pytest.mark.parametrize("made", [SMALL, large(), report()], ids=["small", "large", "empty"])
def test_each_plot_has_its_text_and_a_table(made: Readiness) -> None:
    root = read(made)
    for one in root.all("section"):
        for plot in one.all("svg"):
            assert plot.attributes["role"] == "img"
            assert len(plot.attributes["aria-label"]) > 20
            assert plot.attributes["aria-label"] in [text.text for text in one.all("figcaption")]
            assert one.all("table")


def test_tables_have_captions_and_heads_and_the_page_its_language() -> None:
    root = read(large())
    assert root.one("html").attributes["lang"] == "en"
    assert len(root.all("h1")) == 1
    for one in root.all("table"):
        assert one.one("caption").text
        assert all(cell.attributes["scope"] in ("col", "row") for cell in one.all("th"))


def test_the_contents_lead_to_the_sections() -> None:
    root = read(large())
    names = [one.attributes["id"] for one in root.all("h2")]
    assert [one.attributes["href"] for one in root.one("nav").all("a")] == [f"#{n}" for n in names]
    identities = re.findall(r' id="([^"]*)"', page(large()))
    assert len(identities) == len(set(identities))


def test_a_number_in_a_bar_is_that_of_the_table() -> None:
    root = read(report(ready(mail=1999), below(mail=1), unknown(mail=0)))
    written = [one.text for one in root.one("svg", "states").all("text", "value") if one.text]
    assert written == ["33.3 %", "99.9 %", "33.3 %", "33.3 %"]
    table = rows(root, "What would become of the mail")
    assert table[1] == ["delivered with REQUIRETLS", "1", "33.3 %", "1,999", "99.9 %"]


def test_each_column_has_a_head() -> None:
    assert all(cell.text for cell in read(large()).all("th"))


# ---------------------------------------------------------------- colours


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_enough_contrast_by_day_by_night_and_on_paper() -> None:
    style = read(SMALL).one("style").text
    colours: dict[str, str] = {}
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        colours |= dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))
        for text in ("ink", "quiet", "link"):
            assert contrast(colours[text], colours["paper"]) >= 7 or text == "link"
            assert contrast(colours[text], colours["card"]) >= 4.5
        for bar in ("ready", "noncompliant", "bounce", "defer", "dim"):
            assert contrast("#000000", colours[bar]) >= 4.5
        for line in ("first", "second"):
            assert contrast(colours[line], colours["paper"]) >= 3


# ---------------------------------------------------------------- nothing becomes markup


def hostile() -> Readiness:
    """A report in which each text is one that a stranger chose."""
    made = large(40)
    bad = [
        replace(one, nexthop=HOSTILE, text=HOSTILE, mx=HOSTILE, level=HOSTILE, status=HOSTILE)
        for one in made.destinations
    ]
    finding = Problem(InboundProblem.MX_UNSIGNED, Urgency.BROKEN, HOSTILE, HOSTILE)
    server = ServerState(HOSTILE, ServerReadiness.READY, None)
    return replace(
        made,
        mta=HOSTILE,
        destinations=(*bad, *(replace(one, tls_version=HOSTILE) for one in bad)),
        downgrades=(Downgrade(HOSTILE, Feature.TLSA, NOW),),
        own=(InboundReport(HOSTILE, (finding,), (server,), None, frozenset({HOSTILE}), NOW),),
    )


def test_no_text_of_a_stranger_becomes_markup() -> None:
    harmless, bad = read(large(40)), read(hostile())
    assert bad.tags() == harmless.tags()
    assert not bad.tags() & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert len(bad.all("style")) == 1
    attributes = {name for tag in bad.tags() for one in bad.all(tag) for name in one.attributes}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "<script>hacked=1</script>" in bad.text  # it is there, as text


def test_no_character_hides_or_turns_a_text() -> None:
    text = page(hostile())
    assert text.isascii()
    assert all(one.isprintable() for one in text if one != "\n")


# ---------------------------------------------------------------- nothing is loaded, or run


def test_the_page_needs_nothing_else() -> None:
    text = page(large())
    assert "<script" not in text
    assert "url(" not in text
    assert "@import" not in text
    addresses = set(re.findall(r'(?:href|src|xlink:href|action)="([^"]*)"', text))
    assert all(address.startswith("#") for address in addresses)
    assert set(re.findall(r"\bhttps?://[^\"<\s]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    (policy,) = [
        one.attributes["content"]
        for one in read(SMALL).all("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == CONTENT_SECURITY_POLICY
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


# ---------------------------------------------------------------- how large it is


def test_a_page_of_5000_next_hops_is_bounded_and_says_what_is_left_out() -> None:
    made = large(5_000)
    text = page(made)
    assert len(text) < MAX_OCTETS
    found = section(parse(text.encode()), "not-ready")
    lacking = len([one for one in made.destinations if one.missing != ()])
    assert len(rows(found, "Next hops that are not ready")) == MAX_ROWS + 1
    assert f"{lacking - MAX_ROWS:,} lines not shown: report --format json has all" in found.text


def test_the_longest_and_worst_texts_keep_to_the_size_as_well() -> None:
    worst = "&" * 100_000
    bad = replace(
        below(worst, 10**15), text=worst, mx=worst, level=worst, status=worst, downgraded_at=NOW
    )
    finding = Problem(InboundProblem.MX_UNSIGNED, Urgency.BROKEN, worst, worst)
    own_domain = InboundReport(worst, (finding,) * 50, (), None, frozenset({worst}), NOW)
    made = replace(
        large(),
        destinations=(bad,) * 5_000,
        days=days(400),
        downgrades=(Downgrade(worst, Feature.TLSA, NOW),) * 1_000,
        own=(own_domain,) * 100,
    )
    assert len(page(made)) < MAX_OCTETS
