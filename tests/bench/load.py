"""The load: an MTA's dialogues, recorded once with the real milter and played by a C program.

The load must not be the bottleneck, and on a machine with two cores it must not
take one of them either: a client in Python would. So the packets are made here,
by the client that the tests use, and ``load.c`` only writes them and waits for
the replies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.milterclient import MilterClient, ProtocolError
from tests.support.processes import Process

MESSAGES = 10
"""Messages a connection, as the design has it for the baseline."""

COMPILER_FLAGS = ("-O2", "-Wall", "-Wextra")

MACROS = {
    "j": "mta.example.net",
    "v": "Postfix 3.11.7",
    "_": "client.example.org [127.0.0.1]",
    "i": "4XyZ1a2b3c4d5",
    "{daemon_name}": "smtpd",
    "{daemon_addr}": "127.0.0.1",
    "{tls_version}": "TLSv1.3",
    "{cipher}": "TLS_AES_256_GCM_SHA384",
    "{cipher_bits}": "256",
    "{mail_addr}": "alice@example.net",
    "{mail_host}": "example.net",
    "{mail_mailer}": "smtp",
    "{rcpt_addr}": "bob@example.org",
}
"""What Postfix 3.11 tells of a session over TLS, without SASL."""

_DKIM = (
    " v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=2024;\n\tt=1760000000; "
    "h=from:to:subject:date:message-id:mime-version:content-type;\n\tbh=" + 43 * "a" + "=;\n\tb="
    "" + 344 * "b"
)

FIELDS: tuple[tuple[str, str], ...] = (
    (
        "Received",
        " from mail.example.net (mail.example.net [192.0.2.25])\n\t(using TLSv1.3 with cipher "
        "TLS_AES_256_GCM_SHA384 (256/256 bits)\n\t key-exchange X25519 server-signature ECDSA "
        "(prime256v1))\n\tby mta.example.net (Postfix) with ESMTPS id 4XyZ1a2b3c4d5\n\tfor "
        "<bob@example.org>; Mon, 6 Oct 2025 12:00:02 +0000 (UTC)",
    ),
    (
        "Received",
        " by mail.example.net (Postfix, from userid 1000)\n\tid 4AbC5d6e7f8g9; Mon, 6 Oct 2025 "
        "12:00:01 +0000 (UTC)",
    ),
    (
        "Received",
        " from [192.0.2.77] (unknown [192.0.2.77])\n\tby mail.example.net (Postfix) with ESMTPSA "
        "id 4QwErTyUiOp; Mon, 6 Oct 2025 12:00:00 +0000 (UTC)",
    ),
    ("DKIM-Signature", _DKIM),
    ("ARC-Seal", " i=1; a=rsa-sha256; d=example.net; s=arc; t=1760000000; cv=none; b=" + 344 * "c"),
    ("ARC-Message-Signature", " i=1;" + _DKIM),
    ("ARC-Authentication-Results", " i=1; mail.example.net; spf=pass; dkim=pass; dmarc=pass"),
    ("Authentication-Results", " mail.example.net; dkim=pass header.d=example.net; spf=pass"),
    ("Return-Path", " <alice@example.net>"),
    ("Message-ID", " <20251006120000.1234@mail.example.net>"),
    ("Date", " Mon, 6 Oct 2025 12:00:00 +0000"),
    ("From", " Alice Example <alice@example.net>"),
    ("To", " Bob Example <bob@example.org>"),
    ("Cc", " Carol Example <carol@example.com>, Dave Example <dave@example.com>"),
    ("Subject", " Minutes of the meeting of the steering committee of last Thursday"),
    ("Reply-To", " Alice Example <alice@example.net>"),
    ("References", " <20251005110000.99@example.org> <20251005113000.7@mail.example.net>"),
    ("In-Reply-To", " <20251005113000.7@mail.example.net>"),
    ("User-Agent", " Mozilla Thunderbird"),
    ("MIME-Version", " 1.0"),
    ("Content-Language", " en-GB"),
    ("Content-Type", ' multipart/alternative; boundary="------------0a1b2c3d4e5f6g7h8i9j0k"'),
    ("List-Unsubscribe", " <https://lists.example.net/unsubscribe?token=0123456789abcdef>"),
    ("X-Spam-Status", " No, score=-2.1 required=5.0 tests=BAYES_00,DKIM_VALID,SPF_PASS"),
    ("X-Mailer", " Example 1.2.3"),
)
"""25 fields (the design's number) of a message as it comes from the world, some 3 kB."""


@dataclass(frozen=True)
class Mail:
    """What a message is like: its MAIL parameters, and the next hop that the MTA names."""

    parameters: tuple[str, ...] = ()
    mailer: str = "smtp"
    host: str = "example.org"


PLAIN = Mail()
"""Mail that asks nothing."""


@dataclass(frozen=True)
class Run:
    """What one run of the load measured.

    ``rate`` in messages a second and times in milliseconds, of those ``messages``
    that were counted; ``edits`` are changes that the milter made to ``all`` that
    were sent; ``load_cpu`` is the share of one core that the load itself took.
    """

    messages: int
    all: int
    rate: float
    p50_ms: float
    p99_ms: float
    edits: int
    connections: int
    load_cpu: float


class _Recorder(MilterClient):
    """Keeps what is written between two reads: the steps of the dialogue."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.written: list[bytes] = []
        self.read: list[bytes] = []
        super().__init__(*arguments, **options)

    def _flush(self) -> None:
        if self._out:
            self.written.append(bytes(self._out))
        super()._flush()

    def _read(self, size: int) -> bytes:
        taken = super()._read(size)
        self.read.append(taken)
        return taken

    def take(self) -> tuple[list[bytes], bytes]:
        """What was written and read since the last time."""
        written, self.written = self.written, []
        read, self.read = b"".join(self.read), []
        return written, read


def record(socket_path: str, mail: Mail, script: Path) -> None:
    """Hold a dialogue of three messages with a milter, and write the script for the load.

    The MTA writes nothing before it waits for a reply: what has none goes out
    with the next event that has one, the connection itself with the first
    message.
    """
    client = _Recorder(socket_path, MACROS)
    with client:
        (negotiation,), agreed = client.take()
        client.connect("client.example.org", "127.0.0.1", 12345)
        client.helo("client.example.org")
        dialogues = []
        for _ in range(3):
            _message(client, mail)
            dialogues.append(client.take()[0])
    first, second, third = dialogues
    if second != third:
        raise ProtocolError("one message is not like the other")
    pieces = [_octets(negotiation), _octets(agreed), *_steps(first), *_steps(second)]
    pieces.append(_octets(struct.pack(">I", 1) + b"Q"))
    script.write_bytes(b"".join(pieces))


def _message(client: MilterClient, mail: Mail) -> None:
    client.mail("<alice@example.net>", "SIZE=3400", "BODY=8BITMIME", *mail.parameters)
    client.rcpt("<bob@example.org>", mailer=mail.mailer, host=mail.host)
    client.data()
    for name, value in FIELDS:
        client.header(name, value)
    client.eoh()
    client.body(b"Hello Bob,\r\n\r\nhere they are.\r\n" * 20)
    reply = client.eom()
    if reply.kind != "continue":
        raise ProtocolError(f"the milter says {reply} at the end of the message")


def _octets(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _steps(steps: Sequence[bytes]) -> list[bytes]:
    return [struct.pack(">I", len(steps)), *map(_octets, steps)]


class NoCompilerError(Exception):
    """There is no C compiler; pymilter could not have been built here either."""


def compiled(name: str, *libraries: str) -> Path:
    """A C program of this directory, compiled for this machine; once for each of its versions."""
    source = Path(__file__).with_name(f"{name}.c")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("neither cc nor gcc is installed")
    options = [*COMPILER_FLAGS, *libraries]
    digest = hashlib.sha256(source.read_bytes() + repr(options).encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    program = cache / "requiretls-milter-bench" / f"{name}-{digest[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as directory:
            new = Path(directory) / name
            subprocess.run([compiler, *COMPILER_FLAGS, "-o", new, source, *libraries], check=True)
            new.replace(program)
    return program


def listens(path: Path) -> bool:
    """Whether a process listens at a unix socket: its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


class Load:
    """The C program that plays the MTA."""

    def __init__(self) -> None:
        self._program = compiled("load")

    def send(
        self,
        socket_path: str,
        script: Path,
        *,
        connections: int,
        seconds: float,
        warmup: float,
    ) -> Run:
        """Send what the script has over so many connections, as fast as the milter answers."""
        words = ["send", socket_path, script, connections, MESSAGES, warmup, seconds]
        done = subprocess.run(
            [self._program, *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            timeout=warmup + seconds + 60,
        )
        if done.returncode != 0:
            raise ProtocolError(done.stderr.strip())
        found = json.loads(done.stdout)
        return Run(
            messages=found["messages"],
            all=found["all"],
            rate=found["messages"] / found["seconds"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            edits=found["edits"],
            connections=found["connections"],
            load_cpu=found["cpu_seconds"] / found["cpu_of_seconds"],
        )

    @contextlib.contextmanager
    def answering(self, socket_path: Path, script: Path) -> Iterator[None]:
        """A milter in C that only answers: the most that the load can measure."""
        process = Process(
            [self._program, "answer", socket_path, script], socket_path.with_suffix(".log")
        )
        try:
            process.wait_until(lambda: listens(socket_path), "listening")
            yield
        finally:
            process.kill()
            process.wait()
            socket_path.unlink(missing_ok=True)
