"""DNS lookups through a validating resolver, told apart as RFC 7672 section 2.1 asks.

Three things are never confused here: an answer with records, an answer that
says "there are none" (NODATA, NXDOMAIN), and no answer. SERVFAIL, REFUSED, a
timeout, a malformed reply and a CNAME loop are no answer, and no answer is never
"no records": an attacker who can suppress a packet could otherwise switch DANE off.

Validation is the resolver's work. Its AD bit is believed only if the path to it is
trusted (RFC 7672 section 2.1.3): the operator named it in ``dns.nameservers``, or the
system's resolvers are all on this host. Otherwise everything is insecure, and
:attr:`Resolver.trust` says so. Whether it validates at all is shown by a test
(:mod:`~requiretls_milter.evidence.selftest`), which has the last word on that attribute.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from requiretls_milter.evidence.budgets import Budgets, zone_of
from requiretls_milter.evidence.stub import NoReplyError, Stub
from requiretls_milter.evidence.turns import FREE, Claim, Limiter
from requiretls_milter.model import AddressLookup, DnsOutcome, MxEvidence, MxRecord
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver
from requiretls_milter.syntax.names import address_literal, mail_exchanger, valid_hostname
from requiretls_milter.syntax.text import error_text, printable

MAX_CNAMES = 10
"""Aliases followed from the name that is looked up (Postfix's dns_lookup_x() follows 10)."""

MAX_RECORDS = 100
"""Records kept of one lookup (Postfix: dns_rr_list_limit). Of a larger set Postfix keeps those
that come first in the reply; since resolvers rotate a set, chance decides which."""

MAX_TTL = 86_400
"""Seconds that an answer is kept at most, whatever its TTL (RFC 8767 section 4 advises a cap)."""

PARTIAL_TTL = 60
"""Seconds that an answer is kept if one of the lookups A and AAAA failed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a lookup ended.

    Attributes:
        outcome: whether there is an answer, and which.
        secure: each answer on the path had the AD bit of a resolver that is trusted.
        canonical: the name at the end of the CNAME chain.
        rdatas: at most :data:`MAX_RECORDS` records, of TXT records all.
        ttl: seconds; the shortest on the path. A negative answer has the TTL of its
            SOA (RFC 2308 section 5).
        error: why there is no answer.
        partial: there were more records than are kept.
        unasked: no query was sent, since the budget of the zone is spent (outcome ERROR).
        unproven: each answer had the AD bit, and it is not known yet whether it means
            anything (:attr:`AdTrust.UNPROVEN`).
        servfail: each server said SERVFAIL: none could, or would, give an answer.
    """

    outcome: DnsOutcome
    secure: bool
    canonical: str
    rdatas: tuple[dns.rdata.Rdata, ...] = ()
    ttl: int = 0
    error: str = ""
    partial: bool = False
    unasked: bool = False
    unproven: bool = False
    servfail: bool = False


class AdTrust(enum.Enum):
    """What the AD bit of the resolver counts for (RFC 7672 section 2.1.3)."""

    BELIEVED = enum.auto()
    """An answer that has it is secure."""
    UNPROVEN = enum.auto()
    """Nothing is secure, since nothing has shown yet that the resolver validates."""
    IGNORED = enum.auto()
    """Nothing is secure: the resolver does not validate, or its answers can be forged."""


class _LookupError(Exception):
    """A lookup had no answer; the text says why.

    It never leaves this module: the catcher makes it an outcome ERROR.

    Args:
        text: the sentence.
        servfail: each server said SERVFAIL.
    """

    def __init__(self, text: str, *, servfail: bool = False) -> None:
        super().__init__(text)
        self.servfail = servfail


@dataclass(frozen=True, slots=True)
class _Answer:
    """One reply: where its CNAME chain ends and what stands there."""

    nxdomain: bool
    ad: bool
    canonical: dns.name.Name
    aliases: int
    rdatas: tuple[dns.rdata.Rdata, ...]
    ttl: int
    partial: bool


class Resolver:
    """The stub resolver through which all evidence comes.

    Args:
        nameservers: those of ``dns.nameservers``; empty for those of
            ``/etc/resolv.conf``.
        timeout: seconds for one lookup, aliases included.
        inet_protocols: the address families that are looked up.
        clock: the time, seconds since the epoch.
        limiter: says when a lookup may begin.
        budgets: how many lookups a zone may cause; None for any number.
        checking_disabled: set CD in each query (RFC 4035 section 3.2.2): the resolver gives
            out what it has, whether it validates or not.
    """

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        timeout: float,
        inet_protocols: Sequence[str] = ("ipv4", "ipv6"),
        clock: Callable[[], float] = time.time,
        *,
        limiter: Limiter = FREE,
        budgets: Budgets | None = None,
        checking_disabled: bool = False,
    ) -> None:
        self._budgets = budgets
        self.nameservers = tuple(Nameserver(*one) for one in nameservers or _system_nameservers())
        self._stub = Stub(self.nameservers, checking_disabled=checking_disabled)
        self._timeout = timeout
        self._clock = clock
        self._limiter = limiter
        self._address_types = tuple(
            rdtype
            for protocol, rdtype in (("ipv4", dns.rdatatype.A), ("ipv6", dns.rdatatype.AAAA))
            if protocol in inet_protocols
        )
        self._of_system = not nameservers
        self.path_trusted = bool(nameservers) or all(s.is_loopback for s in self.nameservers)
        """Whether no one else can write to the path (RFC 7672 section 2.1.3)."""
        self._trust = AdTrust.BELIEVED if self.path_trusted else AdTrust.IGNORED
        self._relied_on_since = object()
        self.tested = asyncio.Event()
        """Lookups wait for it: a self-test clears it until the resolver has been tested."""
        self.tested.set()

    def is_current(self) -> bool:
        """Say whether ``/etc/resolv.conf``, if it is used, still names the same servers."""
        return not self._of_system or self.nameservers == tuple(_system_nameservers())

    @property
    def trust(self) -> AdTrust:
        """What the AD bit counts for (RFC 7672 section 2.1.3, R20).

        The path to the servers decides, until :meth:`rely_on` says more.
        """
        return self._trust

    def rely_on(self, nameservers: Sequence[Nameserver], trust: AdTrust) -> None:
        """Ask only these servers from now on, some of :attr:`nameservers`, and trust them so far.

        Answers that are under way are secure neither way, since another server may have sent them;
        unless it is only that further servers have come to be trusted.
        """
        further = set(self._stub.nameservers) <= set(nameservers)
        more = trust is self._trust is AdTrust.BELIEVED and further
        self._stub.nameservers = tuple(nameservers)
        self._trust = trust
        if not more:
            self._relied_on_since = object()

    def with_checking_disabled(self) -> Resolver:
        """Make a resolver that asks the same servers with CD."""
        servers, families = self.nameservers, ("ipv4", "ipv6")
        return Resolver(servers, self._timeout, families, self._clock, checking_disabled=True)

    async def root(self) -> Lookup:
        """Look up the name servers of the root zone, which is signed.

        Postfix probes the same (dnssec_probe = ns:.).
        """
        since = self._relied_on_since
        try:
            answer = await self._in_turn(".", lambda: self._ask(dns.name.root, dns.rdatatype.NS))
        except _LookupError as error:
            return Lookup(
                DnsOutcome.ERROR, False, "", error=f"NS .: {error}", servfail=error.servfail
            )
        secure = answer.ad and self._is_believed(since)
        if answer.nxdomain:
            return Lookup(DnsOutcome.NXDOMAIN, secure, "", ttl=answer.ttl)
        outcome = DnsOutcome.FOUND if answer.rdatas else DnsOutcome.NODATA
        return Lookup(outcome, secure, "", answer.rdatas, answer.ttl)

    async def lookup(self, name: str, rdtype: dns.rdatatype.RdataType) -> Lookup:
        """Look *name* up as an absolute name, without a search list; follow aliases.

        Text that is not a domain name is NXDOMAIN without a query, as in Postfix.
        """
        if not valid_hostname(name):
            error = f"not a domain name: {printable(name)}"
            return Lookup(DnsOutcome.NXDOMAIN, False, name, ttl=MAX_TTL, error=error)
        await self.tested.wait()
        if self._budgets is not None and (spent := self._budgets.lookup(name)):
            return Lookup(DnsOutcome.ERROR, False, name.lower(), error=spent, unasked=True)
        absolute = dns.name.Name([*name.encode("ascii").split(b"."), b""])
        try:
            return await self._in_turn(zone_of(name), lambda: self._chase(absolute, rdtype))
        except _LookupError as error:
            text = printable(f"{dns.rdatatype.to_text(rdtype)} {name}: {error}")
            return Lookup(
                DnsOutcome.ERROR, False, name.lower(), error=text, servfail=error.servfail
            )

    async def mx(self, domain: str) -> MxEvidence:
        """Look up the mail exchangers of *domain* (RFC 5321 section 5.1).

        Records are sorted by preference, then by name. A host that is an address stays,
        since Postfix connects to it; one that is neither a host name nor an address is
        dropped. A null MX is one only if it stands alone (R25).
        """
        return self._servers_named(await self.lookup(domain, dns.rdatatype.MX))

    async def srv(self, name: str) -> MxEvidence:
        """Look up the servers of a service, ``_submission._tcp.example.org`` (RFC 2782).

        The priority takes the place of the preference; weights only shift the odds. A single
        record with the target "." says that there is no such service.
        """
        return self._servers_named(await self.lookup(name, dns.rdatatype.SRV))

    def _servers_named(self, found: Lookup) -> MxEvidence:
        """Make evidence of the hosts that MX or SRV records name."""
        evidence = MxEvidence(
            outcome=found.outcome,
            secure=found.secure,
            canonical=found.canonical,
            error=found.error,
            expires=self._expires(found.ttl),
            partial=found.partial,
            unasked=found.unasked,
            unproven=found.unproven,
        )
        if found.outcome is not DnsOutcome.FOUND:
            return evidence
        records: set[tuple[int, str, int]] = set()
        nulls = 0
        for rdata in cast(Iterable[Any], found.rdatas):
            by_srv = rdata.rdtype == dns.rdatatype.SRV
            target = rdata.target if by_srv else rdata.exchange
            if target == dns.name.root:
                nulls += 1
                continue
            host = mail_exchanger(name_text(target))
            if host is not None:
                records.add((_preference(rdata), host, rdata.port if by_srv else 0))
        # RFC 7505 section 3: a null MX stands alone. Beside other records it says nothing
        # that a sender could obey (R25).
        null_mx = nulls > 0 and nulls == len(found.rdatas)
        error = "" if records or null_mx else "no MX record names a host"
        return replace(
            evidence,
            records=tuple(MxRecord(*record) for record in sorted(records)),
            null_mx=null_mx,
            null_among=nulls > 0 and not null_mx,
            error=error,
        )

    async def addresses(self, host: str) -> AddressLookup:
        """Look up the addresses of *host*, A and AAAA at once.

        An address in the place of a name stands for itself, insecurely. A failed lookup
        counts only if the other one found no address (Postfix's dns_lookup_rv()). It is
        enough if one of the two validates (R28).
        """
        literal = address_literal(host)
        if literal is not None:
            return self._literal(literal)
        lookups = await asyncio.gather(*(self.lookup(host, t) for t in self._address_types))
        found = [one for one in lookups if one.outcome is DnsOutcome.FOUND]
        failed = [one for one in lookups if one.outcome is DnsOutcome.ERROR]
        error = "; ".join(dict.fromkeys(one.error for one in lookups if one.error))
        unasked = any(one.unasked for one in lookups)
        if not found:
            if failed:
                return AddressLookup(
                    DnsOutcome.ERROR, error=error, expires=self._clock(), unasked=unasked
                )
            nxdomain = all(one.outcome is DnsOutcome.NXDOMAIN for one in lookups)
            return AddressLookup(
                outcome=DnsOutcome.NXDOMAIN if lookups and nxdomain else DnsOutcome.NODATA,
                secure=bool(lookups) and all(one.secure for one in lookups),
                canonical=lookups[0].canonical if lookups else host,
                error=error,
                expires=self._expires(min((one.ttl for one in lookups), default=MAX_TTL)),
                unproven=any(one.unproven for one in lookups),
            )
        # A broken denial of one family must not void the signed addresses of the other (R28).
        best = next((one for one in found if one.secure), found[0])
        ttl = min(one.ttl for one in lookups if one.outcome is not DnsOutcome.ERROR)
        # dnspython has its own text for IPv4-mapped addresses.
        addresses = dict.fromkeys(
            str(ipaddress.ip_address(cast(Any, rdata).address))
            for one in found
            for rdata in one.rdatas
        )
        result = AddressLookup(
            outcome=DnsOutcome.FOUND,
            secure=best.secure,
            addresses=tuple(addresses)[:MAX_RECORDS],
            canonical=best.canonical,
            error=error,
            expires=self._expires(min(ttl, PARTIAL_TTL) if failed else ttl),
            partial=len(addresses) > MAX_RECORDS or any(one.partial for one in found),
            unasked=unasked,
            unproven=any(one.unproven for one in found),
        )
        if result.secure or result.canonical == host.lower():
            return result
        return await self._with_alias(result, host)

    async def _with_alias(self, result: AddressLookup, host: str) -> AddressLookup:
        """Find out whether the alias itself is signed (RFC 7672 section 2.1.3, R30).

        The one AD bit of an insecure answer does not tell which record of the chain was
        the insecure one; the answer to a query for the CNAME alone does.
        """
        alias = await self.lookup(host, dns.rdatatype.CNAME)
        if alias.outcome is not DnsOutcome.FOUND:
            error = alias.error or f"CNAME {host}: no longer an alias"
            return replace(
                result,
                alias_error=True,
                error=error,
                expires=self._clock(),
                unasked=result.unasked or alias.unasked,
            )
        expires = min(result.expires, self._expires(alias.ttl))
        unproven = result.unproven or alias.unproven
        return replace(result, alias_secure=alias.secure, expires=expires, unproven=unproven)

    def _literal(self, address: str) -> AddressLookup:
        family = dns.rdatatype.AAAA if ":" in address else dns.rdatatype.A
        usable = family in self._address_types
        return AddressLookup(
            outcome=DnsOutcome.FOUND if usable else DnsOutcome.NODATA,
            addresses=(address,) if usable else (),
            canonical=address,
            expires=self._expires(MAX_TTL),
        )

    def _expires(self, ttl: int) -> float:
        return self._clock() + ttl

    async def _in_turn(self, zone: str, look_up: Callable[[], Awaitable[T]]) -> T:
        """Look up when it may begin, for no longer than one lookup may take."""

        async def within_limit() -> T:
            try:
                async with asyncio.timeout(self._timeout):
                    return await look_up()
            except TimeoutError as error:
                raise _LookupError("timed out") from error

        return await self._limiter.run(Claim(zone), within_limit)

    async def _chase(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Lookup:
        """Follow aliases by further queries if the answer stops at one, bounded (R26).

        RFC 7672 section 2.1.3: once a link is insecure, all that follows is. A completed
        negative is NODATA or NXDOMAIN, secure or not (RFC 7672 section 2.1.1, R22).
        """
        since = self._relied_on_since
        ad = True
        ttl = MAX_TTL
        followed = 0
        looked_up = name_text(name)
        seen = [name]
        while True:
            answer = await self._ask(name, rdtype)
            ad = ad and answer.ad
            ttl = min(ttl, answer.ttl)
            followed += answer.aliases
            ended = answer.nxdomain or answer.rdatas or answer.aliases == 0
            if followed > MAX_CNAMES or (not ended and answer.canonical in seen):
                raise _LookupError(f"more than {MAX_CNAMES} aliases, or a loop of them")
            if ended:
                break
            name = answer.canonical
            seen.append(name)
        canonical = name_text(answer.canonical)
        if canonical != looked_up and not valid_hostname(canonical):
            raise _LookupError(f"the alias is not a host name: {printable(canonical)}")
        secure = ad and self._is_believed(since)
        unproven = ad and not secure and self._trust is not AdTrust.IGNORED
        if answer.nxdomain:
            return Lookup(DnsOutcome.NXDOMAIN, secure, canonical, ttl=ttl, unproven=unproven)
        if not answer.rdatas:
            return Lookup(DnsOutcome.NODATA, secure, canonical, ttl=ttl, unproven=unproven)
        return Lookup(
            *(DnsOutcome.FOUND, secure, canonical, answer.rdatas, ttl),
            partial=answer.partial,
            unproven=unproven,
        )

    def _is_believed(self, since: object) -> bool:
        """Say whether the AD bit of an answer counts that was under way *since* then."""
        return self._trust is AdTrust.BELIEVED and since is self._relied_on_since

    async def _ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> _Answer:
        """Send one query to the servers; raise _LookupError unless one of them answers it.

        SERVFAIL, REFUSED, a timeout and malformed octets are no answer (RFC 7672 section
        2.1.2, R21). The TTL is the shortest in the answer; a negative answer has that of
        its SOA (RFC 2308 section 5, R44).
        """
        try:
            reply = await self._stub.ask(name, rdtype)
        except NoReplyError as error:
            raise _LookupError(str(error), servfail=error.servfail) from error
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise _LookupError(error_text(error)) from error
        rdatas = reply.rdatas or ()
        if rdtype in (dns.rdatatype.MX, dns.rdatatype.SRV):
            # Sorted before they are cut: of a set that is too large the best records are kept.
            rdatas = tuple(sorted(rdatas, key=_preference))
        # All TXT records are kept: RFC 8461 section 3.1 counts the MTA-STS records among them.
        kept = len(rdatas) if rdtype == dns.rdatatype.TXT else MAX_RECORDS
        nxdomain = reply.rcode == dns.rcode.NXDOMAIN
        if rdatas or nxdomain or not reply.alias_ttls:
            ttl = reply.minimum_ttl
        else:
            ttl = min(reply.alias_ttls)
        return _Answer(
            nxdomain=nxdomain,
            ad=reply.ad,
            canonical=reply.canonical,
            aliases=len(reply.alias_ttls),
            rdatas=rdatas[:kept],
            ttl=min(max(ttl, 0), MAX_TTL),
            partial=len(rdatas) > kept,
        )


def name_text(name: dns.name.Name) -> str:
    """Give a name of the wire as text: lower case, without the trailing dot.

    Other characters than letters and digits stay as they are, and
    :func:`valid_hostname` refuses them. A dot within a label is escaped, so that two
    names never have the same text.
    """
    labels = (label.decode("latin-1").replace(".", "\\.") for label in name.labels if label)
    return ".".join(labels).lower()


def _preference(rdata: dns.rdata.Rdata) -> int:
    by_srv = rdata.rdtype == dns.rdatatype.SRV
    return int(cast(Any, rdata).priority if by_srv else cast(Any, rdata).preference)


def _system_nameservers() -> list[Nameserver]:
    """Read ``/etc/resolv.conf``; like libc, take a resolver on this host if it names none."""
    try:
        addresses = dns.resolver.Resolver(configure=True).nameservers
    except dns.resolver.NoResolverConfiguration:
        addresses = []
    return [Nameserver(str(address), DNS_PORT) for address in addresses or ["127.0.0.1"]]
