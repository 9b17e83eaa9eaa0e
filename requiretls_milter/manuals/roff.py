"""The little of man(7) that our pages are written in."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

_CODE = re.compile(r"`([^`]+)`")

_BETWEEN_SENTENCES = re.compile(r"(?<=[a-z0-9`\")][.:;?]) (?=[A-Z\"`])")

WIDTH = 78
"""Octets of a line of a page's source at most."""

_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
"""A link of Markdown: its text is all that a page of man(1) can show of it."""


def plain(text: str) -> str:
    """Escape text that stands in a line: nothing in it is an instruction for the formatter."""
    return _no_request(text.replace("\\", "\\e"))


def literal(text: str) -> str:
    """Escape text that a reader may copy: a hyphen stays the character of ASCII."""
    return plain(text).replace("-", "\\-")


def bold(text: str) -> str:
    """Set a literal in bold."""
    return f"\\fB{literal(text)}\\fR"


def prose(text: str) -> str:
    """Set a paragraph of Markdown, of which code and links are understood.

    Each sentence begins a line, as man-pages(7) has it.
    """
    flat = " ".join(_LINK.sub(r"\1", text).split())
    lines = []
    for sentence in _BETWEEN_SENTENCES.split(flat):
        marked = _CODE.sub(lambda found: bold(found[1]), plain(sentence))
        lines += textwrap.wrap(marked, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_no_request, lines))


def _no_request(line: str) -> str:
    """Keep the formatter from taking the line for a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


class ManPage:
    """A page that is put together from top to bottom.

    Args:
        name: what the page describes.
        section: of the manual.
        date: of the release that it describes, ISO 8601.
        source: the program and its version.
        title: of the part of the manual.
        about: what it is, in a few words.
    """

    def __init__(
        self, name: str, section: int, *, date: str, source: str, title: str, about: str
    ) -> None:
        self._lines = [
            '.\\" Made by "make docs".',
            f'.TH {literal(name.upper())} {section} {date} "{literal(source)}" "{title}"',
        ]
        self.heading("NAME")
        self._lines.append(f"{literal(name)} \\- {plain(about)}")

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{literal(text)}"')

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{literal(text)}"')

    def paragraphs(self, *texts: str) -> None:
        """Add paragraphs; the first one after a heading needs no space before it."""
        for text in texts:
            if not self._lines[-1].startswith((".SH", ".SS")):
                self._lines.append(".PP")
            self._lines.append(prose(text))

    def item(self, tag: str, text: str) -> None:
        """Add an entry of a list: what it is about (which is set as it is), then what it says."""
        self._lines += [".TP", tag, prose(text) or "\\&"]

    def more_of_item(self, text: str) -> None:
        """Add a paragraph to the last entry of a list."""
        self._lines += [".IP", prose(text)]

    def example(self, lines: Iterable[str]) -> None:
        """Add lines that are shown as they are."""
        space = [] if self._lines[-1].startswith(".SH") else [".PP"]
        self._lines += [*space, ".RS 4", ".nf", *map(literal, lines), ".fi", ".RE"]

    def see_also(self, *pages: str) -> None:
        """End with the pages that a reader may want, as ``name(section)``."""
        self.heading("SEE ALSO")
        names = [re.fullmatch(r"(.+)(\(\d\))", page) for page in pages]
        found = [f".BR {literal(name[1])} {name[2]}" for name in names if name]
        self._lines += [f"{line} ," for line in found[:-1]] + found[-1:]

    def text(self) -> str:
        """The page."""
        return "\n".join(self._lines) + "\n"
