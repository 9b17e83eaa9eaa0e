"""HTML as a tree of elements: every text in it is escaped, since no other way leads into it. Pure.

Texts come from logs, DNS, servers and clients. Each becomes printable US-ASCII first (R62,
:func:`~requiretls_milter.syntax.text.visible`), so that no character turns the direction of the
text or hides a part of it, and the serializer of the standard library escapes what is markup.
"""

from __future__ import annotations

import base64
import hashlib
from xml.etree.ElementTree import Element, tostring

from requiretls_milter.syntax.text import bounded, visible

Child = Element | str


def element(tag: str, *content: Child, **attributes: str) -> Element:
    """Make an element.

    Args:
        tag: its name.
        content: texts and elements within it, in order.
        attributes: an underscore stands for ``-``, one at the end for nothing.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    made = Element(tag, {name: visible(value) for name, value in named.items()})
    for one in content:
        if isinstance(one, Element):
            made.append(one)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + visible(one)
        else:
            made.text = (made.text or "") + visible(one)
    return made


def style_sheet(style: str) -> Element:
    """The element of our own style sheet: the serializer escapes nothing in it."""
    sheet = Element("style")
    sheet.text = style
    return sheet


def style_sources(*styles: str) -> str:
    """What a Content-Security-Policy says to allow these style sheets and no others."""
    digests = (base64.b64encode(hashlib.sha256(style.encode()).digest()) for style in styles)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"


def cut(text: str, limit: int) -> str:
    """A text of strangers, printable and of bounded length."""
    return bounded(visible(text[: limit + 1]), limit)


def document(root: Element) -> str:
    """Write a whole document, in US-ASCII."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html")
