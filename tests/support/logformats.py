"""One message of a program, as each syslog, journal, container and collector writes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple


class Said(NamedTuple):
    """What a program logged: at *second* of 2026-11-28T10:00Z."""

    program: str
    pid: int
    message: str
    second: int = 0

    @property
    def time(self) -> datetime:
        return datetime(2026, 11, 28, 10, 0, self.second, 250_000, tzinfo=UTC)

    @property
    def rfc3164(self) -> str:
        return f"{self.time:%b %d %H:%M:%S} mx {self.program}[{self.pid}]: {self.message}"

    @property
    def microseconds(self) -> str:
        return str(round(self.time.timestamp() * 1_000_000))


def _json(**fields: object) -> str:
    return json.dumps(fields)


def _go(**fields: object) -> str:
    """JSON as Go's library writes it."""
    text = json.dumps(fields, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _verbose(said: Said) -> bytes:
    return (
        f"{said.time:%a %Y-%m-%d %H:%M:%S}.250000 UTC [s=a1;i=1f;b=b2;m=1;t=2;x=3]\n"
        f"    PRIORITY=6\n    SYSLOG_IDENTIFIER={said.program}\n    MESSAGE={said.message}\n"
    ).encode()


def _export(said: Said, *, binary: bool = False) -> bytes:
    message = said.message.encode()
    text = b"MESSAGE=" + message + b"\n"
    if binary:
        text = b"MESSAGE\n" + struct.pack("<Q", len(message)) + message + b"\n"
    return (
        f"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP={said.microseconds}\n"
        f"__MONOTONIC_TIMESTAMP=1\nPRIORITY=6\n".encode()
        + text
        + f"SYSLOG_IDENTIFIER={said.program}\n_PID={said.pid}\n\n".encode()
    )


TEXT: dict[str, Callable[[Said], str]] = {
    "rfc3164": lambda said: said.rfc3164,
    "rfc3164 with priority": lambda said: f"<22>{said.rfc3164}",
    "rfc3164 from a collector's file": lambda said: f"mail.log.1:{said.rfc3164}",
    "rfc3164 without pid": lambda said: (
        f"{said.time:%b %d %H:%M:%S} mx {said.program}: {said.message}"
    ),
    "rfc3164 without a blank after the tag": lambda said: (
        f"{said.time:%b %d %H:%M:%S} mx {said.program}[{said.pid}]:{said.message}"
    ),
    "rfc3164 with Solaris' message ID": lambda said: (
        f"{said.time:%b %d %H:%M:%S} mx {said.program}[{said.pid}]: [ID 197553 mail.info] "
        f"{said.message}"
    ),
    "rfc3164 of busybox": lambda said: (
        f"{said.time:%b %d %H:%M:%S} mx mail.info {said.program}[{said.pid}]: {said.message}"
    ),
    "rfc3164 of FreeBSD": lambda said: (
        f"{said.time:%b %d %H:%M:%S} <mail.info> mx {said.program}[{said.pid}]: {said.message}"
    ),
    "socklog": lambda said: f"{said.time:%Y-%m-%d_%H:%M:%S}.25000 mail.info: {said.rfc3164}",
    "csv of splunk": lambda said: f'"{said.time.isoformat()}",mx,{_csv(said.rfc3164)},syslog',
    "csv of kibana": lambda said: (
        f'"{said.time:%b %d %Y %H:%M:%S}.250","{said.program}",{said.pid},{_csv(said.message)}'
    ),
    "csv of loki": lambda said: f"{said.microseconds}000,{_csv(said.rfc3164)}",
    "jq": lambda said: json.dumps(said.rfc3164),
    "rfc3164 of another language": lambda said: (
        f"Απρ {said.time:%d %H:%M:%S} mx {said.program}[{said.pid}]: {said.message}"
    ),
    "rfc5424": lambda said: (
        f"<22>1 {said.time.isoformat()} mx {said.program} {said.pid} - - {said.message}"
    ),
    "rfc5424 with structured data": lambda said: (
        f'<22>1 {said.time.isoformat()} mx {said.program} - ID47 [a@32473 b="c: \\"d\\"" e="f"]'
        f'[g@32473 h="(i)"] \N{BYTE ORDER MARK}{said.message}'
    ),
    "rfc5424 with octet count": lambda said: (
        f"321 <22>1 {said.time.isoformat()} mx {said.program} {said.pid} - -  {said.message}"
    ),
    "iso": lambda said: f"{said.time.isoformat()} mx {said.program}[{said.pid}]: {said.message}",
    "journald short-iso": lambda said: (
        f"{said.time:%Y-%m-%dT%H:%M:%S%z} mx {said.program}[{said.pid}]: {said.message}"
    ),
    "journald short-full": lambda said: (
        f"{said.time:%a %Y-%m-%d %H:%M:%S} UTC mx {said.program}[{said.pid}]: {said.message}"
    ),
    "journald short-unix": lambda said: (
        f"{said.time.timestamp():.6f} mx {said.program}[{said.pid}]: {said.message}"
    ),
    "journald short-monotonic": lambda said: (
        f"[{said.second:5}.250000] mx {said.program}[{said.pid}]: {said.message}"
    ),
    "journald cat": lambda said: said.message,
    "journald json": lambda said: _json(
        __CURSOR="s=1",
        __REALTIME_TIMESTAMP=said.microseconds,
        SYSLOG_IDENTIFIER=said.program,
        MESSAGE=said.message,
    ),
    "journald json of octets": lambda said: _json(
        __REALTIME_TIMESTAMP=said.microseconds, MESSAGE=list(said.message.encode())
    ),
    "journald json-sse": lambda said: "data: " + _json(MESSAGE=said.message) + "\n",
    "journald json-seq": lambda said: "\x1e" + _json(MESSAGE=said.message),
    "journald json-pretty": lambda said: json.dumps(
        {"__REALTIME_TIMESTAMP": said.microseconds, "MESSAGE": said.message}, indent="\t"
    ),
    "docker": lambda said: _go(
        log=f"{said.rfc3164}\n", stream="stderr", time=f"{said.time:%Y-%m-%dT%H:%M:%S}.25Z"
    ),
    "kubernetes": lambda said: f"{said.time:%Y-%m-%dT%H:%M:%S}.250000000Z stdout F {said.rfc3164}",
    "kubectl logs --prefix": lambda said: f"[pod/mail-0/postfix] {said.rfc3164}",
    "docker compose": lambda said: f"smtp-1  | {said.rfc3164}",
    "docker compose in colour": lambda said: f"\x1b[36msmtp-1  | \x1b[0m{said.rfc3164}",
    "docker compose without more": lambda said: f"smtp_1       | {said.message}",
    "promtail": lambda said: f"{said.time.isoformat()} [1:mail1:{said.program}] {said.message}",
    "logcli": lambda said: f'{said.time.isoformat()} {{app="postfix", host="mx"}} {said.rfc3164}',
    "logcli of objects": lambda said: _go(
        labels={"app": "postfix"}, line=said.rfc3164, timestamp=said.time.isoformat()
    ),
    "fluentd": lambda said: (
        f"{said.time:%Y-%m-%d %H:%M:%S}.250000000 +0000 mail.info: "
        + _json(host="mx", ident=said.program, pid=str(said.pid), message=said.message)
    ),
    "fluentd's file": lambda said: (
        f"{said.time.isoformat()}\tmail\t" + _json(ident=said.program, message=said.message)
    ),
    "fluent-bit": lambda said: _json(date=said.time.timestamp(), log=said.rfc3164),
    "rsyslog json": lambda said: _json(
        **{"@timestamp": said.time.isoformat(), "syslog-tag": f"{said.program}[{said.pid}]:"},
        message=f" {said.message}",
    ),
    "syslog-ng json": lambda said: _json(
        PROGRAM=said.program, PID=said.pid, MESSAGE=said.message, DATE=f"{said.time:%b %d %H:%M:%S}"
    ),
    "logfmt of a collector": lambda said: (
        f'ts={said.time.isoformat()} level=info host="m x" '
        f'msg="{_escaped(said.rfc3164)}" component=tail'
    ),
    "gelf": lambda said: _json(
        version="1.1", host="mx", short_message=said.message, timestamp=said.time.timestamp()
    ),
    "elasticsearch": lambda said: _json(
        _index="mail",
        _source={"@timestamp": said.time.isoformat(), "event": {"original": said.rfc3164}},
    ),
    "google cloud": lambda said: _json(
        textPayload=said.rfc3164, timestamp=said.time.isoformat(), insertId="x"
    ),
    "cloudwatch": lambda said: _json(
        eventId="1", message=said.rfc3164, timestamp=round(said.time.timestamp() * 1000)
    ),
    "vector in journald in docker": lambda said: _go(
        log=_json(MESSAGE=_json(message=said.rfc3164, source_type="syslog")) + "\n"
    ),
}
"""One line each, by the name of the format."""


def _as_line(form: Callable[[Said], str]) -> Callable[[Said], bytes]:
    return lambda said: form(said).encode() + b"\n"


FORMATS: dict[str, Callable[[Said], bytes]] = {
    **{name: _as_line(form) for name, form in TEXT.items()},
    "journald verbose": _verbose,
    "journald export": _export,
    "journald export of octets": lambda said: _export(said, binary=True),
}
"""All formats, with the ends of lines."""
