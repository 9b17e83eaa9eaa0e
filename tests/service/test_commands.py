from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import requiretls_milter
from requiretls_milter import cli
from requiretls_milter import config as configuration
from requiretls_milter.config import loading
from tests.support.cliworld import PROGRAM
from tests.support.paths import REPOSITORY


def call(*arguments: str) -> int:
    """Run a command in this process; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def modules_of(*arguments: str) -> set[str]:
    """The top-level packages that a command has imported in the end."""
    code = (
        "import sys\nfrom requiretls_milter.cli import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"], ["config"]])
def test_help_costs_click_alone(arguments: list[str]) -> None:
    loaded = modules_of(*arguments)
    assert "click" in loaded
    assert not loaded & {"pydantic", "aiohttp", "OpenSSL", "dns", "rich", "structlog", "asyncio"}


def test_config_check_needs_no_network() -> None:
    loaded = modules_of("config", "check", os.devnull)
    assert "pydantic" in loaded
    assert not loaded & {"aiohttp", "OpenSSL", "dns", "asyncio"}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"requiretls-milter {requiretls_milter.__version__}\n"


def test_help_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-h") == 0
    out = capsys.readouterr().out
    for name in ("serve", "check", "config"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["config"], ["config", "explain", "a"], ["serve", "x"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    assert "Usage: " in capsys.readouterr().err


def test_a_crash_is_no_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Path | None) -> None:
        raise ZeroDivisionError("deliberate")

    monkeypatch.setattr(configuration, "load", crash)
    assert call("check", "example.org") == 70
    assert "ZeroDivisionError: deliberate" in capsys.readouterr().err


def test_nobody_reading_is_no_verdict_and_no_traceback() -> None:
    with subprocess.Popen(
        [*PROGRAM, "config", "show", "--defaults"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_serve_hands_the_file_to_the_supervisor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("milter.workers = 0\n")
    assert call("serve", "--config", str(path)) == 2
    assert "milter.workers" in capsys.readouterr().err


# ---------------------------------------------------------------- config check


def test_config_check_of_a_good_file_is_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[rules]\nmode = "reject"\n')
    assert call("config", "check", str(path)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}: good\n"
    assert captured.err == ""


def test_config_check_tells_every_mistake_and_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('rules.mode = "x"\nmilter.workers = 0\nmilter.sockt = ""\n')
    assert call("config", "check", str(path)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(":")[1].strip() for line in captured.err.splitlines()] == [
        "milter.workers",
        "milter.sockt",
        "rules.mode",
    ]


def test_config_check_warns_of_a_promise_that_nobody_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("rules.require = true\n")
    assert call("config", "check", str(path)) == 0
    assert capsys.readouterr().err.startswith("warning: rules: require = true with mode")


def test_config_check_without_a_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "none.toml"
    monkeypatch.setattr(loading, "DEFAULT_PATH", absent)
    monkeypatch.setattr(configuration, "DEFAULT_PATH", absent)
    assert call("config", "check") == 0
    assert capsys.readouterr().out == f"{absent} does not exist: all defaults\n"


# ---------------------------------------------------------------- config show


@pytest.mark.parametrize("defaults", [True, False])
def test_config_check_accepts_what_config_show_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], defaults: bool
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[rules.recipient."example.org"]\nmode = "reject"\n')
    arguments = ["--defaults"] if defaults else ["--config", str(path)]
    assert call("config", "show", *arguments) == 0
    shown = capsys.readouterr().out
    assert ('"example.org"]\nmode = "reject"' in shown.replace("# ", "")) or not defaults
    path.write_text(shown)
    assert call("config", "check", str(path)) == 0


def test_the_defaults_are_of_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("config", "show", "--defaults", "--config", "x.toml") == 2
    assert "leave --config out" in capsys.readouterr().err


# ---------------------------------------------------------------- config explain

RULES = """
[mta]
local_domains = ["here.example"]
[rules]
tag_wait = 3
[rules.recipient.".example.org"]
mode = "reject"
[rules.nexthop."relay.example"]
on_temporary = "defer"
[rules.sender."bank.example"]
require = true
decide_wait = 5.5
[rules.sender."quiet.example"]
mode = "off"
"""


def explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[dict[str, tuple[str, str]], str]:
    """The rows of the table as key: (value, from), and all of the text."""
    path = tmp_path / "config.toml"
    path.write_text(RULES)
    assert call("config", "explain", *arguments, "--config", str(path)) == 0
    out = capsys.readouterr().out
    rows = {}
    for line in out.split("\n\n")[1].splitlines()[1:]:
        key, value, origin = line.split(maxsplit=2)
        rows[key] = (value, origin)
    return rows, " ".join(out.split())


def test_explain_tells_which_table_each_value_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, text = explained(
        tmp_path, capsys, "bob@bank.example", "eve@a.example.org", "--nexthop", "[relay.example]"
    )
    assert rows["mode"] == ('"reject"', '[rules.recipient.".example.org"], line 7')
    assert rows["on_temporary"] == ('"defer"', '[rules.nexthop."relay.example"], line 9')
    assert rows["require"] == ("true", '[rules.sender."bank.example"], line 11')
    assert rows["decide_wait"] == ("5.5", '[rules.sender."bank.example"], line 12')
    assert rows["enforce_for"] == ('"trusted"', "[rules], default")
    assert text.startswith("from bank.example to a.example.org, next hop [relay.example]")
    assert "asked for every message" in text
    assert "answered with 550, from authenticated clients and trusted networks" in text


PRECEDENCE = """
[rules.recipient.".example.org"]
mode = "monitor"
require = false
[rules.recipient."a.example.org"]
mode = "reject"
[rules.sender."bank.example"]
mode = "off"
require = true
"""


def test_explain_tells_which_tables_match_and_which_of_their_values_give_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(PRECEDENCE)
    arguments = ("config", "explain", "--config", str(path), "bob@bank.example")
    assert call(*arguments, "eve@a.example.org") == 0
    assert capsys.readouterr().out.endswith(
        "These tables match; each goes over those below it, the last one over [rules]:\n"
        '  [rules.recipient."a.example.org"]\n'
        '  [rules.recipient.".example.org"], but mode = "monitor" (line 3), '
        "require = false (line 4) gives way\n"
        '  [rules.sender."bank.example"], but mode = "off" (line 8) gives way\n'
    )
    assert call("config", "explain", "--config", str(path), "x@y.example", "z@y.example") == 0
    assert capsys.readouterr().out.endswith("No table by domain matches: [rules] holds.\n")


def test_explain_takes_the_domain_of_the_recipient_for_the_next_hop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, text = explained(tmp_path, capsys, "bob@a.example", "eve@relay.example")
    assert rows["on_temporary"] == ('"defer"', '[rules.nexthop."relay.example"], line 9')
    assert "next hop relay.example" in text


@pytest.mark.parametrize("sender", ["", "<>"])
def test_r07_explain_says_that_the_null_sender_is_never_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sender: str
) -> None:
    _, text = explained(tmp_path, capsys, sender, "eve@a.example.org")
    assert text.startswith("from the null sender to a.example.org")
    assert "never refused" in text


def test_r19_explain_says_that_local_mail_is_not_assessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = explained(tmp_path, capsys, "bob@bank.example", "eve@here.example")
    assert "Local delivery: nothing is assessed" in text


def test_explain_warns_where_nobody_keeps_what_a_rule_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = explained(tmp_path, capsys, "bob@bank.example", "eve@b.example")
    assert "always accepted" in text
    assert "nobody keeps it" in text
    _, text = explained(tmp_path, capsys, "bob@quiet.example", "eve@b.example")
    assert "no tag is written" in text
    assert "nobody keeps it" not in text


def test_explain_takes_domains_and_unicode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = explained(tmp_path, capsys, "<bob@Bücher.example>", "b.example")
    assert text.startswith("from xn--bcher-kva.example to b.example")


@pytest.mark.parametrize(
    "arguments", [["a..b", "c.example"], ["a.example", "b c"], ["a.example", "b", "--nexthop", "["]]
)
def test_what_is_no_address_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("config", "explain", *arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
