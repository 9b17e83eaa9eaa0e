"""``audit`` and ``report`` as processes: hostile logs, closed pipes, full disks, any locale."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.compression import zstd
from tests.support.milterlogs import delivery_line, forecast_line

PROGRAM = f"{shlex.quote(sys.executable)} -m requiretls_milter"

LONG = int(os.environ.get("LOG_MEGABYTES", "256")) << 20
"""Octets of a hostile log; ``make test-long`` takes more."""

MESSAGES = LONG >> 11
"""More than are followed at a time."""

MAX_RESIDENT = 160 << 10
"""KiB that a command may take, whatever the log is; a small log takes some 60 MiB."""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def run(script: str, **environment: str) -> Ended:
    """Run a line of shell in which ``$audit`` is the command."""
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "audit": f"{PROGRAM} audit", "milter": PROGRAM, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=1100,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def measured(*arguments: str, stdin: int | None = None) -> tuple[Ended, int]:
    """Run ``audit``; returns also how many KiB it had in memory at most."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", code, *shlex.split(PROGRAM), "audit", *arguments]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=1100)
    out, _, resident = done.stdout.strip().rpartition("\n")
    return Ended(done.returncode, out, done.stderr), int(resident)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text(f"{forecast_line('2.0.0')}\n{delivery_line('5.7.30')}\n")
    return path


def test_a_line_without_an_end_takes_no_memory(log: Path) -> None:
    script = f"cat {log}; head -c {LONG} /dev/zero; echo; cat {log}"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        ended, resident = measured("-", stdin=source.stdout.fileno())
    assert ended.status == 1
    assert "different  1" in ended.out
    assert resident < MAX_RESIDENT


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstd],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_a_bomb_takes_no_memory(
    compress: Callable[[bytes], bytes], log: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "mail.log.1"
    stream = compress(bytes(32 << 20))
    bomb.write_bytes(compress(log.read_bytes()) + stream * (LONG >> 24))
    ended, resident = measured(str(bomb))
    assert resident < MAX_RESIDENT
    assert "Traceback" not in ended.err
    if compress is gzip.compress:  # 1,032 times its size at most: it is read to its end
        assert ended.status == 1
    else:
        assert ended.status == 2
        assert "decompresses to more than 2000 times its size" in ended.err


def test_many_messages_take_bounded_memory(tmp_path: Path) -> None:
    """Forecasts that wait, ordinary deliveries and differences, each by the hundred thousand."""
    log = tmp_path / "mail.log"
    forecast, delivery = forecast_line("2.0.0"), delivery_line("5.7.30")
    with log.open("w") as file:
        for number in range(MESSAGES):
            file.write(f"{forecast.replace('4dBGwW2X', f'4A{number:06X}')}\n")
            file.write(f"{delivery.replace('4dBGwW2X', f'4B{number:06X}')}\n")
    ended, resident = measured(str(log))
    assert ended.status == 0
    assert ended.out.startswith(f"0 forecasts with a delivery attempt, {MESSAGES} without one\n")
    assert resident < 4 * MAX_RESIDENT


def test_standard_input_that_is_closed_is_an_error() -> None:
    ended = run("$audit - <&-")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "error: -: standard input is closed\n"


def test_a_reader_that_is_gone_ends_the_command_silently(log: Path) -> None:
    ended = run(f"{{ $audit {log}; echo $? >&2; }} | true")
    assert ended.err in ("141\n", "1\n")  # 1: true had not ended yet


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_is_an_error_and_no_verdict(form: str, log: Path) -> None:
    ended = run(f"$audit --format {form} {log} >/dev/full")
    assert ended.status == 74
    assert ended.err == "error: the output cannot be written: No space left on device\n"
    assert run(f"$audit --format {form} {log} >/dev/full 2>&1").status == 74
    assert run("$audit /nowhere 2>/dev/full").status == 74
    assert run(f"$milter report --would-have {log} --config /dev/null >/dev/full").status == 74


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "el_GR.ISO-8859-7", "nowhere"])
@pytest.mark.parametrize("encoding", ["", "ascii"])
def test_no_locale_and_no_octet_matters(locale: str, encoding: str, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    octets = bytes(range(256)).replace(b"\n", b"")
    forecast = forecast_line("2.0.0", to="<b\\xfcro@example.org>", form="json")
    delivery = delivery_line("5.7.30", to="büro@example.org", said="ä\u2028€").encode()
    log.write_bytes(b"\n".join([octets, forecast.encode(), octets, delivery, octets]))
    settings = {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0"}
    if encoding == "ascii":
        settings["PYTHONIOENCODING"] = encoding
    for script in (f"$audit {log}", f"cat {log} | $audit -", f"gzip -c {log} | $audit -"):
        ended = run(script, **settings)
        assert (ended.status, ended.err) == (1, "")
        assert ended.out.isascii()
        assert "to=<b\\xfcro@example.org>: forecast 2.0.0 ok" in ended.out
        assert "was 5.7.30: \\xe4\\u2028\\u20ac" in ended.out
