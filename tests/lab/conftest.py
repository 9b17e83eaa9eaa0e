"""The lab's fixtures, and which of four labs a module runs in when there are four."""

from pathlib import Path

import pytest

from tests.lab.fixtures import lab, postfix_root

__all__ = ["lab", "postfix_root"]

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

SETTINGS = (
    "test_aliases",
    "test_expansion",
    "test_installations",
    "test_mta_import",
    "test_next_hops",
    "test_parameters",
    "test_routes",
    "test_simulate",
    "test_smart_hosts",
    "test_splitting",
)
"""The same if it shows what becomes of a Postfix's settings and tables."""

GROUPS = {"mail": MAIL, "recipes": RECIPES, "settings": SETTINGS}
"""Modules by their lab; those that are in none of these share a fourth one."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group the tests for ``--dist loadgroup``: four labs, each with its tests in the usual order.

    Modules share a lab and leave things in it; so which modules share one, and in which order
    they run, is always the same.
    """
    name = Path(item.fspath).stem
    group = next((group for group, names in GROUPS.items() if name.startswith(names)), "forecasts")
    item.add_marker(pytest.mark.xdist_group(group))
