"""How the values of the configuration are read: words, domains, sockets, networks, tables.

Each parser takes what the file holds and returns the value in its one canonical form, or raises
:class:`ValueError` with a sentence that says what was expected and what was given. :mod:`.fields`
makes of them the types with which the schema declares its keys.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import re
import shlex
from collections.abc import Callable, Container, Mapping
from typing import Any, Final, Literal, TypeVar

from requiretls_milter import model
from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.config.patterns import domain, domain_pattern
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.endpoint import (
    absolute_path,
)
from requiretls_milter.syntax.names import IpNetwork, domain_literal, is_address
from requiretls_milter.syntax.secrecy import without_secrets
from requiretls_milter.syntax.tables import TEXTUAL, split_table
from requiretls_milter.syntax.text import quoted

MAX_TEXT = 4096
"""Characters of a text in the file: as many as a path has."""

MAX_TABLE = 65_536
"""Characters of a lookup table's name: one of type inline has its entries in it."""

MAX_ROUTE = 1000
"""Characters of a transport with its next hop: a next hop has at most 1024."""

MAX_ACCOUNT = 2**32 - 2
"""The largest number of a user or group; the next one stands for "as it is" in chown(2)."""

MILTER_COMMAND_TIMEOUT = 30
"""Seconds: Postfix's default of milter_command_timeout, after which it gives the milter up."""


_TRANSPORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_TABLE_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", re.ASCII)
_LIST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_KEY_PREFIX = re.compile(r"[!-~]{1,100}", re.ASCII)
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}", re.ASCII)  # RFC 5322 section 3.6.8: no colon
# RFC 5321 section 4.1.2: Dot-string, of the 64 octets of section 4.5.3.1.1
_LOCAL_PART = re.compile(
    r"(?=.{1,64}\Z)[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII
)
_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)
_ENVID_MARK = re.compile("(?:[A-Za-z0-9][A-Za-z0-9_-]{0,31})?", re.ASCII)


def command(text: str) -> str:
    """Check a command line: an absolute path, and perhaps arguments.

    Raises:
        ValueError: it is none.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"not a command line: {error}") from error
    if not words or not words[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program")
    return text


def mail_address(text: str) -> str:
    """Check a mail address: a local part without quotes, and a domain.

    Raises:
        ValueError: it is none.
    """
    local, _, host = text.rpartition("@")
    if not _LOCAL_PART.fullmatch(local):
        raise ValueError(
            f"expected a mail address such as postmaster@example.org, got {given(text)}"
        )
    return f"{local}@{domain(host)}"


def time_of_day(text: str) -> str:
    """Check a time of the day.

    Raises:
        ValueError: it is none.
    """
    if not _TIME_OF_DAY.fullmatch(text):
        raise ValueError(f"expected HH:MM, from 00:00 to 23:59, got {given(text)}")
    return text


# ---------------------------------------------------------------- words

WordT = TypeVar("WordT", bound=enum.StrEnum)


def one_of(words: list[str]) -> str:
    """The list of the known words in a sentence: ``"a", "b" or "c"``."""
    listed = [quoted(word) for word in words]
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"


def given(value: object) -> str:
    """What the file holds, as a person would say it; bounded, and without a password."""
    kinds: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number"}
    if isinstance(value, str):
        return f"the text {quoted(without_secrets(value))}"
    if type(value) in kinds:
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        return f"{kinds[type(value)]}, {shown[:60]}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a date or time"


def word(kind: type[WordT], *, but_not: Container[WordT] = ()) -> Callable[[object], WordT]:
    """A parser of the words of *kind* without those in *but_not*."""
    known = [member.value for member in kind if member not in but_not]

    def parse(value: object) -> WordT:
        if isinstance(value, str) and value in known:
            return kind(value)
        near = difflib.get_close_matches(value.lower(), known, 1) if isinstance(value, str) else []
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"expected {one_of(known)}, got {given(value)}{hint}")

    return parse


# ---------------------------------------------------------------- names


def policy_pattern(text: str) -> str:
    """A key of a REQUIRETLS policy table: a domain pattern, ``*``, or an address."""
    if text == "*":
        return text
    return address(text) if is_address(text) else domain_pattern(text)


def lookup_table(text: str) -> str:
    """A lookup table as main.cf names it, ``type:name``; a file has an absolute path."""
    if len(text) > MAX_TABLE:
        raise ValueError(f"at most {MAX_TABLE} characters, got {len(text)}")
    kind, name = split_table(text)
    if not _TABLE_KIND.fullmatch(kind) or not name:
        raise ValueError(f"expected a table as in main.cf (hash:/etc/postfix/x), got {given(text)}")
    if kind in TEXTUAL - {"inline", "static"}:
        absolute_path(name)
    return text


def optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    """A parser that returns the empty text as it is, and what *parse* returns for any other."""
    return lambda text: parse(text) if text else text


def transport(text: str) -> str:
    """The name of a transport of master.cf, or of a mailer of sendmail.cf."""
    if not _TRANSPORT.fullmatch(text):
        raise ValueError(f"expected the name of a transport or mailer, got {given(text)}")
    return text


def group(text: str) -> str:
    """The name of a group of the system, or a number."""
    return _account(text, "group")


def user(text: str) -> str:
    """The name of a user of the system, or a number."""
    return _account(text, "user")


def _account(text: str, what: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise ValueError(f"expected the name of a {what}, got {given(text)}")
    if text.isdecimal() and int(text) > MAX_ACCOUNT:
        raise ValueError(f"expected the number of a {what}, at most {MAX_ACCOUNT}, got {text}")
    return text


NOT_OURS = frozenset(
    name.lower()
    for name in (
        # RFC 5322 section 3.6, RFC 2045, RFC 5321, RFC 8689, signatures and their results
        *("Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Message-ID", "In-Reply-To"),
        *("References", "Subject", "Comments", "Keywords", "Received", "Return-Path"),
        *("Resent-Date", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc"),
        *("Resent-Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
        *("Content-ID", "Content-Description", "Content-Disposition", "Content-Language"),
        *("TLS-Required", "Require-TLS-ESMTP", "Authentication-Results", "Received-SPF"),
        *("DKIM-Signature", "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"),
        *("List-Id", "List-Post", "List-Help", "List-Owner", "List-Archive", "List-Subscribe"),
        *("List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted", "Delivered-To"),
    )
)
"""Header fields with a meaning of their own: fields that have the tag's name are removed."""


