"""Replies of name servers, read as dnspython's own messages read them."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.evidence.dnsreply import (
    DnsQuestion,
    DnsReplyError,
    TruncatedError,
    read_reply,
)
from tests.support.dnsreading import compare
from tests.support.dnsserver import rrset, soa

NAME = dns.name.from_text("a.test.")
SIGNATURE = "RRSIG {} 13 2 300 20301001000000 20200901000000 1 test. " + "A" * 86 + "=="
RECORDS = (
    "a.test. 300 IN MX 10 mx.a.test.",
    "A.TEST. 200 IN MX 10 mx.a.test.",
    "a.test. 4000000000 IN MX 20 mx2.a.test.",
    "a.test. 300 IN CNAME b.test.",
    "a.test. 30 IN CNAME a.test.",
    "b.test. 100 IN CNAME c.test.",
    "b.test. 60 IN MX 5 mx.b.test.",
    "c.test. 60 IN MX 5 mx.c.test.",
    "a.test. 300 IN A 192.0.2.1",
    "a.test. 300 CH TXT x",
    "a.test. 300 IN TXT v=STSv1",
    "a.test. 300 IN " + SIGNATURE.format("MX"),
    soa("test.", 90, 80),
    ". 70 IN SOA ns.test. h.test. 1 3600 600 86400 60",
    soa("other.", 5, 5),
)
TYPES = st.sampled_from(["MX", "A", "TXT", "CNAME", "SOA"])


def question(rdtype: str = "MX") -> DnsQuestion:
    return DnsQuestion(NAME, dns.rdatatype.from_text(rdtype))


def reply(
    rdtype: str = "MX",
    answer: list[str] | tuple[str, ...] = (),
    authority: list[str] | tuple[str, ...] = (),
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    flags: int = 0,
    *,
    edns: bool = True,
) -> bytes:
    query = dns.message.make_query(NAME, rdtype, use_edns=0 if edns else None)
    message = dns.message.make_response(query)
    message.set_rcode(rcode)
    message.flags |= dns.flags.Flag(flags)
    message.answer = [rrset(line) for line in answer]
    message.authority = [rrset(line) for line in authority]
    return message.to_wire(max_size=65535)


RCODES = st.sampled_from(
    [dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.BADVERS]
)
REPLIES = st.builds(
    reply,
    TYPES,
    st.lists(st.sampled_from(RECORDS), max_size=6),
    st.lists(st.sampled_from(RECORDS), max_size=3),
    RCODES,
    st.sampled_from([0, int(dns.flags.AD)]),
)


@given(REPLIES, TYPES)
def test_a_reply_is_read_as_dnspython_reads_it(wire: bytes, rdtype: str) -> None:
    compare(wire, question(rdtype))


@given(REPLIES, TYPES, st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255))))
def test_octets_of_any_value_are_read_as_dnspython_reads_them_or_refused(
    wire: bytes, rdtype: str, changes: list[tuple[float, int]]
) -> None:
    mangled = bytearray(wire)
    for part, octet in changes:
        mangled[int(part * len(mangled))] = octet
    compare(bytes(mangled), question(rdtype))


@given(REPLIES, st.floats(0, 1))
def test_a_reply_that_is_cut_off_is_refused(wire: bytes, part: float) -> None:
    length = int(part * len(wire))
    if length < len(wire):
        assert compare(wire[:length], question()) is None


def test_the_answer_may_be_long() -> None:
    lines = [f"a.test. 300 IN MX {n} mx{n}.a.test." for n in range(2000)]
    found = compare(reply(answer=lines), question())
    assert found is not None
    assert found.rdatas is not None
    assert len(found.rdatas) == 2000


def test_a_truncated_reply_says_so_and_one_to_another_question_does_not() -> None:
    wire = reply(flags=int(dns.flags.TC))
    with pytest.raises(TruncatedError):
        read_reply(wire, question())
    with pytest.raises(DnsReplyError, match="another question"):
        read_reply(wire, question("A"))


def test_r21_an_extended_rcode_is_no_empty_answer() -> None:
    found = read_reply(reply(rcode=dns.rcode.BADVERS), question())
    assert found.rcode == dns.rcode.BADVERS


@pytest.mark.parametrize("edns", [True, False])
def test_a_server_that_fails_may_leave_the_question_out(edns: bool) -> None:
    wire = reply(rcode=dns.rcode.SERVFAIL, edns=edns)
    section = question().wire
    without = wire[:4] + struct.pack("!H", 0) + wire[6:12] + wire[12 + len(section) :]
    assert read_reply(without, question()).rcode == dns.rcode.SERVFAIL
    with pytest.raises(DnsReplyError):
        read_reply(without[:2] + b"\x80\x00" + without[4:], question())


@pytest.mark.parametrize("octets", [b"", b"\x00", b"\xff" * 12, b"\xff" * 600, bytes(12)])
def test_what_is_no_message_is_refused(octets: bytes) -> None:
    with pytest.raises(DnsReplyError):
        read_reply(octets, question())


def test_a_chain_of_pointers_costs_no_more_than_the_octets_that_come() -> None:
    """A name that is stepped over is not followed; one that is read only points backwards."""
    header = struct.pack("!HHHHHH", 1, 0x8000, 1, 3000, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", dns.rdatatype.MX, 1, 1, 4) + b"\0\1\xc0\x0c"
    wire = header + question().wire + record * 3000
    found = compare(wire, question())
    assert found is not None
    assert found.rdatas is not None
    assert len(found.rdatas) == 1
