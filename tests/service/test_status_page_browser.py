"""The status page in a real browser: what a person sees, at any size, by day and by night."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.engine.overview import Overview
from requiretls_milter.engine.web import statuspage
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.engine.web.page import Page, Rendering
from requiretls_milter.engine.web.scrape import MetricsServer
from requiretls_milter.syntax.endpoint import Endpoint
from tests.support import browser
from tests.support.devtools import Tab, tab
from tests.support.overviews import domain_status, overview
from tests.support.waiting import until

pytestmark = pytest.mark.once

HOSTILE = "</td></table><script>hacked = 1</script><img src=x onerror=hacked=1><style>*{top:0}"

LONG = "x" * 63

WELL = overview(processes=(), domains=(domain_status("a.example", True),), domains_configured=1)

BAD = overview(
    problems=("worker-1 is not ready",),
    resolver_validates=False,
    mta_version=f"Postfix {HOSTILE}",
    nameservers=tuple(f"2001:db8:ffff:ffff:ffff:ffff:ffff:{n:04}" for n in range(16)),
    config_path=f"/etc/{'y' * 900}",
    domains=(
        domain_status(f"{LONG}.{LONG}.{LONG}.example", False, text=HOSTILE),
        domain_status("bad.example", False, text="x" * 200),
        domain_status("slow.example", None),
        domain_status("good.example", True),
    ),
    domains_configured=9,
)


class Site:
    """The page as the metrics server serves it, with what a test sets."""

    def __init__(self) -> None:
        self.shown: Overview = WELL
        self.answer: Page | None = None
        self.server = MetricsServer(Endpoint("127.0.0.1", 0), Readings, pages={"/": self._copy})

    def _copy(self) -> Rendering:
        shown, answer = self.shown, self.answer
        return lambda: answer or statuspage.render(shown, "mail.example.org")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"


@pytest.fixture(scope="module", autouse=True)
def _there_is_a_browser() -> None:
    if reason := browser.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    one = Site()
    await one.server.open()
    yield one
    await one.server.close()


@pytest.fixture
async def page() -> AsyncIterator[Tab]:
    async with tab() as one:
        yield one


async def text_of(page: Tab, selector: str) -> Any:
    return await page.evaluate(f"document.querySelector({selector!r}).innerText")


async def colour_of(page: Tab, selector: str, what: str) -> tuple[int, ...]:
    found = f"getComputedStyle(document.querySelector({selector!r})).{what}"
    said = await page.evaluate(found)
    return tuple(int(part) for part in said.removeprefix("rgb(").removesuffix(")").split(","))


async def test_the_state_is_seen_at_once_and_nothing_else_is_asked_for(
    site: Site, page: Tab
) -> None:
    await page.show(1200)
    await page.open(site.url)
    assert await page.evaluate("document.title") == "Well: requiretls-milter on mail.example.org"
    assert await text_of(page, "h1") == "Well"
    top, size = await page.evaluate(
        "(h => [h.getBoundingClientRect().top, parseFloat(getComputedStyle(h).fontSize)])"
        "(document.querySelector('h1'))"
    )
    assert top < 100
    assert size > 30, "the style is in force"
    red, green, blue = await colour_of(page, "header", "backgroundColor")
    assert green > max(red, blue)
    assert await text_of(page, "table.domains td.state") == "ready"
    assert page.errors == []
    assert {url for url in page.asked if not url.startswith("data:")} == {site.url}


async def test_what_is_wrong_is_seen_at_once_and_no_text_has_become_anything_else(
    site: Site, page: Tab
) -> None:
    site.shown = BAD
    await page.show(1200)
    await page.open(site.url)
    assert await text_of(page, "h1") == "Degraded"
    red, green, blue = await colour_of(page, "header", "backgroundColor")
    assert red > max(green, blue)
    assert "worker-1 is not ready" in await text_of(page, "header .problems")
    states = "[...document.querySelectorAll('td.state')].map(one => one.innerText)"
    assert await page.evaluate(states) == ["NOT READY", "NOT READY", "unknown", "ready"]
    assert await text_of(page, "table.domains small") == HOSTILE
    assert f"Postfix {HOSTILE}; carries" in await text_of(page, "table.facts")
    assert await page.evaluate("document.querySelectorAll('script, img, body style').length") == 0
    assert await page.evaluate("typeof hacked") == "undefined"
    assert page.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_fits_into_any_window(site: Site, page: Tab, dark: bool) -> None:
    site.shown = BAD
    await page.show(1100, dark=dark)
    await page.open(site.url)
    for width in (320, 360, 500, 700, 830, 834, 900, 1100, 2560):
        await page.show(width, dark=dark)
        assert await page.evaluate("innerWidth") == width
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    back = await colour_of(page, "body", "backgroundColor")
    text = await colour_of(page, "body", "color")
    assert (max(back) < 80 and min(text) > 180) if dark else (min(back) > 180 and max(text) < 80)
    assert page.errors == []


async def test_it_renews_itself(site: Site, page: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuspage, "REFRESH", 1)
    await page.open(site.url)
    assert page.loads == 1
    monkeypatch.setattr(statuspage, "REFRESH", 60)
    site.shown = BAD
    await until(lambda: page.loads == 2)
    assert await text_of(page, "h1") == "Degraded"
    assert page.errors == []


async def test_were_there_markup_in_it_the_browser_would_refuse_to_obey(
    site: Site, page: Tab
) -> None:
    """The policy holds by itself, and what the other tests find no trace of would be found."""
    good = statuspage.render(WELL, "mail.example.org")
    markup = (
        b"<script>hacked = 1</script><style>h1 { color: rgb(1, 2, 3) }</style>"
        b'<img src="/metrics"><p style="color: rgb(1, 2, 3)" onclick="hacked = 1">x</p>'
    )
    site.answer = Page(
        good.body.replace(b"</body>", markup + b"</body>"), good.media_type, headers=good.headers
    )
    await page.open(site.url)
    assert await page.evaluate("typeof hacked") == "undefined"
    assert await colour_of(page, "h1", "color") != (1, 2, 3)
    assert await colour_of(page, "body > p", "color") != (1, 2, 3)
    assert {url for url in page.asked if not url.startswith("data:")} <= {
        site.url,
        site.url + "metrics",
    }
    assert len(page.errors) >= 4
    assert await asyncio.to_thread(browser.console_errors, site.url)


async def test_it_is_drawn(site: Site, tmp_path: Path) -> None:
    assert "<h1" in await asyncio.to_thread(browser.dump_dom, site.url)
    assert await asyncio.to_thread(browser.console_errors, site.url) == []
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    await asyncio.to_thread(browser.screenshot, site.url, light, 800, 600)
    await asyncio.to_thread(browser.screenshot, site.url, dark, 800, 600, True)
    assert light.read_bytes().startswith(b"\x89PNG")
    assert len(light.read_bytes()) > 5_000
    assert light.read_bytes() != dark.read_bytes()