def field_name(text: str) -> str:
    """The name of a header field (RFC 5322 section 3.6.8) that the tag may have for itself."""
    if not _FIELD_NAME.fullmatch(text):
        raise ValueError(
            "expected the name of a header field: 1 to 76 printable ASCII characters "
            f"without space and colon, got {given(text)}"
        )
    if text.lower() in NOT_OURS:
        raise ValueError(
            f"{text} has a meaning of its own, and fields of the tag's name are removed "
            "from incoming mail: choose another, such as X-RequireTLS"
        )
    return text


def envid_mark(value: object) -> str:
    """A word that is one token to Sendmail, and itself in xtext (RFC 3461 section 4)."""
    if not isinstance(value, str) or not _ENVID_MARK.fullmatch(value):
        raise ValueError(
            "expected a word of at most 32 letters, digits, '-' and '_', "
            f"or an empty text, got {given(value)}"
        )
    return value


# ---------------------------------------------------------------- addresses, permissions, keys


def address(text: str) -> str:
    """An IP address in the form of :mod:`ipaddress`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"expected an IP address, got {given(text)}") from None


def network(value: object) -> IpNetwork:
    """A network in CIDR notation; an address alone is the network of that address."""
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    try:
        if not isinstance(value, str):
            raise ValueError
        loose = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"expected a network such as 192.0.2.0/24, got {given(value)}") from None
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(f'"{value}" has host bits set; did you mean "{loose}"?') from None


def file_mode(text: str) -> str:
    """Permissions in octal, as chmod takes them: three digits, or four with a leading 0."""
    if not _MODE.fullmatch(text):
        raise ValueError(f'expected permissions in octal such as "0660", got {given(text)}')
    return text.rjust(4, "0")


def key_prefix(text: str) -> str:
    """What each key in Redis begins with: 1 to 100 printable ASCII characters without space."""
    if not _KEY_PREFIX.fullmatch(text):
        raise ValueError(
            f"expected 1 to 100 printable ASCII characters without space, got {given(text)}"
        )
    return text


def wait(value: float) -> float:
    """Seconds that SMTP may wait for us: fewer than the MTA waits for its milters."""
    if value >= MILTER_COMMAND_TIMEOUT:
        raise ValueError(
            f"expected less than {MILTER_COMMAND_TIMEOUT} s, got {value:g}: the MTA gives a "
            "milter up after milter_command_timeout, which is that long by default in Postfix"
        )
    return value


# ---------------------------------------------------------------- tables of [mta] and [rules]

InetProtocol = Literal["ipv4", "ipv6"]

DEFAULT_POLICY: Final = "default"
"""Stands for Postfix's own list of REQUIRETLS policies."""

