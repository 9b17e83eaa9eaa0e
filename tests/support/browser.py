"""Debian's Chromium without a window: what a page becomes in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAM = "/usr/bin/chromium"

WAIT = 60
"""Seconds that a browser may take on a busy machine."""

_CONSOLE = re.compile(r':CONSOLE[(:]\d+\)?\] "(.*)", source: ', re.DOTALL)


def missing() -> str:
    """Why no browser can be used here; "" if one can."""
    return "" if shutil.which(PROGRAM) else f"no {PROGRAM}: apt-get install chromium"


def dump_dom(url: str) -> str:
    """The document of a page as the browser has it once it is loaded."""
    return _run(url, "--dump-dom").stdout


def screenshot(url: str, path: Path, width: int, height: int, dark: bool = False) -> None:
    """Draw a page into a PNG file.

    Args:
        url: its address.
        path: of the file.
        width, height: of the window, in pixels.
        dark: whether the person prefers dark pages.
    """
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _run(
        url,
        f"--screenshot={path}",
        f"--window-size={width},{height}",
        "--hide-scrollbars",
        scheme,
    )


def console_errors(url: str) -> list[str]:
    """What the browser writes to its console about a page: refused styles, scripts, images…"""
    said = _run(url, "--dump-dom", "--enable-logging=stderr", "--v=0").stderr
    return [found[1] for line in said.splitlines() if (found := _CONSOLE.search(line))]


def command(profile: str, url: str, *options: str) -> list[str]:
    """The command line of a browser that has a new profile, and asks nobody but this host."""
    return [
        *(PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={profile}"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*, EXCLUDE localhost",
        *options,
        url,
    ]


def _run(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        line = command(profile, url, *options)
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=WAIT)
