"""The report on readiness as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.model import Feature
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.readiness.values import Accuracy, Downgrade, Readiness
from requiretls_milter.reports.readiness_text import SHOWN, to_json, to_text
from tests.support.paths import REPOSITORY
from tests.support.readinesses import (
    NOW,
    below,
    clear,
    days,
    large,
    listed,
    own,
    ready,
    report,
    unknown,
)

SMALL = report(ready(), below(), clear(), unknown(), since=NOW - 86_400, until=NOW)


def read(made: Readiness) -> Any:
    return json.loads(to_json(made))


def test_json_has_the_figures_and_each_next_hop() -> None:
    found = read(SMALL)
    assert found["answer"] == "partly"
    assert found["sentence"].startswith("Not for all mail: 55.5 % of the mail would")
    assert found["mail"] == {"ready": 10, "total": 18, "share": pytest.approx(10 / 18)}
    assert found["domains"] == {"ready": 1, "total": 4, "share": 0.25}
    assert found["one_step"] == {"domains": 1, "mail": 5}
    assert found["states"]["bounce"] == {"domains": 2, "mail": 7}
    assert found["reasons"]["starttls_not_offered"] == {"domains": 1, "mail": 2}
    assert found["steps"] == {"requiretls": {"domains": 1, "mail": 5}}
    assert found["policies"]["dane"] == {
        "ready": {"domains": 1, "mail": 10},
        "others": {"domains": 1, "mail": 5},
    }
    assert list(found["levels"]) == ["dane", "may", "unknown"]
    assert (found["since"], found["until"]) == ("2026-11-28T12:00:00Z", "2026-11-29T12:00:00Z")
    assert found["next_hops"][1] == {
        "nexthop": "below.example",
        "mail": 5,
        "state": "bounce",
        "status": "5.7.30",
        "reason": "requiretls_not_offered",
        "text": "mx.below.example[192.0.2.1] does not offer REQUIRETLS",
        "mx": "mx.below.example",
        "level": "dane",
        "tls_version": "TLSv1.3",
        "policy": "dane",
        "missing": ["requiretls"],
        "downgraded_at": None,
    }


def test_json_has_history_downgrades_own_servers_and_accuracy() -> None:
    made = replace(
        SMALL,
        days=days(2),
        is_kept=True,
        downgrades=(Downgrade("mx.d7.example", Feature.STARTTLS, NOW),),
        own=own(),
        accuracy=Accuracy(equal=8, later=1, unknown=2, different=3, waiting=4),
    )
    found = read(made)
    assert found["history_kept"] is True
    assert found["history"][1]["day"] == "2026-11-29"
    assert found["downgrades"] == [
        {
            "subject": "mx.d7.example",
            "feature": "starttls",
            "at": "2026-11-29T12:00:00Z",
            "restored_at": None,
        }
    ]
    assert [one["domain"] for one in found["own_servers"]] == ["example.org", "example.net"]
    assert found["accuracy"] == {
        "equal": 8,
        "different": 3,
        "later": 1,
        "unknown": 2,
        "waiting": 4,
    }
    assert (read(SMALL)["own_servers"], read(SMALL)["accuracy"]) == (None, None)


def test_json_of_thousands_has_all_of_them() -> None:
    assert len(read(large())["next_hops"]) == 5_000


def test_each_key_of_the_json_is_documented() -> None:
    page = (REPOSITORY / "docs" / "report.md").read_text(encoding="utf-8")
    found = read(large(20))
    keys = {*found, *found["next_hops"][0], *found["history"][0], *found["downgrades"][0]}
    assert not [key for key in keys if f"`{key}`" not in page]


def test_text_begins_with_the_answer() -> None:
    lines = to_text(SMALL, 200).splitlines()
    assert lines[0].startswith("Not for all mail: 55.5 % of the mail would be delivered")
    text = "\n".join(lines)
    assert "the mail in the log from 2026-11-28 to 2026-11-29" in text
    assert "One step is missing" in text
    assert "below.example" in text


def test_text_of_a_list_says_nothing_of_mail() -> None:
    made = report(*map(listed, (ready(), below())), source=MailSource.LIST)
    assert "recipient" not in to_text(made, 200)


def test_of_thousands_the_text_shows_a_few_and_says_so() -> None:
    lines = to_text(large(), 200).splitlines()
    assert len(lines) < 8 * SHOWN
    assert any("more: see --format json" in line for line in lines)


def test_what_strangers_wrote_is_printed_as_printable_text() -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e[red]x[/red]"
    bad = replace(below(), nexthop=evil, text=evil, mx=evil, level=evil)
    made = report(bad, downgrades=(Downgrade(evil, Feature.TLSA, NOW),), mta=evil)
    text = to_text(made, 300)
    assert all(line.isascii() and line.isprintable() for line in text.splitlines())
    assert "[red]x[/red]" in text
    assert to_json(made).isascii()


def test_a_resolver_that_does_not_validate_is_told() -> None:
    assert "does not validate DNSSEC" in to_text(replace(SMALL, resolver_validates=False), 200)
