"""Configurations in several files, and lists of domains."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.config.domainlist import MAX_DOMAINS, MAX_LISTED_MISTAKES
from requiretls_milter.config.sources import MAX_FILES, MAX_TOTAL_BYTES
from requiretls_milter.config.text import render
from requiretls_milter.model import Match, Mode

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the files of a configuration; returns the main one."""

    def write(main: str, **others: str) -> Path:
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        for name, content in others.items():
            (tmp_path / "conf.d" / name.replace("__", ".")).write_text(content)
        path = tmp_path / "config.toml"
        path.write_text(main)
        return path

    return write


def mistakes(path: Path) -> list[str]:
    """What is wrong, with places as from the directory of the main file."""
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return [mistake.replace(f"{path.parent}/", "") for mistake in caught.value.mistakes]


ALL = 'include = ["conf.d/*.toml"]\n'


def test_files_are_put_together_as_if_they_were_one(write: Write) -> None:
    path = write(
        ALL + '[rules]\nmode = "defer"\n[rules.recipient."a.example"]\nmode = "off"\n',
        b__toml='[rules.recipient."b.example"]\nmode = "reject"\n',
        a__toml='[rules.recipient."a.example"]\nrequire = true\n[dns]\ntimeout = 3\n',
    )
    one = config.parse(
        b'[rules]\nmode = "defer"\n[rules.recipient."a.example"]\nmode = "off"\nrequire = true\n'
        b'[rules.recipient."b.example"]\nmode = "reject"\n[dns]\ntimeout = 3\n',
        "one.toml",
    )
    assert config.load(path) == one
    assert config.parse(render(config.load(path)).encode(), "shown") == one


def test_a_key_that_stands_in_two_files_is_told_with_both_places(write: Write) -> None:
    path = write(
        ALL + '[rules]\nmode = "defer"\n',
        a__toml='[dns]\ntimeout = 3\n[rules]\n  mode = "reject"\n',
        b__toml="dns = { timeout = 4 }\nrules = 3\n",
    )
    assert mistakes(path) == [
        "conf.d/a.toml:4:3: rules.mode: stands at config.toml:3:1 already: keep one of the two",
        "conf.d/b.toml:1:9: dns.timeout: stands at conf.d/a.toml:2:1 already: keep one of the two",
        "conf.d/b.toml:2:1: rules: stands at config.toml:2:1 already: keep one of the two",
    ]


def test_one_domain_in_two_spellings_is_told_where_it_stands(write: Write) -> None:
    path = write(ALL + '[rules.recipient."a.example"]\n', a__toml='[rules.recipient."A.example"]\n')
    assert mistakes(path) == [
        'conf.d/a.toml:1:1: rules.recipient."A.example": "a.example" and "A.example" are the same '
        "domain"
    ]


def test_a_mistake_in_an_included_file_has_its_place_there(write: Write) -> None:
    path = write(
        ALL + "[dns]\ntimeout = 0\n",
        a__toml='# partners\n[rules.recipient."a.example"]\n  mode = "rejct"\n',
    )
    told = mistakes(path)
    assert told[0].startswith("config.toml:3:1: dns.timeout: expected more than 0")
    assert told[1].startswith('conf.d/a.toml:3:3: rules.recipient."a.example".mode: expected ')


def test_all_files_that_are_no_toml_are_told_at_once(write: Write) -> None:
    path = write(ALL, a__toml="[dns\n", b__toml="x = 'é'\n", c__toml="[rules]\nmode = off\n")
    (path.parent / "conf.d" / "d.toml").write_bytes(b"# \xe9\n")
    assert mistakes(path) == [
        "conf.d/a.toml:1:5: not valid TOML: Expected ']' at the end of a table declaration; write "
        "[dns]",
        'conf.d/c.toml:2:8: not valid TOML: Invalid value; write mode = "off"',
        "conf.d/d.toml:1:3: line 1 is not UTF-8, which TOML has to be",
        "conf.d/b.toml:1:1: x: no such key; known here: include, milter, metrics, engine, log, "
        "mta, dns, probe, rules, watch, store, limits",
    ]


# ---------------------------------------------------------------- which files


