"""Whether the resolver deserves the trust that is put into its AD bit.

RFC 7672 section 2.1.3 lets a client rely on the AD bit of a validating
resolver on a trusted path. Whether it validates can be seen, and nothing that a resolver says is
called secure until it has been (R20). Three things are looked up:

- a *signed* name, whose answer must have AD;
- an *unsigned* name, whose answer must not have AD;
- a *bogus* name, whose signatures are wrong: the resolver must refuse it, and give it out to a
  client that sets CD.

The signed name alone shows nothing: a forwarder that copies the AD bit of the query into the
answer passes as well. It takes one of the other two, the *controls*, to show that AD means
something. A resolver that fails one of the three does not validate, or lets bogus answers
through, or calls everything secure.

Only an answer proves, and only an answer convicts. A lookup that fails says nothing about
validation: a network that is down must not turn temporary failures into permanent ones.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.rdatatype

from requiretls_milter.clocks import Life
from requiretls_milter.evidence.dns import AdTrust, Lookup, Resolver
from requiretls_milter.model import DnsOutcome
from requiretls_milter.syntax.endpoint import Nameserver
from requiretls_milter.telemetry import log

if TYPE_CHECKING:
    from requiretls_milter.config import Config

ROOT = "."
"""The root zone, signed since 2010; Postfix tests with the same (dnssec_probe)."""

BOGUS_NAMES = ("dnssec-failed.org", "rhybar.cz")
"""Names that Comcast and CZ.NIC keep broken on purpose, for tests like this one."""

INSECURE_NAMES = ("google.com", "microsoft.com")
"""Names of large domains that have never been signed so far."""

PASSED_INTERVAL = 300.0
"""Seconds until the next test after one in which everything was as it should be. A resolver that
ceases to validate is believed for no longer."""

FAILED_INTERVAL = 60.0
"""Seconds until the next test after one that failed, or in which something could not be seen:
trust should come back soon, or be settled."""

UNPROVEN_INTERVAL = 10.0
"""Seconds until the next test while nothing at all is known, as when the resolver starts with us:
until then most forecasts are unknown."""

PROOF_LIFETIME = 86_400.0
"""Seconds for which a resolver that passed is believed while the test has no result. A network
that is down for a night must cost no trust; a proof that cannot be had again must not last."""

TEST_TIMEOUT = 5.0
"""Seconds for one lookup of the test at most: all lookups of evidence wait for the first test."""

_A = dns.rdatatype.A
"""The type that is looked up for every name: "there is none" is signed, or not, as well."""

_log = log.get_logger("evidence.selftest")


class SelfTestOutcome(enum.StrEnum):
    """How a self-test ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """The outcome, and a sentence for each thing that is wrong or could not be seen."""

    outcome: SelfTestOutcome
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The names that are looked up, of three kinds.

    If there are several names of a kind, one that behaves as it should is enough: a
    public name that changes hands must not convict a resolver.
    """

    secure: str = ROOT
    bogus: tuple[str, ...] = BOGUS_NAMES
    insecure: tuple[str, ...] = INSECURE_NAMES

    @classmethod
    def of(cls, config: Config) -> SelfTest:
        """Make the test of a configuration; an empty name stands for the public names."""
        names = config.dns
        return cls(
            names.selftest_secure or ROOT,
            (names.selftest_bogus,) if names.selftest_bogus else BOGUS_NAMES,
            (names.selftest_insecure,) if names.selftest_insecure else INSECURE_NAMES,
        )

    async def run(self, resolver: Resolver) -> SelfTestResult:
        """Test *resolver*, which must show the AD bit (:attr:`AdTrust.BELIEVED`).

        It takes as long as one lookup.
        """
        secure, bogus, insecure = await asyncio.gather(
            _check_secure(resolver, self.secure),
            asyncio.gather(*(_check_bogus(resolver, name) for name in self.bogus)),
            asyncio.gather(*(_check_insecure(resolver, name) for name in self.insecure)),
        )
        controls = _best(bogus), _best(insecure)
        problems = tuple(check.problem for check in (secure, *controls) if check.problem)
        return SelfTestResult(_outcome(secure, controls), problems)

    async def proves(self, resolver: Resolver) -> bool:
        """Say as soon as it is seen that *resolver* passes; False if that cannot be said early.

        It takes the signed name and one control, as in :meth:`run`, and does not wait for the
        names that have no answer.
        """
        controls = [
            asyncio.create_task(check)
            for check in (
                *(_check_insecure(resolver, name) for name in self.insecure),
                *(_check_bogus(resolver, name) for name in self.bogus),
            )
        ]
        try:
            if (await _check_secure(resolver, self.secure)).outcome is not SelfTestOutcome.PASSED:
                return False
            for control in asyncio.as_completed(controls):
                outcome = (await control).outcome
                if outcome is not SelfTestOutcome.UNDECIDED:
                    return outcome is SelfTestOutcome.PASSED
            return False
        finally:
            for task in controls:
                task.cancel()
            await asyncio.gather(*controls, return_exceptions=True)

    async def run_each(
        self, nameservers: Sequence[Nameserver], patience: float
    ) -> dict[Nameserver, SelfTestResult]:
        """Test each server by itself: of several, any one may answer the lookups for mail.

        Args:
            nameservers: the servers.
            patience: seconds for one lookup; at most :data:`TEST_TIMEOUT` are taken.
        """
        patience = min(patience, TEST_TIMEOUT)
        results = await asyncio.gather(
            *(self.run(Resolver([one], patience)) for one in nameservers)
        )
        return dict(zip(nameservers, results, strict=True))


@dataclass(frozen=True, slots=True)
class _Check:
    outcome: SelfTestOutcome
    problem: str = ""


_PASSED = _Check(SelfTestOutcome.PASSED)
_RANK = {SelfTestOutcome.PASSED: 0, SelfTestOutcome.FAILED: 1, SelfTestOutcome.UNDECIDED: 2}


def _best(checks: Iterable[_Check]) -> _Check:
    """Choose among the names of one kind: one that behaves as it should, else one that convicts."""
    listed = sorted(checks, key=lambda check: _RANK[check.outcome])
    return listed[0]


def _outcome(secure: _Check, controls: Sequence[_Check]) -> SelfTestOutcome:
    """One thing that is wrong convicts; to pass, it takes the signed name and one control."""
    outcomes = [check.outcome for check in controls]
    if SelfTestOutcome.FAILED in (secure.outcome, *outcomes):
        return SelfTestOutcome.FAILED
    return secure.outcome if SelfTestOutcome.PASSED in outcomes else SelfTestOutcome.UNDECIDED


async def _check_secure(resolver: Resolver, name: str) -> _Check:
    return _secure(name, await _ask(resolver, name))


async def _check_bogus(resolver: Resolver, name: str) -> _Check:
    unchecked = resolver.with_checking_disabled()
    answer, given_out = await asyncio.gather(_ask(resolver, name), unchecked.lookup(name, _A))
    return _bogus(name, answer, given_out)


async def _check_insecure(resolver: Resolver, name: str) -> _Check:
    return _insecure(name, await _ask(resolver, name))


async def _ask(resolver: Resolver, name: str) -> Lookup:
    return await (resolver.root() if name == ROOT else resolver.lookup(name, _A))


def _secure(name: str, answer: Lookup) -> _Check:
    if answer.secure:
        return _PASSED
    if answer.outcome is DnsOutcome.ERROR:
        return _Check(SelfTestOutcome.UNDECIDED, f"the signed name {name}: {answer.error}")
    if name == ROOT and answer.outcome is not DnsOutcome.FOUND:
        return _Check(SelfTestOutcome.UNDECIDED, "this resolver knows no root zone")
    return _Check(SelfTestOutcome.FAILED, f"the signed name {name} came without AD")


def _bogus(name: str, answer: Lookup, given_out: Lookup) -> _Check:
    """Check a bogus name: *given_out* is the answer to the query with CD.

    That it was refused shows validation only if it can be had without: a resolver that reaches
    nothing refuses everything.
    """
    if answer.outcome is DnsOutcome.ERROR:
        shown = given_out.outcome in (DnsOutcome.FOUND, DnsOutcome.NODATA)
        if answer.servfail and shown:
            return _PASSED
        why = given_out.error if answer.servfail else answer.error
        return _Check(SelfTestOutcome.UNDECIDED, f"the bogus name {name}: {why or 'not seen'}")
    if answer.outcome is DnsOutcome.NXDOMAIN:
        return _Check(
            SelfTestOutcome.UNDECIDED, f"the name {name}, which should be bogus, does not exist"
        )
    return _Check(
        SelfTestOutcome.FAILED, f"the bogus name {name} came as if its signatures were right"
    )


def _insecure(name: str, answer: Lookup) -> _Check:
    if answer.outcome is DnsOutcome.ERROR:
        return _Check(SelfTestOutcome.UNDECIDED, f"the unsigned name {name}: {answer.error}")
    if answer.outcome is DnsOutcome.NXDOMAIN:
        return _Check(SelfTestOutcome.UNDECIDED, f"the unsigned name {name} does not exist")
    if answer.secure:
        return _Check(SelfTestOutcome.FAILED, f"the unsigned name {name} came with AD")
    return _PASSED


NOTHING_SECURE = "nothing is called secure"
NOT_ASKED = "it is not asked"
STILL_BELIEVED = "believed as before, for a day at most"


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the log: an event about some servers, with its effect ("" if all is well)."""

    event: str
    nameservers: tuple[Nameserver, ...]
    effect: str

    def write(self, why: str) -> None:
        servers = ", ".join(f"{address}:{port}" for address, port in self.nameservers)
        match self.event:
            case "resolver_validates":
                _log.info("resolver_validates", nameservers=servers, notes=why)
            case "resolver_not_tested":
                _log.warning(
                    "resolver_not_tested", nameservers=servers, why=why, effect=self.effect
                )
            case "resolver_not_trusted":
                _log.error("resolver_not_trusted", nameservers=servers, why=why, effect=self.effect)
            case _:
                _log.error(
                    "resolver_does_not_validate", nameservers=servers, why=why, effect=self.effect
                )


