"""``config check``, ``config show`` and ``config explain``."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter import config as configuration
from requiretls_milter.config import loading
from requiretls_milter.config.domainlist import MAX_LIST_BYTES
from tests.support.authority import Authority
from tests.support.commandline import call

# ---------------------------------------------------------------- config check


def test_config_check_of_a_good_file_is_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[rules]\nmode = "reject"\n[mta]\ntls_security_level = "dane"\n')
    captured = call(capsys, "config", "check", str(path))
    assert captured.status == 0
    assert captured.out == f"{path}: good\n"
    assert captured.err == ""


def test_config_check_tells_every_mistake_and_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('rules.mode = "x"\nmilter.workers = -1\nmilter.sockt = ""\n')
    captured = call(capsys, "config", "check", str(path))
    assert captured.status == 2
    assert captured.out == ""
    told = [line.removeprefix(f"error: {path}:") for line in captured.err.splitlines()]
    assert [line.split(": ")[0:2] for line in told] == [
        ["2:1", "milter.workers"],
        ["3:1", "milter.sockt"],
        ["1:1", "rules.mode"],
    ]


def test_config_check_warns_of_a_promise_that_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("rules.require = true\n")
    done = call(capsys, "config", "check", path)
    assert done.status == 0
    assert done.err.startswith("warning: rules: require = true with mode")


def test_config_check_without_a_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "none.toml"
    monkeypatch.setattr(loading, "DEFAULT_PATH", absent)
    monkeypatch.setattr(configuration, "DEFAULT_PATH", absent)
    done = call(capsys, "config", "check")
    assert done.status == 0
    assert done.out == f"{absent} does not exist: all defaults\n"


# ---------------------------------------------------------------- config show


@pytest.mark.parametrize("defaults", [True, False])
def test_config_check_accepts_what_config_show_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], defaults: bool
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[rules.recipient."example.org"]\nmode = "reject"\n')
    arguments = ["--defaults"] if defaults else ["--config", str(path)]
    status, shown, _ = call(capsys, "config", "show", *arguments)
    assert status == 0
    assert ('"example.org"]\nmode = "reject"' in shown.replace("# ", "")) or not defaults
    path.write_text(shown)
    assert call(capsys, "config", "check", path).status == 0


SECRET_URL = "rediss://milter:hunter2@redis.example:6380/0?ssl_%70assword=hunter2&ssl_ca_certs=/ca"
MASKED_URL = "rediss://milter:***@redis.example:6380/0?ssl_%70assword=***&ssl_ca_certs=/ca"


def test_a_password_is_shown_only_if_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'store.url = "{SECRET_URL}"\n')
    shown = call(capsys, "config", "show", "--config", path)
    assert shown.status == 0
    assert "hunter2" not in shown.out + shown.err
    assert f'url = "{MASKED_URL}"\n' in shown.out
    whole = call(capsys, "config", "show", "--config", path, "--secrets")
    assert f'url = "{SECRET_URL}"\n' in whole.out
    assert shown.out == whole.out.replace("hunter2", "***")


def test_config_check_accepts_a_masked_password_and_warns_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'store.url = "{SECRET_URL}"\n')
    path.write_text(call(capsys, "config", "show", "--config", path).out)
    done = call(capsys, "config", "check", path)
    assert done.status == 0
    assert done.err.startswith("warning: store.url: the password is ***, as config show masks it")
    assert "every user" not in done.err


SECRET_TABLE = "mysql:{ { password = hunter2 }, { hosts = db.example } }"


@pytest.mark.parametrize("key", ["virtual_alias_maps", "recipient_canonical_maps"])
def test_a_password_of_a_table_is_shown_only_if_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[mta]\n{key} = ["{SECRET_TABLE}"]\n')
    shown = call(capsys, "config", "show", "--config", path)
    assert f'{key} = ["mysql:{{...}}"]\n' in shown.out
    assert "hunter2" not in shown.out + shown.err
    whole = call(capsys, "config", "show", "--config", path, "--secrets")
    assert f'{key} = ["{SECRET_TABLE}"]\n' in whole.out
    warned = call(capsys, "config", "check", path)
    assert warned.status == 0
    assert f"warning: mta.{key}: mysql:{{...}}: whenever it is asked" in warned.err
    assert "hunter2" not in warned.out + warned.err
    path.write_text(shown.out)
    again = call(capsys, "config", "check", path)
    assert again.status == 0
    assert f"warning: mta.{key}: mysql:{{...}}: what it lacks is left out" in again.err


@pytest.mark.parametrize(
    "line",
    [
        'virtual_alias_maps = ["MYSQL:{ { password = hunter2 } }"]',
        'virtual_alias_maps = "mysql{ password = hunter2 }"',
        "virtual_alias_maps = mysql:{password=hunter2}",
        "virtual_alias_maps = pgsql:postgresql://u:hunter2@h",
        'relayhost = "smtp://u:hunter2@relay.example\u00e9"',
        'unknown = ["mysql:{ password = hunter2 }"]',
        '"mysql:{ password = hunter2 }" = 1',
    ],
)
def test_a_mistake_shows_no_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[mta]\n{line}\n")
    done = call(capsys, "config", "check", path)
    assert done.status == 2
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o604, True), (0o640, False)])
@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("redis://:hunter2@localhost/0", True),
        ("redis://localhost/0?password=hunter2", True),
        ("redis://milter@localhost/0", False),
        ("memory:", False),
    ],
)
def test_config_check_warns_of_a_secret_that_every_user_may_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: int,
    warned: bool,
    url: str,
    secret: bool,
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'store.url = "{url}"\n')
    path.chmod(mode)
    done = call(capsys, "config", "check", path)
    assert done.status == 0
    assert (f"warning: {path}: holds the password in store.url" in done.err) is (warned and secret)
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_config_check_warns_of_a_key_that_every_user_may_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: int,
    warned: bool,
) -> None:
    pem = Authority(tmp_path).issue("metrics.example.org").path
    pem.chmod(mode)
    path = tmp_path / "config.toml"
    path.write_text(f'metrics.tls_certificate = "{pem}"\nmetrics.tls_key = "{pem}"\n')
    done = call(capsys, "config", "check", path)
    assert done.status == 0
    assert (f"warning: metrics.tls_key: every user of this host may read {pem}" in done.err) is (
        warned
    )


def test_the_defaults_are_of_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "config", "show", "--defaults", "--config", "x.toml")
    assert done.status == 2
    assert "leave --config out" in done.err


def test_the_file_to_check_may_be_named_as_everywhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[rules]\n")
    done = call(capsys, "config", "check", "--config", path)
    assert (done.status, done.out) == (0, f"{path}: good\n")
    assert call(capsys, "config", "check", path, "--config", path).status == 2


# ---------------------------------------------------------------- config domains


def test_every_line_that_is_no_domain_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "partners.txt"
    path.write_text("bank.example\n" + "x@d.example\n" * 100)
    done = call(capsys, "config", "domains", path)
    assert (done.status, done.out) == (2, "")
    assert done.err.count(f"{path}:") == 100
    assert f'{path}:101:1: "x@d.example" is an address' in done.err
    assert done.err.endswith(
        "2 domains; lines that mean a domain, and are written otherwise: 100; that name none: 0; "
        "that repeat one: 99\n"
    )


def test_a_clean_list_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, clean = tmp_path / "partners.txt", tmp_path / "clean.txt"
    path.write_text("Bank.example\r\n*.clinic.example # since March\r\n")
    assert call(capsys, "config", "domains", path, "--output", clean).status == 0
    assert clean.read_text() == "Bank.example\n.clinic.example  # since March\n"
    path.write_text("192.0.2.1\nbank.example\n")
    done = call(capsys, "config", "domains", path, "--output", "-")
    assert (done.status, done.out) == (2, "# not a domain: 192.0.2.1\nbank.example\n")


def test_a_list_without_mistakes_is_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "partners.txt"
    path.write_text("# ours\nbank.example\n")
    assert call(capsys, "config", "domains", path).status == 0
    path.write_bytes(b"x" * (MAX_LIST_BYTES + 1))
    assert call(capsys, "config", "domains", path).status == 2


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
    status, out, _ = call(capsys, "config", "explain", *arguments, "--config", path)
    assert status == 0
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
    assert "required for every message" in text
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


def test_explain_tells_which_tables_match_and_which_of_their_values_are_overridden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(PRECEDENCE)
    arguments = ("config", "explain", "--config", path)
    done = call(capsys, *arguments, "bob@bank.example", "eve@a.example.org")
    assert done.status == 0
    assert done.out.endswith(
        "These tables match; each overrides those below it, the last one overrides [rules]:\n"
        '  [rules.recipient."a.example.org"]\n'
        '  [rules.recipient.".example.org"], overridden: mode = "monitor" (line 3), '
        "require = false (line 4)\n"
        '  [rules.sender."bank.example"], overridden: mode = "off" (line 8)\n'
        "\nNote: no service runs with this configuration's engine.socket\n"
    )
    done = call(capsys, *arguments, "x@y.example", "z@y.example")
    assert done.status == 0
    assert "No table by domain matches: [rules] applies.\n" in done.out


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


def test_explain_warns_if_what_a_rule_requires_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = explained(tmp_path, capsys, "bob@bank.example", "eve@b.example")
    assert "always accepted" in text
    assert "the requirement is not kept" in text
    _, text = explained(tmp_path, capsys, "bob@quiet.example", "eve@b.example")
    assert "no tag is written" in text
    assert "the requirement is not kept" not in text


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
    done = call(capsys, "config", "explain", *arguments)
    assert done.status == 2
    assert done.err.startswith("error: ")


# ---------------------------------------------------------------- several files


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A configuration with an included file and a list."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "partners.toml").write_text(
        '[rules.list.partners]\ndomains_file = "../partners.txt"\nmode = "defer"\n'
    )
    (tmp_path / "partners.txt").write_text("a.example\n.b.example\n")
    path = tmp_path / "config.toml"
    path.write_text(
        'include = ["conf.d/*.toml"]\n[mta]\ntls_security_level = "dane"\n'
        '[rules.recipient."a.example"]\nrequire = true\n'
    )
    return path


def test_config_check_tells_what_it_has_read(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "config", "check", several)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        f"{several}: good\n"
        f"  with {several.parent}/conf.d/partners.toml\n"
        f"  [rules.list.partners]: 2 domains of {several.parent}/conf.d/../partners.txt\n"
    )


def test_explain_tells_the_list_and_the_file(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "config", "explain", "--config", several, "x@y.example", "z@a.example")
    assert done.status == 0
    text = " ".join(done.out.split())
    assert ' mode "defer" [rules.list.partners] for a.example, conf.d/partners.toml line 3 ' in text
    assert ' require true [rules.recipient."a.example"], config.toml line 5 ' in text
    done = call(capsys, "config", "explain", "--config", several, "x@y.example", "z@x.b.example")
    assert "  [rules.list.partners] for .b.example" in done.out


def test_config_check_refuses_a_group_that_is_not_there(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with several.open("a") as file:
        file.write('[milter]\nsocket_group = "no-such-group"\n')
    done = call(capsys, "config", "check", several)
    assert done.status == 2
    assert done.err.startswith(
        f'error: {several}:7:1: milter.socket_group: there is no group "no-such-group" on this host'
    )


def test_config_check_warns_of_a_rule_that_refuses_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[rules]\nmode = "reject"\n')
    done = call(capsys, "config", "check", path)
    assert done.status == 0
    assert done.err.startswith('warning: rules: mode = "reject" refuses all mail that asks')
