"""The plots of a report, as inline SVG without script and without style of their own. Pure.

pygal draws them. What it adds for pages of its own (scripts, styles, tooltips that need a script)
is taken away: the page has one style sheet, with light and dark colours, and no script.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Comment, Element

import pygal
from pygal.etree import etree
from pygal.style import Style

from requiretls_milter.readiness import words
from requiretls_milter.readiness.days import Day
from requiretls_milter.readiness.figures import Count, Figures, Share
from requiretls_milter.readiness.values import HopState, Policy
from requiretls_milter.syntax.text import visible

WIDTH = 720
"""Units of a plot's width; the page scales it."""

MAX_BARS = 8
"""Reasons that are drawn; the table has all of them."""

MAX_DATES = 6
"""Dates below the history."""

LEGIBLE = 9.0
"""Percent that a part must have so that a number fits into it."""

_ROUNDING = 1e-6
"""Far less than the share of one recipient that is seen in a tenth of a percent; more than what a
floating point number loses."""

_FONT = 13

_STYLE = Style(
    label_font_size=_FONT,
    major_label_font_size=_FONT,
    legend_font_size=_FONT,
    value_font_size=_FONT,
    font_family="sans-serif",
)

_NEEDLESS: tuple[object, ...] = ("defs", "desc", "title", Comment)
_ATTRIBUTES = ("id", "style")

etree.to_etree()  # its elements are put into our own tree, also if lxml is installed

# pygal asks to be asked about each later import of the whole program, for maps that we do not draw.
sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, pygal.PluginImportFixer)]


def states(found: Figures) -> Element:
    """Of all mail and of all next hops, the shares of what would become of them."""
    chart = _bars(pygal.HorizontalStackedBar, rows=2 if found.counts_mail else 1, legend=3)
    rows: list[tuple[str, Any]] = [("next hops", lambda count: count.domains)]
    wholes = [found.total.domains]
    if found.counts_mail:
        rows.append(("mail", lambda count: count.mail))
        wholes.append(found.total.mail)
    chart.x_labels = [name for name, _ in rows]
    for state in HopState:
        count = found.states.get(state, Count())
        parts = zip(rows, wholes, strict=True)
        chart.add(words.STATES[state], [_percent(of(count), whole) for (_, of), whole in parts])
    return _drawn(chart, "states")


def reasons(found: Figures) -> Element:
    """Why mail is not ready, the commonest reasons."""
    first = list(found.reasons.items())[:MAX_BARS]
    chart = _bars(pygal.HorizontalBar, rows=len(first))
    chart.x_labels = [reason.value.replace("_", " ") for reason, _ in reversed(first)]
    parts = [_percent(*_part(count, found)) for _, count in reversed(first)]
    chart.add("", parts)
    return _drawn(chart, "reasons")


def policies(found: Figures) -> Element:
    """By what the servers can be verified, and how much of that is ready."""
    shown = [policy for policy in Policy if policy in found.policies]
    chart = _bars(pygal.HorizontalStackedBar, rows=len(shown), legend=1)
    chart.x_labels = [words.POLICIES[policy] for policy in reversed(shown)]
    for place, name in enumerate(("ready", "not ready")):
        counts = [found.policies[policy][place] for policy in reversed(shown)]
        chart.add(name, [_percent(*_part(count, found)) for count in counts])
    return _drawn(chart, "policies")


def history(days: Sequence[Day]) -> Element:
    """The shares that were ready, day by day."""
    chart = pygal.Line(
        **_common(),
        height=300,
        show_dots=len(days) <= 60,
        show_minor_x_labels=False,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        margin_right=40,
    )
    chart.x_labels = [one.day for one in days]
    chart.x_labels_major = _spread([one.day for one in days])
    chart.add("next hops", [_share(one.domains_ready, one.domains) for one in days])
    if any(one.mail for one in days):
        chart.add("mail", [_share(one.mail_ready, one.mail) for one in days])
    return _drawn(chart, "history")


# ---------------------------------------------------------------- what they share


def _common() -> Mapping[str, Any]:
    return {
        "style": _STYLE,
        "css": (),
        "js": (),
        "width": WIDTH,
        "range": (0, 100),
        "y_labels": [0, 25, 50, 75, 100],
        "value_formatter": lambda value: f"{value:g} %",
        "margin": 8,
        "spacing": 8,
        "no_data_text": "nothing is known",
        "truncate_legend": -1,
        "truncate_label": -1,
    }


def _bars(kind: Any, *, rows: int, legend: int = 0) -> Any:
    """A chart of horizontal bars; *legend*: its lines."""
    return kind(
        **_common(),
        height=62 + 44 * max(rows, 1) + 22 * legend,
        margin_right=28,
        margin_bottom=6 + 16 * max(legend - 1, 0),
        show_legend=legend > 0,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        print_values=True,
        formatter=_written,
    )


def _written(value: float | None) -> str:
    """A share as it stands in its bar: as in the tables, never more than it is."""
    if value is None or value < LEGIBLE:
        return ""
    return f"{math.floor(10 * value + _ROUNDING) / 10:g} %"


def _part(count: Count, found: Figures) -> tuple[int, int]:
    """What share of mail they have; of next hops if it is not known how much mail there is."""
    if found.counts_mail:
        return count.mail, found.total.mail
    return count.domains, found.total.domains


def _percent(part: int, whole: int) -> float:
    fraction = Share(part, whole).fraction
    return 0.0 if fraction is None else 100.0 * fraction


def _share(part: int, whole: int) -> float | None:
    return None if not whole else 100.0 * part / whole


def _spread(labels: Sequence[str]) -> list[str]:
    """A few of many labels: the first, the last, and some between them."""
    if len(labels) <= MAX_DATES:
        return list(labels)
    last = len(labels) - 1
    return [labels[round(place * last / (MAX_DATES - 1))] for place in range(MAX_DATES)]


def _drawn(chart: Any, name: str) -> Element:
    """The SVG without anything that needs a script or has a style."""
    root: Element = chart.render_tree()
    _strip(root)
    root.set("class", f"plot {name}")
    root.set("role", "img")
    return root


def _strip(parent: Element) -> None:
    for attribute in _ATTRIBUTES:
        parent.attrib.pop(attribute, None)
    if parent.text:
        parent.text = visible(parent.text)
    for child in list(parent):
        is_tooltip = "tooltip-overlay" in child.get("class", "")
        if child.tag in _NEEDLESS or is_tooltip:
            parent.remove(child)
        else:
            _strip(child)
