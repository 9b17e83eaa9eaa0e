"""An SMTP server that takes all mail and keeps it, or puts it off."""

from __future__ import annotations

import asyncio
import email
import email.policy
from email.message import EmailMessage


class Mailbox:
    """``async with Mailbox() as box:`` keeps what comes in ``mails``, parsed.

    With ``busy`` set it answers MAIL by 451.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, tuple[str, ...]]] = []
        self.refused = 0
        self.busy = False
        self.port = 0
        self._sessions: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Mailbox:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        # What is open when the event loop ends is told of a later test, whichever that is.
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        assert session is not None
        self._sessions.add(session)
        try:
            await self._dialogue(reader, writer)
        finally:
            self._sessions.discard(session)
            writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 box.test ESMTP\r\n")
        sender = ""
        recipients: list[str] = []
        while line := await reader.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            reply = "250 ok"
            if verb.upper() == "MAIL":
                sender, recipients = rest[len("FROM:") :].split()[0], []
                if self.busy:
                    self.refused += 1
                    reply = "451 4.3.0 later"
            elif verb.upper() == "RCPT":
                recipients.append(rest[len("TO:") :])
            elif verb.upper() == "DATA":
                writer.write(b"354 go on\r\n")
                text = b""
                while (line := await reader.readline()) not in (b".\r\n", b""):
                    text += line
                self.envelopes.append((sender, tuple(recipients)))
                self.mails.append(email.message_from_bytes(text, policy=email.policy.default))
            elif verb.upper() == "QUIT":
                reply = "221 bye"
            writer.write(f"{reply}\r\n".encode())
            if verb.upper() == "QUIT":
                break
