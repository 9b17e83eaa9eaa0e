"""Scripted servers: SMTP servers that do what a scenario says, and the MTA-STS policy host.

    python -m tests.lab.servers CONFIG.json

One process plays all of them, hundreds of addresses at once.  SIGHUP makes it read its
configuration again: what is new is opened, what is gone is closed, what changed is replaced.
When a configuration is in force its ``generation`` is written to the file ``ready``.  Each SMTP
session leaves one line of JSON in the file ``record``.

The servers are real ones (sockets, TLS by OpenSSL); scripted is what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.scenario import Server

IDLE = 60
"""Seconds after which a session is given up: a server under test must not hang us either."""

_PARAMETERS = {"tls-lower": "requiretls", "tls-param": "REQUIRETLS=yes"}


class _Bye(Exception):
    """The session ends here."""


@dataclass
class _Session:
    """One SMTP session."""

    listener: dict[str, Any]
    behaviour: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    tls: str | None = None
    seen: dict[str, Any] = field(default_factory=dict)

    async def say(self, *lines: str) -> None:
        """Answer; the last line ends the reply."""
        if self.behaviour.latency:
            await asyncio.sleep(self.behaviour.latency)
        code = lines[0][:3]
        rows = [f"{code}-{line[4:]}" for line in lines[:-1]] + [lines[-1]]
        self.writer.write("".join(f"{row}\r\n" for row in rows).encode())
        await self.writer.drain()

    async def line(self) -> str:
        """The next line that the client sends."""
        data = await asyncio.wait_for(self.reader.readline(), IDLE)
        if not data.endswith(b"\n"):
            raise _Bye
        return data.decode("utf-8", "surrogateescape").rstrip("\r\n")

    async def scripted(self, word: str) -> bool:
        """Do what *word* says instead of a reply; False where it is one."""
        if word == "close":
            raise _Bye
        if word == "hang":
            # Until the client gives up; what it says meanwhile is not heard.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.reader.read(), IDLE)
            raise _Bye
        return False

    async def run(self) -> None:
        """Serve the session from banner to end."""
        banner = self.behaviour.banner
        await self.scripted(banner)
        await self.say(f"220 {self.listener['name']} ESMTP" if banner == "220" else banner)
        if not banner.startswith("220"):
            await self.refuse_all()
        while True:
            command = await self.line()
            self.seen["commands"].append(command)
            verb = command.split(" ")[0].upper()
            handler = getattr(self, f"do_{verb.lower()}", None) if verb.isalpha() else None
            if handler is None:
                await self.say("500 5.5.1 unknown command")
            else:
                await handler(command)

    async def refuse_all(self) -> None:
        """After a refusing banner only QUIT is welcome (RFC 5321 §3.1)."""
        while True:
            command = await self.line()
            self.seen["commands"].append(command)
            if command.upper() == "QUIT":
                await self.do_quit(command)
            await self.say("503 5.5.1 refused")

    async def do_ehlo(self, command: str) -> None:
        """Offer what the scenario offers, before and inside TLS."""
        self.seen["helo"] = command[5:]
        word = self.behaviour.ehlo_tls if self.tls else self.behaviour.ehlo
        await self.scripted(word)
        if word != "ok":
            await self.say(word)
            return
        lines = [f"250 {self.listener['name']}", "250 ENHANCEDSTATUSCODES"]
        size = self.behaviour.size_tls if self.tls else None
        size = self.behaviour.size if size is None else size
        lines += [] if size == "none" else [f"250 SIZE {size}".rstrip()]
        lines += ["250 8BITMIME", "250 DSN"] if self.behaviour.transport == "all" else []
        if self.behaviour.smtputf8 in ("both", "tls" if self.tls else "plain"):
            lines.append("250 SMTPUTF8")
        if not self.tls and self.behaviour.starttls == "offer":
            lines.append("250 STARTTLS")
        offer = self.behaviour.requiretls
        if offer == "both" or (offer != "none" and (offer == "plain") == (not self.tls)):
            lines.append(f"250 {_PARAMETERS.get(offer, 'REQUIRETLS')}")
        await self.say(*lines)

    async def do_helo(self, command: str) -> None:
        """HELO: nothing is offered; a 4xx to EHLO is meant for it too."""
        self.seen["helo"] = command[5:]
        word = self.behaviour.ehlo_tls if self.tls else self.behaviour.ehlo
        await self.say(word if word.startswith("4") else f"250 {self.listener['name']}")

    async def do_starttls(self, command: str) -> None:
        """RFC 3207, or one of the ways to break it."""
        reply = self.behaviour.starttls_reply
        await self.scripted(reply)
        if reply != "220":
            await self.say(reply)
            return
        await self.say("220 2.0.0 ready")
        how = self.behaviour.handshake
        await self.scripted(how)
        if how == "garbage":
            self.writer.write(b"this is not TLS\r\n" * 4)
            await self.writer.drain()
            raise _Bye
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if how == "oldproto":
            # TLS 1.1 needs security level 0 in OpenSSL 3 (its signatures use SHA-1).
            context.set_ciphers("ALL:@SECLEVEL=0")
            _tls_1_1_only(context)
        if self.behaviour.security_level is not None:
            context.set_ciphers(f"DEFAULT:@SECLEVEL={self.behaviour.security_level}")
        context.load_cert_chain(self.listener["pem"])
        await self.writer.start_tls(context, ssl_handshake_timeout=IDLE)
        self.tls = self.writer.get_extra_info("ssl_object").version()
        self.seen["tls"] = self.tls

    async def do_mail(self, command: str) -> None:
        """MAIL; its parameters are recorded as they came."""
        self.seen["mail"].append(command)
        required = bool(re.search(r" requiretls( |$)", command, re.I))
        if self.behaviour.mail_reply_if == "always" or required:
            await self.say_or_ok(self.behaviour.mail_reply)
        else:
            await self.say("250 2.1.0 ok")

    async def do_rcpt(self, command: str) -> None:
        """RCPT, answered by local part."""
        self.seen["rcpt"].append(command)
        match = re.search(r"<([^@>]*)", command)
        await self.say_or_ok(self.behaviour.rcpt_reply.get(match[1] if match else "", "250"))

    async def do_data(self, command: str) -> None:
        """DATA and the message."""
        await self.say("354 go ahead")
        lines = []
        while (line := await self.line()) != ".":
            lines.append(line.removeprefix(".") if line.startswith("..") else line)
        self.seen["messages"].append("\n".join(lines) + "\n")
        if self.behaviour.data_reply == "250":
            await self.say("250 2.0.0 accepted")
        else:
            await self.say_or_ok(self.behaviour.data_reply)

    async def say_or_ok(self, reply: str) -> None:
        """Say *reply*, a bare 250 with some text."""
        await self.scripted(reply)
        await self.say("250 2.0.0 ok" if reply == "250" else reply)

    async def do_rset(self, command: str) -> None:
        """RSET."""
        await self.say("250 2.0.0 ok")

    do_noop = do_rset

    async def do_quit(self, command: str) -> None:
        """QUIT."""
        await self.say("221 2.0.0 bye")
        raise _Bye


def _tls_1_1_only(context: ssl.SSLContext) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is deprecated is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


class Servers:
    """All listening sockets of the process, as the configuration wants them."""

    def __init__(self, config: Path) -> None:
        """*config* is read by ``reload``."""
        self._config = config
        self._open: dict[str, tuple[str, Callable[[], None]]] = {}
        self._record = Path()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._policies: dict[str, dict[str, Any]] = {}

    async def reload(self) -> None:
        """Make the open sockets those of the configuration file."""
        config = json.loads(self._config.read_text())
        self._record = Path(config["record"])
        self._policies = config["policies"]
        self._contexts.clear()
        wanted: dict[str, tuple[str, Callable[[], Awaitable[Callable[[], None]]]]] = {}
        for item in config["listeners"]:
            key = f"smtp {item['address']}:{item['port']}"
            wanted[key] = (json.dumps(item), _bind(self._smtp, item))
        for address in config["blackholes"]:
            wanted[f"blackhole {address}"] = ("", _bind(self._blackhole, address))
        for address in config["silent_dns"]:
            wanted[f"silent {address}"] = ("", _bind(self._silent_dns, address))
        if config["policy_host"]:
            address = config["policy_host"]
            wanted[f"https {address}"] = ("", _bind(self._https, address))
        for key, (state, close) in list(self._open.items()):
            if key not in wanted or wanted[key][0] != state:
                close()
                del self._open[key]
        for key, (state, start) in wanted.items():
            if key not in self._open:
                self._open[key] = (state, await start())
        ready = Path(config["ready"])
        ready.with_suffix(".new").write_text(str(config["generation"]))
        ready.with_suffix(".new").replace(ready)

    async def _smtp(self, item: dict[str, Any]) -> Callable[[], None]:
        behaviour = Server(**item["server"])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen: dict[str, Any] = {
                "address": item["address"],
                "time": time.time(),
                "client": writer.get_extra_info("peername")[0],
                "helo": None,
                "tls": None,
                "commands": [],
                "mail": [],
                "rcpt": [],
                "messages": [],
            }
            session = _Session(item, behaviour, reader, writer, seen=seen)
            try:
                await session.run()
            except (_Bye, OSError, ValueError) as error:
                seen["end"] = "" if isinstance(error, _Bye) else repr(error)
            finally:
                # Written before the connection closes: who saw it close finds the record.
                self._write(seen)
                await _close(writer)

        server = await asyncio.start_server(serve, item["address"], item["port"], backlog=128)
        return server.close

    def _write(self, seen: dict[str, Any]) -> None:
        # A broken client's bytes are surrogates here; JSON's escapes keep them.
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(seen) + "\n")

    async def _blackhole(self, address: str) -> Callable[[], None]:
        """An address to which connect(2) times out.

        Once a listener's backlog is full Linux drops further SYNs unanswered; nobody accepts, so
        it stays full.  Needs no route, no packet filter and no host that does not exist.
        """
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 25))
        listener.listen(0)
        plugs = []
        for _ in range(2):
            plug = socket.socket()
            plug.setblocking(False)
            plug.connect_ex((address, 25))
            plugs.append(plug)
        await asyncio.sleep(0.01)

        def close() -> None:
            for each in (*plugs, listener):
                each.close()

        return close

    async def _silent_dns(self, address: str) -> Callable[[], None]:
        """A name server that never answers: its socket is never read."""
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, 53))
        return udp.close

    async def _https(self, address: str) -> Callable[[], None]:
        fallback = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            policy = self._policies.get(name or "")
            if policy is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            if policy["pem"] not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(policy["pem"])
                self._contexts[policy["pem"]] = context
            sock.context = self._contexts[policy["pem"]]
            return None

        fallback.sni_callback = choose
        server = await asyncio.start_server(
            self._serve_policy, address, 443, ssl=fallback, backlog=128
        )
        return server.close

    async def _serve_policy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one HTTP request for a policy (RFC 8461 §3.3)."""
        try:
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE)).decode("latin-1")
            path = head.split(" ")[1]
            host = re.search(r"^host:\s*([^\s:]+)", head, re.I | re.M)
            policy = self._policies.get(host[1].lower() if host else "")
            how = policy["https"] if policy else "404"
            if how == "close":
                return
            if how == "hang":
                await asyncio.wait_for(reader.read(), IDLE)
                return
            if path == "/elsewhere":  # whoever follows a redirect finds a policy
                how = "ok"
            elif path != "/.well-known/mta-sts.txt" or policy is None:
                how = "404"
            for piece in _policy_answer(how, policy["body"].encode() if policy else b""):
                writer.write(piece)
                await writer.drain()
                if how.startswith("slow"):
                    await asyncio.sleep(0.5)
        except (OSError, EOFError, IndexError, ValueError):
            pass
        finally:
            await _close(writer)


