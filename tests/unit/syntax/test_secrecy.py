"""What is told of a text that an operator wrote has no password in it."""

from __future__ import annotations

import pytest

from requiretls_milter.syntax.secrecy import (
    MAX_TABLE_NAME,
    has_secrets,
    table_name,
    without_secrets,
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("mysql:{ {password = x}, {hosts = y} }", "mysql:{...}"),
        ("MySQL:{ {password = x} }", "MySQL:{...}"),
        (
            "hash:/a, proxy:pgsql:{hosts=postgresql://u:x@h/d} cidr:/b",
            "hash:/a, proxy:pgsql:{...} cidr:/b",
        ),
        (
            "unionmap:{hash:/a, ldap: {{bind_pw=x}}, hash:/b}",
            "unionmap:{hash:/a, ldap: {...}, hash:/b}",
        ),
        ("{ ldap:{ {bind_pw = x} } } hash:/a", "{ ldap:{...} } hash:/a"),
        ("newdb:{ {secret = x} }", "newdb:{...}"),
        ("mysql:{ {password = x}", "mysql:{...}"),
        ("} ldap:{x}", "} ldap:{...}"),
        (
            "pgsql:postgresql://vmail:x@db.example/mail",
            "pgsql:postgresql://vmail:***@db.example/mail",
        ),
        ("mongodb:mongodb+srv://u:x/y@z@h", "mongodb:mongodb+srv://u:***@h"),
        ("redis://:x@h/0", "redis://:***@h/0"),
        ("ldap:ldap://h bind_dn=cn=a bind_pw=x", "ldap:ldap://h bind_dn=cn=a bind_pw=***"),
        ("mysql:user = u Password = 'x' hosts = h", "mysql:user = u Password = '***' hosts = h"),
        ("host=h&password=x&dbname=d", "host=h&password=***&dbname=d"),
        ('password = "two words" hosts = h', 'password = "***" hosts = h'),
        ("password = 'a\"b' hosts = h", "password = '***' hosts = h"),
        ("password=ab,c;d hosts = h", "password=*** hosts = h"),
    ],
)
def test_settings_of_a_table_and_passwords_are_left_out(value: str, told: str) -> None:
    assert without_secrets(value) == told
    assert table_name(value) == told
    assert has_secrets(value)
    assert not has_secrets(told)


@pytest.mark.parametrize(
    "value",
    [
        *("inline:{ {a = b}, {c = d} }", "static:{a b}", "regexp:{{/^x{2}$/ a:{1}}}", "ldap:/x.cf"),
        *("pipemap:{inline:{a=b},regexp:/x}", "{ a b }", "no brace", ""),
        "sqlite:{ {dbpath = /x.db}, {query = SELECT 1} }",
        *("socketmap:inet:127.0.0.1:8461:postfix", "a@b.example", "inet:8891@127.0.0.1"),
        *("https://help.example/a:b", "user@x.example http://h:80/a"),
    ],
)
def test_entries_and_names_of_files_are_no_settings(value: str) -> None:
    assert without_secrets(value) == value


def test_a_name_is_one_bounded_line() -> None:
    assert table_name("inline:{\n{ a = b } }") == "inline:{ { a = b } }"
    assert len(table_name("x" * 1000)) == MAX_TABLE_NAME


@pytest.mark.parametrize(
    "value",
    [
        *("b" * 500_000, "a:" * 200_000, "ldap:{}" * 50_000, "{" * 200_000),
        *("://a:" * 100_000, "://a:@" * 80_000, "password=" * 50_000, "pw = " * 100_000),
    ],
)
@pytest.mark.timeout(10)
def test_a_long_value_takes_no_long_time(value: str) -> None:
    assert without_secrets(value)