@dataclass(slots=True)
class _Server:
    """What is known of one server.

    Attributes:
        proof: how long it counts that it passed; None if nothing is proven.
        convicted: it failed, and has not passed since.
        last: the result of the last test.
    """

    proof: Life | None = None
    convicted: bool = False
    last: SelfTestResult = SelfTestResult(SelfTestOutcome.UNDECIDED)

    def take(self, result: SelfTestResult, wall: float, monotonic: float) -> None:
        """Take note of a test. Without a result, what was proven stands for its lifetime."""
        self.last = result
        if result.outcome is SelfTestOutcome.PASSED:
            self.proof, self.convicted = Life.of(PROOF_LIFETIME, wall, monotonic), False
        elif result.outcome is SelfTestOutcome.FAILED:
            self.proof, self.convicted = None, True
        elif self.proof is not None and self.proof.is_over(wall, monotonic):
            self.proof = None


class ResolverWatch:
    """Keeps a resolver's trust in line with what the self-test shows (R20).

    Each server is tested by itself. While one is proven, only those that are proven are asked.
    Lookups through the watched resolver wait for the first test, which takes
    :data:`TEST_TIMEOUT` at most. A resolver whose path is not trusted to begin with stays
    untrusted, whatever it answers.

    Args:
        resolver: the one that is watched, whose servers and trust are set.
        config: names, nameservers and time-out of the test.
        monotonic, wall: both clocks, in seconds.
    """

    def __init__(
        self,
        resolver: Resolver,
        config: Config,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._path_trusted = resolver.path_trusted
        self._test = SelfTest.of(config)
        self._timeout = config.dns.timeout
        self._servers = {nameserver: _Server() for nameserver in resolver.nameservers}
        self._monotonic = monotonic
        self._wall = wall
        self._due = monotonic()
        self._told: set[_Line] = set()
        self.last_passed = 0.0
        """When a server last passed the test, seconds since the epoch; 0 for never."""
        self._relied_on = (
            resolver.nameservers,
            AdTrust.UNPROVEN if self._path_trusted else AdTrust.IGNORED,
        )
        resolver.rely_on(*self._relied_on)
        resolver.tested.clear()

    @property
    def validates(self) -> bool:
        """Whether the resolver is trusted and was seen to validate: the gauge of that name."""
        return self._resolver.trust is AdTrust.BELIEVED

    def due(self) -> bool:
        """Say whether it is time for :meth:`test_now`."""
        return self._monotonic() >= self._due

    async def test_now(self) -> bool:
        """Test the resolver and act on it; return whether its AD bit counts differently now.

        A line is logged for what the first test shows, and whenever that changes.
        """
        self._due = self._monotonic() + FAILED_INTERVAL
        try:
            results = await self._test.run_each(tuple(self._servers), self._timeout)
            for nameserver, result in results.items():
                self._servers[nameserver].take(result, self._wall(), self._monotonic())
            changed = self._rely()
        finally:
            self._resolver.tested.set()
        if any(one.outcome is SelfTestOutcome.PASSED for one in results.values()):
            self.last_passed = self._wall()
        self._due = self._monotonic() + self._interval()
        self._tell()
        return changed

    async def prove(self) -> None:
        """Let lookups begin as soon as a server is proven, while :meth:`test_now` goes on.

        A command must not wait for a test of which a name has no answer. If nothing is proven
        early, lookups begin when the test ends.
        """
        if not self._path_trusted:
            self._resolver.tested.set()
            return
        await asyncio.gather(*(self._prove(nameserver) for nameserver in self._servers))

    async def _prove(self, nameserver: Nameserver) -> None:
        one = Resolver([nameserver], min(self._timeout, TEST_TIMEOUT))
        tested = self._resolver.tested
        if await self._test.proves(one) and not tested.is_set():
            passed = SelfTestResult(SelfTestOutcome.PASSED)
            self._servers[nameserver].take(passed, self._wall(), self._monotonic())
            self._rely()
            tested.set()

    def _rely(self) -> bool:
        """Have the resolver ask, and trust, the right servers; return whether that is a change."""
        proven = tuple(one for one, known in self._servers.items() if known.proof is not None)
        if not self._path_trusted:
            trust = AdTrust.IGNORED
        elif proven:
            trust = AdTrust.BELIEVED
        elif any(known.convicted for known in self._servers.values()):
            trust = AdTrust.IGNORED
        else:
            trust = AdTrust.UNPROVEN
        # If none is proven, all are asked: insecure answers are better than none.
        asked = proven if trust is AdTrust.BELIEVED else tuple(self._servers)
        relied_on = (asked, trust)
        changed = relied_on != self._relied_on
        if changed:
            self._relied_on = relied_on
            self._resolver.rely_on(*relied_on)
        return changed

    def _interval(self) -> float:
        if self._resolver.trust is AdTrust.UNPROVEN:
            return UNPROVEN_INTERVAL
        clean = all(
            known.last == SelfTestResult(SelfTestOutcome.PASSED) for known in self._servers.values()
        )
        return PASSED_INTERVAL if clean else FAILED_INTERVAL

    # ------------------------------------------------------------ the log

    def _tell(self) -> None:
        """Log what is not as it was told before."""
        lines = list(self._lines())
        for line in lines:
            if line not in self._told:
                line.write(self._why(line.nameservers))
        self._told = set(lines)

    def _lines(self) -> Iterator[_Line]:
        """What there is to tell now."""
        if not self._path_trusted:
            yield _Line("resolver_not_trusted", tuple(self._servers), NOTHING_SECURE)
            return
        proven, failed, unseen, believed = [], [], [], []
        for one, known in self._servers.items():
            silent = known.last.outcome is SelfTestOutcome.UNDECIDED
            if known.convicted:
                failed.append(one)
            elif known.proof is None:
                unseen.append(one)
            else:
                proven.append(one)
                believed += [one] if silent else []
        left_out = NOT_ASKED if proven else NOTHING_SECURE
        for event, nameservers, effect in (
            ("resolver_validates", proven, ""),
            ("resolver_does_not_validate", failed, left_out),
            ("resolver_not_tested", unseen, left_out),
            ("resolver_not_tested", believed, STILL_BELIEVED),
        ):
            if nameservers:
                yield _Line(event, tuple(nameservers), effect)

    def _why(self, nameservers: Sequence[Nameserver]) -> str:
        if not self._path_trusted:
            return "not on this host and not named in dns.nameservers"
        problems = (problem for one in nameservers for problem in self._servers[one].last.problems)
        return "; ".join(dict.fromkeys(problems))
