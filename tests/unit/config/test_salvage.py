"""The engine's socket in files that have mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.config.salvage import engine_socket_in


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ('[engine]\nsocket = "/run/e.sock"\n[rules]\nmode = "x"\n', "/run/e.sock"),
        ('[engine]\nsocket = "/run/e.sock"\n[rules."x.test]\nmode = "off"\n', "/run/e.sock"),
        ('[rules."x.test]\nmode = "off"\n[ engine ]\nsocket = "/run/e.sock"\n', "/run/e.sock"),
        ('engine.socket = "/run/e.sock" # short\n[rules\n', "/run/e.sock"),
        ('include = [\n"a.toml\n]\nengine.socket = "/run/e.sock"\n', "/run/e.sock"),
        ('engine = { socket = "/run/e.sock" }\n[rules\n', "/run/e.sock"),
        ('[engine]\nstale_for = 08\nsocket = "/run/e.sock"\n', "/run/e.sock"),
        ('[engine]\nsocket = "/run/e.sock"\n[rules]\nmode = ' + "[" * 3000, "/run/e.sock"),
        ("[rules\n", ""),
        ("[engine]\nsocket = 7\n[rules\n", ""),
        ('[engine]\nsocket = "/run/\\u0000"\n[rules\n', ""),
        ("engine = 7\n", ""),
        ("", ""),
    ],
)
def test_the_socket_is_known_though_there_are_mistakes_elsewhere(
    tmp_path: Path, text: str, socket: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert engine_socket_in(path) == socket


def test_an_included_file_may_name_it_or_be_what_is_wrong(tmp_path: Path) -> None:
    path, included = tmp_path / "config.toml", tmp_path / "a.toml"
    path.write_text('include = ["a.toml"]\n[rules]\nmode = "x"\n')
    included.write_text('[engine]\nsocket = "/run/f.sock"\n')
    assert engine_socket_in(path) == "/run/f.sock"
    path.write_text('include = ["a.toml"]\n[engine]\nsocket = "/run/e.sock"\n')
    included.write_text("[rules\n")
    assert engine_socket_in(path) == "/run/e.sock"


def test_a_file_that_is_not_there_names_none(tmp_path: Path) -> None:
    assert engine_socket_in(tmp_path / "none.toml") == ""


def test_an_octet_that_is_not_utf_8_is_a_mistake_like_others(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'[engine]\nsocket = "/run/e.sock"\n[rules]\n# \xe9\n')
    assert engine_socket_in(tmp_path / "latin") == "/run/e.sock"