def test_a_file_that_is_named_has_to_be_there_and_a_pattern_may_match_nothing(
    write: Write,
) -> None:
    assert config.load(write(ALL)) == Config()
    path = write('include = [\n  "conf.d/*.toml",\n  "mta.toml",\n]\n')
    assert mistakes(path) == [
        "config.toml:3:3: include[1]: mta.toml cannot be read: No such file or directory"
    ]


def test_a_pattern_in_a_directory_that_is_not_there_is_warned_of(write: Write) -> None:
    path = write('include = ["confd/*.toml"]\n')
    (warning,) = config.warnings(config.load(path))
    assert warning == (
        f"{path}:1:12: include[0]: there is no directory {path.parent}/confd, so that nothing is "
        "included"
    )


def test_a_pattern_matches_as_in_a_shell(write: Write, tmp_path: Path) -> None:
    write("", a__toml="dns.timeout = 3\n", _hidden__toml="x = 1\n")
    (tmp_path / "conf.d" / "_hidden.toml").rename(tmp_path / "conf.d" / ".hidden.toml")
    (tmp_path / "conf.d" / "b.toml~").write_text("x = 1\n")
    assert config.load(write('include = ["c*.d/[a-c].toml"]\n')).dns.timeout == 3
    assert mistakes(write('include = ["**/*.toml"]\n')) == [
        'config.toml:1:12: include[0]: "**/*.toml": "**" is not known: name each directory'
    ]


def test_a_file_that_two_entries_name_is_read_once(write: Write) -> None:
    path = write('include = ["conf.d/*.toml", "conf.d/a.toml"]\n', a__toml="dns.timeout = 3\n")
    assert config.load(path).dns.timeout == 3


def test_a_file_that_cannot_be_included_hides_no_other_mistake(write: Write) -> None:
    path = write('include = ["no.toml", "conf.d/a.toml"]\n[dns]\ntimeout = 0\n', a__toml="x = 1\n")
    told = mistakes(path)
    assert told[0].startswith("config.toml:1:12: include[0]: no.toml cannot be read")
    assert sorted(one.partition(": ")[2].partition(": ")[0] for one in told[1:]) == [
        "dns.timeout",
        "x",
    ]


def test_the_file_itself_is_not_included(write: Write) -> None:
    assert mistakes(write('include = ["*.toml"]\n')) == [
        'config.toml:1:12: include[0]: "*.toml" matches this file itself: put included files into '
        'a directory of their own, such as "conf.d/*.toml"'
    ]


def test_an_included_file_includes_no_others(write: Write) -> None:
    assert mistakes(write(ALL, a__toml='\ninclude = ["b.toml"]\n')) == [
        "conf.d/a.toml:2:1: include: an included file includes no others: name them all in "
        "config.toml"
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"conf.d/*.toml"', '; write include = ["conf.d/*.toml"]'),
        ("3", "expected a list of at most 100 files, got a number, 3"),
        ("[3]", "include[0]: expected the name of a file, or a pattern, got a number, 3"),
        ('[""]', "include[0]: expected the name of a file"),
        (f"{['a'] * 101}", "got 101 entries"),
        ('["conf.d"]', "include[0]: conf.d cannot be read: Is a directory"),
    ],
)
def test_what_is_no_list_of_files_is_told(write: Write, value: str, said: str) -> None:
    (mistake,) = mistakes(write(f"include = {value}\n"))
    assert said in mistake


def test_include_below_a_table_is_told_where_it_belongs(write: Write) -> None:
    assert mistakes(write('[rules]\ninclude = ["a.toml"]\n')) == [
        "config.toml:2:1: rules.include: include stands at the top of the main file, before the "
        "first [table]"
    ]


def test_a_pipe_among_the_files_holds_nothing_up(write: Write) -> None:
    path = write(ALL)
    os.mkfifo(path.parent / "conf.d" / "a.toml")
    assert mistakes(path) == [
        "config.toml:1:12: include[0]: conf.d/a.toml cannot be read: is no regular file"
    ]


