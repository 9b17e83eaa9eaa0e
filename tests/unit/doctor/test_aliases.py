"""Checks of the tables of aliases: real files, and a socket whose owner is the service's user."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import aliases
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.mta import differences
from requiretls_milter.mirror.section import mirror
from requiretls_milter.model import Aliases
from tests.support.postfixes import mta_of, postfix


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "engine.sock"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        yield path


def configured(
    *items: str, engine: Path | str = "/nowhere/engine.sock", word: str = "static"
) -> Config:
    mta = {"aliases": word, "virtual_alias_maps": items}
    return Config.model_validate({"mta": mta, "engine": {"socket": str(engine)}})


def text(directory: Path) -> Path:
    path = directory / "virtual"
    path.write_text("a@x.test b@y.test\nc@x.test d@y.test\n")
    return path


def found(config: Config) -> Finding:
    (finding,) = aliases.examine(config)
    return finding


def test_without_aliases_nothing_is_checked() -> None:
    assert list(aliases.examine(configured("hash:/nowhere", word="off"))) == []


def test_tables_that_can_be_read_are_well(tmp_path: Path) -> None:
    finding = found(configured(f"texthash:{text(tmp_path)}", "inline:{ { e = f } }"))
    assert finding.severity is Severity.OK
    assert "3 entries" in finding.found


def test_a_table_that_cannot_be_read_is_named_without_its_password() -> None:
    finding = found(configured("mysql:{ { password = geheim } }"))
    assert finding.found.startswith("mysql:{...}: a table of type mysql")


def test_a_table_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    finding = found(configured(f"hash:{text(tmp_path)}"))
    assert finding.severity is Severity.WARNING
    assert "No such file" in finding.found
    assert "not expanded" in finding.found


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users")
def test_a_table_that_the_user_of_the_service_may_not_read_is_a_warning(
    tmp_path: Path, engine: Path
) -> None:
    path = text(tmp_path)
    nobody = pwd.getpwnam("nobody")
    os.chown(engine, nobody.pw_uid, nobody.pw_gid)
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o111)
    item = f"texthash:{path}"
    path.chmod(0o640)
    finding = found(configured(item, engine=engine))
    assert finding.severity is Severity.WARNING
    assert f"user nobody: no read permission on {path} (mode 0640)" in finding.found
    path.chmod(0o644)
    assert found(configured(item, engine=engine)).severity is Severity.OK


# ---------------------------------------------------------------- tables that are asked


def test_tables_that_answer_are_well_though_no_service_runs() -> None:
    finding = found(configured("inline:{ { a@x.test = b@y.test } }", word="ask"))
    assert finding.severity is Severity.OK
    assert "all tables of aliases answer (asked by user " in finding.found


@pytest.mark.parametrize(
    ("item", "why"),
    [("ldap:/etc/postfix/x.cf", "No such file"), ("unreadable:ldap", "cannot be named in mta")],
)
def test_a_table_that_does_not_answer_is_a_warning(item: str, why: str, tmp_path: Path) -> None:
    config = configured(item, word="ask")
    mta = config.mta.model_copy(update={"postmap": str(tmp_path / "postmap")})
    finding = found(config.model_copy(update={"mta": mta}))
    assert finding.severity is Severity.WARNING
    assert f"{item}: " in finding.found
    assert why in finding.found
    assert "recipients are not expanded" in finding.found


# ---------------------------------------------------------------- beside Postfix

POSTFIX = postfix(virtual_alias_maps="hash:/etc/postfix/virtual", recipient_delimiter="+")


def told(config: Config) -> str:
    return "\n".join(one.found for one in differences(config, POSTFIX, mirror(POSTFIX)))


def test_what_aliases_do_unseen_is_told_as_long_as_recipients_are_not_expanded() -> None:
    mta = mta_of(mirror(POSTFIX))
    assert "only with mta.aliases" in told(Config(mta=mta))
    static = mta.model_copy(update={"aliases": Aliases.STATIC})
    assert "only with mta.aliases" not in told(Config(mta=static))


def test_tables_that_are_not_those_of_postfix_are_told_if_they_are_used() -> None:
    mta = mta_of(mirror(POSTFIX)).model_copy(
        update={"virtual_alias_maps": (), "recipient_delimiter": ""}
    )
    assert "mta.virtual_alias_maps" not in told(Config(mta=mta))
    assert "mta.recipient_delimiter" not in told(Config(mta=mta))
    static = Config(mta=mta.model_copy(update={"aliases": Aliases.STATIC}))
    assert "mta.virtual_alias_maps" in told(static)
    assert "mta.recipient_delimiter" in told(static)
