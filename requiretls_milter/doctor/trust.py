"""Checks of what is trusted, here and by the MTA: certification authorities and resolvers."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.resolver

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.sendmailcf import Sendmail
from requiretls_milter.evidence.authorities import TrustStoreError, load_trust_store
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.selftest import SelfTest, SelfTestOutcome, SelfTestResult
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import SYSTEM_STORES, Mirror
from requiretls_milter.model import TlsLevel
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver

# ---------------------------------------------------------------- certification authorities


class MtaAuthorities(NamedTuple):
    """The certification authorities of an MTA: a file; "" if it has none of its own."""

    mta: str
    setting: str
    file: str
    root: Path

    @classmethod
    def of_postfix(cls, postfix: Postfix, made: Mirror) -> MtaAuthorities:
        """Those of Postfix."""
        return cls("Postfix", "smtp_tls_CAfile", made.hints.get("ca_file", ""), postfix.root)

    @classmethod
    def of_sendmail(cls, sendmail: Sendmail) -> MtaAuthorities:
        """Those of Sendmail."""
        file = sendmail.option("CACertFile")
        return cls("Sendmail", "CACertFile", "" if file in SYSTEM_STORES else file, sendmail.root)


def authorities_now(config: Config) -> str:
    """The digest of the authorities; "" if they cannot be read, which :func:`authorities` tells."""
    try:
        return load_trust_store(config.probe.ca_file).digest
    except TrustStoreError:
        return ""


def authorities(config: Config, mta: MtaAuthorities | None) -> Iterator[Finding]:
    """Check that the certification authorities can be read, and are the same as the MTA's."""
    path = config.probe.ca_file
    try:
        load_trust_store(path)
    except TrustStoreError as problem:
        yield error("ca_file", str(problem), "Correct probe.ca_file.")
        return
    what = path or "the system's trust store"
    if path and not os.stat(path).st_mode & stat.S_IROTH:
        yield warning(
            "ca_file",
            f"{path} is not readable by all users, so the service may not be able to read it",
            f"chmod o+r {path}, or make sure that the service's user may read it.",
        )
    if mta is None:
        yield ok("ca_file", f"certificates are verified with {what}")
        return
    theirs = mta.file
    if _same_store(path, theirs, mta.root):
        yield ok("ca_file", f"certificates are verified with {what}, in {mta.mta} too")
        return
    yield warning(
        "ca_file",
        f"probe.ca_file is {path or 'empty'}, {mta.setting} is "
        f"{theirs or 'empty or the system store'}: one may trust a certificate that the other "
        "does not",
        f'Set probe.ca_file = "{theirs}".' if theirs else "Let both name the same file.",
    )


def _same_store(ours: str, theirs: str, root: Path) -> bool:
    """Whether two files of authorities have the same content; "" stands for the system's."""
    if not theirs or not ours:
        return (ours in SYSTEM_STORES or not ours) and not theirs
    try:
        return Path(ours).read_bytes() == (root / theirs.lstrip("/")).read_bytes()
    except OSError:
        return False


# ---------------------------------------------------------------- resolvers


def resolvers(config: Config, postfix: Postfix | None, made: Mirror | None) -> Iterator[Finding]:
    """Check that the resolver is trusted and validates, and so does Postfix's if it is another."""
    ours = Resolver(config.dns.nameservers, config.dns.timeout)
    names = _names(ours.nameservers)
    if not ours.path_trusted:
        yield error(
            "resolver_trusted",
            f"{names} (/etc/resolv.conf) is not on this host: its AD bit is not trusted, and "
            "nothing counts as secure",
            "Run a validating resolver such as Unbound on this host, and name it in "
            "dns.nameservers.",
        )
    else:
        yield ok("resolver_trusted", f"{names}: the path to it counts as trusted")
    yield from _tested("resolver", config, ours.nameservers)
    if postfix is None or made is None:
        return
    for service, path in _resolv_confs(postfix):
        servers = _nameservers(path)
        if not servers:
            yield warning(
                "mta_resolver",
                f"{path}, which {service} reads, names no resolver",
                "Copy /etc/resolv.conf there, as Postfix's init script does for a chroot.",
            )
        elif set(servers) != set(ours.nameservers):
            yield warning(
                "mta_resolver",
                f"{service} of Postfix uses resolver {_names(servers)} ({path}), this program uses "
                f"{names}: their answers may differ",
                "Let both use the same resolver.",
            )
            if _wants_dane(made):
                yield from _tested("mta_resolver", config, servers)


def _tested(check: str, config: Config, servers: Sequence[Nameserver]) -> Iterator[Finding]:
    """Test each server by itself, as the service does."""
    results = asyncio.run(SelfTest.of(config).run_each(servers, config.dns.timeout))
    effect = ". Nothing that it says counts as secure" if check == "resolver" else ""
    for server, result in results.items():
        yield _of_test(check, _names([server]), result, effect)


def _of_test(check: str, names: str, result: SelfTestResult, effect: str) -> Finding:
    why = "; ".join(result.problems)
    if result.outcome is SelfTestOutcome.PASSED:
        return ok(check, f"{names} validates DNSSEC" + (f" ({why})" if why else ""))
    if result.outcome is SelfTestOutcome.FAILED:
        return error(
            check,
            f"{names} does not validate DNSSEC: {why}{effect}",
            "Switch validation on (Unbound: auto-trust-anchor-file, and no val-permissive-mode), "
            "or use another resolver.",
        )
    return warning(
        check,
        f"nothing shows that {names} validates DNSSEC: {why}{effect}",
        "Make sure that it answers; without the public DNS set dns.selftest_secure and "
        "dns.selftest_insecure or selftest_bogus to names of your own.",
    )


def _wants_dane(made: Mirror) -> bool:
    mta = Config.model_validate({"mta": made.mta}).mta
    profiles = [mta.profile_for(name) for name in ("", *mta.transport)]
    levels = {profile.tls_security_level for profile in profiles}
    levels |= {policy.level for profile in profiles for _, policy in profile.tls_policy}
    return bool(levels & {TlsLevel.DANE, TlsLevel.DANE_ONLY})


def _resolv_confs(postfix: Postfix) -> Iterator[tuple[str, Path]]:
    """Find each resolv.conf(5) that an smtp(8) reads, in a chroot or not, with its service."""
    seen: set[Path] = set()
    for one in postfix.running("smtp"):
        path = (postfix.queue if one.chroot else postfix.root) / "etc/resolv.conf"
        if path not in seen:
            seen.add(path)
            yield str(one), path


def _nameservers(path: Path) -> tuple[Nameserver, ...]:
    try:
        read = dns.resolver.Resolver(str(path), configure=True)
    except (OSError, dns.exception.DNSException):
        return ()
    return tuple(Nameserver(str(address), DNS_PORT) for address in read.nameservers)


def _names(servers: Sequence[Nameserver]) -> str:
    return ", ".join(map(str, servers))
