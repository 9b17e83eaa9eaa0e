"""``[watch]``: whose servers are watched, and the command that is told."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config, ConfigError
from tests.support.configured import configured


def test_nothing_is_watched_by_default() -> None:
    watch = Config().watch
    assert watch.domains == ()
    assert watch.command == ()


def test_a_command_is_split_as_a_shell_does() -> None:
    config = configured("[watch]\nnotify = \"/usr/bin/tell --to 'a b'\"\n")
    assert config.watch.command == ("/usr/bin/tell", "--to", "a b")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('notify = "tell"', "absolute path"),
        ('notify = "/bin/tell \'a"', "not a command line"),
        ('domains = [".example.org"]', "watch.domains"),
        ('domains = ["*.example.org"]', "watch.domains"),
        ("interval = 4", "watch.interval"),
    ],
)
def test_mistakes_are_told(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(f"[watch]\n{text}\n")
    assert mistake in str(raised.value)
