"""The least that a milter on pymilter costs, with ours' own events, replies, macros and processes.

The callbacks are empty, and there are as many workers as we have by default, which accept from one
socket: what is above this is ours, what is below it libmilter's and pymilter's.

    python -m tests.bench.floor SOCKET
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

import milter

from requiretls_milter.milter.adapter import ACTIONS, MACROS, WANTED
from requiretls_milter.milter.listener import BACKLOG, listening
from requiretls_milter.service.cores import usable_cores, usual_workers

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""

_CONTINUE, _NOREPLY = int(milter.CONTINUE), int(milter.NOREPLY)


def _negotiate(ctx: Any, options: list[int]) -> int:
    for stage, names in MACROS:
        ctx.setsymlist(stage, names)
    options[:] = [options[0] & ACTIONS, options[1] & WANTED, 0, 0]
    return _CONTINUE


def _without_reply(_ctx: Any, *_: Any) -> int:
    return _NOREPLY


def _with_reply(_ctx: Any, *_: Any) -> int:
    return _CONTINUE


def main() -> None:
    """Serve until killed."""
    milter.set_flags(ACTIONS)
    milter.set_connect_callback(_without_reply)
    milter.set_envfrom_callback(_without_reply)
    milter.set_header_callback(_without_reply)
    for set_callback in (
        milter.set_envrcpt_callback,
        milter.set_eom_callback,
        milter.set_abort_callback,
        milter.set_close_callback,
    ):
        set_callback(_with_reply)
    milter.register("floor", negotiate=_negotiate)
    milter.setconn(f"unix:{sys.argv[1]}")
    milter.setbacklog(BACKLOG)
    milter.opensocket(False)
    for descriptor in listening():
        os.set_blocking(descriptor, False)  # the workers that come too late must not wait
    for _ in range(usual_workers(usable_cores())):
        if not os.fork():
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            milter.main()
            os._exit(1)
    signal.pause()


if __name__ == "__main__":
    main()
