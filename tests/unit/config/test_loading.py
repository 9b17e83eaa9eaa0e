from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, ConfigError, loading, sources
from tests.support.mistakes import without_place


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "config.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mistakes(directory: Path, content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(write(directory, content))
    return tuple(map(without_place, caught.value.mistakes))


def test_without_a_file_in_the_usual_place_all_is_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "none.toml")
    assert config.load() == Config()


def test_the_file_in_the_usual_place_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", write(tmp_path, "[milter]\nworkers = 3\n"))
    assert config.load().milter.workers == 3


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml")


def test_what_lies_in_the_usual_place_must_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path)  # a directory, also for root
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "")) == Config()


def test_a_syntax_error_is_told_with_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, "[milter]\nworkers = 3 4\n"))
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"{tmp_path}/config.toml:2:13: not valid TOML: ")


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "[milter]\nworkers = 3\nworkers = 4\n")
    assert mistake == "workers stands on line 2 already: keep one of the two lines"


def test_what_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, b"[milter]\nby = 'ok.example'\n# caf\xe9\n")
    assert "line 3 is not UTF-8" in mistake


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, b"\xef\xbb\xbf[milter]\n")
    assert "byte order mark" in mistake


@pytest.mark.parametrize("value", ["[" * 5000, "x = " + "[" * 5000, "x" + ".x" * 2000 + " = 1"])
def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path, value: str) -> None:
    assert mistakes(tmp_path, value)


@pytest.mark.parametrize(("over", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_file_has_a_mebibyte_at_most(tmp_path: Path, over: int, accepted: bool) -> None:
    content = "#" * (sources.MAX_FILE_BYTES + over)
    if accepted:
        assert config.load(write(tmp_path, content)) == Config()
    else:
        assert "larger than 1048576 bytes" in mistakes(tmp_path, content)[0]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        config.load(Path("/dev/zero"))


def test_the_configuration_imports_no_network_and_no_openssl() -> None:
    code = (
        "import sys, requiretls_milter.config as c; c.load(None);"
        "print([m for m in ('aiohttp', 'asyncio', 'dns', 'ssl', 'OpenSSL', 'cryptography')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
