"""The lab's fixtures, and which of two labs a module runs in when there are two."""

from pathlib import Path

import pytest

from tests.lab.fixtures import lab

__all__ = ["lab"]

MAIL = (
    "test_crash",
    "test_fault_matrix",
    "test_hostile_input",
    "test_local_mail",
    "test_main_path",
    "test_milter_faults",
    "test_recipe_",
    "test_storm",
    "test_systemd",
    "test_tag_recipes",
)
"""What the beginning of a module's name is if it shows what becomes of mail."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group the tests for ``--dist loadgroup``: two labs, each with its tests in the usual order.

    Modules share a lab and leave things in it; so which modules share one, and in which order
    they run, is always the same.
    """
    name = Path(item.fspath).stem
    group = "mail" if name.startswith(MAIL) else "forecasts"
    item.add_marker(pytest.mark.xdist_group(group))
