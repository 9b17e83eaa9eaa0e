"""The MTA's side of the milter protocol, version 6, as Postfix's milter8.c speaks it.

A small client on a raw socket, to drive a real libmilter without an MTA. What
it does as Postfix does:

- offers all actions, events and NR_* replies of version 6, sends no event that
  the milter did not want, and reads no reply where none was agreed on;
- writes are held back until a reply is awaited, so that events without a reply
  go out together with the next one;
- macros go with each event, those of the lists below unless the milter has
  asked for others (SETSYMLIST replaces the list of a stage);
- a reply SKIP ends events of that kind; ACCEPT and REJECT of a connection or a
  message end theirs;
- the first space of a header's value is dropped.

What it does more: bytes that come when no reply was agreed on are an error
(Postfix would take them for the reply to the next event), and the edits of a
message are kept, and applied to its header as Postfix's cleanup(8) does.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

VERSION = 6
ACTIONS = 0x1FF
PROTOCOL = 0x1FFFFF

NO_CONNECT, NO_HELO, NO_MAIL, NO_RCPT, NO_BODY, NO_HEADERS, NO_EOH = (1 << n for n in range(7))
NR_HEADER, NO_UNKNOWN, NO_DATA, SKIP, RCPT_REJ = (1 << n for n in range(7, 12))
(
    NR_CONNECT,
    NR_HELO,
    NR_MAIL,
    NR_RCPT,
    NR_DATA,
    NR_UNKNOWN,
    NR_EOH,
    NR_BODY,
    HEADER_LEADING_SPACE,
) = (1 << n for n in range(12, 21))

CHUNK = 65535
"""Bytes of a body that go into one event (MILTER_CHUNK_SIZE)."""

_EVENTS: Mapping[str, tuple[bytes, int, int]] = {
    "connect": (b"C", NO_CONNECT, NR_CONNECT),
    "helo": (b"H", NO_HELO, NR_HELO),
    "mail": (b"M", NO_MAIL, NR_MAIL),
    "rcpt": (b"R", NO_RCPT, NR_RCPT),
    "data": (b"T", NO_DATA, NR_DATA),
    "header": (b"L", NO_HEADERS, NR_HEADER),
    "eoh": (b"N", NO_EOH, NR_EOH),
    "body": (b"B", NO_BODY, NR_BODY),
    "eom": (b"E", 0, 0),
}
"""Of each event: its command, the flag by which it is not wanted, and that for no reply."""

_STAGES = ("connect", "helo", "mail", "rcpt", "data", "eom", "eoh")
"""The numbers that SETSYMLIST gives the stages (SMFIM_*)."""

POSTFIX_MACROS: Mapping[str, str] = {
    "connect": "j {daemon_name} {daemon_addr} v _",
    "helo": "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    "mail": "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "rcpt": "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "data": "i",
    "eoh": "i",
    "eom": "i",
}
"""Postfix 3.11's milter_*_macros."""


class ProtocolError(Exception):
    """The milter said what it must not say here."""


class Closed(ProtocolError):
    """The milter ended the connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the milter answers: ``continue``, ``accept``, ``reject``, …, or ``reply`` with text."""

    kind: str
    text: str = ""

    @property
    def passed(self) -> bool:
        return self.kind in ("continue", "accept", "skip")


CONTINUE = Reply("continue")

