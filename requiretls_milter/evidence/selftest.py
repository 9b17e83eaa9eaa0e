"""Whether the resolver deserves the trust that is put into its AD bit.

RFC 7672 section 2.1.3 lets a client rely on the AD bit of a validating
resolver on a trusted path. Whether it validates can be seen: the answer for a signed
name must have AD, there must be no answer for a name whose signatures are wrong, and
the answer for an unsigned name must not have AD. A resolver that fails one of the
three does not validate, or lets bogus answers through, or calls everything secure.
Then nothing that it says is called secure (R20).

Only an answer convicts. A failed lookup says nothing about validation: a network that
is down must not turn temporary failures into permanent ones.
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
"""The root zone, signed since 2010; Postfix tests with the same (dnssec_probe)."""

BOGUS_NAMES = ("dnssec-failed.org", "rhybar.cz")
"""Names that Comcast and CZ.NIC keep broken on purpose, for tests like this one."""

INSECURE_NAMES = ("google.com", "microsoft.com")
"""Names of large domains that have never been signed so far."""

PASSED_INTERVAL = 3600.0
"""Seconds until the next test after one that passed."""

TEST_TIMEOUT = 5.0
"""Seconds for one lookup of the test at most: all lookups of evidence wait for the first test."""

FAILED_INTERVAL = 60.0
"""Seconds until the next test after one that failed or was undecided: trust should come back
soon, or be settled."""

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
        """Test *resolver*, which must show the AD bit (``trusted``).

        It takes as long as one lookup.
        """
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
        # A bogus or unsigned name that cannot be seen does not count against a resolver that
        # has shown that it validates. Without the signed name it has shown nothing.
        return SelfTestResult(checks[0].outcome, problems)


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
    """Keeps a resolver's ``trusted`` in line with what the self-test finds (R20).

    The test uses a resolver of its own, since the watched one hides the AD bit while it is
    not trusted. Lookups through the watched one wait for the first test. A resolver whose
    path is not trusted to begin with stays untrusted, whatever it answers.

    Args:
        resolver: the one that is watched, whose ``trusted`` is switched.
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
        """Say whether it is time for :meth:`test_now`."""
        return self._monotonic() >= self._due

    async def test_now(self) -> bool:
        """Test the resolver and act on it; return whether its AD bit counts differently now.

        One line is logged after the first test, and whenever the answer changes.
        """
        self._due = self._monotonic() + FAILED_INTERVAL
        before = self._resolver.trusted
        try:
            result = await self._test.run(self._asked)
            if result.outcome is SelfTestOutcome.UNDECIDED:
                # Nothing was learnt: the AD bit counts, or does not count, as before.
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
