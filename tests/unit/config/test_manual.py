from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.config.manual import markdown
from requiretls_milter.config.mistakes import known_keys
from tests.support.paths import REPOSITORY


def test_the_reference_manual_is_current() -> None:
    path = REPOSITORY / "docs" / "configuration.md"
    assert path.read_text(encoding="utf-8") == markdown(), 'run "make docs"'


def test_the_manual_has_every_section_and_every_key() -> None:
    page = markdown()
    for *above, key in known_keys(Config):
        if above:
            assert f"`{key}" in page or f"[rules.{key}." in page or f"[mta.{key}." in page, key
        else:
            assert f"## [{key}]" in page
