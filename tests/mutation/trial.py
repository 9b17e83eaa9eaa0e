"""A mutant on trial: the fast tests are run with it in the place of the module."""

from __future__ import annotations

import enum
import importlib.util
import multiprocessing
import os
import resource
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

from tests.mutation.mutants import Mutant
from tests.support.paths import REPOSITORY

TESTS = tuple(f"tests/unit/{folder}" for folder in ("syntax", "forecast", "rules", "milter"))
"""What has to notice: nothing in there waits, or starts a process of ours."""

EXAMPLES = 25
"""Of each property, always the same ones: a mutant is to meet the same tests each time."""

CPU_SECONDS = 120
"""A mutant that never ends is stopped then: the tests take about 15."""

WALL_SECONDS = 900
"""One that sleeps is stopped then, on a machine as busy as may be."""

MEMORY = 8 << 30
"""Octets of address space: some mutants gather without end."""


class Fate(enum.StrEnum):
    """What becomes of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # not tried: no test could tell


def fate_of(mutant: Mutant | None) -> Fate:
    """Run the tests against *mutant* until one fails, the nearest first; None: the code as it is.

    A process of its own meets each mutant, forked from this one, which has imported the libraries
    but nothing of the package. One that crashes, hangs or eats all memory is killed too.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(mutant,))
    process.start()
    process.join(WALL_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    return Fate.SURVIVED if process.exitcode == pytest.ExitCode.OK else Fate.KILLED


def _run(mutant: Mutant | None) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if mutant is not None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.dup2(nothing, sys.stderr.fileno())
        sys.meta_path.insert(0, _InItsPlace(mutant))
    hypothesis.settings.register_profile(
        "mutation",
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    os.chdir(REPOSITORY)
    options = ["-x", "-q", "--no-header", "--no-summary", "--timeout=60", "-pno:cacheprovider"]
    options.append("-Wignore::pytest.PytestAssertRewriteWarning")  # hypothesis is imported already
    options.append("--hypothesis-profile=mutation")
    for folders in _nearest_first(mutant):
        code = pytest.main([*options, *folders], plugins=[_Order()])
        if code != pytest.ExitCode.OK:
            os._exit(code)
    os._exit(pytest.ExitCode.OK)


def _nearest_first(mutant: Mutant | None) -> list[list[str]]:
    """The tests beside the mutant, then the others: collecting them all takes the most time."""
    near = "" if mutant is None else mutant.module.removesuffix(".py").partition("/")[0]
    folders = [
        [folder for folder in TESTS if folder.endswith(f"/{near}") is side]
        for side in (True, False)
    ]
    return [group for group in folders if group]


class _Order:
    """Properties come last: each takes as long as a hundred other tests."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("hypothesis") is not None)


class _InItsPlace(MetaPathFinder):
    """Imports the mutant instead of the module; no file is written."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.name:
            return None
        loader = _Loader(self._mutant)
        return importlib.util.spec_from_file_location(fullname, self._mutant.path, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.name, str(mutant.path))
        self._source = mutant.source

    def get_code(self, fullname: str) -> CodeType:
        code: Any = compile(self._source, self.path, "exec")
        assert isinstance(code, CodeType)
        return code
