"""The lab's fixtures, and which of three labs a module runs in when there are three."""

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
    "test_storm",
    "test_systemd",
)
"""What the beginning of a module's name is if it shows what becomes of mail."""

RECIPES = ("test_doctor", "test_partner_page", "test_public", "test_recipe_", "test_tag_recipes")
"""The same if it shows what operators are told to set up."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group the tests for ``--dist loadgroup``: three labs, each with its tests in the usual order.

    Modules share a lab and leave things in it; so which modules share one, and in which order
    they run, is always the same.
    """
    name = Path(item.fspath).stem
    groups = {"mail": MAIL, "recipes": RECIPES}
    group = next((group for group, names in groups.items() if name.startswith(names)), "forecasts")
    item.add_marker(pytest.mark.xdist_group(group))
