"""``/report``: from what the engine knows of configured domains."""

from __future__ import annotations

import sys

import pytest

from requiretls_milter.engine.web import reportpage
from requiretls_milter.model import Reason
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.readiness.figures import figures
from requiretls_milter.readiness.values import HopReadiness, HopState, Readiness

GOOD = HopReadiness("good.example", 0, HopState.READY, "2.0.0", Reason.OK)
LACKING = HopReadiness(
    "lacking.example", 0, HopState.BOUNCE, "5.7.30", Reason.REQUIRETLS_NOT_OFFERED, text="<b>no</b>"
)
DAY = Day(day="2026-11-28", mail=10, mail_ready=5, domains=2, domains_ready=1)


def made(*destinations: HopReadiness, **mail: int) -> Readiness:
    counted = {name.replace("_", "."): count for name, count in mail.items()}
    return reportpage.readiness(
        destinations, counted, (), (DAY,), mta="Postfix", validates=True, now=1_800_000_000.0
    )


def test_each_configured_domain_counts_with_its_mail_and_all_other_mail_as_not_known() -> None:
    report = made(GOOD, LACKING, good_example=30, lacking_example=10, other=60)
    assert report.source is MailSource.COUNTERS
    assert [one.mail for one in report.destinations] == [30, 10]
    assert report.left_out_mail == 60
    found = figures(report)
    assert (found.ready.mail, found.total.mail) == (30, 100)


def test_a_domain_without_mail_counts_as_a_domain() -> None:
    report = made(GOOD)
    assert report.destinations[0].mail == report.left_out_mail == 0
    assert figures(report).ready.domains == 1


def test_the_page_loads_and_runs_nothing_and_shows_texts_as_they_are() -> None:
    page = reportpage.render(made(GOOD, LACKING, other=1))
    assert page.status == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert b"lacking.example" in page.body
    assert b"<b>no</b>" not in page.body
    assert b"<script" not in page.body


def test_without_the_package_for_plots_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("requiretls_milter.readiness.page", raising=False)
    monkeypatch.setitem(sys.modules, "requiretls_milter.readiness.page", None)
    page = reportpage.render(made(GOOD))
    assert (page.status, page.media_type) == (503, "text/plain; charset=utf-8")
    assert b"requiretls-milter[report]" in page.body
