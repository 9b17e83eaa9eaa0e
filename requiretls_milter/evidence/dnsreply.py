"""Reads a reply of a name server: only what counts for the question. Pure.

A reply brings signatures, proofs and addresses that nothing here reads. To make objects of them
takes most of the time of a lookup, so they are stepped over: of the answer only the records of the
type that was asked for and the aliases are read, of the authority section only the SOA. The octets
of names and records are read by dnspython. What is read is what dnspython's own messages have
(RFC 1035 section 4, RFC 2308 section 5), shown by a fuzzer that compares the two.

The octets come from strangers, by way of the resolver: whatever is malformed raises
:class:`DnsReplyError`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from requiretls_milter.errors import RequiretlsMilterError

MAX_CHAIN = 16
"""Aliases that are followed within one reply, as dnspython does."""

NO_SOA_TTL = dns.message.NEGATIVE_TTL_WITHOUT_SOA
"""Seconds for which a negative answer without a SOA is kept, where RFC 2308 would not keep it."""

_READ = (
    *(dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME, dns.rdatatype.MX),
    *(dns.rdatatype.NS, dns.rdatatype.SOA, dns.rdatatype.SRV, dns.rdatatype.TLSA),
    dns.rdatatype.TXT,
)
"""Record types whose content is read. dnspython loads the class of a type when it meets the first
record of it. If that record were of class ANY, which a hostile server may send, the type would be
opaque in class IN too until the process ends. So these types are loaded before any reply."""

for _rdtype in _READ:
    cast(Any, dns.rdata.get_rdata_class)(dns.rdataclass.IN, _rdtype)

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_TYPE_AND_CLASS = struct.Struct("!HH")

_QUESTION_AT = 12
"""Where the question's name stands: right behind the header."""

_TO_QUESTION = b"\xc0\x0c"
"""The compressed name that is the question's (RFC 1035 section 4.1.4)."""

_MAX_TTL = 0x7FFFFFFF
"""A larger TTL counts as 0 (RFC 2181 section 8)."""

_ERRORS = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})
"""With these a server may leave out the question."""


class DnsReplyError(RequiretlsMilterError):
    """Octets are no reply to the question, or a malformed one.

    Conclude: the server has not answered.
    """


class TruncatedError(RequiretlsMilterError):
    """The reply is truncated (RFC 2181 section 9).

    Conclude: TCP has the whole one.
    """


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """What is asked of a name server, always in class IN."""

    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType

    def to_wire(self) -> bytes:
        """The question section."""
        name = cast(bytes, self.name.to_wire())
        return name + _TYPE_AND_CLASS.pack(self.rdtype, dns.rdataclass.IN)


@dataclass(frozen=True, slots=True)
class DnsReply:
    """A reply: where its chain of aliases ends and what stands there.

    Attributes:
        rcode: the extended one (RFC 6891 section 6.1.3).
        ad: the AD bit.
        canonical: the name at the end of the chain.
        alias_ttls: the TTL of each alias of the chain.
        rdatas: the records of the type that was asked for; None if there are none.
        minimum_ttl: seconds; the shortest of the chain, of the records, and of the SOA of a
            negative answer (RFC 2308 section 5).
    """

    rcode: dns.rcode.Rcode
    ad: bool
    canonical: dns.name.Name
    alias_ttls: tuple[int, ...] = ()
    rdatas: tuple[dns.rdata.Rdata, ...] | None = None
    minimum_ttl: int = _MAX_TTL


def read_reply(wire: bytes, question: DnsQuestion) -> DnsReply:
    """Read a reply.

    Args:
        wire: a whole message.
        question: what was asked.

    Raises:
        TruncatedError: it is a truncated reply to the question.
        DnsReplyError: it is none, or malformed.
    """
    try:
        return _read(wire, question)
    except (dns.exception.DNSException, struct.error, IndexError, ValueError) as error:
        raise DnsReplyError(str(error) or type(error).__name__) from error


def _read(wire: bytes, question: DnsQuestion) -> DnsReply:
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if not flags & dns.flags.QR or dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        raise DnsReplyError("not a reply")
    parser = dns.wire.Parser(wire, _QUESTION_AT)
    if questions or (flags & 0xF) not in _ERRORS:
        _compare_question(parser, questions, question)
    if flags & dns.flags.TC:
        raise TruncatedError("truncated")
    sets = _Sets(parser)
    sets.read(answers, question.name, (question.rdtype, dns.rdatatype.CNAME))
    found, sets.found = sets.found, {}
    sets.read(authorities, question.name, (dns.rdatatype.SOA,))
    extended = _skip_additional(parser, additionals)
    if parser.remaining():
        raise DnsReplyError("octets behind the last record")
    rcode = dns.rcode.from_flags(flags, extended)
    ad = bool(flags & dns.flags.AD)
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return DnsReply(rcode, ad, question.name)
    return _follow(question, rcode, ad, found, sets.found)


def _compare_question(parser: dns.wire.Parser, count: int, question: DnsQuestion) -> None:
    """Read the question section and compare it with what was asked, letters of any case."""
    if count != 1:
        raise DnsReplyError("a reply with several questions, or with none")
    name = parser.get_name(decompress=True)
    rdtype, rdclass = parser.get_struct("!HH")
    if (name, rdtype, rdclass) != (question.name, question.rdtype, dns.rdataclass.IN):
        raise DnsReplyError("a reply to another question")


