"""The command line: ``requiretls-milter``, or ``python -m requiretls_milter``.

Each command imports what it needs when it runs: ``--help`` costs click alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from requiretls_milter import __version__
from requiretls_milter.commands.audit import audit
from requiretls_milter.commands.check import check
from requiretls_milter.commands.common import USAGE
from requiretls_milter.commands.config import config
from requiretls_milter.commands.doctor import doctor
from requiretls_milter.commands.export import export
from requiretls_milter.commands.mta import mta
from requiretls_milter.commands.report import report
from requiretls_milter.commands.serve import serve
from requiretls_milter.commands.simulate import simulate
from requiretls_milter.commands.status import resume, status, suspend
from requiretls_milter.errors import RequiretlsMilterError

PROGRAM = "requiretls-milter"
"""The name of the command."""

SOFTWARE = 70
"""Exit status: an internal error (EX_SOFTWARE of sysexits.h), which is no verdict."""

UNWRITTEN = 74
"""Exit status: what the command found could not be written (EX_IOERR of sysexits.h)."""

INTERRUPTED = 130
"""Exit status: ended by Ctrl-C, as shells have it (128 + SIGINT)."""

BROKEN_PIPE = 141
"""Exit status: standard output was closed before the output ended (128 + SIGPIPE)."""


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of write(2) that are no fault of the program: a full disk, a quota, bad blocks."""


class OutputClosedError(RequiretlsMilterError):
    """Standard output is a pipe whose other end is closed: the command ends without a verdict."""


class _Commands(click.Group):
    """Keeps a closed pipe from click, which would end with status 1, a verdict of ``check``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """Forecast whether REQUIRETLS mail (RFC 8689) can be delivered, before it is accepted."""


for command in (
    serve,
    check,
    simulate,
    status,
    suspend,
    resume,
    config,
    audit,
    report,
    doctor,
    mta,
    export,
):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end with its exit status; a crash never looks like a verdict."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    _write_all_of_the_output()
    try:
        return _status(arguments)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (OutputClosedError, BrokenPipeError):
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            return _crashed()
        with contextlib.suppress(OSError):  # standard error may be what is full
            click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
        _drop_output()
        return UNWRITTEN
    except Exception:  # noqa: BLE001 - printed in full; a traceback's own status 1 is a verdict here
        return _crashed()


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = commands.main(arguments, PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    return status if isinstance(status, int) else 0


def _write_all_of_the_output() -> None:
    """Let no part of the output get lost if the environment has PYTHONUNBUFFERED.

    Then Python writes each text once, and takes no notice if the disk had room for half of it.
    """
    stdout = sys.stdout
    if isinstance(getattr(stdout, "buffer", None), io.RawIOBase):
        sys.stdout = open(  # noqa: SIM115 - it is needed until the process ends
            stdout.fileno(), "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False
        )


def _crashed() -> int:
    with contextlib.suppress(OSError):
        traceback.print_exc()
    return SOFTWARE


def _drop_output() -> None:
    """Drop what is left in the buffers, which would raise again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
