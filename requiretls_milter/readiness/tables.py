"""Tables of the page: each has a caption and heads, and scrolls by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from requiretls_milter.syntax.markup import Child, element


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: int = 0,
    has_heading: bool = False,
) -> Element:
    """Make a table; the first cell of each row is its head.

    Args:
        caption: what the table shows.
        heads: of the columns.
        rows: their cells.
        numbers: how many columns after the first one hold numbers.
        has_heading: a heading above says the same, so that the caption is for screen readers alone.
    """

    def kind(place: int) -> dict[str, str]:
        return {"class_": "number"} if 0 < place <= numbers else {}

    head = element(
        "tr",
        *(element("th", text, scope="col", **kind(place)) for place, text in enumerate(heads)),
    )
    body = element("tbody")
    for row in rows:
        cells = [element("th", row[0], scope="row")]
        cells += [element("td", cell, **kind(place)) for place, cell in enumerate(row[1:], 1)]
        body.append(element("tr", *cells))
    shown = element("caption", caption, **({"class_": "hidden"} if has_heading else {}))
    made = element("table", shown, element("thead", head), body)
    # What is wider than the screen scrolls by itself, by the keyboard too.
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)
