from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config, parse
from requiretls_milter.config.text import EXAMPLES, render, value_text
from tests.support.configured import configured
from tests.unit.config.generated import CONFIG


@given(CONFIG, st.booleans())
def test_what_is_shown_reads_back_as_the_same(raw: dict[str, object], annotated: bool) -> None:
    config = Config.model_validate(raw)
    shown = render(config, annotated=annotated)
    assert parse(shown.encode(), "shown") == config
    assert render(config, annotated=annotated) == shown


def test_whole_seconds_are_shown_whole() -> None:
    assert "\ntimeout = 5\n" in render(Config())
    assert "\ntimeout = 2.5\n" in render(configured("dns.timeout = 2.5"))


def test_the_commented_defaults_are_the_defaults() -> None:
    shown = render(Config(), annotated=True)
    assert parse(shown.encode(), "shown") == Config()
    assert not any(len(line) > 100 for line in shown.splitlines())
    assert not any(line != line.rstrip() for line in shown.splitlines())


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_the_examples_in_the_comments_are_good(example: str, tmp_path: Path) -> None:
    (tmp_path / "partners.txt").write_text("partner.example\n")
    assert parse(example.encode(), str(tmp_path / "config.toml")) != Config()
    commented = "\n".join(f"# {line}" for line in example.splitlines())
    assert commented in render(Config(), annotated=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", '"a"'), (10.0, "10"), (2.5, "2.5"), (True, "true"), (["a"], '["a"]'), ({}, "{}")],
)
def test_a_value_is_written_as_in_the_file(value: object, text: str) -> None:
    assert value_text(value) == text
