"""The page of ``report`` in a real browser: at any size, by day, by night and on paper."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from requiretls_milter.readiness.page import page
from tests.support import browser
from tests.support.devtools import Tab, tab
from tests.support.readinesses import below, clear, large, ready, report, unknown

pytestmark = pytest.mark.once

MAX_SECONDS = 2.0

HOSTILE = (
    "</td></table></svg><script>hacked = 1</script><img src=x onerror=hacked=1><style>*{top:0}"
)

LONG = ".".join(["x" * 63] * 3)


@pytest.fixture(scope="module", autouse=True)
def _there_is_a_browser() -> None:
    if reason := browser.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
async def shown() -> AsyncIterator[Tab]:
    async with tab() as one:
        yield one


def written(directory: Path, text: str) -> str:
    path = directory / "report.html"
    path.write_text(text)
    return path.as_uri()


async def test_a_report_of_5000_next_hops_is_there_at_once(shown: Tab, tmp_path: Path) -> None:
    address = written(tmp_path, page(large(5_000)))
    await shown.open(address)
    seconds = await shown.evaluate(
        "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
    )
    assert 0 < seconds < MAX_SECONDS
    assert await shown.evaluate("document.querySelectorAll('section').length") == 9
    drawn = (
        "[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().width > 300)"
    )
    assert await shown.evaluate(drawn)
    assert await shown.evaluate("document.querySelectorAll('svg').length") == 4
    assert shown.errors == []
    assert shown.asked == [address]


async def test_no_text_of_a_stranger_is_obeyed(shown: Tab, tmp_path: Path) -> None:
    bad = [
        replace(one, nexthop=HOSTILE, text=HOSTILE, mx=HOSTILE, level=HOSTILE)
        for one in (below(), clear(), unknown())
    ]
    await shown.open(written(tmp_path, page(report(ready(), *bad, mta=HOSTILE))))
    assert await shown.evaluate("typeof hacked") == "undefined"
    assert await shown.evaluate("document.querySelectorAll('script, img').length") == 0
    text = await shown.evaluate("document.querySelector('#not-ready').parentNode.innerText")
    assert HOSTILE in text
    assert shown.errors == []


async def test_were_there_markup_the_browser_would_refuse_to_obey(
    shown: Tab, tmp_path: Path
) -> None:
    """The policy holds by itself, and what the other test finds no trace of would be found."""
    markup = (
        "<script>hacked = 1</script><style>h1 { color: rgb(1, 2, 3) }</style>"
        '<img src="x.png" onerror="hacked = 1">'
    )
    await shown.open(
        written(tmp_path, page(report(ready())).replace("</body>", f"{markup}</body>"))
    )
    assert await shown.evaluate("typeof hacked") == "undefined"
    colour = await shown.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert colour != "rgb(1, 2, 3)"
    assert len(shown.errors) >= 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_fits_into_any_window(shown: Tab, tmp_path: Path, dark: bool) -> None:
    found = (ready(), below(f"{LONG}.example"), *large(300).destinations)
    await shown.show(1100, dark=dark)
    await shown.open(written(tmp_path, page(replace(large(300), destinations=found))))
    for width in (320, 400, 700, 1100, 2560):
        await shown.show(width, dark=dark)
        assert await shown.evaluate("document.documentElement.scrollWidth") <= width
    said = await shown.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = [int(part) for part in re.findall(r"\d+", said)]
    assert max(paper) < 60 if dark else min(paper) > 200
    bars = await shown.evaluate(
        "new Set([...document.querySelectorAll('svg.states .rect')]"
        ".map(bar => getComputedStyle(bar).fill)).size"
    )
    assert bars == 5, "each state has a colour of its own"


async def test_on_paper_nothing_is_cut_off(shown: Tab, tmp_path: Path) -> None:
    await shown.show(700)
    await shown.open(written(tmp_path, page(large(300))))
    await shown.call("Emulation.setEmulatedMedia", media="print")
    assert await shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    wide = (
        "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > innerWidth).length"
    )
    assert await shown.evaluate(wide) == 0


async def test_it_is_drawn_by_day_and_by_night(tmp_path: Path) -> None:
    address = written(tmp_path, page(large(50)))
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    await asyncio.to_thread(browser.screenshot, address, light, 1000, 800)
    await asyncio.to_thread(browser.screenshot, address, dark, 1000, 800, True)
    assert light.read_bytes().startswith(b"\x89PNG")
    assert len(light.read_bytes()) > 20_000
    assert light.read_bytes() != dark.read_bytes()
