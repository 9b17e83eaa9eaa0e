"""The command line: ``requiretls-milter``, or ``python -m requiretls_milter``.

Each command imports what it needs when it runs: ``--help`` costs click alone.
"""

from __future__ import annotations

import contextlib
import errno
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
from requiretls_milter.errors import RequiretlsMilterError

SOFTWARE = 70
"""Exit status: an internal error (EX_SOFTWARE of sysexits.h), which is no verdict."""

INTERRUPTED = 130
"""Exit status: ended by Ctrl-C, as shells have it (128 + SIGINT)."""

BROKEN_PIPE = 141
"""Exit status: standard output was closed before the output ended (128 + SIGPIPE)."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What is wrong with an output that cannot be written, and not with the program."""


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
@click.version_option(__version__, prog_name="requiretls-milter", message="%(prog)s %(version)s")
def commands() -> None:
    """Forecast whether REQUIRETLS mail (RFC 8689) can be delivered, before it is accepted."""


for command in (serve, check, config, audit, report, doctor, mta, export):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end with its exit status; a crash never looks like a verdict."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return _command(arguments)
    except OutputClosedError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in NO_ROOM:
            return _crashed()
        return _cannot_write(error)
    except Exception:  # noqa: BLE001 - printed in full; a traceback's own status 1 is a verdict here
        return _crashed()


def _command(arguments: Sequence[str] | None) -> int:
    try:
        status = commands.main(arguments, "requiretls-milter", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _crashed() -> int:
    traceback.print_exc()
    return SOFTWARE


def _cannot_write(error: OSError) -> int:
    """Say that a disk is full, or the like; standard error may be on the same one."""
    with contextlib.suppress(OSError):
        click.echo(f"error: {error.filename or 'the output'}: {error.strerror}", err=True)
    _discard_output()
    return USAGE


def _discard_output() -> None:
    """Forget what is left in the buffers: it would raise again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
