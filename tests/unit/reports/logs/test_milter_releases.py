"""Lines of the former release and lines of this one are read as the same event, also if cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import structlog

from requiretls_milter.config import Config
from requiretls_milter.reports import would_have
from requiretls_milter.reports.audit import audit
from requiretls_milter.reports.logs.events import Logged
from requiretls_milter.reports.logs.milter import of_cut_object, of_logfmt
from requiretls_milter.rules import RuleSet
from requiretls_milter.telemetry.labels import AuditResult
from tests.support.milterlogs import IN_RELEASE_0_1_0, events, written_line

DELIVERY = (
    "2026-11-29T23:00:00Z mta postfix/smtp[204]: 40C15F521A0: to=<eve@example.org>, "
    "relay=mx1.example.org[192.0.2.1]:25, delay=0.02, delays=0.01/0.01/0/0, "
    "tls=dane/!requiretls:none, dsn=5.7.30, status=bounced (no)"
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def of_0_1_0_as_json() -> str:
    """As JSON the former release had event, level and process at the end, and null for nothing."""
    fields = dict(of_logfmt(IN_RELEASE_0_1_0))
    last = {key: fields.pop(key) for key in ("event", "level", "process", "timestamp")}
    return json.dumps({**fields, "waited": 0.013, **last})


LINES: dict[str, Callable[[], str]] = {
    "0.1.0 in logfmt": lambda: IN_RELEASE_0_1_0,
    "0.1.0 in JSON": of_0_1_0_as_json,
    "logfmt": written_line,
    "JSON": lambda: written_line("json"),
}


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest) -> str:
    return LINES[request.param]()


def test_a_line_of_any_release_says_the_same(line: str) -> None:
    (event,) = events([line])
    assert isinstance(event.what, Logged)
    said = {key: value for key, value in event.what.fields.items() if value}
    for key in ("timestamp", "component", "process"):
        said.pop(key, None)
    assert said == {
        "level": "info",
        "event": "recipient",
        "queue_id": "40C15F521A0",
        "action": "accept",
        "to": "<eve@example.org>",
        "forecast": "5.7.30",
        "reason": "requiretls_not_offered",
        "why": "mode",
        "requirement": "requiretls",
        "nexthop": "example.org",
        "tls": "dane/!requiretls:none",
        "mx": "mx1.example.org",
        "sender": "<alice@example.net>",
        "client": "authenticated",
        "source": "esmtp",
        "carried": "requiretls",
        "transport": "smtp",
        "waited": "0.013",
        "text": "mx1.example.org[192.0.2.1] does not offer REQUIRETLS",
    }


def test_audit_compares_a_line_of_any_release(line: str) -> None:
    assert audit(events([line, DELIVERY])).results == {AuditResult.EQUAL: 1}


def test_would_have_decides_a_line_of_any_release_again(line: str) -> None:
    (read,) = would_have.read(events([line]))
    assert (read.forecast.status, read.forecast.compliant) == ("5.7.30", None)
    tallies = would_have.replay([read], RuleSet(Config().rules))
    assert [tally.refused for tally in tallies] == [0, 1]


NEEDED = ("queue_id", "to", "forecast", "reason", "tls", "mx", "nexthop")


@pytest.mark.parametrize(
    ("whole", "needed"),
    [(IN_RELEASE_0_1_0, NEEDED), (written_line(), ("action", *NEEDED))],
    ids=["0.1.0", "now"],
)
def test_what_syslog_has_left_of_a_line_is_believed_only_as_far_as_it_goes(
    whole: str, needed: tuple[str, ...]
) -> None:
    said = of_logfmt(whole)
    for length in range(len(whole)):
        cut = of_logfmt(whole[:length])
        if cut.get("event") != "recipient":
            continue
        # What reports need is whole or missing.
        for key in needed:
            assert cut.get(key, said[key]) == said[key], whole[:length]
        for read in would_have.read(events([whole[:length]])):
            assert read.forecast.status == "5.7.30"
            assert read.nexthop == "example.org"


def test_a_cut_line_in_json_still_has_its_event(line: str) -> None:
    if line.startswith("{"):
        cut = of_cut_object(line[:-60])
        assert (cut["event"], cut["forecast"]) == ("recipient", "5.7.30")
