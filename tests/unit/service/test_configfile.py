"""Whether the file still says what is in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter import config as configuration
from requiretls_milter.config import Config
from requiretls_milter.service.configfile import ConfigFile

TEXT = '[rules]\nmode = "defer"\n'


class Kit:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(TEXT)
        self.in_force = configuration.load(path)
        self.file = ConfigFile(path)

    def differs(self) -> bool:
        self.file.look(self.in_force)
        return self.file.differs


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "config.toml")


def test_a_file_that_was_loaded_does_not_differ(kit: Kit) -> None:
    assert not kit.differs()


@pytest.mark.parametrize(
    "text", ['[rules]\nmode = "reject"\n', "", "[rules\n", '[rules]\nmode = "sideways"\n']
)
def test_other_values_and_mistakes_differ(kit: Kit, text: str) -> None:
    assert not kit.differs()
    kit.path.write_text(text)
    assert kit.differs()
    kit.path.write_text(TEXT)
    assert not kit.differs()


def test_a_file_with_mistakes_is_told_from_one_that_says_something_else(kit: Kit) -> None:
    kit.differs()
    kit.path.write_text('[rules]\nmode = "reject"\n')
    assert kit.differs()
    assert kit.file.usable
    kit.path.write_text("[rules\n")
    assert kit.file.look(kit.in_force), "the answer has changed, though it differs as before"
    assert not kit.file.usable


def test_a_comment_is_no_difference(kit: Kit) -> None:
    kit.path.write_text(f"# as agreed with the partner\n{TEXT}")
    assert not kit.differs()


def test_a_file_that_is_gone_differs_as_a_reload_would_fail(kit: Kit) -> None:
    kit.path.unlink()
    assert kit.differs()


def test_a_key_that_takes_effect_at_a_restart_differs_until_then(kit: Kit) -> None:
    kit.path.write_text(f"{TEXT}[milter]\nworkers = 7\n")
    assert kit.differs()


def test_what_is_in_force_may_change_as_well(kit: Kit) -> None:
    assert not kit.differs()
    kit.path.write_text('[rules]\nmode = "reject"\n')
    assert kit.differs()
    kit.in_force = configuration.load(kit.path)
    assert not kit.differs()


def test_the_file_is_read_only_if_it_has_changed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kit.file.look(kit.in_force)

    def load(_: Path | None) -> Config:
        raise AssertionError("read again")

    monkeypatch.setattr(configuration, "load", load)
    assert not kit.file.look(kit.in_force)


def test_a_change_of_the_answer_is_told_once(kit: Kit) -> None:
    assert not kit.file.look(kit.in_force)
    kit.path.write_text("")
    assert kit.file.look(kit.in_force)
    assert not kit.file.look(kit.in_force)


def test_without_a_file_all_defaults_are_in_force_until_one_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "usual.toml"
    monkeypatch.setattr(configuration, "DEFAULT_PATH", usual)
    monkeypatch.setattr("requiretls_milter.config.loading.DEFAULT_PATH", usual)
    file = ConfigFile(None)
    file.look(Config())
    assert not file.differs
    usual.write_text(TEXT)
    file.look(Config())
    assert file.differs


def test_included_files_and_lists_are_part_of_it(kit: Kit, tmp_path: Path) -> None:
    included, domains = tmp_path / "a.toml", tmp_path / "p.txt"
    kit.path.write_text(f'include = ["*.t[o]ml.d", "a.toml"]\n{TEXT}')
    included.write_text('[rules.list.partners]\ndomains_file = "p.txt"\n')
    domains.write_text("a.example\n")
    kit.in_force = configuration.load(kit.path)
    assert not kit.differs()
    domains.write_text("a.example # with a comment\n")
    assert not kit.differs()
    domains.write_text("a.example\nb.example\n")
    assert kit.differs()
    domains.write_text("a example\n")
    assert kit.differs()
    assert not kit.file.usable
    domains.write_text("a.example\n")
    assert not kit.differs()
    (tmp_path / "x.toml.d").write_text("dns.timeout = 3\n")
    assert kit.differs()
