"""What a name server answers, from the reply's octets to the evidence."""

from __future__ import annotations

import functools
import ipaddress
import struct

import dns.exception
import dns.flags
import dns.name
import dns.rcode
import dns.rdatatype
import dns.wire

from requiretls_milter.evidence import dns as lookups
from requiretls_milter.evidence.addresses import AddressPolicy, is_global
from requiretls_milter.evidence.dnsreply import DnsQuestion, DnsReply
from requiretls_milter.evidence.mta_sts import MtaStsFetcher
from requiretls_milter.evidence.stub import NoReplyError
from requiretls_milter.evidence.tlsa import find_tlsa
from requiretls_milter.model import DnsOutcome
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver
from requiretls_milter.syntax.names import address_literal, valid_hostname
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect, inputs
from tests.fuzz.events import EVENTS
from tests.support.dnsreading import compare

HOST = "a.example"
_CLOCK = 1.8e9
_QR = 0x8000


class _Server:
    """A stub resolver of which each query gets the next of some replies.

    A reply is given as its flags (2 octets), the counts of its three sections
    and what stands in them: header and question are made for each query.
    """

    def __init__(self, replies: list[bytes]) -> None:
        self._replies = replies
        self._asked = 0
        self.authentic = True
        """Whether all replies had the AD bit."""

    async def ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> DnsReply:
        question = DnsQuestion(name, rdtype)
        reply = self._replies[self._asked % len(self._replies)]
        self._asked += 1
        flags = int.from_bytes(reply[:2], "big") | _QR
        counts = reply[2:5].ljust(3, b"\0")
        self.authentic = self.authentic and bool(flags & dns.flags.AD)
        header = b"\0\1" + flags.to_bytes(2, "big") + b"\0\1"
        header += b"".join(bytes((0, count)) for count in counts)
        found = compare(header + question.wire + reply[5:], question)
        if found is None:
            raise NoReplyError(["scripted: malformed"], servfail=False)
        if found.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            said = dns.rcode.to_text(found.rcode)
            raise NoReplyError([f"scripted: {said}"], servfail=said == "SERVFAIL")
        return found


def dns_reply(data: bytes) -> None:
    """A whole message; its question is what was asked. The reader and dnspython agree on it."""
    try:
        parser = dns.wire.Parser(data, 12)
        name = parser.get_name(decompress=True)
        rdtype, _ = parser.get_struct("!HH")
    except (dns.exception.DNSException, struct.error, IndexError):
        name, rdtype = dns.name.from_text(HOST + "."), dns.rdatatype.MX
    compare(data, DnsQuestion(name, dns.rdatatype.RdataType.make(rdtype)))


_NAMESERVER = Nameserver("192.0.2.53", DNS_PORT)


def dns_answer(data: bytes) -> None:
    """Replies, each behind two octets of length; the first octet of all says what is asked."""
    EVENTS.run_until_complete(_look_up(data))


async def _look_up(data: bytes) -> None:
    kind, replies = data[0] if data else 0, inputs.parts(data[1:]) or [b""]
    server = _Server(replies)
    resolver = lookups.Resolver([_NAMESERVER], 5.0, clock=lambda: _CLOCK)
    resolver._stub = server  # type: ignore[assignment]
    match kind % 5:
        case 0:
            mx = await resolver.mx(HOST)
            _check_end(mx.secure, mx.expires, mx.error, server)
            assert len(mx.records) <= lookups.MAX_RECORDS
            assert mx.outcome is DnsOutcome.FOUND or not mx.records
            for record in mx.records:
                assert valid_hostname(record.host) or address_literal(record.host)
            assert list(mx.records) == sorted(mx.records, key=lambda r: (r.preference, r.host))
            assert not (mx.null_mx and mx.records)
        case 1:
            found = await resolver.addresses(HOST)
            # Of A and AAAA one is enough: not every reply that was had needs the AD bit.
            _check_end(False, found.expires, found.error, server)
            assert (found.outcome is DnsOutcome.FOUND) == bool(found.addresses)
            assert found.outcome is not DnsOutcome.FOUND or valid_hostname(found.canonical)
            policy = AddressPolicy(())
            for address in found.addresses:
                assert address_literal(address) == address
                assert policy.allows(address) == is_global(ipaddress.ip_address(address))
            tlsa = await find_tlsa(resolver, HOST, 25, found, lambda: _CLOCK)
            if not found.secure and not found.alias_secure and not found.alias_error:
                assert not tlsa.queried, "RFC 7672 section 2.2.2"
            expect.one_line(tlsa.error, 3 * MAX_TEXT)
        case 2:
            sts = _mta_sts()
            sts._resolver = resolver
            txt = await sts.record(HOST)
            _check_end(False, txt.expires, txt.error, server)
            assert not (txt.id and txt.error)
        case 3:
            one = await resolver.lookup(HOST, dns.rdatatype.CNAME)
            _check_lookup(one, server)
        case _:
            one = await resolver.lookup(HOST, dns.rdatatype.TLSA)
            _check_lookup(one, server)


@functools.cache
def _mta_sts() -> MtaStsFetcher:
    """One for all: it loads the trust store, which takes longer than all else."""
    nobody = lookups.Resolver([_NAMESERVER], 5.0)
    return MtaStsFetcher(nobody, AddressPolicy(()), (), clock=lambda: _CLOCK)


def _check_lookup(found: lookups.Lookup, server: _Server) -> None:
    _check_end(found.secure, _CLOCK + found.ttl, found.error, server)
    assert (found.outcome is DnsOutcome.FOUND) == bool(found.rdatas)
    texts = all(rdata.rdtype == dns.rdatatype.TXT for rdata in found.rdatas)
    assert texts or len(found.rdatas) <= lookups.MAX_RECORDS
    assert valid_hostname(found.canonical)


def _check_end(secure: bool, expires: float, error: str, server: _Server) -> None:
    assert _CLOCK <= expires <= _CLOCK + lookups.MAX_TTL
    expect.one_line(error, 3 * MAX_TEXT)
    assert not secure or server.authentic, "secure without the AD bit"
