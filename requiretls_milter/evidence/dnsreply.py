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

import functools
import struct
from collections.abc import Iterator, Mapping
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
_SOA_NUMBERS = struct.Struct("!5I")

_MAX_NAME_OCTETS = 255
"""Octets of a name (RFC 1035 section 2.3.4)."""

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


@dataclass(frozen=True)
class DnsQuestion:
    """What is asked of a name server, always in class IN."""

    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType

    @functools.cached_property
    def wire(self) -> bytes:
        """The question section."""
        name = cast(bytes, self.name.to_wire())
        return name + _TYPE_AND_CLASS.pack(self.rdtype, dns.rdataclass.IN)

    @functools.cached_property
    def key(self) -> bytes:
        """The name in the form in which names are compared: see :func:`_key_of`."""
        return self.wire[: -_TYPE_AND_CLASS.size].lower()


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
    sets = _Sets(parser, question)
    sets.read_answer(answers)
    sets.read_authority(authorities)
    extended = _skip_additional(parser, additionals)
    if parser.remaining():
        raise DnsReplyError("octets behind the last record")
    rcode = dns.rcode.from_flags(flags, extended)
    ad = bool(flags & dns.flags.AD)
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return DnsReply(rcode, ad, question.name)
    return _follow(question, rcode, ad, sets)


def _compare_question(parser: dns.wire.Parser, count: int, question: DnsQuestion) -> None:
    """Read the question section and compare it with what was asked, letters of any case."""
    if count != 1:
        raise DnsReplyError("a reply with several questions, or with none")
    wire, end = parser.wire, _QUESTION_AT + len(question.wire)
    asked = len(question.key)
    if wire[_QUESTION_AT:][:asked].lower() == question.key and (
        wire[_QUESTION_AT + asked : end] == question.wire[asked:]
    ):
        parser.seek(end)
        return
    name = parser.get_name(decompress=True)
    rdtype, rdclass = parser.get_struct("!HH")
    if (name, rdtype, rdclass) != (question.name, question.rdtype, dns.rdataclass.IN):
        raise DnsReplyError("a reply to another question")


class _RecordSet:
    """Records of one name and type: each once, and their shortest TTL."""

    __slots__ = ("_distinct", "rdatas", "ttl")

    def __init__(self, rdata: dns.rdata.Rdata, ttl: int) -> None:
        self.ttl = ttl
        self.rdatas = [rdata]
        self._distinct: set[dns.rdata.Rdata] = set()  # made for the second one: most are alone

    def add(self, rdata: dns.rdata.Rdata, ttl: int) -> None:
        """Add a record; of a type of which there can be but one the last one counts."""
        self.ttl = min(self.ttl, ttl)
        if dns.rdatatype.is_singleton(rdata.rdtype):
            self.rdatas = [rdata]
            return
        self._distinct = self._distinct or set(self.rdatas)
        if rdata not in self._distinct:
            self._distinct.add(rdata)
            self.rdatas.append(rdata)


