"""MTA-STS: discover, fetch and read the policy of a domain (RFC 8461 section 3).

PKIX vouches for a policy, not DNS: the TXT record only says *that* there is a policy
and when it changed. Everything that makes a policy believable is in how it is fetched.
What must outlive this process, a policy until its max_age above all, is kept by the
engine and its store.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import dns.rdatatype

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.budgets import Budgets, host_and_network
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.policyhost import HTTPS_PORT, Calls, PolicyHosts, ReplyError
from requiretls_milter.evidence.turns import FREE, BusyError, Claim, Limiter
from requiretls_milter.model import DnsOutcome, MtaStsEvidence, MtaStsMode, MtaStsPolicy
from requiretls_milter.syntax.names import address_literal
from requiretls_milter.syntax.text import error_text, printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

FETCH_RETRY = 300.0
"""Seconds until a fetch that failed may be tried again for the same id (section 3.3)."""

MAX_NEGATIVE = 10_800.0
"""Seconds for which it is believed at most that a domain has no policy. DNS says how long such an
answer holds; three hours is what RFC 2308 section 5 calls sensible at most."""

MAX_AGE = 31_557_600
"""Seconds that a policy may be kept (section 3.2)."""

_WSP = " \t"

_RECORD_VERSION = re.compile(r"v=STSv1[ \t]*;")
_RECORD_FIELD = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(?P<value>[\x21-\x3a\x3c\x3e-\x7e]+)"
)
_RECORD_ID = re.compile(r"[A-Za-z0-9]{1,32}")

_POLICY_FIELD = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(?P<value>.*)")
_POLICY_MX = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
)

_log = log.get_logger("evidence.mta_sts")


class PolicyError(RequiretlsMilterError, ValueError):
    """A record or a policy does not follow RFC 8461; the text says how.

    The catcher concludes that the domain has no policy now. One that was fetched before
    stays in force until its max_age (RFC 8461 section 3.3).
    """


@dataclass(frozen=True, slots=True)
class StsRecord:
    """The TXT record of a domain.

    Attributes:
        id: the policy's id; empty if the domain has no valid record.
        error: why the record could not be looked up.
        expires: when the answer ends, seconds since the epoch.
        unasked: it was not looked up, since the budget of the zone is spent.
    """

    id: str = ""
    error: str = ""
    expires: float = 0.0
    unasked: bool = False


def read_record(texts: Iterable[bytes]) -> str:
    """Find the one MTA-STS record among the TXT records of a name, and return its id.

    A record begins with ``v=STSv1``, followed by blanks and a semicolon (section 3.1, R46,
    R47).

    Args:
        texts: the records; the strings of each joined without spaces.

    Returns:
        The id, or "" if none of them is an MTA-STS record.

    Raises:
        PolicyError: there are several records, or one that is not valid. For a sender
            both mean the same as none.
    """
    records = [
        text for one in texts if _RECORD_VERSION.match(text := one.decode("latin-1")) is not None
    ]
    if not records:
        return ""
    if len(records) > 1:
        raise PolicyError(f"{len(records)} MTA-STS records instead of one")
    fields = [part.strip(_WSP) for part in records[0].split(";")[1:]]
    if fields and fields[-1] == "":
        fields.pop()
    found = ""
    for text in fields:
        field = _RECORD_FIELD.fullmatch(text)
        if field is None:
            raise PolicyError(f"MTA-STS record: not a field: {printable(text, 60)!r}")
        if field["name"] == "id" and not found:
            if _RECORD_ID.fullmatch(field["value"]) is None:
                raise PolicyError(f"MTA-STS record: bad id: {printable(field['value'], 60)!r}")
            found = field["value"]
    if not found:
        raise PolicyError("MTA-STS record without an id")
    return found


def read_policy(body: bytes, policy_id: str) -> MtaStsPolicy:
    """Read a policy (section 3.2, R48); *policy_id* is the id of the TXT record for it.

    Lines end in LF or CRLF; empty ones are skipped. Of several equal keys the first counts,
    but each ``mx`` does. Unknown keys are ignored if they are well-formed.

    Raises:
        PolicyError: the text is not a policy.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError("the policy is not UTF-8") from error
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        content = line.removesuffix("\r").rstrip(_WSP)
        if not content:
            continue
        field = _POLICY_FIELD.fullmatch(content)
        if field is None:
            raise PolicyError(f"line {number}: not a key and a value: {printable(content, 60)!r}")
        name, value = field["name"], field["value"]
        if not value or any(c < " " or c == "\x7f" for c in value):
            raise PolicyError(f"line {number}: {name}: no value, or control characters in it")
        if name == "mx":
            patterns.append(_mx_pattern(value, number))
        else:
            fields.setdefault(name, value)
    for key in ("version", "mode", "max_age"):
        if key not in fields:
            raise PolicyError(f"no {key}")
    if fields["version"] != "STSv1":
        raise PolicyError(f"unknown version: {printable(fields['version'], 20)!r}")
    try:
        mode = MtaStsMode(fields["mode"])
    except ValueError as error:
        raise PolicyError(f"unknown mode: {printable(fields['mode'], 20)!r}") from error
    if not patterns and mode is not MtaStsMode.NONE:
        raise PolicyError(f"mode {mode} without an mx")
    return MtaStsPolicy(
        mode, tuple(dict.fromkeys(patterns)), _max_age(fields["max_age"]), policy_id
    )


def _mx_pattern(value: str, number: int) -> str:
    """Read a pattern: a host name or ``*.`` before one (section 4.1, R55)."""
    pattern = value.lower().removesuffix(".")
    if (
        _POLICY_MX.fullmatch(value) is None
        or len(pattern) > 255
        or address_literal(pattern) is not None
    ):
        raise PolicyError(f"line {number}: mx: not a pattern: {printable(value, 60)!r}")
    return pattern