@dataclass(slots=True)
class _RecordSet:
    """Records of one name and type: each once, and their shortest TTL."""

    ttl: int
    rdatas: dict[dns.rdata.Rdata, None]


_Key = tuple[dns.name.Name, int]


class _Sets:
    """The record sets of a section that count."""

    def __init__(self, parser: dns.wire.Parser) -> None:
        self._parser = parser
        self.found: dict[_Key, _RecordSet] = {}

    def read(self, count: int, asked: dns.name.Name, types: tuple[int, ...]) -> None:
        """Read a section of *count* records, and keep the records of these types of class IN."""
        parser = self._parser
        wire = parser.wire
        # The first octets behind the header are the question's name only if there is a question.
        to_question = _TO_QUESTION if wire[4:6] == b"\0\1" else b""
        for _ in range(count):
            at = parser.current
            _skip_name(parser)
            rdtype, rdclass, ttl, length = _RECORD.unpack(parser.get_bytes(_RECORD.size))
            if rdtype in (dns.rdatatype.OPT, dns.rdatatype.TSIG):
                raise DnsReplyError("a record that stands in the additional section only")
            if rdtype not in types or rdclass != dns.rdataclass.IN:
                parser.get_bytes(length)
                continue
            name = asked if wire[at : at + 2] == to_question else _name_at(wire, at)
            with parser.restrict_to(length):
                rdata = dns.rdata.from_wire_parser(
                    dns.rdataclass.IN, dns.rdatatype.RdataType.make(rdtype), cast(Any, parser)
                )
            self._add((name, rdtype), rdata, 0 if ttl > _MAX_TTL else ttl)

    def _add(self, key: _Key, rdata: dns.rdata.Rdata, ttl: int) -> None:
        known = self.found.get(key)
        if known is None:
            self.found[key] = _RecordSet(ttl, {rdata: None})
            return
        known.ttl = min(known.ttl, ttl)
        if dns.rdatatype.is_singleton(rdata.rdtype):
            known.rdatas.clear()
        known.rdatas[rdata] = None


def _name_at(wire: bytes, at: int) -> dns.name.Name:
    return dns.wire.Parser(wire, at).get_name(decompress=True)


def _skip_name(parser: dns.wire.Parser) -> None:
    """Step over a name; what a pointer points to is not looked at (RFC 1035 section 4.1.4)."""
    wire, at = parser.wire, parser.current
    while True:
        length = wire[at]
        if length >= 0xC0:
            at += 2
            break
        if length >= 0x40:
            raise DnsReplyError("a label of an unknown kind")
        at += 1 + length
        if length == 0:
            break
    parser.seek(at)


def _skip_additional(parser: dns.wire.Parser, count: int) -> int:
    """Step over the additional section; return the TTL field of its OPT record, or 0 (RFC 6891)."""
    extended = None
    for _ in range(count):
        root = parser.wire[parser.current] == 0
        _skip_name(parser)
        rdtype, _, ttl, length = _RECORD.unpack(parser.get_bytes(_RECORD.size))
        parser.get_bytes(length)
        if rdtype == dns.rdatatype.TSIG:
            raise DnsReplyError("signed with a key that is not known")
        if rdtype == dns.rdatatype.OPT:
            if extended is not None or not root:
                raise DnsReplyError("several OPT records, or one with a name")
            extended = int(ttl)
    return extended or 0


def _follow(
    question: DnsQuestion,
    rcode: dns.rcode.Rcode,
    ad: bool,
    answer: Mapping[_Key, _RecordSet],
    authority: Mapping[_Key, _RecordSet],
) -> DnsReply:
    """Follow the chain of aliases to what it ends with."""
    name = question.name
    alias_ttls: list[int] = []
    while True:
        records = answer.get((name, question.rdtype))
        if records is not None or question.rdtype == dns.rdatatype.CNAME:
            break
        alias = answer.get((name, dns.rdatatype.CNAME))
        if alias is None:
            break
        alias_ttls.append(alias.ttl)
        name = cast(Any, next(iter(alias.rdatas))).target
        if len(alias_ttls) >= MAX_CHAIN:
            raise DnsReplyError("a chain of too many aliases")
    if records is not None:
        if rcode == dns.rcode.NXDOMAIN:
            raise DnsReplyError("NXDOMAIN with an answer")
        minimum = min([records.ttl, *alias_ttls])
        return DnsReply(rcode, ad, name, tuple(alias_ttls), tuple(records.rdatas), minimum)
    minimum = min([*alias_ttls, _negative_ttl(name, authority)])
    return DnsReply(rcode, ad, name, tuple(alias_ttls), None, minimum)


def _negative_ttl(name: dns.name.Name, authority: Mapping[_Key, _RecordSet]) -> int:
    """The TTL that the SOA of the nearest zone around *name* gives to a negative answer."""
    while True:
        found = authority.get((name, dns.rdatatype.SOA))
        if found is not None:
            return min(found.ttl, int(cast(Any, next(iter(found.rdatas))).minimum))
        if name == dns.name.root:
            return NO_SOA_TTL
        name = name.parent()
