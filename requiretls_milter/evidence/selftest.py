"""Whether the resolver deserves the trust that we put into its AD bit.

RFC 7672 section 2.1.3 lets a client rely on the AD bit of a validating
resolver on a trusted path. Whether it validates can be seen: a signed name
must come with AD, a name whose signatures are wrong must not come at all, and
an unsigned one must come without AD. A resolver that fails one of the three
does not validate, or lets through what did not, or says "secure" of
everything: then nothing that it says is called secure (R20).

Only an answer convicts. A lookup that failed tells nothing of validation: a
network that is down must not turn temporary failures into permanent ones.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.rdatatype

from requiretls_milter.evidence.dns import Lookup, Resolver
from requiretls_milter.model import DnsOutcome
from requiretls_milter.telemetry import log

if TYPE_CHECKING:
    from requiretls_milter.config import Config

ROOT = "."
"""The root zone, signed since 2010; Postfix asks the same (dnssec_probe)."""

BOGUS_NAMES = ("dnssec-failed.org", "rhybar.cz")
"""Kept broken on purpose, for tests as this one, by Comcast and by CZ.NIC."""

INSECURE_NAMES = ("google.com", "microsoft.com")
"""Large and never signed so far."""

PASSED_INTERVAL = 3600.0
"""Seconds until the next test after one that was passed."""

TEST_TIMEOUT = 5.0
"""Seconds for one lookup of the test at most: all others wait for the first."""

FAILED_INTERVAL = 60.0
"""Seconds until the next test after another one: trust should come back soon, or be settled."""

_A = dns.rdatatype.A
"""Asked for everywhere: also "there is none" is signed, or not."""

_log = log.get_logger("evidence.selftest")


class SelfTestOutcome(enum.StrEnum):
    """What a self-test came to."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """The verdict, and a sentence for each thing that is wrong or could not be seen."""

    outcome: SelfTestOutcome
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The names that are asked for, three kinds of them.

    Of several names of a kind one that is as it should be is enough: a public
    name that changes hands must not convict a resolver.
    """

    secure: str = ROOT
    bogus: tuple[str, ...] = BOGUS_NAMES
    insecure: tuple[str, ...] = INSECURE_NAMES

    @classmethod
    def of(cls, config: Config) -> SelfTest:
        """The test that a configuration wants; an empty name stands for the public ones."""
        names = config.dns
        return cls(
            names.selftest_secure or ROOT,
            (names.selftest_bogus,) if names.selftest_bogus else BOGUS_NAMES,
            (names.selftest_insecure,) if names.selftest_insecure else INSECURE_NAMES,
        )

    async def run(self, resolver: Resolver) -> SelfTestResult:
        """Ask *resolver*, whose AD bit has to show (``trusted``); as long as one lookup takes."""
        names = tuple(dict.fromkeys((self.secure, *self.bogus, *self.insecure)))
        answers = await asyncio.gather(*(_ask(resolver, name) for name in names))
        found = dict(zip(names, answers, strict=True))
        checks = (
            _secure(self.secure, found[self.secure]),
            _best(_bogus(name, found[name]) for name in self.bogus),
            _best(_insecure(name, found[name]) for name in self.insecure),
        )
        problems = tuple(check.problem for check in checks if check.problem)
        if any(check.outcome is SelfTestOutcome.FAILED for check in checks):
            return SelfTestResult(SelfTestOutcome.FAILED, problems)
        # That a bogus or unsigned name cannot be seen does not count against a resolver that
        # has shown to validate; but nothing has been shown without the signed one.
        return SelfTestResult(checks[0].outcome, problems)


@dataclass(frozen=True, slots=True)
class _Check:
    outcome: SelfTestOutcome
    problem: str = ""


_PASSED = _Check(SelfTestOutcome.PASSED)
_RANK = {SelfTestOutcome.PASSED: 0, SelfTestOutcome.FAILED: 1, SelfTestOutcome.UNDECIDED: 2}


def _best(checks: Iterable[_Check]) -> _Check:
    """Of the names of one kind: the one that is as it should be, else the one that convicts."""
    listed = sorted(checks, key=lambda check: _RANK[check.outcome])
    return listed[0]


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


def _bogus(name: str, answer: Lookup) -> _Check:
    if answer.outcome is DnsOutcome.ERROR:
        return _PASSED
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


class ResolverWatch:
    """Keeps a resolver's ``trusted`` in line with what the self-test finds.

    The test asks through a resolver of its own, since the other hides the AD
    bit while it is not trusted. Lookups through the other one wait for the
    first test. A resolver whose path is not trusted to begin with stays so,
    whatever it does.

    Args:
        resolver: whose ``trusted`` is switched.
        config: names, nameservers and time-out of the test.
        monotonic: a clock, in seconds.
    """

    def __init__(
        self,
        resolver: Resolver,
        config: Config,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._path_trusted = resolver.trusted
        self._test = SelfTest.of(config)
        self._asked = Resolver(config.dns.nameservers, min(config.dns.timeout, TEST_TIMEOUT))
        self._asked.trusted = True
        self._monotonic = monotonic
        self._due = monotonic()
        self._told: bool | None = None
        self.validates = False
        """Whether the resolver is trusted and was seen to validate: the gauge of that name."""
        resolver.tested.clear()

    def due(self) -> bool:
        """Whether it is time for :meth:`look`."""
        return self._monotonic() >= self._due

    async def look(self) -> bool:
        """Test now and act on it; returns whether what is believed has changed.

        One line is logged at first and whenever the answer changes.
        """
        self._due = self._monotonic() + FAILED_INTERVAL
        before = self._resolver.trusted
        try:
            result = await self._test.run(self._asked)
            if result.outcome is SelfTestOutcome.UNDECIDED:
                # Nothing was learnt: what is believed stays as it is.
                _log.info("resolver_not_tested", nameservers=self._servers(), why=_joined(result))
                return False
            passed = result.outcome is SelfTestOutcome.PASSED
            self._resolver.trusted = self._path_trusted and passed
        finally:
            self._resolver.tested.set()
        self._due = self._monotonic() + (PASSED_INTERVAL if passed else FAILED_INTERVAL)
        self.validates = self._resolver.trusted
        if self._told is not self.validates:
            self._told = self.validates
            self._tell(result)
        return self._resolver.trusted is not before

    def _tell(self, result: SelfTestResult) -> None:
        if self.validates:
            _log.info("resolver_validates", nameservers=self._servers(), notes=_joined(result))
        elif not self._path_trusted:
            _log.error(
                "resolver_not_trusted",
                nameservers=self._servers(),
                why="not on this host and not named in dns.nameservers",
                effect="nothing is called secure",
            )
        else:
            _log.error(
                "resolver_does_not_validate",
                nameservers=self._servers(),
                why=_joined(result),
                effect="nothing is called secure",
            )

    def _servers(self) -> str:
        return ", ".join(f"{address}:{port}" for address, port in self._asked.nameservers)


def _joined(result: SelfTestResult) -> str:
    return "; ".join(result.problems)
