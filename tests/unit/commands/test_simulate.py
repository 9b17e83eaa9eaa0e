"""``simulate``: mistakes on its command line, and what only looks as if it asked for something.

What it says of messages: tests/unit/reports/test_simulate.py, tests/lab/test_simulate.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import call

LOCAL = "root"
"""A recipient on this host: nothing is looked up."""


@pytest.mark.parametrize(
    ("sender", "recipient", "told"),
    [
        ("a@x.test", "", "TO: not one address"),
        ("a@x.test", "<>", "TO: not one address"),
        ("a@x.test", "b@", "TO: b@ has no domain"),
        ("a@x.test", "b@y..test", "TO: "),
        ("a@x.test", f"b@{'x' * 300}.test", "TO: "),
        ("a@x.test", "b@1.2.3.4", "write [1.2.3.4]"),
        ("a@x.test", "b@y.test,c@y.test", "TO: not one address"),
        ("a@x.test", "b@exa mple", "TO: not one address"),
        ("a@x.test", "b@y.test\r\nDATA", "TO: an address holds no control characters"),
        ("not an address", LOCAL, "FROM: not one address"),
        ("a@x.test\x1b[2J", LOCAL, "FROM: an address holds no control characters"),
    ],
)
def test_an_address_that_is_none_is_wrong_usage(
    sender: str, recipient: str, told: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "simulate", sender, recipient, "--config", alone)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert done.err.isprintable() or all(line.isprintable() for line in done.err.splitlines())


@pytest.mark.parametrize("address", ["root", "<root>", '"john doe"@[192.0.2.1]', "é@éx.test"])
def test_an_address_of_another_kind_is_one_all_the_same(
    address: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "simulate", address, LOCAL, "--config", alone)
    assert done.status == 0, done


@pytest.mark.parametrize("sender", ["", "<>"])
def test_a_bounce_has_no_sender(
    sender: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "simulate", sender, LOCAL, "--config", alone)
    assert (done.status, done.out.splitlines()[0].split()[:4]) == (
        0,
        ["Message", "from", "<>", "to"],
    )


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--nexthop", "[x"), "--nexthop: "),
        (("--nexthop", "smtp:a..b"), "empty label"),
        (("--parameter", "REQUIRETLS SIZE=1"), "not one parameter"),
        (("--parameter", ""), "not one parameter"),
        (("--header", "foo"), "a header field is written 'Name: value'"),
    ],
)
def test_an_option_that_says_nothing_of_use_is_wrong_usage(
    option: tuple[str, str], told: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "simulate", "a@x.test", "b@y.test", *option, "--config", alone)
    assert (done.status, done.out) == (2, "")
    assert told in done.err


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--parameter", "requiretls=1"), "requiretls=1 is not REQUIRETLS, which takes no value"),
        (("--header", "TLS-Required: maybe"), "TLS-Required: maybe asks for nothing"),
    ],
)
def test_what_only_looks_as_if_it_asked_is_told(
    option: tuple[str, str], told: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("simulate", "a@x.test", LOCAL, *option, "--config", alone)
    done = call(capsys, *arguments, "--format", "json")
    notes = json.loads(done.out)["notes"]
    assert any(told in note for note in notes), notes
    assert "Asked    nothing" in call(capsys, *arguments).out
