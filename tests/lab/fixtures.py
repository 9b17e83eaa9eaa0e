"""pytest fixtures: the lab, one for the whole session (it takes a few seconds to start).

from tests.lab.fixtures import lab  # in a conftest.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.lab import netns, roots
from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.lab.labconfig import profiles_told_apart, told_apart
from tests.support.scenario import load


def unavailable(reason: LabUnavailable) -> NoReturn:
    """Skip where the lab cannot run; in CI that is a failure: a skipped proof is none."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no lab: {reason}")
    pytest.skip(f"no lab: {reason}")


@pytest.fixture(scope="module")
def postfix_root() -> Path:
    """The root of the newest Postfix, for tests that need no lab."""
    try:
        with netns.outside():
            return roots.ensure(roots.POSTFIX_3_11)
    except LabUnavailable as reason:
        unavailable(reason)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A running lab with all recorded scenarios, both Postfix instances, and no milter.

    The test process is in the lab's network namespace from here to the end of the session.
    Tests add scenarios of their own by ``lab.add``, with ids that no other test uses.
    """
    lab = Lab(map(told_apart, load().scenarios), profiles=profiles_told_apart(), downstream=True)
    try:
        lab.start()
    except LabUnavailable as reason:
        unavailable(reason)
    try:
        yield lab
    finally:
        lab.stop()