class _Sets:
    """The records of a reply that count.

    Names are keys here, in the form that :func:`_key_of` gives them.
    """

    def __init__(self, parser: dns.wire.Parser, question: DnsQuestion) -> None:
        self._parser = parser
        self._question = question
        self.answer: dict[tuple[bytes, int], _RecordSet] = {}
        self.negative_ttls: dict[bytes, tuple[int, int]] = {}
        """By zone the TTL and the field MINIMUM of its SOA (RFC 2308 section 4)."""

    def read_answer(self, count: int) -> None:
        """Read so many records; what was asked for and aliases count."""
        parser = self._parser
        types = (self._question.rdtype, dns.rdatatype.CNAME)
        for key, rdtype, ttl, length in self._records(count, types):
            with parser.restrict_to(length):
                rdata = dns.rdata.from_wire_parser(
                    dns.rdataclass.IN, dns.rdatatype.RdataType.make(rdtype), cast(Any, parser)
                )
            known = self.answer.get((key, rdtype))
            if known is None:
                self.answer[key, rdtype] = _RecordSet(rdata, ttl)
            else:
                known.add(rdata, ttl)

    def read_authority(self, count: int) -> None:
        """Read so many records, of which a SOA counts."""
        parser = self._parser
        wire = parser.wire
        for key, _, ttl, length in self._records(count, (dns.rdatatype.SOA,)):
            end = parser.current + length
            _, at = _key_of(wire, parser.current, end)
            _, at = _key_of(wire, at, end)
            if at + _SOA_NUMBERS.size != end:
                raise DnsReplyError("a SOA of another length")
            *_, minimum = _SOA_NUMBERS.unpack_from(wire, at)
            parser.seek(end)
            known = self.negative_ttls.get(key)
            self.negative_ttls[key] = (ttl if known is None else min(ttl, known[0])), minimum

    def _records(self, count: int, types: tuple[int, ...]) -> Iterator[tuple[bytes, int, int, int]]:
        """Step over a section of *count* records; stop at each of these types of class IN.

        Yields its name, type, TTL and length: the caller reads it to its end.
        """
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
            if wire[at : at + 2] == to_question:
                key = self._question.key
            else:
                key, _ = _key_of(wire, at, len(wire))
            yield key, rdtype, (0 if ttl > _MAX_TTL else ttl), length


def _key_of(wire: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Read the name that stands at *at*: uncompressed, in lower case; and where it ends.

    Equal names are equal octets then (RFC 4034 section 6.2). A pointer leads backwards, and each
    further one more so (RFC 1035 section 4.1.4); no label reaches beyond *end*.
    """
    labels = []
    furthest, behind = at, 0
    while length := wire[at]:
        if length >= 0xC0:
            behind = behind or at + 2
            at = (length & 0x3F) << 8 | wire[at + 1]
            if at >= furthest:
                raise DnsReplyError("a pointer that does not lead backwards")
            furthest = at
            continue
        if length >= 0x40:
            raise DnsReplyError("a label of an unknown kind")
        labels.append(wire[at : at + 1 + length])
        at += 1 + length
        if at >= end:
            raise DnsReplyError("a name that does not end")
    key = b"".join(labels).lower() + b"\0"
    if len(key) > _MAX_NAME_OCTETS:
        raise DnsReplyError("a name that is too long")
    return key, behind or at + 1


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
    sets: _Sets,
) -> DnsReply:
    """Follow the chain of aliases to what it ends with."""
    name, key = question.name, question.key
    alias_ttls: list[int] = []
    while True:
        records = sets.answer.get((key, question.rdtype))
        if records is not None or question.rdtype == dns.rdatatype.CNAME:
            break
        alias = sets.answer.get((key, dns.rdatatype.CNAME))
        if alias is None:
            break
        alias_ttls.append(alias.ttl)
        name = cast(Any, alias.rdatas[0]).target
        key = cast(bytes, name.to_wire()).lower()
        if len(alias_ttls) >= MAX_CHAIN:
            raise DnsReplyError("a chain of too many aliases")
    if records is not None:
        if rcode == dns.rcode.NXDOMAIN:
            raise DnsReplyError("NXDOMAIN with an answer")
        minimum = min([records.ttl, *alias_ttls])
        return DnsReply(rcode, ad, name, tuple(alias_ttls), tuple(records.rdatas), minimum)
    minimum = min([*alias_ttls, _negative_ttl(key, sets.negative_ttls)])
    return DnsReply(rcode, ad, name, tuple(alias_ttls), None, minimum)


def _negative_ttl(key: bytes, of_zones: Mapping[bytes, tuple[int, int]]) -> int:
    """The TTL that the SOA of the nearest zone around a name gives to a negative answer."""
    while True:
        found = of_zones.get(key)
        if found is not None:
            return min(found)
        if len(key) == 1:
            return NO_SOA_TTL
        key = key[1 + key[0] :]
