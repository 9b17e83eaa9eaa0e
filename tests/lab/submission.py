"""Handing a scenario's message to an MTA, as a mail user's program would."""

from __future__ import annotations

import re
import smtplib
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

SENDER = "s@sender.test"


@dataclass(frozen=True)
class Credentials:
    """For submission (RFC 6409)."""

    user: str
    password: str


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    code: int
    text: str


@dataclass(frozen=True)
class Accepted:
    """A message that the MTA took."""

    queue_id: str
    refused: dict[str, Reply]
    """Recipients that it did not take."""


class Refused(LabError):
    """The MTA did not take the message, or none of its recipients."""

    def __init__(self, stage: str, reply: Reply, rcpts: dict[str, Reply]) -> None:
        """*stage* is where: ``connect``, ``ehlo``, ``starttls``, ``auth``, ``mail``, ``rcpt``,
        ``data``; *rcpts* are the replies to the recipients that were refused.
        """
        super().__init__(f"{stage}: {reply.code} {reply.text}")
        self.stage = stage
        self.reply = reply
        self.rcpts = rcpts


def message(
    subject: str, recipients: Sequence[str], *, headers: Sequence[str] = (), body: str = "hello\n"
) -> str:
    """A small message."""
    lines = [
        f"From: <{SENDER}>",
        f"To: {', '.join(f'<{item}>' for item in recipients)}",
        f"Subject: {subject}",
        *headers,
        "",
        body,
    ]
    return "\n".join(lines).replace("\n", "\r\n")


def send(
    address: str,
    recipients: Sequence[str],
    text: str,
    *,
    ca_file: Path,
    port: int = 25,
    sender: str = SENDER,
    parameters: Sequence[str] = (),
    credentials: Credentials | None = None,
    tls: bool = True,
    slow: float = 0.0,
    timeout: float = 120.0,
) -> Accepted:
    """Send one message; *parameters* are those of MAIL, e.g. ``REQUIRETLS``.

    *slow* seconds pass between MAIL and DATA.  smtplib's own sendmail() is too helpful here: it
    hides the queue ID and gives up where one recipient's refusal is the point.
    """
    with session(
        address, ca_file=ca_file, port=port, credentials=credentials, tls=tls, timeout=timeout
    ) as smtp:
        return transact(smtp, recipients, text, sender=sender, parameters=parameters, slow=slow)


def transact(
    smtp: smtplib.SMTP,
    recipients: Sequence[str],
    text: str,
    *,
    sender: str = SENDER,
    parameters: Sequence[str] = (),
    slow: float = 0.0,
) -> Accepted:
    """Send one message in an open session; as for :func:`send`."""
    if not f"{sender}{recipients}".isascii():
        smtp.command_encoding = "utf-8"
    _require(smtp.docmd("MAIL", f"FROM:<{sender}> {' '.join(parameters)}".rstrip()), "mail")
    time.sleep(slow)
    refused = {}
    for recipient in recipients:
        reply = _reply(smtp.docmd("RCPT", f"TO:<{recipient}>"))
        if reply.code != 250:
            refused[recipient] = reply
    if len(refused) == len(recipients):
        raise Refused("rcpt", next(iter(refused.values())), refused)
    reply = _require(smtp.data(re.sub("\r?\n", "\r\n", text).encode()), "data", refused)
    match = re.search(r"(?:queued as |^2\.0\.0 )(\S+)(?:$| Message accepted)", reply.text)
    return Accepted(match[1] if match else "", refused)


@contextmanager
def session(
    address: str,
    *,
    ca_file: Path,
    port: int = 25,
    credentials: Credentials | None = None,
    tls: bool = True,
    source: str = "",
    timeout: float = 120.0,
) -> Iterator[smtplib.SMTP]:
    """An SMTP session that is ready for MAIL; *source* is the client's own address."""
    with _connect(address, port, source, timeout) as smtp:
        _require(smtp.ehlo(), "ehlo")
        if tls:
            context = ssl.create_default_context(cafile=str(ca_file))
            context.check_hostname = False  # we connect by address
            try:
                smtp.starttls(context=context)
            except smtplib.SMTPResponseException as error:
                raise _refused("starttls", error) from error
            _require(smtp.ehlo(), "ehlo")
        if credentials is not None:
            try:
                smtp.login(credentials.user, credentials.password)
            except smtplib.SMTPResponseException as error:
                raise _refused("auth", error) from error
        yield smtp


def _connect(address: str, port: int, source: str, timeout: float) -> smtplib.SMTP:
    try:
        return smtplib.SMTP(
            address,
            port,
            local_hostname="client.sender.test",
            timeout=timeout,
            source_address=(source, 0) if source else None,
        )
    except smtplib.SMTPResponseException as error:
        raise _refused("connect", error) from error


def _refused(stage: str, error: smtplib.SMTPResponseException) -> Refused:
    text = error.smtp_error
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return Refused(stage, Reply(error.smtp_code, text), {})


def _reply(answer: tuple[int, bytes]) -> Reply:
    return Reply(answer[0], answer[1].decode("utf-8", "replace"))


def _require(
    answer: tuple[int, bytes], stage: str, refused: dict[str, Reply] | None = None
) -> Reply:
    reply = _reply(answer)
    if reply.code != 250:
        raise Refused(stage, reply, refused or {})
    return reply