def _max_age(value: str) -> int:
    """Read 1 to 10 digits; more than a year means a year (section 3.2, erratum 7282, R49)."""
    if re.fullmatch(r"[0-9]{1,10}", value) is None:
        raise PolicyError(f"bad max_age: {printable(value, 20)!r}")
    return min(int(value), MAX_AGE)


class MtaStsFetcher:
    """Finds the policies of domains.

    Args:
        resolver: looks up TXT records and policy hosts.
        policy: which addresses may be contacted.
        authorities: certificates (DER) of the authorities that policy hosts are verified by.
        port: the port of policy hosts.
        timeout: seconds for one fetch (section 3.3 suggests a minute at most). Before it
            the host's name is looked up, within the resolver's own limit.
        limiter: says when a fetch may begin.
        clock: the time, seconds since the epoch.
        counters: where it is counted that a fetch takes too long.
        budgets: how many connections an address may get; None for any number.

    Raises:
        ssl.SSLError: one of *authorities* is no certificate.
    """

    def __init__(
        self,
        resolver: Resolver,
        policy: AddressPolicy,
        authorities: Sequence[bytes],
        *,
        port: int = HTTPS_PORT,
        timeout: float = 30.0,
        limiter: Limiter = FREE,
        clock: Callable[[], float] = time.time,
        counters: Counters | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._budgets = budgets
        self._resolver = resolver
        self._policy = policy
        self._hosts = PolicyHosts(authorities, port, timeout)
        self._clock = clock
        self._counters = counters or Counters()
        self._limiter = limiter

    async def record(self, domain: str) -> StsRecord:
        """Look up ``_mta-sts.DOMAIN`` (section 3.1), and follow aliases. Never raises.

        Several records, or one that is not valid, count as none: another attempt would not
        change that.
        """
        found = await self._resolver.lookup(f"_mta-sts.{domain}", dns.rdatatype.TXT)
        expires = self._clock() + found.ttl
        if found.outcome is DnsOutcome.ERROR:
            return StsRecord(error=found.error, expires=expires, unasked=found.unasked)
        try:
            policy_id = read_record(
                b"".join(rdata.strings) for rdata in cast(Iterable[Any], found.rdatas)
            )
        except PolicyError as error:
            _log.info("mta_sts_record_invalid", domain=domain, error=str(error))
            return StsRecord(expires=expires)
        return StsRecord(policy_id, expires=expires)

    async def policy(self, domain: str) -> MtaStsEvidence:
        """Discover and fetch the policy of *domain*. Never raises for what the network does.

        ``expires`` is the end of the TXT record that was read, or of the policy's max_age if that
        is sooner; without a policy, it is when another attempt is worth while.
        """
        record = await self.record(domain)
        if not record.id:
            expires = min(record.expires, self._clock() + MAX_NEGATIVE)
            return MtaStsEvidence(error=record.error, expires=expires, unasked=record.unasked)
        calls = Calls(self._budgets, domain)
        try:
            body = await self._in_turn(
                domain, lambda addresses: self._hosts.fetch(domain, addresses, calls)
            )
            policy = read_policy(body, record.id)
        except (
            PolicyError,
            ReplyError,
            aiohttp.ClientError,
            TimeoutError,
            OSError,
            ValueError,
        ) as error:
            if calls.refused and not calls.made:
                return MtaStsEvidence(error=calls.refused, expires=self._clock(), unasked=True)
            return self._failed(domain, error)
        now = self._clock()
        # Whether it is still the same is asked when the record ends that named it (R53).
        expires = min(record.expires, now + policy.max_age)
        return MtaStsEvidence(policy, fetched_at=now, expires=expires)

    async def presented(self, domain: str) -> bytes:
        """Look which certificate the policy host presents, DER; b"" if none was seen."""
        calls = Calls(self._budgets, domain)
        try:
            return await self._in_turn(
                domain, lambda addresses: self._hosts.certificate(domain, addresses, calls)
            )
        except (OSError, BusyError):
            return b""

    async def _in_turn(
        self, domain: str, ask: Callable[[Sequence[str]], Awaitable[bytes]]
    ) -> bytes:
        """Ask the policy host of *domain* when it may begin; *ask* gets the host's addresses.

        They are looked up first: a name server that is silent must not hold the place of a fetch.
        """
        addresses = await self._addresses(f"mta-sts.{domain}")
        _, network = host_and_network(addresses[0])
        return await self._limiter.run(Claim(network), lambda: ask(addresses))

    def _failed(self, domain: str, error: Exception) -> MtaStsEvidence:
        text = _why(error)
        if isinstance(error, TimeoutError):
            self._counters.inc("saturated_total", (Bound.FETCH_TIMEOUT,))
            text = "timed out"
        return MtaStsEvidence(
            error=printable(f"policy of {domain}: {text}"), expires=self._clock() + FETCH_RETRY
        )

    async def _addresses(self, host: str) -> Sequence[str]:
        """Look *host* up; raise OSError if it has no address that may be contacted."""
        found = await self._resolver.addresses(host)
        allowed = [address for address in found.addresses if self._policy.allows(address)]
        if not allowed and found.addresses:
            forbidden = ", ".join(found.addresses[:3])
            raise OSError(errno.EACCES, f"{host} has no address that may be contacted: {forbidden}")
        if not allowed:
            raise OSError(
                errno.EHOSTUNREACH, f"{host} has no address: {found.error or found.outcome}"
            )
        return allowed


def _why(error: Exception) -> str:
    """Say what went wrong, without what aiohttp wraps around it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error_text(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return error_text(error.os_error)
    return error_text(error)
