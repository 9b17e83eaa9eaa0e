"""Every parser of foreign bytes keeps its promises on the corpus of what was odd before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.table import CORPUS, TARGETS


@pytest.mark.parametrize(
    ("target", "seed"),
    [(name, seed) for name, target in TARGETS.items() for seed in target.seeds()],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_the_corpus_holds_no_input_that_breaks_a_promise(target: str, seed: Path) -> None:
    TARGETS[target].load()(seed.read_bytes())


def test_every_target_has_seeds_and_every_corpus_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(len(target.seeds()) >= 3 for target in TARGETS.values())
