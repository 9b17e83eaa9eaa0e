from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter import config
from requiretls_milter.config import Config, parse
from requiretls_milter.config.mistakes import known_keys
from requiretls_milter.config.removed import REMOVED, without_removed
from requiretls_milter.config.text import render
from tests.support.paths import REPOSITORY

OLD = b"""
[mta]
mx_session_limit = 2
mx_address_limit = 3
[mta.transport.strict]
mx_session_limit = "nonsense"
mx_address_limit = 4
"""


def test_a_key_that_was_removed_is_accepted_whatever_it_holds() -> None:
    loaded = parse(OLD, "old.toml")
    assert loaded.mta.mx_address_limit == 3
    assert loaded.mta.transport["strict"].mx_address_limit == 4
    assert "mx_session_limit" not in render(loaded)


def test_each_removed_key_is_warned_of_where_it_stands() -> None:
    loaded = parse(OLD, "old.toml")
    ours, theirs = config.warnings(loaded)
    assert ours.startswith("mta.mx_session_limit: this key was removed, since it had no effect")
    assert theirs.startswith("mta.transport.strict.mx_session_limit: this key was removed")
    assert config.warnings(parse(b"mta.mx_address_limit = 3", "new.toml")) == ()


def test_what_is_shown_of_it_is_the_same_configuration() -> None:
    loaded = parse(OLD, "old.toml")
    shown = parse(render(loaded).encode(), "shown.toml")
    assert shown == loaded
    assert not shown.removed
    assert loaded != Config()
    assert loaded != loaded.mta


def test_the_configuration_itself_is_as_if_the_key_were_not_there() -> None:
    text = OLD.decode().replace("mx_session_limit", "mx_address_limit").encode()
    raw = {"mta": {"mx_session_limit": 2, "mx_address_limit": 3}}
    assert Config.model_validate(raw).mta == parse(b"mta.mx_address_limit = 3", "x").mta
    assert raw["mta"]["mx_session_limit"] == 2  # what was given is not changed
    with pytest.raises(config.ConfigError, match="stands on line"):
        parse(text, "twice.toml")


@pytest.mark.parametrize("text", ["mta = 1", "mta.transport = []", "mta.transport.x = 1"])
def test_what_is_no_table_is_a_mistake_as_ever(text: str) -> None:
    with pytest.raises(config.ConfigError, match="expected a table"):
        parse(text.encode(), "test")


def test_no_key_is_both_removed_and_known() -> None:
    assert not set(REMOVED) & set(known_keys(Config))


@pytest.mark.parametrize("path", list(REMOVED), ids=".".join)
def test_a_removed_key_is_told_of_in_the_changelog_and_the_manual(path: tuple[str, ...]) -> None:
    for page in (Path("CHANGELOG.md"), Path("docs/configuration.md")):
        assert path[-1] in (REPOSITORY / page).read_text(encoding="utf-8")


@given(
    st.recursive(
        st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(["mta", "transport", "mx_session_limit", "other"]), inner
        ),
    )
)
def test_whatever_a_table_holds_only_removed_keys_go(table: object) -> None:
    kept, warnings = without_removed({"mta": table})
    again, none = without_removed(kept)
    assert (again, none) == (kept, ())
    assert (kept == {"mta": table}) is (not warnings)
