"""Pages for people: no text becomes markup, and a browser may do nothing."""

from __future__ import annotations

import base64
import hashlib
import socket
from xml.etree.ElementTree import tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.engine.web.webpage import dot, names_this_host, page, policy
from requiretls_milter.syntax.markup import element
from tests.support.html import parse

STYLE = "p > b { content: '<&'; }"


def made(*content: str, title: str = "x") -> bytes:
    body = [element("p", *content)]
    return page(title, body, style=STYLE, icon=dot("#fff"), refresh=7).body


def test_a_page_has_a_title_its_style_and_asks_for_itself_again() -> None:
    root = parse(made("hello", title="t"))
    assert root.one("title").text == "t"
    assert root.one("style").text == STYLE
    assert root.one("html").attributes["lang"] == "en"
    (refresh,) = [one for one in root.all("meta") if "http-equiv" in one.attributes]
    assert refresh.attributes == {"http-equiv": "refresh", "content": "7"}
    assert made("hello").startswith(b"<!DOCTYPE html>\n")


@given(st.text())
def test_no_text_becomes_an_element_or_leaves_its_own(text: str) -> None:
    root = parse(made(text, title=text))
    assert root.tags() == {"html", "head", "meta", "title", "link", "style", "body", "p"}
    assert root.one("p").text == root.one("title").text
    assert all(" " <= character <= "~" for character in root.one("p").text)


@given(st.text())
def test_no_text_leaves_its_attribute(text: str) -> None:
    octets = tostring(element("p", data_label=text), encoding="us-ascii", method="html")
    root = parse(octets)
    assert list(root.one("p").attributes) == ["data-label"]
    assert root.tags() == {"p"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("&amp; \"quoted' ]]>", "&amp; \"quoted' ]]>"),
        ("a\r\nb\0\x1b[31m", "a\\r\\nb\\x00\\x1b[31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_a_text_is_shown_as_it_is_in_printable_us_ascii(text: str, shown: str) -> None:
    assert parse(made(text)).one("p").text == shown


def test_texts_and_elements_keep_their_order() -> None:
    one = element("p", "a", element("b", "c"), "d", "e", element("i"), "f")
    assert parse(tostring(one, method="html")).one("p").text == "acdef"


def test_a_browser_may_load_run_and_send_nothing_and_knows_the_style_by_its_digest() -> None:
    headers = page("x", [], style=STYLE, icon=dot("#fff"), refresh=7).headers
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert dict(headers) == {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def test_without_a_style_none_is_allowed() -> None:
    assert "style-src 'none';" in policy()


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:9894", True),
        ("127.0.0.1", True),
        ("[::1]:9894", True),
        ("192.0.2.25:9894", True),
        ("localhost:9894", True),
        ("LocalHost", True),
        (f"{socket.gethostname()}:9894", True),
        ("evil.example:9894", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("", False),
        ("\x00", False),
    ],
)
def test_a_browser_that_was_led_here_by_another_name_is_known_by_it(host: str, ours: bool) -> None:
    assert names_this_host(host) is ours
