"""A real Redis or Valkey, from Debian's packages, unpacked as the lab unpacks its servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import Process, free_port


class RedisServer:
    """One server on loopback, that keeps nothing on disk."""

    def __init__(self, root: Path, flavour: str, *, certificate: Path | None = None) -> None:
        self._root = root
        self._flavour = flavour
        self._certificate = certificate
        self.port = free_port()
        self.tls_port = free_port()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self._home = Path(tempfile.mkdtemp(prefix="redis-", dir=self._root / "tmp"))
        if self._certificate is not None:
            shutil.copy(self._certificate, self._home / "tls.pem")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home)

    def start(self) -> None:
        program = f"/usr/bin/{self._flavour}-server"
        home = "/" + str(self._home.relative_to(self._root))
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
        if self._certificate is not None:
            options += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", "tls.pem", "--tls-key-file", "tls.pem"]
        self._process = Process(
            ["chroot", self._root, program, *options],
            self._home / "log",
            env={**os.environ, "LC_ALL": "C"},
        )
        self._process.wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return self.command("PING").strip() == "PONG"
        except (OSError, AssertionError):
            return False

    def stop(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def command(self, *words: str | bytes) -> str:
        """The reply to one command, as bytes of the protocol without the first line's mark."""
        wire = b"*%d\r\n" % len(words)
        for word in words:
            octets = word if isinstance(word, bytes) else word.encode()
            wire += b"$%d\r\n%s\r\n" % (len(octets), octets)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(wire)
            return _reply(connection.makefile("rb"))

    def keys(self) -> set[str]:
        return set(filter(None, self.command("KEYS", "*").split("\n")))

    def run(self, commands: Sequence[Sequence[str]]) -> None:
        for words in commands:
            self.command(*words)


def _reply(stream: object) -> str:
    line = stream.readline().rstrip(b"\r\n")  # type: ignore[attr-defined]
    assert line, "the server closed the connection"
    mark, rest = line[:1], line[1:]
    if mark == b"$":
        length = int(rest)
        if length < 0:
            return ""
        body: bytes = stream.read(length + 2)  # type: ignore[attr-defined]
        return body[:length].decode("latin-1")
    if mark == b"*":
        return "\n".join(_reply(stream) for _ in range(int(rest)))
    assert mark in b"+:", line
    return str(rest.decode("latin-1"))
