"""Endpoints: ADDRESS:PORT, the socket of a milter, the URL of a store.

Each notation has a type and a function that reads it. ``str()`` of a value is its canonical text,
which reads back as the same value. Text that is not in the notation raises :class:`EndpointError`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from pathlib import PurePosixPath
from typing import NamedTuple

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.names import is_address, to_alabel
from requiretls_milter.syntax.secrecy import MASK
from requiretls_milter.syntax.text import quoted

DNS_PORT = 53
"""RFC 1035 section 4.2."""

CACHED_ADDRESSES = 64
"""Addresses of which it is remembered whether only this host reaches them."""

MAX_PORT = 65535
"""A port has 16 bits (RFC 9293 section 3.1)."""

MAX_PATH = 4095
"""Bytes of a path: PATH_MAX of Linux, less the final NUL."""

MAX_UNIX_PATH = 107
"""Bytes of the path of a unix socket: sun_path of unix(7), less the final NUL."""

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_REDIS_URL = re.compile(
    r"rediss?://"
    r"(?:[!-.0->A-~]*@)?"  # user and password, percent-encoded: no slash, question mark or at sign
    r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    r"(?:/[0-9]{0,5})?"
    r"(?:\?(?P<query>[!-~]+))?",
    re.ASCII,
)
_VERIFIED = {"ssl_cert_reqs": ("required",), "ssl_check_hostname": ("true", "yes", "1")}
"""What the query may say of the verification of a Redis over TLS, in any case of letters."""

_FIXED = frozenset(
    {
        *("client_name", "connection_class", "decode_responses", "encoding", "encoding_errors"),
        *("health_check_interval", "host", "max_connections", "parser_class", "path", "port"),
        *("protocol", "retry", "retry_on_error", "retry_on_timeout", "socket_connect_timeout"),
        *("socket_read_size", "socket_timeout", "timeout"),
    }
)
"""Parameters of redis-py that decide how long mail waits and what is read: the store sets them."""

_USER_AND_PASSWORD = re.compile(r"(?<=://)([^:@/]*:)[^@/]+(?=@)")
_PERCENT = re.compile("%([0-9A-Fa-f]{2})")
_SCHEME = re.compile("[a-z]+://|rediss?:/?")
_NO_PORT = re.compile("(rediss?:/{0,2}[^:/]*:)(?![0-9]*(?:/|$)).*", re.DOTALL)


class EndpointError(RequiretlsMilterError, ValueError):
    """Text that is not an endpoint of the expected kind; the message says what was expected.

    Conclude: the configuration, or an argument of a command, has a mistake.
    """


# ---------------------------------------------------------------- ports and paths


def port_number(text: str) -> int | None:
    """The port in *text*, 1 to 65535 in decimal digits; None if it is not one."""
    number = int(text) if _PORT.fullmatch(text) else 0
    return number if 1 <= number <= MAX_PORT else None


def absolute_path(text: str) -> str:
    """Return an absolute path without needless slashes and dots; raises EndpointError."""
    if not text.startswith("/") or "\0" in text or len(text.encode(errors="replace")) > MAX_PATH:
        raise EndpointError(f"expected an absolute path, got the text {quoted(text)}")
    return str(PurePosixPath(text))


def unix_path(text: str) -> str:
    """Return an absolute path that fits into a socket address; raises EndpointError."""
    path = absolute_path(text)
    if len(path.encode(errors="replace")) > MAX_UNIX_PATH:
        raise EndpointError(f"the path of a unix socket has at most {MAX_UNIX_PATH} bytes")
    return path


def _port(text: str) -> int:
    port = port_number(text)
    if port is None:
        raise EndpointError(f"expected a port from 1 to {MAX_PORT}, got the text {quoted(text)}")
    return port


def without_brackets(text: str) -> str:
    """*text* without the brackets around all of it, if it has them."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def in_brackets(host: str) -> str:
    """*host* in the form that it has before a port."""
    return f"[{host}]" if ":" in host else host


