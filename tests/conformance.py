"""The clauses, the code that implements them and the tests that show them: docs/conformance.md.

A clause is one sentence that a correct forecaster of REQUIRETLS follows, numbered from
R1 on. tests/data/clauses.toml says each with its source and with the code that implements it;
the code cites it as "(R21)", and a test that shows it has the number in its name, as in
``test_r21_…`` or ``test_r14_r15_…``.

    python -m tests.conformance > docs/conformance.md
    python -m tests.conformance --uncited
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import REPOSITORY

CLAUSES = REPOSITORY / "tests" / "data" / "clauses.toml"
PAGE = REPOSITORY / "docs" / "conformance.md"

LAST_CLAUSE = 64
"""The clauses are R1 to this one; the one place where the code says so."""

HEAD = """# Conformance

<!-- Made by "make docs" from tests/data/clauses.toml and the names of the tests. -->

What a correct forecaster of REQUIRETLS has to do, clause by clause: where the clause comes from,
the code that implements it, and the tests that show it. The code cites its clauses as `(R21)`. A
test carries their numbers in its name, as in `test_r21_…`, and is marked by it:
`pytest -m "clause(number=21)"` runs what shows R21. A clause without code or without a test fails
`make test`.
"""


@dataclass(frozen=True)
class Clause:
    """One sentence that a correct forecaster follows."""

    number: int
    source: str
    text: str
    code: tuple[str, ...]

    def __str__(self) -> str:
        return f"R{self.number}"


@dataclass(frozen=True)
class Place:
    """Lines of a file of the repository, from ``first`` to ``last``."""

    path: Path
    first: int
    last: int

    def link(self, text: str) -> str:
        """A Markdown link to the first line, from a page in docs/."""
        return f"[`{text}`](../{self.path.as_posix()}#L{self.first})"


def clauses() -> list[Clause]:
    """All clauses, in order."""
    data = tomllib.loads(CLAUSES.read_text(encoding="utf-8"))
    return [
        Clause(item["number"], item["source"], item["text"], tuple(item["code"]))
        for item in data["clause"]
    ]


def parts() -> dict[int, str]:
    """The title of each part of the page, by the number of its first clause."""
    data = tomllib.loads(CLAUSES.read_text(encoding="utf-8"))
    return {item["first"]: item["title"] for item in data["part"]}


def clauses_of(name: str) -> tuple[int, ...]:
    """The numbers of the clauses that a test of this name shows.

    Raises:
        LookupError: A number is that of no clause.
    """
    found = re.match(r"test_((?:r\d+_)+)", name)
    numbers = tuple(int(number) for number in re.findall(r"\d+", found[1])) if found else ()
    for number in numbers:
        if not 1 <= number <= LAST_CLAUSE:
            raise LookupError(f"there is no clause R{number}")
    return numbers


@functools.cache
def tests() -> dict[int, list[tuple[str, Place]]]:
    """The name and place of each test that shows a clause, by the clause's number."""
    found: dict[int, list[tuple[str, Place]]] = defaultdict(list)
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = Place(path.relative_to(REPOSITORY), node.lineno, node.end_lineno or 0)
                for number in clauses_of(node.name):
                    found[number].append((node.name, place))
    return found


def resolve(name: str) -> Place:
    """The place of ``module:object`` or ``module:Class.method`` below the package.

    The comment lines above an object belong to it, and so does the docstring below a
    constant.

    Raises:
        LookupError: There is no such thing.
    """
    module_name, _, object_name = name.partition(":")
    path = _file(f"requiretls_milter.{module_name}")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = _definition(body, object_name.split("."))
    if not found:
        raise LookupError(f"{name}: not defined in {path.name}")
    first, last = found[0], found[-1]
    return Place(path.relative_to(REPOSITORY), first.lineno, last.end_lineno or last.lineno)


def _file(module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise LookupError(f"{module}: no such module")
    return Path(spec.origin)


def _definition(body: list[ast.stmt], names: list[str]) -> list[ast.stmt]:
    """The statement that defines the last of *names*, and the docstring below a constant."""
    for node, *below in (body[index:] for index in range(len(body))):
        if not _defines(node, names[0]):
            continue
        if names[1:]:
            return _definition(node.body, names[1:]) if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return [node, *(text for text in below[:1] if isinstance(text, ast.Expr))]
        return [node]
    return []


def _defines(node: ast.stmt, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == name
        case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
            return found == name
        case _:
            return False


def source_of(place: Place) -> str:
    """The lines of *place*, with the comment lines right above them."""
    lines = (REPOSITORY / place.path).read_text(encoding="utf-8").splitlines()
    first = place.first - 1
    while first > 0 and lines[first - 1].lstrip().startswith(("#", "@")):
        first -= 1
    return "\n".join(lines[first : place.last])


def uncited() -> list[str]:
    """What implements a clause and does not cite it, as ``R21 module:object``."""
    return [
        f"{clause} {name}"
        for clause in clauses()
        for name in clause.code
        if clause.number not in citations(source_of(resolve(name)))
    ]


def citations(text: str) -> set[int]:
    """The numbers of the clauses that comments and docstrings cite, as in "(R21)"."""
    return {int(number) for number in re.findall(r"\bR(\d{1,3})\b", text)}


def page() -> str:
    """docs/conformance.md as it should be."""
    return HEAD + "".join(_section(clause) for clause in clauses())


def _section(clause: Clause) -> str:
    title = parts().get(clause.number)
    lines = [f"\n## {title}\n"] if title else []
    lines.append(f"\n### {clause}\n\n{clause.text}\n\nSource: {_source(clause.source)}\n")
    lines.append("\nCode:\n\n")
    lines += (f"- {resolve(name).link(name.replace(':', '.'))}\n" for name in clause.code)
    lines.append("\nTests:\n\n")
    lines += (f"- {place.link(name)}\n" for name, place in tests()[clause.number])
    return "".join(lines)


def _source(source: str) -> str:
    """The source with a link at each RFC and each of its sections."""

    def sections() -> Iterator[str]:
        address = ""
        for item in source.split(", "):
            rfc = re.match(r"RFC (\d+)", item)
            section = re.search(r"§([\d.]+)", item)
            if rfc:
                address = f"https://www.rfc-editor.org/rfc/rfc{rfc[1]}"
            if not address or not (rfc or section):
                yield item
            else:
                yield f"[{item}]({address}{f'#section-{section[1]}' if section else ''})"

    return ", ".join(sections())


if __name__ == "__main__":
    if sys.argv[1:] == ["--uncited"]:
        missing = uncited()
        sys.stdout.write("".join(f"{item}\n" for item in missing))
        sys.exit(bool(missing))
    sys.stdout.write(page())
