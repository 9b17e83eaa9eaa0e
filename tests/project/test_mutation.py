"""The mutants of make mutate: what is changed, what is left alone, and the list of equivalents."""

from __future__ import annotations

from tests.mutation import equivalent
from tests.mutation.mutants import PACKAGE, sites

MODULE = PACKAGE / "example.py"
SOURCE = '''
"""A module."""
from __future__ import annotations

LIMIT = 5
Answer = str | None
_Steps = Generator[int, Answer, "Thing"]


class Thing:
    @property
    def small(self) -> bool:
        """Whether it is small."""
        return self.size < LIMIT

    @staticmethod
    def said(name: str = "x") -> str:
        return "a text for people"
'''


def changes(source: str) -> list[tuple[str, str, str]]:
    """Where, what, and into what; of a module that is never imported."""
    found = []
    for site in sites(MODULE, source):
        mutant = site.mutant()
        if mutant is not None:
            found.append((mutant.within, mutant.was, mutant.becomes))
    return found


def test_constants_and_what_is_below_a_decorator_are_changed_too() -> None:
    found = changes(SOURCE)
    assert ("", "LIMIT = 5", "LIMIT = 6") in found
    assert ("", "LIMIT = 5", "LIMIT = None") in found
    assert ("Thing.small", "return self.size < LIMIT", "return self.size <= LIMIT") in found


def test_annotations_types_decorators_docstrings_and_texts_for_people_are_left_alone() -> None:
    lines = {was for _, was, _ in changes(SOURCE)}
    assert lines == {
        "LIMIT = 5",
        "return self.size < LIMIT",
        'def said(name: str = "x") -> str:',
    }


def test_a_mutant_is_the_module_with_one_line_changed() -> None:
    for site in sites(MODULE, SOURCE):
        mutant = site.mutant()
        assert mutant is not None
        assert (mutant.module, mutant.name) == ("example.py", "requiretls_milter.example")
        assert mutant.source == SOURCE.replace(mutant.was, mutant.becomes)
        assert "requiretls_milter/example.py" in mutant.diff


def test_every_equivalent_is_about_lines_that_are_there() -> None:
    assert [str(entry) for entry in equivalent.load() if not entry.is_current()] == []


def test_every_equivalent_is_listed_once_with_its_reason() -> None:
    listed = equivalent.load()
    assert all(entry.why and entry.was and entry.becomes != entry.was for entry in listed)
    assert len({(e.module, e.within, e.was, e.becomes) for e in listed}) == len(listed)