# ---------------------------------------------------------------- ADDRESS:PORT


class Endpoint(NamedTuple):
    """An IP address, in :mod:`ipaddress`' form, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        """``192.0.2.1:53`` or ``[2001:db8::1]:53``."""
        return f"{in_brackets(self.address)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return is_loopback(self.address)


@functools.lru_cache(CACHED_ADDRESSES)
def is_loopback(address: str) -> bool:
    """Whether only this host reaches an address; raises ValueError if it is none.

    Versions of Python differ in whether 127.0.0.1 written as an IPv6 address is loopback.
    """
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def parse_endpoint(text: str, default_port: int = 0) -> Endpoint:
    """Read ``ADDRESS:PORT``, with an IPv6 address in brackets.

    Args:
        text: what the operator wrote.
        default_port: the port if *text* is only an address, with or without brackets; 0: *text*
            must have a port.

    Raises:
        EndpointError: *text* is neither.
    """
    alone = without_brackets(text)
    if default_port and is_address(alone):
        return Endpoint(str(ipaddress.ip_address(alone)), default_port)
    host, _, port = text.rpartition(":")
    bare = without_brackets(host)
    if not is_address(bare) or (":" in bare and bare == host):
        wanted = "ADDRESS, ADDRESS:PORT" if default_port else "ADDRESS:PORT"
        raise EndpointError(f"expected {wanted} or [IPV6ADDRESS]:PORT, got the text {quoted(text)}")
    return Endpoint(str(ipaddress.ip_address(bare)), _port(port))


class Nameserver(Endpoint):
    """A resolver: an endpoint, written without its port if that is 53."""

    def __str__(self) -> str:
        """``192.0.2.1``; ``192.0.2.1:5353`` if the port is not 53."""
        return self.address if self.port == DNS_PORT else super().__str__()


def parse_nameserver(text: str) -> Nameserver:
    """Read ``ADDRESS`` or ``ADDRESS:PORT`` of a resolver; raises EndpointError."""
    return Nameserver(*parse_endpoint(text, DNS_PORT))


# ---------------------------------------------------------------- a milter's socket


class MilterSocket(NamedTuple):
    """Where the milter listens.

    Attributes:
        family: ``unix``, ``inet`` or ``inet6``.
        path: of family ``unix``.
        host: of the other families, an A-label or an address.
        port: of the other families.
    """

    family: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """The form that libmilter takes (smfi_setconn)."""
        if self.family == "unix":
            return f"unix:{self.path}"
        return f"{self.family}:{self.port}@{in_brackets(self.host)}"


def parse_milter_socket(text: str) -> MilterSocket:
    """Read the socket of a milter, in the notation of libmilter (smfi_setconn).

    Raises:
        EndpointError: *text* is not a socket, or has a relative path.
        DomainNameError: the host of an inet socket is neither a name nor an address.
    """
    family, _, rest = text.partition(":")
    if family in ("unix", "local"):
        if not rest.startswith("/"):
            raise EndpointError(
                "expected unix:/ABSOLUTE/PATH (a path relative to the queue directory is for "
                f"Postfix's main.cf only), got the text {quoted(text)}"
            )
        return MilterSocket("unix", path=unix_path(rest))
    port, at, host = rest.partition("@")
    if family not in ("inet", "inet6") or not at or not host:
        raise EndpointError(
            f"expected unix:/PATH, inet:PORT@HOST or inet6:PORT@HOST, got the text {quoted(text)}"
        )
    number = _port(port)
    bare = without_brackets(host)
    if not is_address(bare):
        return MilterSocket(family, host=to_alabel(host), port=number)
    address = ipaddress.ip_address(bare)
    if (address.version == 6) != (family == "inet6"):
        raise EndpointError(
            f"{bare} is an IPv{address.version} address, but the family is {family}"
        )
    return MilterSocket(family, host=str(address), port=number)


# ---------------------------------------------------------------- the store


class StoreUrl(NamedTuple):
    """Where state is kept.

    Attributes:
        kind: ``memory``, ``sqlite`` or ``redis``.
        text: the URL as it was given, with the password of a Redis.
        path: the file of ``sqlite``.
    """

    kind: str
    text: str
    path: str = ""

    def __str__(self) -> str:
        """The URL as it was given."""
        return self.text

    def __repr__(self) -> str:
        """The URL without passwords: a representation ends up in logs."""
        return f"StoreUrl({self.masked!r})"

    @property
    def masked(self) -> str:
        """The URL with MASK in the place of each password, in the query too.

        It is a URL of a store again. The user's name is no secret.
        """
        if self.kind != "redis":
            return self.text
        head, mark, query = self.text.partition("?")
        head = _USER_AND_PASSWORD.sub(rf"\1{MASK}", head)
        return head + mark + "&".join(map(_masked_parameter, query.split("&")))

    @property
    def has_password(self) -> bool:
        """Whether there is anything to mask."""
        return self.kind == "redis" and MASK in self.masked

    @property
    def crosses_network_in_clear(self) -> bool:
        """Whether what is kept goes to another host without TLS."""
        found = _REDIS_URL.fullmatch(self.text)
        if found is None or self.text.startswith("rediss://"):
            return False
        host = without_brackets(found["host"])
        if is_address(host):
            return not ipaddress.ip_address(host).is_loopback
        return host.lower().rstrip(".") != "localhost"

    @property
    def is_masked(self) -> bool:
        """Whether all that stands in the place of a password is MASK."""
        return self.has_password and self.masked == self.text


def parse_store_url(text: str) -> StoreUrl:
    """Read the URL of a store.

    Raises:
        EndpointError: *text* is not such a URL, or its query switches off what this program
            relies on; the message has neither user nor password.
    """
    if text == "memory:":
        return StoreUrl("memory", text)
    if text.startswith("sqlite://"):
        return StoreUrl("sqlite", text, absolute_path(text.removeprefix("sqlite://")))
    redis = _REDIS_URL.fullmatch(text)
    if redis:
        for parameter in re.split("[&;]", redis["query"] or ""):
            _require_sound(parameter)
        return StoreUrl("redis", text)
    raise EndpointError(
        'expected "memory:", "sqlite:///ABSOLUTE/PATH", "redis://HOST:PORT/DB" or '
        f'"rediss://HOST:PORT/DB" (TLS), got the text {quoted(_without_password(text))}'
    )


def _require_sound(parameter: str) -> None:
    """Refuse a part of the query that weakens TLS, or sets what the store sets itself."""
    name, _, value = _decoded(parameter).partition("=")
    allowed = _VERIFIED.get(name)
    if allowed and value.lower() not in allowed:
        raise EndpointError(
            f"{name} cannot be changed: with rediss:// certificate and name are always verified "
            "(ssl_ca_certs names a private authority)"
        )
    if name in _FIXED:
        raise EndpointError(f"{name} cannot be changed: leave it out")


def _decoded(text: str) -> str:
    return _PERCENT.sub(lambda found: chr(int(found[1], 16)), text)


def _masked_parameter(parameter: str) -> str:
    """A part of the query such as ``ssl_password=...``, its name percent-encoded or not."""
    name, _, value = parameter.partition("=")
    decoded = _decoded(parameter)
    return f"{name}={MASK}" if value and "pass" in decoded.lower() else parameter


def _without_password(url: str) -> str:
    """*url*, which is none, as it may stand in a log: without user, password and query."""
    before, at, host = url.rpartition("@")
    if not at:
        return _NO_PORT.sub(r"\1...", url.partition("?")[0])
    scheme = _SCHEME.match(before)
    # With a question mark before the at sign either may belong to the password.
    shown = "" if "?" in before else f"@{host.partition('?')[0]}"
    return f"{scheme[0] if scheme else ''}...{shown}"
