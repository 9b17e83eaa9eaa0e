"""How postconf is run and how its answers are read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from requiretls_milter.mirror import postconf
from requiretls_milter.mirror.postconf import (
    Postconf,
    PostconfError,
    access_tables,
    is_compatible,
    parse_cidr,
    parse_json,
    parse_lines,
    parse_services,
    used_protocols,
)


def test_json_is_one_object_a_line() -> None:
    assert parse_json('{"a": "b"}\n\n{"c": "\\"d\\""}\n') == {"a": "b", "c": '"d"'}


@pytest.mark.parametrize("text", ["a = b", '["a"]', '{"a": 1}', '{"a":'])
def test_json_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(PostconfError, match=r"JSON|unexpected"):
        parse_json(text)


def test_lines_are_split_at_the_first_equals_sign() -> None:
    assert parse_lines("a = b = c\nempty =\nnonsense\n") == {"a": "b = c", "empty": ""}


def test_services_have_their_own_settings_and_their_daemon() -> None:
    lines = [
        "127.0.0.1:10025 inet n - y - - smtpd -o a=b",
        "smtp       unix  -       -       -       -       -       /opt/postfix/smtp -v",
        "too short",
    ]
    overrides = {"127.0.0.1:10025/inet/a": "b", "other/unix/c": "d"}
    first, second = parse_services(lines, overrides, compatible=True)
    assert (str(first), first.chroot, first.program, first.overrides) == (
        "127.0.0.1:10025/inet",
        True,
        "smtpd",
        {"a": "b"},
    )
    assert (second.program, second.chroot, second.overrides) == ("smtp", False, {})
    _, second = parse_services(lines, overrides, compatible=False)
    assert second.chroot


@pytest.mark.parametrize(
    ("level", "compatible"), [("", False), ("0", False), ("1", True), ("3.11", True), ("x", False)]
)
def test_services_are_chrooted_by_default_below_compatibility_level_1(
    level: str, compatible: bool
) -> None:
    assert is_compatible(level) is compatible


def test_cidr_rules_are_pattern_and_result() -> None:
    rules = ["0.0.0.0/0   enforce", "[::1]\topportunistic"]
    assert parse_cidr(rules) == (("0.0.0.0/0", "enforce"), ("::1", "opportunistic"))


@pytest.mark.parametrize("rule", ["!10.0.0.0/8 enforce", "if 10.0.0.0/8", "endif", "10.0.0.1"])
def test_cidr_rules_beyond_that_are_not_read(rule: str) -> None:
    assert parse_cidr(["192.0.2.1 enforce", rule]) is None


# ---------------------------------------------------------------- the program


def program(directory: Path, text: str) -> Path:
    path = directory / "postconf"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_no_program_is_no_postfix(tmp_path: Path) -> None:
    with pytest.raises(PostconfError, match="no Postfix found: there is no program"):
        Postconf(str(tmp_path / "postconf")).read()


def test_the_last_words_of_a_program_that_fails_are_told(tmp_path: Path) -> None:
    path = program(tmp_path, "echo 'postconf: fatal: open /x/main.cf: no such file' >&2; exit 1")
    with pytest.raises(PostconfError, match=r"postconf: open /x/main\.cf: no such file$"):
        Postconf(str(path)).read()


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postconf, "TIMEOUT", 0.2)
    with pytest.raises(PostconfError, match=r"no answer in 0\.2 s"):
        Postconf(str(program(tmp_path, "exec sleep 60"))).read()


def test_a_program_that_is_no_postconf_is_told(tmp_path: Path) -> None:
    with pytest.raises(PostconfError, match=r"unexpected|no JSON"):
        Postconf(str(program(tmp_path, "echo '{\"a\": 1}'"))).read()


@pytest.mark.parametrize("command", ["", "  ", "a 'b"])
def test_a_command_line_that_cannot_be_taken_apart_is_told(command: str) -> None:
    with pytest.raises(PostconfError):
        Postconf(command)


def test_the_root_of_a_chroot_is_known() -> None:
    assert Postconf("chroot --userspec=x /srv/mta /usr/sbin/postconf").root == Path("/srv/mta")
    assert Postconf("/usr/sbin/postconf").root == Path("/")


@pytest.mark.parametrize(
    ("command", "config", "asks"),
    [
        ("postconf", "", ""),
        ("/opt/bin/postconf", "", "/opt/bin/postmap"),
        ("/usr/bin/env -i /opt/postconf", "/etc/x", "/usr/bin/env -i /opt/postmap -c /etc/x"),
        ("podman-postfix", "", ""),
    ],
)
def test_the_command_of_postmap_is_known(
    monkeypatch: pytest.MonkeyPatch, command: str, config: str, asks: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: name)
    assert Postconf(command, config).postmap_command == asks


@pytest.mark.parametrize(
    ("setting", "host", "used"),
    [
        ("all", ("ipv4", "ipv6"), ("ipv4", "ipv6")),
        ("IPv4", ("ipv4", "ipv6"), ("ipv4",)),
        ("ipv6, ipv4", ("ipv4",), ("ipv4",)),
        ("ipv6", ("ipv4",), ()),
    ],
)
def test_the_protocols_are_those_of_the_setting_that_this_host_has(
    setting: str, host: tuple[str, ...], used: tuple[str, ...]
) -> None:
    assert used_protocols({"inet_protocols": setting}, host) == used


@pytest.mark.parametrize(
    ("setting", "own"), [("all", ["127.0.0.1", "::1"]), ("ipv4", ["127.0.0.1"])]
)
def test_addresses_of_a_protocol_that_is_not_used_are_not_our_own(
    tmp_path: Path, setting: str, own: list[str]
) -> None:
    settings = f"inet_interfaces = 127.0.0.1, [::1]\ninet_protocols = {setting}"
    path = program(tmp_path, f"case \"$*\" in *-x*) printf '{settings}\\n';; esac")
    made = Postconf(str(path)).read()
    assert list(made.own_addresses) == [
        one for one in own if used_protocols({}, made.inet_protocols)
    ]


def test_the_tables_of_access_in_a_list_of_restrictions() -> None:
    restrictions = (
        "permit_mynetworks, check_client_access cidr:/a check_sender_access inline:{ {a = OK} }"
        " check_policy_service inet:h:1 reject_unlisted_recipient, check_recipient_access /b"
    )
    assert list(access_tables(restrictions)) == ["cidr:/a", "inline:{ {a = OK} }"]


@pytest.mark.parametrize(
    ("table", "text", "moves"),
    [
        ("regexp:{file}", "/^/  FILTER amavis:[127.0.0.1]:10026\n", True),
        ("pcre:{file}", "/x/i redirect bob@example.org\n# FILTER a:b\n", True),
        ("cidr:{file}", "192.0.2.0/24 REJECT\n", False),
        ("regexp:{file}", "# /^/ FILTER a:b\n/x/ OK\n", False),
        ("regexp:{{{{/x/ FILTER a:b}}}}", "", True),
        ("static:{{FILTER a:b}}", "", True),
        ("static:OK", "", False),
        ("texthash:/listed", "", True),
        ("regexp:/nowhere", "", False),
        ("mysql:/x.cf", "", False),
    ],
)
def test_access_tables_that_move_mail_are_found(
    tmp_path: Path, table: str, text: str, moves: bool
) -> None:
    (tmp_path / "file").write_text(text)
    (tmp_path / "postmap").write_text("#!/bin/sh\nprintf 'a\\tOK\\nb\\tFILTER x:y\\n'\n")
    (tmp_path / "postmap").chmod(0o755)
    item = table.format(file=tmp_path / "file")
    setting = f"smtpd_client_restrictions = check_client_access {item}"
    path = program(tmp_path, f"case \"$*\" in *-x*) cat <<'E'\n{setting}\nE\n;; esac")
    assert (item in Postconf(str(path)).read().moving) is moves


def test_a_table_that_takes_too_long_is_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postconf, "TIMEOUT", 0.5)
    (tmp_path / "postmap").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "postmap").chmod(0o755)
    path = program(tmp_path, "case \"$*\" in *-x*) echo 'transport_maps = hash:/t';; esac")
    assert Postconf(str(path)).read().tables == {"hash:/t": None}
