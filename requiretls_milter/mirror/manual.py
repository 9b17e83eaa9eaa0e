"""docs/postfix-parameters.md, from the tables: ``python -m requiretls_milter.mirror.manual``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator

from requiretls_milter.mirror.parameters import MIRRORED, WARNED_APART, irrelevant, of_lmtp
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL, Unmirrored
from requiretls_milter.syntax.text import LINE_WIDTH

HEAD = """\
# Every parameter of Postfix

This page is generated (`make docs`). It says of each parameter that Postfix 3.7, 3.10 and 3.11
have what `mta import` and `doctor` make of it: it is mirrored, or there is a warning if its value
may change a forecast, or it changes no forecast. If your Postfix is newer and has a parameter that
is not on this page, both commands name it.
"""

MIRROR = """\
## Mirrored

Keys without a section are those of `[mta]`. How each is made is told in
[mta-import.md](mta-import.md).

| parameter | key |
|---|---|"""


def page() -> str:
    """The whole page."""
    return "\n".join((HEAD, *_mirrored(), "", *_warned(), "", *_irrelevant()))


def _mirrored() -> Iterator[str]:
    yield MIRROR
    for name, key in sorted(MIRRORED.items()):
        yield f"| `{name}` | `{key}` |"
    yield ""
    yield "As the parameter of smtp(8) with the same name, for a transport that is LMTP over TCP:"
    yield _list(of_lmtp())


def _warned() -> Iterator[str]:
    yield "## Warned of\n"
    yield "| parameter | warning if it | what a forecast may get wrong |"
    yield "|---|---|---|"
    rows = {
        parameter.name: (_condition(parameter), parameter.why) for parameter in (*GLOBAL, *CLIENT)
    }
    rows |= {name: ("has an effect", why) for name, why in WARNED_APART.items()}
    for name, (condition, why) in sorted(rows.items()):
        yield f"| `{name}` | {condition} | {why.replace('*', chr(92) + '*')} |"


def _condition(parameter: Unmirrored) -> str:
    harmless = parameter.harmless - {"", "none"}
    if parameter.words:
        return "has " + " or ".join(f"`{word}`" for word in sorted(parameter.words))
    if parameter.harmless_words:
        known = ", ".join(f"`{word}`" for word in sorted(parameter.harmless_words))
        return f"has another word than {known}"
    if parameter.used_by is not None:
        word, users = parameter.used_by
        used = " or ".join(f"`{user}`" for user in sorted(users))
        return f"has not its default, and {used} is `{word}`"
    if parameter.own_default:
        return "has not its default"
    if not harmless:
        return "is set"
    if harmless <= {"yes", "no"}:
        return "is `yes`" if "no" in harmless else "is `no`"
    return "is not " + " or ".join(f"`{value}`" for value in sorted(harmless))


def _irrelevant() -> Iterator[str]:
    yield "## Without effect on a forecast\n"
    for group in sorted(irrelevant(), key=lambda group: group.why.lower()):
        yield f"**{group.why[0].upper()}{group.why[1:]}.**"
        yield _list(group.names)
        yield ""


def _list(names: Iterable[str]) -> str:
    words = ", ".join(f"`{name}`" for name in sorted(names))
    return textwrap.fill(words, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(page())
