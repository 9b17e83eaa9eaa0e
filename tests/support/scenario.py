"""Delivery scenarios: what is sent, how the next hops behave, what Postfix made of it.

The vocabulary is that of ``tests/data/oracle/scenarios.json`` (its README explains each word),
with a few words more that the recordings did not need; each has a default under which a
recorded scenario means what it meant.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.support.paths import ORACLE

Zone = Literal["sig", "uns", "bogus", "lame", "dead", "sender"]
Kind = Literal["mx", "implicit", "nullmx", "nxdomain", "nodata", "cname", "literal", "literal6"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """What an SMTP server does; the defaults are those of a good one."""

    banner: str = "220"
    """``220`` (a usual one), another reply, ``close`` or ``hang``."""
    ehlo: str = "ok"
    starttls: Literal["offer", "none"] = "offer"
    starttls_reply: str = "220"
    handshake: Literal["ok", "close", "garbage", "hang", "oldproto"] = "ok"
    cert: Literal["match", "wrongname", "expired", "selfsigned", "untrusted", "cnonly"] = "match"
    chain: bool = True
    ehlo_tls: str = "ok"
    requiretls: Literal["none", "plain", "tls", "both", "tls-lower", "tls-param"] = "tls"
    mail_reply: str = "250"
    mail_reply_if: Literal["always", "requiretls"] = "always"
    rcpt_reply: Mapping[str, str] = field(default_factory=dict)
    """Local part to reply."""
    data_reply: str = "250"
    latency: float = 0.0
    """Not recorded: seconds to wait before each answer."""
    security_level: int | None = None
    """Not recorded: OpenSSL's, for a certificate that it would not present by default."""
    name: str = ""
    """Not recorded: what it calls itself, if not by the name of its host."""
    smtputf8: Literal["both", "none", "plain", "tls"] = "both"
    """Not recorded: which EHLO replies offer SMTPUTF8."""
    size: str = "10000000"
    """Not recorded: what follows SIZE; ``none`` if it is not offered."""
    size_tls: str | None = None
    """Not recorded: inside TLS, if not the same."""
    transport: Literal["all", "none"] = "all"
    """Not recorded: whether 8BITMIME and DSN are offered."""


@dataclass(frozen=True)
class Mx:
    """One MX host of a domain, with the server behind it."""

    pref: int = 10
    zone: Zone = "sig"
    tlsa: tuple[str, ...] = ("3 1 1 match",)
    alias: Zone | None = None
    tlsa_at: Literal["rname", "qname"] = "rname"
    host: Literal["normal", "nx", "noaddr", "self", "literal"] = "normal"
    addr: Literal["listen", "refused", "blackhole", "noroute", "downstream", "none"] = "listen"
    """``downstream``, not recorded: the lab's second Postfix, whatever *server* says.
    ``none``, not recorded: no IPv4 address."""
    server: Server = field(default_factory=Server)
    addr6: Literal["none", "listen", "refused"] = "none"
    """Not recorded: whether there is an IPv6 address too, and what is behind it."""
    server6: Server | None = None
    """Not recorded: what is there if it is not the same server."""
    more: tuple[Server, ...] = ()
    """Not recorded: servers behind further IPv4 addresses of this host."""


@dataclass(frozen=True)
class Sts:
    """An MTA-STS policy (RFC 8461), for Postfix's policy table and for the policy host."""

    style: Literal["old", "new"] = "new"
    patterns: tuple[str, ...] = ("@MX1@",)
    mode: Literal["enforce", "testing", "none"] = "enforce"
    """Not recorded, as all that follows: only the policy host says it."""
    max_age: int = 86400
    https: str = "ok"
    """``ok``, a status such as ``404``, ``redirect``, ``hang``, ``close``, ``cut``, ``garbage``,
    ``big``, ``one-too-many``, ``endless``, ``slow-header``, ``slow-body``, ``html``, ``empty``,
    ``binary``, ``gzip``, ``long-header``, or one of the bad certificates ``wrongname``,
    ``expired``, ``selfsigned``, ``untrusted``."""


@dataclass(frozen=True)
class Domain:
    """A recipient domain: ``<id><-suffix>.<zone>.test``."""

    suffix: str = ""
    zone: Zone = "sig"
    kind: Kind = "mx"
    sts: Sts | None = None
    nexthop: str | None = None
    mx: tuple[Mx, ...] = (Mx(),)


@dataclass(frozen=True)
class Message:
    """What is sent."""

    requiretls: bool = True
    tls_required_no: bool = False
    headers: tuple[str, ...] = ()
    rcpts: tuple[str, ...] = ("u",)
    sender: str | None = None
    """None: an ordinary one; "": the null reverse-path."""
    slow: float = 0.0
    """Seconds between MAIL and DATA."""
    parameters: tuple[str, ...] = ()
    """Not recorded: further parameters of MAIL."""
    body: str = "hello\n"
    """Not recorded."""
    declared: bool = False
    """Not recorded: MAIL has SIZE."""


@dataclass(frozen=True)
class Expected:
    """What the log said of one recipient."""

    rcpt: str
    status: str
    dsn: str
    tls: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Scenario:
    """One message and the world that it is sent into."""

    id: str
    profile: str = "dane/enforce"
    domains: tuple[Domain, ...] = (Domain(),)
    message: Message = field(default_factory=Message)
    expected: tuple[Expected, ...] = ()
    mail_requiretls_sent: tuple[bool, ...] = ()
    group: str = ""
    desc: str = ""

    def domain_name(self, domain: Domain) -> str:
        """The name of one of its domains, without a trailing dot."""
        return f"{self.label(domain)}.{domain.zone}.test"

    def label(self, domain: Domain) -> str:
        """The first label of the names of *domain* and of its hosts, in every zone."""
        return f"{self.id}-{domain.suffix}" if domain.suffix else self.id


@dataclass(frozen=True)
class ScenarioFile:
    """A file of scenarios, and the delivery profiles that they name."""

    profiles: Mapping[str, Mapping[str, str]]
    """Name to parameters of Postfix's smtp(8)."""
    scenarios: tuple[Scenario, ...]
    postfix: str = ""
    """The Postfix version that was recorded."""


def load(path: Path = ORACLE) -> ScenarioFile:
    """Read a file of scenarios; an unknown word is an error, not ignored."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return ScenarioFile(
        postfix=data.get("postfix", ""),
        profiles=data["profiles"],
        scenarios=tuple(scenario(item) for item in data["scenarios"]),
    )


def scenario(data: Mapping[str, Any]) -> Scenario:
    """Make a scenario of its JSON form."""
    plain = dict(data)
    plain["domains"] = tuple(_domain(item) for item in data.get("domains", [{}]))
    plain["message"] = _make(Message, data.get("message", {}))
    plain["expected"] = tuple(_make(Expected, item) for item in data.get("expected", ()))
    return _make(Scenario, plain)


def _domain(data: Mapping[str, Any]) -> Domain:
    plain = dict(data)
    plain["sts"] = _make(Sts, data["sts"]) if data.get("sts") else None
    plain["mx"] = tuple(_mx(item) for item in data.get("mx", [{}]))
    return _make(Domain, plain)


def _mx(data: Mapping[str, Any]) -> Mx:
    return _make(Mx, {**data, "server": _make(Server, data.get("server") or {})})


def _make(cls: type[_T], data: Mapping[str, Any]) -> _T:
    known = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown {', '.join(unknown)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
