"""Rules that can refuse nothing, or everything, with this MTA as ``[mta]`` describes it. Pure.

A rule acts on forecasts. At a TLS level that verifies no certificate, or with a REQUIRETLS policy
that lets mail through, a forecast of failure may never come, or always. ``config check`` and
``doctor`` say so, with the line that helps.
"""

from __future__ import annotations

from collections.abc import Iterator

from requiretls_milter.config import Config, RuleList
from requiretls_milter.config.mistakes import dotted
from requiretls_milter.config.patterns import matched_by
from requiretls_milter.engine.domains.servedmta import assumed
from requiretls_milter.forecast.profiles import must_match, requiretls_policy
from requiretls_milter.model import (
    Capability,
    Mode,
    MtaSts,
    OnNoncompliant,
    OnTemporary,
    ProfileName,
    RequiretlsPolicy,
)
from requiretls_milter.rules import Rule, RuleSet
from requiretls_milter.syntax.text import quoted

_ELSEWHERE = "a-domain-elsewhere.invalid"
_DECIDES = ("mode", "require", "on_noncompliant", "on_temporary")
_LOOKED_UP = ("sender", "recipient", "nexthop")
"""By what :meth:`RuleSet.find` looks up, in order."""


def warnings(config: Config) -> Iterator[str]:
    """A sentence for each rule that acts on nothing, or on all mail for which it is asked."""
    if config.rules.suspended:
        return
    rules = RuleSet(config.rules)
    yield from _of_rule(config, "rules", rules.find("", "", ""), _ELSEWHERE)
    for section, name, table in config.rules.tables():
        if not any(getattr(table, key) is not None for key in _DECIDES):
            continue
        pattern, match = name, section
        if isinstance(table, RuleList):
            pattern, match = next(iter(table.domains_file.domains), ""), table.match
        domain = matched_by(pattern)
        rule = rules.find(*(domain if match == one else "" for one in _LOOKED_UP))
        where = _ELSEWHERE if match == "sender" else domain
        yield from _of_rule(config, dotted(("rules", section, name)), rule, where)


def _of_rule(config: Config, path: str, rule: Rule, domain: str) -> Iterator[str]:
    mode = rule.mode
    carries = _carries(config)
    if not mode.acts or (carries and config.mta.profile is not ProfileName.POSTFIX):
        return
    carried = carries and not rule.require
    noncompliant = rule.on_noncompliant
    refuses_noncompliant = noncompliant is OnNoncompliant.REFUSE or (
        noncompliant is OnNoncompliant.AUTO and not carried
    )
    profile = config.mta.profile_for(config.mta.usual_transport)
    policy = requiretls_policy(profile, domain)
    enforced = carried and policy is RequiretlsPolicy.ENFORCE
    if refuses_noncompliant or enforced:
        if not _may_verify(config):
            verb = "defers" if mode is Mode.DEFER else "refuses"
            yield (
                f"{path}: mode = {quoted(mode)} {verb} all mail that asks for REQUIRETLS: at "
                f"tls_security_level = {quoted(profile.tls_security_level)} the MTA verifies no "
                "certificate. If it does verify, let [mta] say so: tls_security_level = "
                '"dane", or requiretls-milter mta import'
            )
        return
    if mode is Mode.DEFER or rule.on_temporary is OnTemporary.DEFER:
        return  # 4.7.x, as of a certificate that does not match, is deferred
    if not carried:
        why = f"on_noncompliant = {quoted(noncompliant)}"
    else:
        why = f"requiretls_policy = {quoted(policy)}"
    nothing = "nothing"
    if carried and policy is RequiretlsPolicy.OPPORTUNISTIC_STARTTLS:
        nothing = "nothing but mail for servers that do not offer STARTTLS or refuse it"
    yield (
        f"{path}: mode = {quoted(mode)} refuses {nothing}: with {why} the MTA delivers what RFC "
        '8689 would not, and the rule accepts that; write on_noncompliant = "refuse"'
    )


def _carries(config: Config) -> bool:
    carries = config.mta.carries
    if carries is Capability.AUTO:
        carries = assumed(config.mta.profile)
    return carries is Capability.REQUIRETLS


def _may_verify(config: Config) -> bool:
    """Whether any mail may go at a level that verifies certificates."""
    mta = config.mta
    overrides = (over.tls_security_level for over in mta.transport.values())
    entries = (entry.level for entry in mta.tls_policy.values())
    levels = [mta.tls_security_level, *overrides, *entries]
    return mta.mta_sts is not MtaSts.OFF or any(
        level is not None and must_match(level) for level in levels
    )
