"""Runs one server and lets nothing of it outlive the process that wanted it.

    python -I keeper.py PARENT ROOT GRACE COMMAND...

A server that is killed may leave children (Postfix's master has dozens), and a test run that is
killed cannot clean up.  So each server runs below a keeper: the keeper ends when its parent ends
(PR_SET_PDEATHSIG), it becomes the parent of whatever the server leaves behind
(PR_SET_CHILD_SUBREAPER), and before it ends it ends all of them.

SIGTERM: the server gets SIGTERM and GRACE seconds.  SIGHUP and SIGUSR1 are passed on.  The exit
status is the server's.  ROOT is where it is chrooted to ("" = nowhere).

This file is run by its path, by whatever Python runs the lab: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_WATCHED = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
}


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _start(root: str, command: list[str]) -> int:
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        if root:
            os.chroot(root)
            os.chdir("/")
        os.execv(command[0], command)  # noqa: S606 (a shell is what we do not want)
    except OSError as error:
        print(f"keeper: {command[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def _children() -> list[int]:
    """All children of this process, adopted ones too (which are no threads' or zombies')."""
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="latin-1") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == me and fields[0] != "Z":
            found.append(int(name))
    return found


def _end_the_rest() -> None:
    """Kill every remaining descendant: the orphans of each generation become our children."""
    while True:
        children = _children()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if not children:
            _reap()
            if not _children():
                return
        _reap()
        time.sleep(0.005)


def _reap() -> dict[int, int]:
    """Collect what has ended: process number to exit status."""
    ended: dict[int, int] = {}
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if child == 0:
            return ended
        ended[child] = os.waitstatus_to_exitcode(status)


def main() -> int:
    """Run the server named by the arguments until it, or we, should end."""
    parent, root, grace, *command = sys.argv[1:]
    os.setsid()  # the terminal's Ctrl-C is for the lab, which then stops us in good order
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != int(parent):
        return 1  # the parent was gone before we could ask to be told
    server = _start(root, command)
    deadline: float | None = None
    while True:
        patience = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        caught = signal.sigtimedwait(_WATCHED, patience)
        ended = _reap()
        if server in ended:
            _end_the_rest()
            code = ended[server]
            return code if code >= 0 else 128 - code
        if caught is None and deadline is not None:
            _end_the_rest()
            return 128 + signal.SIGKILL
        if caught is not None and caught.si_signo in (signal.SIGTERM, signal.SIGINT):
            if deadline is None:
                os.kill(server, signal.SIGTERM)
                deadline = time.monotonic() + float(grace)
        elif caught is not None and caught.si_signo in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(server, caught.si_signo)


if __name__ == "__main__":
    sys.exit(main())
