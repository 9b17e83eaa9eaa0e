"""``/report``: the report on readiness, from what the engine knows without asking anybody.

It is about the configured domains: what was found out last about each, and the mail that the
workers have counted for it. The command ``report`` knows more: where all mail goes, from a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from requiretls_milter.engine.web.page import Page
from requiretls_milter.engine.web.webpage import PROTECTED
from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.readiness.values import HopReadiness, Readiness

REPORT_INTERVAL = 3_600.0
"""Seconds between two updates of the figures of the day that are kept."""

_NOT_INSTALLED = """The page needs a package that is not installed:
    pip install 'requiretls-milter[report]'
"""


def readiness(
    destinations: Iterable[HopReadiness],
    mail: Mapping[str, int],
    own: Sequence[InboundReport],
    days: tuple[Day, ...],
    *,
    mta: str,
    validates: bool,
    now: float,
) -> Readiness:
    """Put the report together.

    Args:
        destinations: what is known of each configured domain.
        mail: recipients counted, by configured domain; others under any other name.
        own: of the watched domains.
        days: the history, the oldest first.
        mta: what it is and carries, in words.
        validates: whether the resolver does.
        now: seconds since the epoch.
    """
    counted = tuple(replace(one, mail=mail.get(one.nexthop, 0)) for one in destinations)
    return Readiness(
        made_at=now,
        source=MailSource.COUNTERS,
        mta=mta,
        destinations=counted,
        left_out_mail=sum(mail.values()) - sum(one.mail for one in counted),
        resolver_validates=validates,
        days=days,
        is_kept=True,
        own=tuple(own) or None,
    )


def render(report: Readiness) -> Page:
    """Render the page; without its package for plots a text that says how to get it."""
    try:
        from requiretls_milter.readiness import page
    except ImportError:
        text = "text/plain; charset=utf-8"
        return Page(_NOT_INSTALLED.encode(), text, status=503, headers=PROTECTED)
    return Page(
        page.page(report).encode(),
        "text/html; charset=utf-8",
        headers={**PROTECTED, "Content-Security-Policy": page.CONTENT_SECURITY_POLICY},
    )