def _policy_answer(how: str, policy: bytes) -> Iterator[bytes]:
    """The policy host's answer as ``scenario.Sts.https`` words it, in pieces."""
    status, kind, more, body = "200 OK", "text/plain", "", policy
    if how == "redirect":
        status, more, body = "302 Found", "Location: /elsewhere\r\n", b""
    elif how.isdigit():
        status, body = f"{how} Scripted", b""
    elif how == "garbage":
        body = b"\x00this is no policy\r\n"
    elif how == "binary":
        body = bytes(range(256)) + policy
    elif how == "empty":
        body = b""
    elif how == "big":
        body = policy + b"x: " + b"y" * 1_000_000 + b"\r\n"
    elif how == "one-too-many":
        body = policy + b"x: " + b"y" * (65_537 - len(policy) - 5) + b"\r\n"
    elif how == "html":
        kind = "text/html"
    elif how == "gzip":
        more, body = "Content-Encoding: gzip\r\n", gzip.compress(policy + b"\n" * 10_000_000)
    elif how == "long-header":
        more = f"X: {'y' * 1_000_000}\r\n"
    length = "" if how == "endless" else f"Content-Length: {len(body)}\r\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}{length}Connection: close\r\n\r\n"
    answer = head.encode() + body
    if how == "slow-header":
        yield from (answer[at : at + 1] for at in range(len(answer)))
    elif how == "slow-body":
        yield head.encode()
        yield from (body[at : at + 1] for at in range(len(body)))
    else:
        yield answer[: -len(body) // 2] if how == "cut" else answer
    if how == "endless":
        yield from (b"x: " + b"y" * 60_000 + b"\r\n" for _ in range(2_000))


def _bind(
    function: Callable[[Any], Awaitable[Callable[[], None]]], argument: Any
) -> Callable[[], Awaitable[Callable[[], None]]]:
    return lambda: function(argument)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await asyncio.wait_for(writer.wait_closed(), 2)


async def _main(config: Path) -> None:
    servers = Servers(config)
    again = asyncio.Event()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A half-made TLS session that the peer drops is no news here.
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    loop.add_signal_handler(signal.SIGTERM, done.set)
    again.set()
    waiting = [asyncio.create_task(again.wait()), asyncio.create_task(done.wait())]
    while not done.is_set():
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if again.is_set():
            again.clear()
            await servers.reload()
            waiting[0] = asyncio.create_task(again.wait())
    os._exit(0)  # sessions that hang are not waited for


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
