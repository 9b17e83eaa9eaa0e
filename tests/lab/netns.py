"""A network namespace of the lab's own, where the kernel permits one.

In it no server of the machine is in the way, nothing of the machine can reach the lab's servers,
and several labs can run side by side with the same addresses.  Where it is not permitted (a plain
container), the lab uses the machine's own loopback addresses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.errors import LabUnavailable

ENVIRONMENT = "REQUIRETLS_LAB_NETNS"
"""``auto`` (the default), ``never`` (use the loopback as it is) or ``always`` (or fail)."""

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_IFF_UP = 0x1
_THREAD_NAMESPACE = "/proc/thread-self/ns/net"

_outside: int | None = None
"""Descriptor of the namespace that this process was in before enter()."""


def wanted() -> str:
    """What the environment asks for."""
    word = os.environ.get(ENVIRONMENT, "auto") or "auto"
    if word not in ("auto", "never", "always"):
        raise LabUnavailable(f"{ENVIRONMENT}={word}: not one of auto, never, always")
    return word


def entered() -> bool:
    """Whether this process is in a namespace that enter() made."""
    return _outside is not None


def enter() -> bool:
    """Move the calling thread, and what it starts from now on, into a new namespace.

    Returns whether that was done.  A namespace belongs to a thread, not to a process: threads
    that run already stay where they are, so call it from the main thread before there are others.
    """
    global _outside
    if _outside is not None:
        return True
    mode = wanted()
    if mode == "never":
        return False
    outside = os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
    except OSError as error:
        os.close(outside)
        if mode == "always":
            raise LabUnavailable(f"no network namespace: {error}") from error
        if error.errno in (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EUSERS):
            return False
        raise
    try:
        _loopback_up()
    except OSError as error:
        _call("setns", outside, _CLONE_NEWNET)
        os.close(outside)
        if mode == "always":
            raise LabUnavailable(f"cannot bring up the loopback interface: {error}") from error
        return False
    _outside = outside
    return True


def leave() -> None:
    """Go back to where enter() was called; the namespace ends with its last process."""
    global _outside
    if _outside is not None:
        _call("setns", _outside, _CLONE_NEWNET)
        os.close(_outside)
        _outside = None


@contextmanager
def outside() -> Iterator[None]:
    """Be outside for a while, e.g. to fetch packages; the lab's servers stay inside."""
    if _outside is None:
        yield
        return
    inside = os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", _outside, _CLONE_NEWNET)
        yield
    finally:
        _call("setns", inside, _CLONE_NEWNET)
        os.close(inside)


def add_address(address: str) -> None:
    """``ip -6 address add ADDRESS/128 dev lo``; one that is there already is no error.

    Of 127.0.0.0/8 all addresses are there by themselves, of IPv6 only ::1.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        request = socket.inet_pton(socket.AF_INET6, address) + struct.pack(
            "Ii", 128, socket.if_nametoindex("lo")
        )
        try:
            fcntl.ioctl(control, _SIOCSIFADDR, request)
        except FileExistsError:
            return


def _call(name: str, *arguments: int) -> None:
    """Call libc: Python has os.unshare and os.setns only since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def _loopback_up() -> None:
    """``ip link set lo up``, without needing ip(8); 127.0.0.0/8 and ::1 come with it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
