"""The mutants of a module: its text with one small thing changed.

What is changed, and into what, is mutmut's (https://mutmut.readthedocs.io): its operators are
plain functions from a node of LibCST to nodes, typed, and released every month. Its own runner
takes no sample, and leaves out module constants, class bodies and every function under a decorator,
such as ``@property``: a fifth of what is to be tested here. Cosmic Ray, kept as well, changes the
source tree in place, and turns each comparison into all seven others, most of which mean the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.mutators import mutation_operators

from tests.support.paths import REPOSITORY

PACKAGE = REPOSITORY / "requiretls_milter"


@dataclass(frozen=True)
class Mutant:
    """One change. ``within`` names the function or class; ``was`` and ``becomes`` its lines."""

    path: Path
    within: str
    source: str
    diff: str
    was: str
    becomes: str

    @property
    def module(self) -> str:
        """The file, as the list of equivalents has it."""
        return str(self.path.relative_to(PACKAGE))

    @property
    def name(self) -> str:
        """The module as it is imported."""
        return ".".join(self.path.relative_to(REPOSITORY).with_suffix("").parts)


@dataclass(frozen=True)
class Site:
    """A node, what it becomes, and the function or class that it is in."""

    path: Path
    module: cst.Module
    within: str
    node: cst.CSTNode
    changed: cst.CSTNode

    def mutant(self) -> Mutant | None:
        """Make the change; None if what comes out is no Python, or nothing new."""
        before = self.module.code
        changed = self.module.deep_replace(self.node, self.changed)
        assert isinstance(changed, cst.Module)
        after = changed.code
        if after == before or not _compiles(after):
            return None
        lines = list(
            difflib.unified_diff(
                before.splitlines(),
                after.splitlines(),
                str(self.path.relative_to(REPOSITORY)),
                "mutant",
                n=2,
                lineterm="",
            )
        )
        was, becomes = (
            "\n".join(line[1:].strip() for line in lines[2:] if line.startswith(sign))
            for sign in "-+"
        )
        return Mutant(self.path, self.within, after, "\n".join(lines), was, becomes)


def sites(path: Path, text: str | None = None) -> list[Site]:
    """All that may be changed in a module, in the order of its *text*; None: the file's."""
    visitor = _Sites()
    module = MetadataWrapper(cst.parse_module(path.read_text() if text is None else text)).module
    module.visit(visitor)
    return [Site(path, module, *site) for site in visitor.found]


class _Sites(cst.CSTVisitor):
    """Collects the changes, but for those that no behaviour depends on.

    These are annotations, decorators and the imports for them, and the wording of what is said to
    people: a text is a literal with a blank in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._within: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator) or _is_for_types_only(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._within.append(node.name.value)
        if not _is_text(node):
            self.found += ((".".join(self._within), node, changed) for changed in _changes(node))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._within.pop()


def _changes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            yield from operator(node)


def _is_text(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and " " in node.value


def _is_for_types_only(node: cst.CSTNode) -> bool:
    """``if TYPE_CHECKING:``, a type variable, an alias of a type, or a cast's target."""
    if isinstance(node, cst.If):
        return isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"
    if isinstance(node, cst.Assign) and _is_alias(node):
        return True
    value = node.value if isinstance(node, cst.Assign) else node
    if not isinstance(value, cst.Call) or not isinstance(value.func, cst.Name):
        return False
    return value.func.value in ("TypeVar", "ParamSpec", "cast")


def _is_alias(node: cst.Assign) -> bool:
    """Whether a type gets a name: ``Keys = tuple[str, ...]``, ``Answer = str | None``."""
    target = node.targets[0].target
    if not isinstance(target, cst.Name) or not re.fullmatch("_?[A-Z]+[a-z][A-Za-z]*", target.value):
        return False
    return isinstance(node.value, cst.Subscript | cst.BinaryOperation)


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
