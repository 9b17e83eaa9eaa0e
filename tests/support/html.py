"""A page as its markup says it: the standard library's parser, apart from what wrote the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})


@dataclass
class Node:
    """An element of a page."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within it."""
        return "".join(one if isinstance(one, str) else one.text for one in self.content)

    def all(self, tag: str, class_: str = "") -> list[Node]:
        """The elements of a kind within it, in order."""
        return [
            one
            for one in self._everything()
            if one.tag == tag and (not class_ or class_ in one.attributes.get("class", "").split())
        ]

    def one(self, tag: str, class_: str = "") -> Node:
        """The only element of a kind within it."""
        (found,) = self.all(tag, class_)
        return found

    def tags(self) -> set[str]:
        """The kinds of elements within it."""
        return {one.tag for one in self._everything()}

    def _everything(self) -> Iterator[Node]:
        for one in self.content:
            if isinstance(one, Node):
                yield one
                yield from one._everything()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def parse(octets: bytes) -> Node:
    """Read a page; each element must be closed where it was opened."""
    reader = _Reader()
    reader.feed(octets.decode("ascii"))
    reader.close()
    (root,) = reader.open
    return root
