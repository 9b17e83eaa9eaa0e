"""Every parser of foreign bytes keeps its promises for 30 s of fuzzing, from the corpus on."""

from __future__ import annotations

import os

import pytest

from tests.fuzz import runs
from tests.fuzz.table import TARGETS

pytestmark = pytest.mark.alone

SECONDS = 30.0
"""Of fuzzing in all, shared among the targets; ``make fuzz`` takes longer."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, runs.Outcome]:
    """All targets, fuzzed for their share of the time, as many at once as there are cores."""
    reason = runs.available()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    share = SECONDS / len(TARGETS)
    found = runs.fuzz(TARGETS.values(), share, jobs=os.cpu_count() or 1)
    return {outcome.target: outcome for outcome in found}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(target: str, outcomes: dict[str, runs.Outcome]) -> None:
    outcome = outcomes[target]
    crashes = "".join(f"\npython -m tests.fuzz {target} --replay {c}" for c in outcome.crashes)
    assert not outcome.failed, f"{crashes}\n{outcome.output[-6000:]}"
    assert outcome.executions > 0
    assert outcome.branches > 0, "nothing is counted: the fuzzer is blind"
