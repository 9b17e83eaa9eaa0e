"""``python -m tests.picture``: draw docs/status-page.png, the picture of the status page."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from requiretls_milter.engine.overview import FileState
from requiretls_milter.engine.web.statuspage import render
from requiretls_milter.ipc.wire import ProcessStatus
from tests.support import browser
from tests.support.overviews import NOW, domain_status, overview

PICTURE = Path(__file__).parent.parent / "docs" / "status-page.png"

SHOWN = overview(
    processes=tuple(
        ProcessStatus(
            name=name,
            pid=number,
            ready=True,
            since=NOW - 90_000,
            connections=2 if number == 814 else 0,
        )
        for number, name in enumerate(("supervisor", "engine", "worker-1", "worker-2"), start=812)
    ),
    config_path="/etc/requiretls-milter/config.toml",
    resolver_tested_at=NOW - 45,
    outbound={"smtp": True, "dns": True},
    store="sqlite",
    waits=1240,
    waited=15.0,
    waited_long=3,
    domains=(
        domain_status("partner.example", False),
        domain_status("slow.example", None, since=NOW - 1_260),
        domain_status("bank.example", True, assessed_at=NOW - 60),
        domain_status("clinic.example", True),
    ),
    domains_configured=4,
    file=FileState(differs=True),
)
"""The service of docs/status.md."""


def main() -> None:
    """Draw the picture."""
    page = render(SHOWN, "mail.example.org")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(page.status)
            for name, value in {"Content-Type": page.media_type, **page.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None:
            """Say nothing: who asks is known."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.screenshot(f"http://127.0.0.1:{server.server_port}/", PICTURE, 1000, 1010)
        server.shutdown()


if __name__ == "__main__":
    main()
