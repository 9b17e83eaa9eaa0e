"""``mta import``: what it prints and writes, and its exit statuses."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config.sources import MAX_FILE_BYTES
from tests.support.commandline import Ended, call
from tests.support.postfixes import DEFAULTS_3_11

CONFIG = """\
# Edited by hand.
include = ["conf.d/*.toml"]
store.url = "redis://user:geheim@127.0.0.1:6379/0"

[mta]
relayhost = "[old.example]" # the smart host
mydomain = "example.org" # as in main.cf
every_mx = true # ours, not Postfix's

# rules follow
[rules]
mode = "monitor"
"""

Import = Callable[..., Ended]


@pytest.fixture
def postconf(tmp_path: Path) -> Path:
    """A postconf that answers as that of Postfix 3.11 with a smart host."""
    settings = {**DEFAULTS_3_11, "relayhost": "[relay.example]"}
    answer = "\n".join(json.dumps({name: value}) for name, value in settings.items())
    (tmp_path / "settings").write_text(answer)
    program = tmp_path / "postconf"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *-M*|*-P*) ;; *) cat '{tmp_path}/settings';; esac\n"
    )
    program.chmod(0o755)
    (tmp_path / "postmap").symlink_to("/bin/false")
    return program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def imported(postconf: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    def run(*options: object) -> Ended:
        return call(capsys, "mta", "import", "--postconf", postconf, "--config", path, *options)

    return run


def test_without_postfix_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "mta", "import", "--postconf", tmp_path / "postconf")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: no Postfix found")


def test_the_section_goes_to_standard_output_and_warnings_to_standard_error(
    postconf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "mta", "import", "--postconf", postconf)
    assert done.status == 0
    assert tomllib.loads(done.out)["mta"]["mydomain"] == "example.org"
    assert "# warning: relayhost = [relay.example]: " in done.out
    assert "warning: relayhost = [relay.example]: " in done.err


# ---------------------------------------------------------------- diff


def test_diff_shows_what_would_change_in_the_file_and_is_status_1(
    imported: Import, path: Path
) -> None:
    done = imported("--diff")
    assert done.status == 1
    removed = [line for line in done.out.splitlines() if line.startswith("-")]
    assert removed == [f"--- {path}", '-relayhost = "[old.example]" # the smart host']
    assert '\n+relayhost = "[relay.example]" # the smart host\n' in done.out
    assert path.read_text() == CONFIG


def test_diff_shows_no_password_of_the_lines_around(imported: Import) -> None:
    done = imported("--diff")
    assert "redis://user:***@127.0.0.1" in done.out
    assert "geheim" not in done.out + done.err


@pytest.mark.parametrize(
    "items",
    [
        '["mysql:{ { password = geheim } }"]',
        "['pgsql:postgresql://u:geheim@h/db']",
        '[\n"""mysql:{\n  { password =\n  geheim } }"""\n]',
        '["mysql:{ { password = \\"geheim\\" } }"]',
    ],
)
def test_diff_shows_no_password_of_a_table(imported: Import, path: Path, items: str) -> None:
    path.write_text(f"[mta]\nvirtual_alias_maps = {items}\n")
    done = imported("--diff")
    assert done.status == 1
    assert "-virtual_alias_maps" in done.out
    assert "geheim" not in done.out + done.err


def test_a_file_that_says_what_postfix_does_is_status_0(imported: Import, path: Path) -> None:
    assert imported("--write").status == 0
    done = imported("--diff")
    assert (done.status, done.out) == (0, f"{path}: [mta] says what Postfix does\n")


def test_keys_with_the_value_that_they_have_by_default_need_not_be_there(
    imported: Import, path: Path
) -> None:
    assert imported("--write").status == 0
    path.write_text(path.read_text() + '[mta.transport."smtp-x"]\n')
    text = path.read_text()
    assert "mx_address_limit" not in text
    path.write_text(text.replace("[mta]\n", "[mta]\nmx_address_limit = 5\n").rpartition("[mta.")[0])
    assert imported("--diff").status == 0


@pytest.mark.parametrize("option", ["--diff", "--write"])
def test_a_configuration_with_mistakes_is_status_2_and_stays(
    imported: Import, path: Path, option: str
) -> None:
    path.write_text(CONFIG.replace("monitor", "sideways"))
    done = imported(option)
    assert done.status == 2
    assert "rules.mode" in done.err
    assert path.read_text() == CONFIG.replace("monitor", "sideways")


# ---------------------------------------------------------------- write


def test_write_changes_the_section_and_no_octet_besides(imported: Import, path: Path) -> None:
    path.chmod(0o640)
    done = imported("--write")
    assert done.status == 0
    text = path.read_text()
    begin, _, rest = text.partition("[mta]\n")
    section, _, end = rest.partition("\n# rules follow\n")
    assert begin == CONFIG.partition("[mta]\n")[0]
    assert end == CONFIG.partition("\n# rules follow\n")[2]
    assert section.startswith(
        'relayhost = "[relay.example]" # the smart host\n'
        'mydomain = "example.org" # as in main.cf\n'
        "every_mx = true # ours, not Postfix's\n"
    )
    loaded = config.load(path)
    assert (loaded.mta.relayhost, loaded.mta.every_mx) == ("[relay.example]", True)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "gone",
    [
        'route_transport = "smtp-strict"',
        'sender_relayhosts = { "@a.example" = "[relay.example]" }',
        'routes = { "b.example" = "smtp:[relay.example]" }',
        'hand_over = { "local" = "lmtp:unix:x" }',
        'virtual_alias_maps = ["texthash:/etc/postfix/virtual"]',
    ],
)
def test_what_postfix_no_longer_says_is_taken_out(imported: Import, path: Path, gone: str) -> None:
    assert imported("--write").status == 0
    written = path.read_text()
    path.write_text(written.replace("[mta]\n", f"[mta]\n{gone}\n", 1))
    done = imported("--diff")
    assert done.status == 1
    assert [line for line in done.out.splitlines() if line.startswith("-")][1:] == [f"-{gone}"]
    assert imported("--write").status == 0
    assert path.read_text() == written


def test_what_is_the_operators_own_stays(imported: Import, path: Path) -> None:
    assert imported("--write").status == 0
    own = "[mta]\naliases = 'static'\nalias_life = 60\n"
    path.write_text(path.read_text().replace("[mta]\n", own, 1))
    assert imported("--diff").status == 0


def test_a_smart_host_that_is_gone_is_taken_out(
    imported: Import, path: Path, postconf: Path
) -> None:
    settings = postconf.with_name("settings")
    settings.write_text(settings.read_text().replace("[relay.example]", ""))
    assert imported("--write").status == 0
    assert "relayhost" not in path.read_text()


def test_write_shows_the_difference_and_keeps_the_former_file(imported: Import, path: Path) -> None:
    before = path.stat()
    done = imported("--write")
    backup = path.with_name("config.toml.bak")
    assert "+relayhost" in done.out
    assert f"{path}: written; the former one is {backup}. Reload" in done.err
    assert backup.read_text() == CONFIG
    assert os.path.samestat(backup.stat(), before)
    assert sorted(file.name for file in path.parent.glob("*config.toml*")) == [
        "config.toml",
        "config.toml.bak",
    ]


def test_the_section_is_changed_in_the_included_file_that_has_it(
    imported: Import, path: Path
) -> None:
    begin, _, rest = CONFIG.partition("[mta]\n")
    section, _, end = rest.partition("\n# rules follow\n")
    path.write_text(begin + end)
    included = path.parent / "conf.d" / "mta.toml"
    included.write_text(f"[mta]\n{section}")
    assert imported("--write").status == 0
    assert path.read_text() == begin + end
    assert config.load(path).mta.relayhost == "[relay.example]"
    (path.parent / "conf.d" / "more.toml").write_text("[mta]\nweak_tls_counts = true\n")
    done = imported("--write")
    assert done.status == 2
    assert "[mta] is spread over" in done.err


def test_a_file_that_is_not_there_is_made(imported: Import, path: Path) -> None:
    path.unlink()
    assert imported("--write").status == 0
    assert config.load(path).mta.relayhost == "[relay.example]"
    assert not path.with_name("config.toml.bak").exists()


def test_nothing_is_written_that_config_check_would_not_accept(
    imported: Import, path: Path
) -> None:
    full = CONFIG + "#" * (MAX_FILE_BYTES - len(CONFIG))
    path.write_text(full)
    done = imported("--write")
    assert done.status == 2
    assert f"{path}: larger than {MAX_FILE_BYTES} bytes" in done.err
    assert path.read_text() == full
    assert not path.with_name("config.toml.bak").exists()


def test_a_directory_that_cannot_be_written_is_told(imported: Import, path: Path) -> None:
    path.with_name("config.toml.bak").mkdir()
    done = imported("--write")
    assert done.status == 2
    assert f"{path} cannot be written: Is a directory" in done.err
    assert path.read_text() == CONFIG
    assert not list(path.parent.glob(".config.toml.*"))


def test_a_link_stays_a_link(imported: Import, path: Path) -> None:
    real = path.rename(path.with_name("real.toml"))
    path.symlink_to(real)
    assert imported("--write").status == 0
    assert path.is_symlink()
    assert config.load(real).mta.relayhost == "[relay.example]"


def test_options_that_do_not_go_together_are_told(
    imported: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported("--diff", "--write").status == 2
    assert imported().status == 2
