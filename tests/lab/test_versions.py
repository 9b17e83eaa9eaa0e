"""Debian moves on: the lab says with which versions it runs, and lists what these do otherwise."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from tests.lab import roots, versions
from tests.lab.lab import Lab
from tests.lab.oracle import recorded, replay
from tests.lab.versions import moved, none_differs, upstream
from tests.support.paths import ORACLE
from tests.support.scenario import load

pytestmark = pytest.mark.lab


def test_the_lab_runs_the_versions_with_which_its_tests_were_seen_to_pass(lab: Lab) -> None:
    assert f"Postfix {versions.running('postfix-3.11')}" in lab.summary()
    if found := moved():
        pytest.xfail("docs/development.md, a new version of an MTA: " + "; ".join(found))


def test_the_recordings_are_of_the_version_that_was_seen() -> None:
    assert load().postfix == versions.SEEN["postfix-3.11"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.11.7-1", "3.11.7"),
        ("3.7.11-0+deb12u1", "3.7.11"),
        ("5%3a8.0.2-3", "8.0.2"),
        ("5:8.0.2-3", "8.0.2"),
        ("8.17.1.9-2+deb12u2", "8.17.1.9"),
        ("3.12~rc1-1", "3.12"),
        ("3.12-20270101-1", "3.12"),
    ],
)
def test_the_upstream_version_is_what_counts(version: str, expected: str) -> None:
    assert upstream(version) == expected


def test_differences_of_another_version_are_listed_and_are_no_failure() -> None:
    with pytest.raises(pytest.xfail.Exception, match=r"(?s)Postfix 3\.12\.0 .*\na-ok: dsn"):
        none_differs(["a-ok: dsn '5.7.31'"], seen="3.11.7", now="3.12.0")
    none_differs([], seen="3.11.7", now="3.12.0")


def test_differences_of_the_version_that_was_seen_are_a_failure() -> None:
    with pytest.raises(AssertionError, match="a-ok"):
        none_differs(["a-ok: dsn '5.7.31'"], seen="3.11.7", now="3.11.7")


# ---------------------------------------------------------------- pinning


def test_the_version_that_was_seen_is_taken_if_an_archive_still_has_it() -> None:
    pinned = "Package: postfix\nPin: version 3.11.*\nPin-Priority: 1001\n"
    assert roots.preferences(roots.POSTFIX_3_11) == pinned
    assert roots.preferences(roots.POSTFIX_3_11_TABLES) == pinned
    assert "Package: sendmail-bin\nPin: version 8.17.*" in roots.preferences(roots.SENDMAIL_8_17)
    assert roots.preferences(roots.DNS) == roots.preferences(roots.SYSTEMD_POSTFIX) == ""


def test_further_archives_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_ARCHIVE", raising=False)
    assert roots.sources("https://a.example/debian", roots.POSTFIX_3_11, None).count("URIs:") == 1
    monkeypatch.setenv("LAB_ARCHIVE", "https://b.example/debian/20261115T000000Z/")
    found = roots.sources("https://a.example/debian", roots.POSTFIX_3_11, None)
    assert "URIs: https://a.example/debian\n" in found
    assert "URIs: https://b.example/debian/20261115T000000Z/\nSuites: forky\n" in found
    assert "Check-Valid-Until: no\n" in found


# ---------------------------------------------------------------- recording


def test_what_is_as_recorded_is_recorded_as_it_is(lab: Lab) -> None:
    data = json.loads(ORACLE.read_text(encoding="utf-8"))
    scenarios = [item for item in load().scenarios if item.id in ("a-ok", "a-ok-301")]
    assert recorded(data, replay(lab, scenarios), "3.11.7") == data
    assert json.dumps(data, indent=1) == ORACLE.read_text(encoding="utf-8")


def test_what_another_version_does_otherwise_is_recorded_anew(lab: Lab) -> None:
    data = json.loads(ORACLE.read_text(encoding="utf-8"))
    wrong = copy.deepcopy(data)
    (entry,) = [item for item in wrong["scenarios"] if item["id"] == "a-ok"]
    entry["expected"][0] |= {"dsn": "5.7.30", "status": "bounced", "tls": "may"}
    entry["mail_requiretls_sent"] = [False]
    good = next(item for item in load().scenarios if item.id == "a-ok")
    other = dataclasses.replace(good.expected[0], dsn="5.7.30", status="bounced", tls="may")
    outcomes = replay(
        lab, [dataclasses.replace(good, expected=(other,), mail_requiretls_sent=(False,))]
    )
    made = recorded(wrong, outcomes, "3.12.0")
    assert made == {**data, "postfix": "3.12.0"}