_REPLIES: Mapping[bytes, str] = {
    b"c": "continue",
    b"a": "accept",
    b"r": "reject",
    b"t": "tempfail",
    b"d": "discard",
    b"s": "skip",
    b"4": "shutdown",
    b"f": "connection failure",
}


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of the message: ``insert``, ``change`` or ``add``; ``index`` as on the wire."""

    kind: str
    name: str
    value: str
    index: int = -1


@dataclass(slots=True)
class Outcome:
    """What became of one message: the replies by event, and the edits."""

    mail: Reply = CONTINUE
    rcpt: list[Reply] = field(default_factory=list)
    headers: Reply = CONTINUE
    end: Reply | None = None
    edits: list[Edit] = field(default_factory=list)


class MilterClient:
    """One connection with a milter.

    Args:
        address: the path of a unix socket, or (host, port).
        macros: values that the "MTA" has; a milter is told those that the
            lists name. May be changed between events.
        timeout: seconds for each reply.
        protocol: the events and replies that the MTA offers.
        actions: the edits that the MTA offers.
        version: of the protocol.

    Attributes:
        by_smtp: whether the "MTA", if it is Postfix, plays smtpd, which has no queue ID
            before a recipient is accepted; if not, cleanup with mail of sendmail(1).
    """

    def __init__(
        self,
        address: str | tuple[str, int],
        macros: Mapping[str, str] | None = None,
        *,
        timeout: float = 30.0,
        protocol: int = PROTOCOL,
        actions: int = ACTIONS,
        version: int = VERSION,
    ) -> None:
        self.macros: dict[str, str] = dict(macros or {})
        self.macro_lists: dict[str, str] = dict(POSTFIX_MACROS)
        self.by_smtp = True
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._out = bytearray()
        self._in = bytearray()
        self._skipped: set[str] = set()
        self.edits: list[Edit] = []
        self.actions = 0
        self.protocol = 0
        try:
            self._socket.connect(address)
            self._negotiate(version, actions, protocol)
        except BaseException:
            self._socket.close()
            raise

    def wait_for(self, seconds: float) -> None:
        """Wait so long for each reply from now on."""
        self._socket.settimeout(seconds)

    def __enter__(self) -> MilterClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ packets

    def send(self, command: bytes, data: bytes = b"") -> None:
        """Put a packet into the buffer; it is written before the next reply is read."""
        self._out += struct.pack(">I", len(data) + 1) + command + data

    def _flush(self) -> None:
        if self._out:
            data, self._out = self._out, bytearray()
            self._socket.sendall(data)

    def _read(self, size: int) -> bytes:
        while len(self._in) < size:
            data = self._socket.recv(65536)
            if not data:
                raise Closed("the milter closed the connection")
            self._in += data
        taken = bytes(self._in[:size])
        del self._in[:size]
        return taken

    def _packet(self) -> tuple[bytes, bytes]:
        self._flush()
        (length,) = struct.unpack(">I", self._read(4))
        if not 1 <= length <= 1 << 20:
            raise ProtocolError(f"a packet of {length} bytes")
        packet = self._read(length)
        return packet[:1], packet[1:]

    def unsolicited(self, wait: float = 0.2) -> bytes:
        """Bytes that came although no reply was agreed on; there should be none."""
        self._flush()
        before = self._socket.gettimeout()
        self._socket.settimeout(wait)
        try:
            with contextlib.suppress(TimeoutError):
                self._in += self._socket.recv(65536)
        finally:
            self._socket.settimeout(before)
        return bytes(self._in)

    # ------------------------------------------------------------ negotiation

    def _negotiate(self, version: int, actions: int, protocol: int) -> None:
        self.send(b"O", struct.pack(">III", version, actions, protocol))
        command, data = self._packet()
        if command != b"O":
            raise ProtocolError(f"{command!r} in the negotiation")
        agreed, self.actions, self.protocol = struct.unpack(">III", data[:12])
        if agreed > version or self.actions & ~actions:
            raise ProtocolError(f"version {agreed}, actions {self.actions:#x}")
        rest = data[12:]
        while rest:
            (stage,) = struct.unpack(">I", rest[:4])
            names, _, rest = rest[4:].partition(b"\0")
            self.macro_lists[_STAGES[stage]] = names.decode()

    # ------------------------------------------------------------ events

    def send_macros(self, event: str) -> None:
        """Send the macros of *event* that the milter asked for."""
        names = self.macro_lists.get(event, "").split()
        if event == "mail" and self.by_smtp and self.macros.get("v", "").startswith("Postfix"):
            names = [name for name in names if name != "i"]
        pairs = [(name, self.macros[name]) for name in names if name in self.macros]
        data = b"".join(
            name.encode() + b"\0" + value.encode("utf-8", "surrogateescape") + b"\0"
            for name, value in pairs
        )
        self.send(b"D", _EVENTS[event][0] + data)

    def event(self, event: str, data: bytes, *, macros: bool = True) -> Reply:
        """Send an event, if it is wanted; the reply, if one was agreed on."""
        command, unwanted, no_reply = _EVENTS[event]
        if self.protocol & unwanted or event in self._skipped:
            return CONTINUE
        if macros:
            self.send_macros(event)
        self.send(command, data)
        if self.protocol & no_reply:
            return CONTINUE
        return self.read_reply(event)

    def read_reply(self, event: str) -> Reply:
        """Read the reply to *event*; edits before it are kept."""
        while True:
            command, data = self._packet()
            if command == b"p":
                continue
            if event == "eom" and command in b"mih+-2beq":
                self.edits.append(_edit(command, data))
                continue
            if command == b"y":
                return Reply("reply", _reply_text(data))
            kind = _REPLIES.get(command)
            if kind is None:
                raise ProtocolError(f"{command!r} after {event}")
            if kind == "skip":
                self._skipped.add(event)
            return Reply(kind)

    def connect(
        self, name: str = "client.example", address: str = "127.0.0.1", port: int = 12345
    ) -> Reply:
        family = b"6" if ":" in address else b"4"
        where = family + struct.pack(">H", port) + address.encode() + b"\0"
        return self.event("connect", name.encode() + b"\0" + where)

    def helo(self, name: str = "client.example") -> Reply:
        return self.event("helo", name.encode() + b"\0")

    def mail(self, sender: str | bytes, *parameters: str | bytes) -> Reply:
        self._skipped.clear()
        self.edits = []
        return self.event("mail", _strings(sender, *parameters))

    def rcpt(
        self,
        recipient: str | bytes,
        *parameters: str | bytes,
        mailer: str | None = "smtp",
        host: str | None = None,
    ) -> Reply:
        """RCPT, with the macros that the MTA has of a recipient; None: it has none."""
        if mailer is None:
            self.macros.pop("{rcpt_mailer}", None)
            self.macros.pop("{rcpt_host}", None)
        else:
            domain = recipient if isinstance(recipient, str) else recipient.decode("latin-1")
            self.macros["{rcpt_mailer}"] = mailer
            self.macros["{rcpt_host}"] = (
                host if host is not None else domain.strip("<>").rpartition("@")[2]
            )
        return self.event("rcpt", _strings(recipient, *parameters))

    def data(self) -> Reply:
        return self.event("data", b"")

    def header(self, name: str | bytes, value: str | bytes) -> Reply:
        """A header field, as it stands after the colon: the first space is dropped."""
        octets = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        if not self.protocol & HEADER_LEADING_SPACE:
            octets = octets.removeprefix(b" ")
        return self.event("header", _strings(name, octets), macros=False)

    def eoh(self) -> Reply:
        return self.event("eoh", b"")

    def body(self, text: bytes) -> Reply:
        reply = CONTINUE
        for start in range(0, len(text), CHUNK):
            reply = self.event("body", text[start : start + CHUNK], macros=False)
            if reply != CONTINUE:
                break
        return reply

    def eom(self) -> Reply:
        return self.event("eom", b"")

    def abort(self) -> None:
        self.send(b"A")
        self._flush()

    def close(self) -> None:
        """QUIT; the milter does not answer it."""
        with contextlib.suppress(OSError):
            self.send(b"Q")
            self._flush()
        self._socket.close()

    def break_off(self) -> None:
        """Close the connection without a word, as an MTA does that dies."""
        self._socket.close()

    # ------------------------------------------------------------ a message

    def message(
        self,
        sender: str | bytes,
        recipients: Sequence[str | bytes],
        *,
        parameters: Iterable[str | bytes] = (),
        fields: Iterable[tuple[str | bytes, str | bytes]] = (("Subject", " test"),),
        body: bytes = b"Hello\r\n",
        mailer: str | None = "smtp",
    ) -> Outcome:
        """A whole message, as an MTA goes on or gives up after each reply."""
        outcome = Outcome()
        outcome.mail = self.mail(sender, *parameters)
        if not outcome.mail.passed:
            self.abort()
            return outcome
        for recipient in recipients:
            outcome.rcpt.append(self.rcpt(recipient, mailer=mailer))
        if not any(reply.passed for reply in outcome.rcpt):
            self.abort()
            return outcome
        self.data()
        for name, value in fields:
            outcome.headers = self.header(name, value)
            if not outcome.headers.passed:
                break
        self.eoh()
        self.body(body)
        outcome.end = self.eom()
        outcome.edits = list(self.edits)
        return outcome


def _strings(*texts: str | bytes) -> bytes:
    return b"".join(
        (text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")) + b"\0"
        for text in texts
    )


_VALID_REPLY = re.compile(r"([45])\d\d[ -]([45])\.\d{1,3}\.\d{1,3} [ -~\r\n]*")


def _reply_text(data: bytes) -> str:
    """A reply as Postfix passes it on: its classes agree, and ``%%`` is a ``%``."""
    text = data.removesuffix(b"\0").decode("utf-8", "replace")
    valid = _VALID_REPLY.fullmatch(text)
    if valid is None or valid[1] != valid[2]:
        raise ProtocolError(f"malformed reply: {text!r}")
    return re.sub("%(.?)", r"\1", text)


def _edit(command: bytes, data: bytes) -> Edit:
    if command in b"mi":
        (index,) = struct.unpack(">I", data[:4])
        name, value = data[4:].split(b"\0")[:2]
        kind = "change" if command == b"m" else "insert"
        return Edit(kind, name.decode(), value.decode(), index)
    if command == b"h":
        name, value = data.split(b"\0")[:2]
        return Edit("add", name.decode(), value.decode())
    return Edit(command.decode(), "", data.decode("utf-8", "replace"))


def edited(
    fields: Iterable[tuple[str, str]],
    edits: Iterable[Edit],
    *,
    received: tuple[str, str] = ("Received", "from client by mta"),
) -> list[tuple[str, str]]:
    """The header after the edits, as Postfix's cleanup_milter.c makes it.

    The MTA's own Received field stands at the top. A milter does not see it:
    numbers of fields to change leave it out as long as it is the first one,
    while an insertion at 0 goes above it.
    """
    header = [received, *fields]
    for edit in edits:
        if edit.kind == "add":
            header.append((edit.name, edit.value))
        elif edit.kind == "insert":
            header.insert(min(edit.index, len(header)), (edit.name, edit.value))
        else:
            places = [
                place
                for place, (name, _) in enumerate(header)
                if name.rstrip().lower() == edit.name.lower()
                and not (place == 0 and header[0] == received)
            ]
            number = max(edit.index, 1)
            if number > len(places):
                if edit.value:
                    header.append((edit.name, edit.value))
            elif edit.value:
                header[places[number - 1]] = (edit.name, edit.value)
            else:
                del header[places[number - 1]]
    return header
