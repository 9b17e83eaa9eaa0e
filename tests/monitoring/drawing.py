"""A row of the dashboard as one SVG picture: what its queries have found, drawn by pygal.

Grafana draws the same queries with its own pens; these pictures are for the documents.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Comment, Element, SubElement, tostring

import pygal
from pygal.style import Style

from tests.monitoring.panels import Kind, Panel

COLUMN = 48
"""Width of one of the 24 columns of a row, in units."""

LOW, HIGH = 96, 216
"""Height of a panel with numbers, and of any other one."""

HEAD = 26
"""Height of a title; one of a panel with numbers has two lines."""

LINE = 17
"""Height of a line of text."""

LINES = 12
"""Lines of a table that fit."""

COLOURS = ("#1f6feb", "#d9730d", "#2da44e", "#a371f7", "#cf222e", "#6e7781", "#bf8700", "#1b7c83")
GOOD, BAD, INK, FAINT = "#2da44e", "#cf222e", "#24292f", "#d0d7de"

MOST = 6
"""Lines of a graph: those that are not always zero come first, and alone if they are stacked."""

MOST_LONG = 4
"""Lines of a graph if their names are so long that each has a line of the legend to itself."""

LETTER = 5.4
"""Width of a letter of a legend."""

MARKS = 5
"""Words below a graph, about."""

PENS = f"""
text {{ font-family: sans-serif; font-size: 12px; fill: {INK}; }}
.axis .line, .axis .guides path {{ stroke: {FAINT}; fill: none; }}
.axis text, .legend text {{ font-size: 10px; stroke: none; fill: {INK}; }}
.axis.x text {{ text-anchor: middle; }}
.axis.y text {{ text-anchor: end; }}
.background {{ fill: none; }}
.series .line {{ stroke-width: 1.5; fill-opacity: 0.3; }}
.series .nofill {{ fill: none; }}
"""
"""For what pygal draws, which has classes in the place of colours."""

PENS += "".join(
    f".color-{number} {{ stroke: {colour}; fill: {colour}; }}\n"
    for number, colour in enumerate(COLOURS)
)

_STYLE = Style(colors=COLOURS, label_font_size=10, legend_font_size=10, font_family="sans-serif")

_UNITS = {
    "percentunit": (100.0, " %"),
    "s": (1.0, " s"),
    "cps": (1.0, "/s"),
    "bytes": (2**-20, " MiB"),
}

_NEEDLESS: tuple[object, ...] = ("defs", "desc", "title", "style", "script", Comment)


@dataclass(frozen=True)
class Found:
    """One series: what it is called, and its values by time."""

    name: str
    values: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1][1]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """What Grafana makes of a legend; without one the labels."""
    if not legend:
        kept = {key: text for key, text in labels.items() if key not in ("__name__", "job")}
        return "  ".join(kept.values())
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


def picture(row: str, panels: Sequence[tuple[Panel, Sequence[Found]]]) -> str:
    """The picture of a row, as SVG."""
    places = _places([panel for panel, _ in panels])
    height = max(y + _height(panel) for panel, _, y in places)
    attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {24 * COLUMN} {height}",
        "role": "img",
        "aria-label": f"The row {row} of the dashboard",
    }
    root = Element("svg", attributes)
    SubElement(root, "style").text = PENS
    SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    for (panel, found), (_, x, y) in zip(panels, places, strict=True):
        _frame(root, panel, found, x, y)
    return tostring(root, encoding="unicode") + "\n"


def _height(panel: Panel) -> int:
    return LOW if panel.kind is Kind.STAT else HIGH


def _places(panels: Sequence[Panel]) -> list[tuple[Panel, int, int]]:
    """Panels from left to right, and where a line of them is full, below it."""
    placed = []
    column, y, tallest = 0, 0, 0
    for panel in panels:
        if column + panel.width > 24:
            column, y, tallest = 0, y + tallest, 0
        placed.append((panel, column * COLUMN, y))
        column += panel.width
        tallest = max(tallest, _height(panel))
    return placed


def _frame(root: Element, panel: Panel, found: Sequence[Found], x: int, y: int) -> None:
    width, height = panel.width * COLUMN, _height(panel)
    inside = SubElement(root, "svg", _numbers(x=x, y=y, width=width, height=height))
    border = _numbers(x=3, y=3, width=width - 6, height=height - 6, rx=4)
    SubElement(inside, "rect", {**border, "fill": "none", "stroke": FAINT})
    head = 2 * HEAD - 14 if panel.kind is Kind.STAT else HEAD
    for line, text in enumerate(textwrap.wrap(panel.title, width // 8)):
        _text(inside, 12, 20 + 14 * line, text, bold=True)
    size = width - 12, height - head - 6
    body = SubElement(inside, "svg", _numbers(x=6, y=head, width=size[0], height=size[1]))
    if not found:
        _text(body, 6, 20, "no data")
    elif panel.kind is Kind.STAT:
        _stat(body, panel, found)
    elif panel.kind is Kind.TABLE:
        _table(body, panel, found, size[0])
    elif panel.kind is Kind.TIMELINE:
        _timeline(body, panel, found, size[0])
    else:
        body.append(_graph(panel, found, *size))


def _stat(body: Element, panel: Panel, found: Sequence[Found]) -> None:
    for place, one in enumerate(found[:4]):
        x = 8 + place * max(70, (panel.width * COLUMN - 24) // len(found[:4]))
        colour = _colour(panel, one.last)
        _text(body, x, 22, _word(panel, one.last), bold=True, size=22, colour=colour)
        if len(found) > 1:
            _text(body, x, 40, one.name)


def _table(body: Element, panel: Panel, found: Sequence[Found], width: int) -> None:
    for line, one in enumerate(sorted(found, key=lambda one: one.name)[:LINES]):
        y = 16 + line * LINE
        _text(body, 6, y, one.name[: width // 7])
        if one.name and set(one.values) and panel.queries.keys() != {""}:
            _text(body, width - 8, y, _word(panel, one.last), anchor="end")


def _timeline(body: Element, panel: Panel, found: Sequence[Found], width: int) -> None:
    begin, end = _span(found)
    left = width * 0.42
    for line, one in enumerate(found[:LINES]):
        y = 8 + line * (LINE + 3)
        _text(body, 6, y + 12, one.name[: int(left) // 7])
        steps = zip(one.values, [*one.values[1:], (end, 0.0)], strict=True)
        for (since, value), (until, _) in steps:
            x = left + (since - begin) / (end - begin) * (width - left - 8)
            long = (until - since) / (end - begin) * (width - left - 8) + 0.6
            bar = _numbers(x=round(x, 1), y=y, width=round(long, 1), height=LINE)
            SubElement(body, "rect", {**bar, "fill": _colour(panel, value)})
        _text(body, width - 16, y + 12, _word(panel, one.last), anchor="end", colour="#ffffff")


def _graph(panel: Panel, found: Sequence[Found], width: int, height: int) -> Element:
    factor, unit = _UNITS.get(panel.unit, (1.0, ""))
    kind = pygal.StackedLine if panel.kind is Kind.STACKED else pygal.Line
    if panel.kind is Kind.HEATMAP:
        kind = pygal.Bar
    chart = kind(
        style=_STYLE,
        css=(),
        js=(),
        width=width,
        height=height,
        margin=4,
        margin_right=26,  # half of the last word below the graph
        spacing=4,
        show_dots=False,
        fill=panel.kind is Kind.STACKED,
        legend_at_bottom=True,
        legend_box_size=8,
        include_x_axis=True,
        truncate_legend=-1,
        truncate_label=-1,
        show_minor_x_labels=False,
        y_labels_major_count=3,
        show_minor_y_labels=False,
        value_formatter=lambda value: f"{value:.3g}{unit}",
    )
    if panel.kind is Kind.HEATMAP:
        _fill_buckets(chart, found)
    else:
        columns = 1 if any(len(one.name) > _letters(width, 2) for one in found) else 2
        chart.legend_at_bottom_columns = columns
        _fill_lines(chart, _legible(found, panel.kind, width, columns), factor, columns)
    drawn: Element = chart.render_tree()
    _strip(drawn)
    return drawn


def _strip(parent: Element) -> None:
    """Take away what pygal adds for scripts, and digits that nobody can see."""
    for name, value in parent.attrib.items():
        if name not in ("class", "style"):
            parent.set(name, re.sub(r"(\d\.\d)\d+", r"\1", value))
    for child in list(parent):
        if child.tag in _NEEDLESS or child.get("class") == "tooltip-overlay":
            parent.remove(child)
        else:
            _strip(child)


def _letters(width: int, columns: int) -> int:
    """How many letters of a name fit into a legend."""
    return int((width / columns - 24) / LETTER)


def _legible(found: Sequence[Found], kind: Kind, width: int, columns: int) -> Sequence[Found]:
    """The lines that are drawn, with names that fit into the legend."""
    moving = [one for one in found if any(value for _, value in one.values)]
    still = [one for one in found if one not in moving]
    shown = moving if moving and kind is Kind.STACKED else [*moving, *still]
    most = MOST if columns > 1 else MOST_LONG
    return [Found(one.name[: _letters(width, columns)], one.values) for one in shown[:most]]


def _fill_lines(chart: Any, found: Sequence[Found], factor: float, columns: int) -> None:
    times = sorted({time for one in found for time, _ in one.values})
    chart.x_labels = [datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S") for time in times]
    chart.x_labels_major = chart.x_labels[:: max(1, len(times) // 3)]
    least, most = 0.0, 0.0
    if len(found) > 1 and len(found) % columns:
        chart.margin_bottom = 20  # pygal leaves no room for a row of legends that is half full
    for one in found:
        values = dict(one.values)
        line = [values[time] * factor if time in values else None for time in times]
        known = [value for value in line if value is not None and value == value]
        least, most = min([least, *known]), max([most, *known])
        chart.add(one.name, [value if value == value else None for value in line])
    if least == most:
        chart.range = (0, 1)


def _fill_buckets(chart: Any, found: Sequence[Found]) -> None:
    """How many fell into each bucket, over the whole time."""
    counted = {float(one.name): sum(value for _, value in one.values) for one in found}
    bounds = sorted(counted)
    below = [0.0, *(counted[bound] for bound in bounds)]
    chart.x_labels = [f"{bound:g} s" for bound in bounds]
    chart.x_labels_major = chart.x_labels[:: max(1, len(bounds) // MARKS)]
    chart.show_legend = False
    chart.add("", [max(0.0, below[n + 1] - below[n]) for n in range(len(bounds))])


# ---------------------------------------------------------------- what they share


def _span(found: Sequence[Found]) -> tuple[float, float]:
    times = [time for one in found for time, _ in one.values]
    return min(times), max(*times, min(times) + 1)


def _word(panel: Panel, value: float) -> str:
    if value != value:
        return "-"
    if int(value) in panel.words:
        return panel.words[int(value)]
    factor, unit = _UNITS.get(panel.unit, (1.0, ""))
    if panel.unit == "s" and abs(value) >= 3_600:
        return f"{value / 86_400:.1f} d" if abs(value) >= 2 * 86_400 else f"{value / 3_600:.1f} h"
    shown = value * factor
    return f"{shown:.3g}{unit}" if abs(shown) < 1000 else f"{shown:.0f}{unit}"


def _colour(panel: Panel, value: float) -> str:
    if panel.good is not None and (panel.bad is None or panel.bad < panel.good):
        return GOOD if value >= panel.good else BAD
    if panel.bad is not None:
        return BAD if value >= panel.bad else GOOD
    return INK


def _numbers(**values: float) -> dict[str, str]:
    return {name: f"{value:g}" for name, value in values.items()}


def _text(
    parent: Element,
    x: float,
    y: float,
    text: str,
    *,
    bold: bool = False,
    size: int = 12,
    anchor: str = "start",
    colour: str = INK,
) -> None:
    style = f"font-size:{size}px;fill:{colour};font-weight:{'bold' if bold else 'normal'}"
    attributes = {**_numbers(x=x, y=y), "text-anchor": anchor, "style": style}
    SubElement(parent, "text", attributes).text = text
