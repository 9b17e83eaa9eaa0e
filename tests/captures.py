"""``python -m tests.captures``: docs/captures.md and its pictures, of real commands in a terminal.

A service with two partners runs, and each command is run in a pseudo-terminal of each width: in
colour for the pictures, with NO_COLOR for the page. What is seen is what an operator sees;
addresses, process numbers and times are those of the moment.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.internet import loopback_internet
from tests.support.paths import REPOSITORY
from tests.support.service import Service

PAGE = REPOSITORY / "docs" / "captures.md"
PICTURES = REPOSITORY / "docs" / "captures"

WIDTHS = (80, 120, 200)

COMMANDS: Mapping[str, str] = {
    "check": "check good.test lacking.test",
    "status": "status",
    "report": "report",
    "simulate": "simulate ann@example.org bob@lacking.test --parameter REQUIRETLS",
    "inbound": "check --inbound lacking.test",
    "doctor": "doctor",
}

RULES = """
[rules.recipient."good.test"]
mode = "reject"
[rules.recipient."lacking.test"]
mode = "reject"
[watch]
domains = ["lacking.test"]
"""

LINES = 60

CONFIG = "/etc/requiretls-milter/config.toml"
SOCKET = "/run/requiretls-milter/milter.sock"
AUTHORITY = "/etc/ssl/test-ca.pem"
"""The files of an installation, as they are shown; see :func:`stand_in`."""

_STYLES = re.compile(r"\x1b\[[0-9;]*m")

_FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: monospace; font-size: {char_height}px; line-height: {line_height}px;
}}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect width="100%" height="100%" rx="6" fill="#292929"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""
"""A picture of its own, that loads no font and shows no window."""

HEAD = """# What a terminal shows

The commands as an operator sees them at 80, 120 and 200 columns, made by `python -m tests.captures`
with a service that has two partners: `good.test` keeps REQUIRETLS, `lacking.test` does not offer
it. `lacking.test` is watched too, and on the host of `doctor` there is no MTA. In the text below
`NO_COLOR` is set (bold and dim text stay, but cannot be shown here); the pictures show a terminal
with colours. What is longer than a line is folded between words, never cut.
"""


def stand_in(directory: Path, usual: str, letter: str) -> Path:
    """A temporary path that is as long as the usual one, so that lines are folded at the same word.

    Its name is made of one letter.
    """
    length = len(usual) - len(str(directory)) - 1
    assert length > 0, f"{directory} is too long"
    return directory / (letter * length)


def shown(
    command: str, config: Path, usual: Mapping[Path, str], width: int, *, colour: bool
) -> str:
    """What a terminal of this width gets to see of a command, with the *usual* paths."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    if not colour:
        environment["NO_COLOR"] = "1"
    program = [sys.executable, "-m", "requiretls_milter", *shlex.split(command)]
    with subprocess.Popen(
        [*program, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=REPOSITORY,
        start_new_session=True,
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                octets = os.read(ours, 65_536)
            except OSError:  # the last writer has gone
                break
            if not octets:
                break
            said += octets
    os.close(ours)
    text = said.decode().replace("\r\n", "\n").rstrip("\n")
    for path, name in usual.items():
        text = text.replace(str(path), name)
    return text


def picture(name: str, command: str, text: str, width: int) -> None:
    """Draw what was shown in colour."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True)
        console.print(Text(f"$ requiretls-milter {command}"))
        console.print(Text.from_ansi(text))
        path = PICTURES / f"{name}-{width}.svg"
        svg = console.export_svg(code_format=_FORMAT, unique_id=f"{name}-{width}")
        path.write_text(svg, encoding="utf-8")


def main() -> None:
    """Run the commands, and write page and pictures."""
    PICTURES.mkdir(exist_ok=True)
    parts = [HEAD]
    with tempfile.TemporaryDirectory() as name, loopback_internet(Path(name)) as world:
        config_path = stand_in(Path(name), CONFIG, "c")
        socket_path = stand_in(Path(name), SOCKET, "s")
        ca_file = stand_in(Path(name), AUTHORITY, "a")
        usual = {config_path: CONFIG, socket_path: SOCKET, ca_file: AUTHORITY}
        ca_file.symlink_to(world.ca_file)
        service = Service(workers=2)
        service.config_path, service.socket_path = config_path, socket_path
        service.configure(world.config.replace(str(world.ca_file), str(ca_file)) + RULES)
        try:
            service.start()
            service.command("check", "good.test", "lacking.test")
            for title, command in COMMANDS.items():
                parts.append(f"## {title}\n")
                for width in WIDTHS:
                    plain = _STYLES.sub("", shown(command, config_path, usual, width, colour=False))
                    plain = "\n".join(line.rstrip() for line in plain.split("\n"))
                    in_colour = shown(command, config_path, usual, width, colour=True)
                    picture(title, command, in_colour, width)
                    parts.append(
                        f"{width} columns ([in colour](captures/{title}-{width}.svg)):\n\n"
                        f"```text\n$ requiretls-milter {command}\n{plain}\n```\n"
                    )
        finally:
            service.destroy()
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
