"""Pages of the service for people, and what a browser is told about them.

They are made of elements (:mod:`requiretls_milter.syntax.markup`), so that no text becomes markup.
A browser may load nothing, run nothing and send nothing, and takes no style but the page's own,
which it knows by its digest.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element

from requiretls_milter.engine.web.page import Page
from requiretls_milter.syntax.markup import document, element, style_sheet, style_sources

PROTECTED: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Fields of the header of each answer but the metrics."""


def policy(*styles: str) -> str:
    """A Content-Security-Policy that allows these styles, and images within the page."""
    return (
        f"default-src 'none'; style-src {style_sources(*styles)}; img-src data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def names_this_host(host: str) -> bool:
    """Whether a header field ``Host`` is an address, or a name that only this host gives itself.

    A stranger's web site can have its own name lead to a loopback address, and read from a person's
    browser what is served there (DNS rebinding). The browser then says the stranger's name.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def dot(colour: str) -> str:
    """The address of an image for the browser's tab: a dot, within the page."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        f'<circle cx="8" cy="8" r="7" fill="{colour}"/></svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"


def page(
    title: str,
    body: Sequence[Element],
    *,
    style: str,
    icon: str,
    refresh: int,
    status: int = 200,
) -> Page:
    """Put a page together.

    Args:
        title: for the browser's tab.
        body: what is shown.
        style: the only one.
        icon: the address of the tab's image, within the page.
        refresh: seconds until the browser asks for the page again.
        status: of HTTP.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", title),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("meta", http_equiv="refresh", content=str(refresh)),
        element("link", rel="icon", href=icon),
        style_sheet(style),
    )
    root = element("html", head, element("body", *body), lang="en")
    octets = document(root).encode("ascii") + b"\n"
    headers = {**PROTECTED, "Content-Security-Policy": policy(style)}
    return Page(octets, "text/html; charset=utf-8", status=status, headers=headers)
