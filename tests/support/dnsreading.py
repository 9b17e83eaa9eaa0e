"""What dnspython's own messages make of a reply: a second statement of what is to be read."""

from __future__ import annotations

from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from requiretls_milter.evidence.dnsreply import (
    DnsQuestion,
    DnsReply,
    DnsReplyError,
    TruncatedError,
    read_reply,
)


def compare(wire: bytes, question: DnsQuestion) -> DnsReply | None:
    """Read a reply both ways; returns what was read, None if it was refused.

    What dnspython reads is read the same. It refuses more: a record that does not count may be
    malformed. But of what is read, each record is of the type that was asked for.
    """
    theirs = _by_dnspython(wire, question)
    try:
        ours = read_reply(wire, question)
    except (DnsReplyError, TruncatedError):
        assert theirs is None, theirs
        return None
    assert theirs is None or ours == theirs
    assert all(rdata.rdtype == question.rdtype for rdata in ours.rdatas or ())
    assert ours.rdatas != ()
    return ours


def _by_dnspython(wire: bytes, question: DnsQuestion) -> DnsReply | None:
    query = dns.message.make_query(question.name, question.rdtype)
    query.id = int.from_bytes(wire[:2], "big")
    try:
        message = dns.message.from_wire(wire, raise_on_truncation=True)
        if not query.is_response(message):
            return None
        rcode, ad = message.rcode(), bool(message.flags & dns.flags.AD)
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return DnsReply(rcode, ad, question.name)
        chain: Any = message.resolve_chaining()  # type: ignore[attr-defined]
    except (dns.exception.DNSException, ValueError):
        return None
    return DnsReply(
        rcode,
        ad,
        chain.canonical_name,
        tuple(alias.ttl for alias in chain.cnames),
        None if chain.answer is None else tuple(chain.answer),
        chain.minimum_ttl,
    )