def test_a_directory_that_cannot_be_listed_is_a_mistake(write: Write, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert mistakes(write('include = ["loop/*.toml"]\n')) == [
        "config.toml:1:12: include[0]: loop cannot be listed: Too many levels of symbolic links"
    ]


def test_files_have_bounds_together(write: Write) -> None:
    path = write(ALL)
    for number in range(MAX_FILES + 1):
        (path.parent / "conf.d" / f"{number:03}.toml").write_text("")
    assert mistakes(path) == ["config.toml:1:1: include: names 101 files: at most 100"]
    (path.parent / "conf.d" / "100.toml").unlink()
    assert config.load(path) == Config()
    for number in range(MAX_TOTAL_BYTES >> 20):
        (path.parent / "conf.d" / f"{number:03}.toml").write_text("#" * (1 << 20))
    (mistake,) = mistakes(path)
    assert "all files have more than 4194304 bytes" in mistake


def test_a_password_in_an_included_file_must_not_be_readable_by_all(write: Write) -> None:
    path = write(ALL, s__toml='store.url = "redis://x:secret@127.0.0.1/0"\n')
    included = path.parent / "conf.d" / "s.toml"
    path.chmod(0o640)
    (exposure,) = config.exposures(config.load(path))
    assert exposure.startswith(f"{included}: holds the password in store.url")
    included.chmod(0o640)
    path.chmod(0o644)
    assert config.exposures(config.load(path)) == ()


# ---------------------------------------------------------------- lists of domains

LIST = '[rules.list.partners]\ndomains_file = "partners.txt"\nmode = "defer"\n'


def listed(directory: Path, content: str | bytes, name: str = "partners.txt") -> None:
    octets = content.encode() if isinstance(content, str) else content
    (directory / name).write_bytes(octets)


def test_a_list_has_a_domain_on_each_line(write: Write, tmp_path: Path) -> None:
    listed(
        tmp_path,
        "\ufeff# our partners\r\n\r\nPartner.EXAMPLE\r\n  .sub.example # and its own\n"
        "b\u00fccher.example\nxn--bcher-kva.example.\ndot.example.",
    )
    loaded = config.load(write(LIST))
    partners = loaded.rules.list["partners"]
    assert partners.domains_file.domains == (
        "partner.example",
        ".sub.example",
        "xn--bcher-kva.example",
        "dot.example",
    )
    assert (partners.mode, partners.match) == (Mode.DEFER, Match.RECIPIENT)
    (warning,) = config.warnings(loaded)
    assert warning == (
        f"{tmp_path}/partners.txt: 1 line has a domain that stands on an earlier line too"
    )


def test_the_path_of_a_list_begins_where_its_file_lies(write: Write, tmp_path: Path) -> None:
    path = write(ALL, p__toml=LIST)
    listed(tmp_path / "conf.d", "a.example")
    loaded = config.load(path)
    assert loaded.rules.list["partners"].domains_file.domains == ("a.example",)


def test_a_configuration_with_a_list_is_shown_with_its_path_and_sent_with_its_domains(
    write: Write, tmp_path: Path
) -> None:
    listed(tmp_path, "a.example\n.b.example\n")
    loaded = config.load(write(LIST))
    shown = render(loaded)
    assert f'domains_file = "{tmp_path}/partners.txt"' in shown
    assert config.parse(shown.encode(), "/dev/stdin") == loaded
    sent = loaded.model_dump(mode="json")
    listed(tmp_path, "other.example\n")
    assert Config.model_validate(sent) == loaded
    assert config.load(tmp_path / "config.toml") != loaded
    assert config.load(tmp_path / "config.toml").digests()["rules"] != loaded.digests()["rules"]


def test_lines_that_are_no_domains_are_told_with_what_to_write(
    write: Write, tmp_path: Path
) -> None:
    listed(tmp_path, b"*.a.example\n# ok\nuser@b.example\nhttps://c.example/\na b\n\xe9.example\n")
    told = mistakes(write(LIST))
    assert [mistake.partition("; write ")[2] for mistake in told[:3]] == [
        ".a.example",
        "b.example",
        "c.example",
    ]
    assert [mistake.partition(": ")[0] for mistake in told] == [
        f"partners.txt:{line}:1" for line in (1, 3, 4, 5, 6)
    ]


def test_the_heading_of_a_column_is_warned_of(write: Write, tmp_path: Path) -> None:
    listed(tmp_path, "domain\na.example\n")
    (warning,) = config.warnings(config.load(write(LIST)))
    assert warning == (
        f'{tmp_path}/partners.txt:1:1: "domain" has no dot: is it the heading of a column?'
    )


def test_a_file_of_another_encoding_is_one_mistake(write: Write, tmp_path: Path) -> None:
    listed(tmp_path, "a.example\nb.example\n".encode("utf-16"))
    assert mistakes(write(LIST)) == ["partners.txt:1:1: the file is UTF-16: save it as UTF-8"]


def test_the_first_mistakes_of_a_list_are_told_and_the_others_counted(
    write: Write, tmp_path: Path
) -> None:
    listed(tmp_path, "".join(f"-{number}\n" for number in range(MAX_LISTED_MISTAKES + 7)))
    told = mistakes(write(LIST))
    assert len(told) == MAX_LISTED_MISTAKES + 1
    assert told[-1].startswith("partners.txt: 7 more lines are not domain names; ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules.list.p]\n", "rules.list.p.domains_file: this key is missing"),
        ("[rules.list.p]\ndomains_file = 3\n", "expected the name of a text file, got a number"),
        ("[rules.list.p]\ndomains_file = {path='x', domains='y'}\n", "got a table"),
        ('[rules.list.p]\ndomains_file = "no.txt"\n', "no.txt cannot be read: No such file"),
        ('[rules.list.p]\ndomains_file = "."\n', "cannot be read: Is a directory"),
        ('[rules.list."p q"]\ndomains_file = "a.txt"\n', "expected a name of at most 64 letters"),
        ('[rules.list.p]\ndomains_file = "a.txt"\nmatch = "rcpt"\n', "rules.list.p.match: expect"),
        ('[rules.list.p]\ndomains_file = "a.txt"\nmod = "off"\n', "did you mean rules.list.p.mode"),
    ],
)
def test_what_is_no_list_is_told(write: Write, tmp_path: Path, text: str, said: str) -> None:
    listed(tmp_path, "a.example", "a.txt")
    (mistake,) = mistakes(write(text))
    assert mistake.startswith("config.toml:")
    assert said in mistake