_policy_word = word(model.RequiretlsPolicy)


def inet_protocols(value: object) -> tuple[InetProtocol, ...]:
    """Address families, each once, IPv4 first."""
    known: tuple[InetProtocol, ...] = ("ipv4", "ipv6")
    listed = value if isinstance(value, (list, tuple)) else ()
    if not listed:
        raise ValueError(f'expected a list of "ipv4", "ipv6" or both, got {given(value)}')
    if any(item not in known for item in listed):
        raise ValueError(
            f'expected only "ipv4" and "ipv6" in the list, got {", ".join(map(str, listed))}'
        )
    return tuple(name for name in known if name in listed)


def requiretls_policy(value: object) -> Any:
    """``default``, one policy for all next hops, or a table of policies by pattern."""
    if value == DEFAULT_POLICY:
        return DEFAULT_POLICY
    if not isinstance(value, dict):
        try:
            return _policy_word(value)
        except ValueError as error:
            raise ValueError(f'{error} ("default" is Postfix\'s own list)') from None
    return _table(value, policy_pattern, _policy_word)


def service(text: str) -> str:
    """The name or number of a service, as it stands behind a host."""
    if not _SERVICE.fullmatch(text):
        raise ValueError(f"expected the name of a service, got {given(text)}")
    return text


def route(text: str) -> str:
    """A transport, a next hop or both, as transport(5) has them: ``smtp:[relay.example]:587``.

    The next hop is not parsed: what it means is up to its transport.
    """
    name, colon, _ = text.partition(":")
    if name:
        transport(name.lstrip())  # a blank before the colon is a part of the name for Postfix
    elif not colon:
        raise ValueError(f'expected "transport:nexthop", got {given(text)}')
    return _printable(text)


def destination(text: str) -> str:
    """A transport, with or without ``:nexthop``: a value of default_transport."""
    if text.startswith(":"):
        raise ValueError(f'expected "transport" or "transport:nexthop", got {given(text)}')
    return route(text)


def relay(text: str) -> str:
    """A next hop as relayhost has it, or DUNNO; not parsed."""
    return _printable(text)


