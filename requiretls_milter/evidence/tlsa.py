"""At which names the TLSA records of a server are looked up (RFC 7672 sections 2.2.2, 2.2.3).

The order of the lookups is that of Postfix (tls_dane_resolve()) and of the RFC. The
records are kept as they stand in DNS; the forecast says which of them are usable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import dns.immutable
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TLSA
import dns.wire

from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.model import AddressLookup, DnsOutcome, TlsaEvidence, TlsaRecord

_HEADER = 3
"""Octets before the association data: usage, selector, matching type (RFC 6698 section 2.1)."""

_MISSING = b"\xff"
"""Stands for an octet that a record is too short to have; DANE for SMTP uses no value 255."""


@dns.immutable.immutable
class TlsaAsPublished(dns.rdtypes.ANY.TLSA.TLSA):
    """A TLSA record as it stands in DNS, however malformed.

    dnspython 2.9 (2.7 did not) refuses a digest of the wrong length as malformed, and the
    whole reply with it. A server with one such record would look as if its DNS failed
    (4.7.5), while Postfix uses the other records, or goes on unauthenticated.
    """

    def __init__(
        self,
        rdclass: dns.rdataclass.RdataClass,
        rdtype: dns.rdatatype.RdataType,
        usage: int,
        selector: int,
        mtype: int,
        cert: bytes,
    ) -> None:
        dns.rdata.Rdata.__init__(self, rdclass, rdtype)
        self.usage = usage
        self.selector = selector
        self.mtype = mtype
        self.cert = cert

    @classmethod
    def from_wire_parser(
        cls,
        rdclass: dns.rdataclass.RdataClass,
        rdtype: dns.rdatatype.RdataType,
        parser: dns.wire.Parser,
        origin: Any = None,
    ) -> TlsaAsPublished:
        """Read the rdata, whatever its length."""
        rdata = parser.get_remaining()
        usage, selector, mtype = rdata[:_HEADER].ljust(_HEADER, _MISSING)
        return cls(rdclass, rdtype, usage, selector, mtype, rdata[_HEADER:])


# dnspython's registry is private; it has no public way to replace the class of a type that it
# knows. If this stops working, test_r36_malformed_records_do_not_make_the_lookup_fail fails.
dns.rdata._rdata_classes[dns.rdataclass.IN, dns.rdatatype.TLSA] = TlsaAsPublished


async def find_tlsa(
    resolver: Resolver,
    host: str,
    port: int,
    addresses: AddressLookup,
    clock: Callable[[], float] = time.time,
) -> TlsaEvidence:
    """Find the TLSA records of *host*, whose *addresses* have been looked up already.

    - If the addresses are insecure, and so is the alias if *host* is one, DNS is not
      queried (R27): name servers of unsigned zones may answer SERVFAIL to TLSA.
    - If they are secure, the canonical name is looked up, then *host* itself if it is an
      alias. If the first lookup fails, there is no second one (R29).
    - If only the alias is secure, *host* alone is looked up (R30).
    """
    if addresses.outcome is not DnsOutcome.FOUND:
        return TlsaEvidence()
    is_alias = addresses.canonical != host.lower()
    if not addresses.secure:
        if addresses.alias_error:
            return TlsaEvidence(
                queried=True,
                outcome=DnsOutcome.ERROR,
                base_domain=host,
                error=addresses.error,
                expires=addresses.expires,
                unasked=addresses.unasked,
            )
        if not addresses.alias_secure:
            return TlsaEvidence(expires=addresses.expires)
        return await _query(resolver, host, port, clock)
    evidence = await _query(resolver, addresses.canonical, port, clock)
    if not is_alias or evidence.outcome is DnsOutcome.ERROR or _has_secure_records(evidence):
        return evidence
    # No name in the middle of a chain is ever a base domain (section 2.2.3, last paragraph).
    second = await _query(resolver, host, port, clock)
    return replace(second, expires=min(evidence.expires, second.expires))


def _has_secure_records(evidence: TlsaEvidence) -> bool:
    return evidence.secure and bool(evidence.records)


async def _query(
    resolver: Resolver, base_domain: str, port: int, clock: Callable[[], float]
) -> TlsaEvidence:
    """Look up ``_PORT._tcp.BASE``; an alias there leaves the base domain as it is (R31)."""
    found = await resolver.lookup(f"_{port}._tcp.{base_domain}", dns.rdatatype.TLSA)
    return TlsaEvidence(
        queried=True,
        outcome=found.outcome,
        secure=found.secure,
        base_domain=base_domain,
        records=tuple(
            TlsaRecord(rdata.usage, rdata.selector, rdata.mtype, bytes(rdata.cert))
            for rdata in cast(Iterable[Any], found.rdatas)
        ),
        error=found.error,
        expires=clock() + found.ttl,
        partial=found.partial,
        unasked=found.unasked,
    )
