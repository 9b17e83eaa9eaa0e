"""HTML as a tree of elements: every text in it is escaped, since no other way leads into it. Pure.

Texts come from logs, DNS and servers. Each becomes printable US-ASCII first
(:func:`~requiretls_milter.syntax.text.visible`), so that no character turns the direction of the
text or hides a part of it, and the serializer escapes what is markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from requiretls_milter.syntax.text import bounded, visible

Child = Element | str


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """Make an element.

    Args:
        tag: its name.
        children: elements and texts, in their order.
        attributes: ``_`` in a name stands for ``-``, and one at its end for nothing (``class_``).
    """
    made = Element(tag)
    for key, value in attributes.items():
        made.set(key.rstrip("_").replace("_", "-"), visible(value))
    append(made, children)
    return made


def append(made: Element, children: Iterable[Child]) -> None:
    """Put elements and texts at the end of an element."""
    last = made[-1] if len(made) else None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + visible(child)
        else:
            last.tail = (last.tail or "") + visible(child)


def cut(text: str, limit: int) -> str:
    """A text of strangers, printable and of bounded length."""
    return bounded(visible(text[: limit + 1]), limit)


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


def document(root: Element) -> str:
    """Write a whole document."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html")