def _printable(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError(f"expected printable ASCII (names as A-labels), got {given(text)}")
    return text.strip()


def route_key(text: str) -> str:
    """A key of transport(5): an address, a domain pattern, ``[192.0.2.1]`` or ``*``; lower case."""
    if text == "*":
        return text
    local, at, host = text.rpartition("@")
    literal = domain_literal(host)
    if not at:
        return literal or domain_pattern(text)
    return f"{local.lower()}@{literal or domain(host)}"


def sender_key(text: str) -> str:
    """A key of a table by sender: an address, ``@domain``, ``<>`` (null sender), ``*`` (any)."""
    if text in ("<>", "*"):
        return text
    if "@" not in text:
        raise ValueError(f'expected an address, "@domain", "<>" or "*", got {given(text)}')
    return route_key(text)


def hand_over_key(text: str) -> str:
    """A transport, or ``user@transport`` for one local part."""
    user, at, name = text.rpartition("@")
    return f"{user.lower()}{at}{transport(name)}"


def table_of(
    parse_key: Callable[[str], str], parse_value: Callable[[str], str]
) -> Callable[[object], dict[str, str]]:
    """A parser of tables of text."""

    def entry(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {given(value)}")
        if len(value) > MAX_ROUTE:
            raise ValueError(f"expected at most {MAX_ROUTE} characters, got {len(value)}")
        return parse_value(value)

    def parse(value: object) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a table, got {given(value)}")
        return _table(value, parse_key, entry)

    return parse


def tls_policy(value: object) -> dict[str, model.TlsPolicy]:
    """A table of next hops and entries as smtp_tls_policy_maps has them."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table, got {given(value)}")
    return _table(value, tlspolicy.key, _tls_policy_entry)


def _tls_policy_entry(value: object) -> model.TlsPolicy:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {given(value)}")
    return tlspolicy.parse(value)


ValueT = TypeVar("ValueT")


class TableError(RequiretlsMilterError, ValueError):
    """Wrong entries of one table.

    Conclude: each of them is a mistake of the configuration.

    Attributes:
        entries: the key of each, as the file has it, and what is wrong.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self.entries = entries
        super().__init__("; ".join(f'"{key}": {why}' for key, why in entries.items()))


def _table(
    raw: Mapping[str, object],
    parse_key: Callable[[str], str],
    parse_value: Callable[[object], ValueT],
) -> dict[str, ValueT]:
    """A table whose keys are canonical and differ; every mistake in it is told."""
    table: dict[str, ValueT] = {}
    mistakes: dict[str, str] = {}
    for text, value in raw.items():
        try:
            if isinstance(value, Mapping):
                raise ValueError(_split_name(text, value))
            key = parse_key(text)
            if key in table:
                raise ValueError(f'"{key}" is given twice')
            table[key] = parse_value(value)
        except ValueError as error:
            mistakes[text] = str(error)
    if mistakes:
        raise TableError(mistakes)
    return table


def _split_name(name: str, value: Mapping[str, object]) -> str:
    """What is wrong with a table where a value belongs: mostly a name without its quotes."""
    inner: object = value
    while isinstance(inner, Mapping) and len(inner) == 1:
        piece, inner = next(iter(inner.items()))
        name += f".{piece}"
    if not isinstance(inner, str):
        return "expected text, got a table"
    return f"a name with dots stands in quotes; write {quoted(name)} = {quoted(inner)}"


def no_twins(value: object) -> object:
    """Refuse two keys that are the same domain, such as Example.org and example.org."""
    if not isinstance(value, dict):
        hint = _LIST_OF_TABLES if isinstance(value, list) else ""
        raise ValueError(f"expected a table, got {given(value)}{hint}")
    seen: dict[str, str] = {}
    twins: dict[str, str] = {}
    for key in value:
        try:
            canonical = domain_pattern(key)
        except ValueError:
            continue  # a mistake of its own, found when the key is validated
        if canonical in seen:
            twins[key] = f'"{seen[canonical]}" and "{key}" are the same domain'
        seen[canonical] = key
    if twins:
        raise TableError(twins)
    return value


_LIST_OF_TABLES = "; each domain has a table with its name, in single brackets"


def list_name(text: str) -> str:
    """The name of a list of domains, which the operator chooses."""
    if not _LIST_NAME.fullmatch(text):
        raise ValueError(
            f"expected a name of at most 64 letters, digits, '-' and '_', got {given(text)}"
        )
    return text


def domain_list(value: object) -> DomainList:
    """The domains of a file, which loading has read; or what a process of the service has sent."""
    if isinstance(value, DomainList):
        return value
    if isinstance(value, Mapping) and {"path", "domains"} <= value.keys():
        return DomainList.from_json(value)
    raise ValueError(f"expected the name of a text file, got {given(value)}")


# ---------------------------------------------------------------- values that stay parsed

ParsedT = TypeVar("ParsedT")


def parsed(kind: type[ParsedT], parse: Callable[[str], ParsedT]) -> Callable[[object], ParsedT]:
    """A validator that parses a text of the file once: the configuration holds a *kind*.

    A value that has been parsed already is taken as it is. With ``PlainSerializer(str)`` beside
    the validator the value is written as text again, which reads back as the same.
    """

    def validate(value: object) -> ParsedT:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {given(value)}")
        if len(value) > MAX_TEXT:
            raise ValueError(f"at most {MAX_TEXT} characters, got {len(value)}")
        return parse(value)

    return validate


def or_none(validate: Callable[[object], ParsedT]) -> Callable[[object], ParsedT | None]:
    """A validator that returns None for the empty text, and what *validate* returns for others."""
    return lambda value: None if value is None or value == "" else validate(value)