def test_a_domain_in_two_lists_of_one_kind_is_told_with_both_places(
    write: Write, tmp_path: Path
) -> None:
    listed(tmp_path, "x.example\na.example\n")
    listed(tmp_path, "# first\nA.example\n", "others.txt")
    others = '[rules.list.others]\ndomains_file = "others.txt"\n'
    assert mistakes(write(LIST + others)) == [
        "others.txt:2:1: a.example stands in [rules.list.partners] already, at partners.txt:2:1: "
        "take it out of one of the two lists"
    ]
    loaded = config.load(write(f'{LIST}{others}match = "sender"\n'))
    assert list(loaded.rules.list) == ["partners", "others"]


def test_lists_have_a_bound_together(write: Write, tmp_path: Path) -> None:
    listed(tmp_path, "".join(f"{number}.example\n" for number in range(MAX_DOMAINS)))
    path = write(LIST)
    assert len(config.load(path).rules.list["partners"].domains_file.domains) == MAX_DOMAINS
    listed(tmp_path, "one.too.many\n", "b.txt")
    path = write(LIST + '[rules.list.b]\ndomains_file = "b.txt"\n')
    (mistake,) = mistakes(path)
    assert mistake == (
        "config.toml:5:1: rules.list.b.domains_file: 100001 domains in all lists together: at most "
        "100000"
    )


# ---------------------------------------------------------------- have they changed?


def test_what_was_read_is_watched(write: Write, tmp_path: Path) -> None:
    listed(tmp_path, "a.example\n")
    path = write(ALL + LIST, a__toml="dns.timeout = 3\n")
    watched = config.load(path).origin.watched
    assert not watched.have_changed()
    for change in (
        lambda: listed(tmp_path, "a.example\nb.example\n"),
        lambda: (tmp_path / "conf.d" / "a.toml").write_text("dns.timeout = 4\n"),
        lambda: (tmp_path / "conf.d" / "b.toml").write_text(""),
        lambda: (tmp_path / "conf.d" / "a.toml").unlink(),
    ):
        change()
        assert watched.have_changed()
        watched = config.load(path).origin.watched
        assert not watched.have_changed()


def test_files_with_mistakes_are_watched_too(write: Write, tmp_path: Path) -> None:
    path = write(ALL, a__toml="dns.timeout = 0\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert not caught.value.watched.have_changed()
    (tmp_path / "conf.d" / "a.toml").write_text("dns.timeout = 1\n")
    assert caught.value.watched.have_changed()
