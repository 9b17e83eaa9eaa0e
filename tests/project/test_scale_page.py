"""docs/scale.md: its settings are good configurations, and the simulation's own."""

from __future__ import annotations

import re

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, Limits
from tests.bench.sites import LARGE
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
SETTINGS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def limits_of(text: str) -> Limits:
    loaded = config.parse(text.encode(), "scale.md")
    assert config.warnings(loaded) == ()
    return loaded.limits


def test_there_are_settings_for_a_large_and_for_a_very_large_site() -> None:
    assert len(SETTINGS) == 2


@pytest.mark.parametrize("text", SETTINGS)
def test_each_setting_is_larger_than_what_is_installed(text: str) -> None:
    loaded = config.parse(text.encode(), "scale.md")
    for section in ("limits", "store"):
        installed = getattr(Config(), section)
        for key in getattr(loaded, section).model_fields_set:
            assert getattr(getattr(loaded, section), key) > getattr(installed, key), key


def test_a_larger_site_has_more_of_each() -> None:
    large, very_large = map(limits_of, SETTINGS)
    for key in ("forecast_cache", "host_cache", "domain_cache"):
        assert getattr(large, key) < getattr(very_large, key)


def test_the_row_computes_with_the_settings_of_the_page() -> None:
    very_large = limits_of(SETTINGS[1])
    assert {key: getattr(very_large, key) for key in very_large.model_fields_set} == LARGE


def test_what_is_installed_is_what_the_page_says() -> None:
    limits = Limits()
    for key in ("address_per_hour", "network_per_hour"):
        assert f"{getattr(limits, key):,}" in PAGE
    assert f"{limits.zone_lookups_per_hour:,} lookups an hour" in PAGE
