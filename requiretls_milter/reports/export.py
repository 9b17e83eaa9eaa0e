"""Write the operator's rules as lookup tables of the MTA. Pure.

``postfix-requiretls-policy`` is a table for Postfix's smtp_requiretls_policy.
It has ``enforce`` for each domain whose rule requires REQUIRETLS (mode
``defer`` or ``reject``, or ``require = true``) and no entry for any other
domain: it never relaxes a policy, and no forecast has a say in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.config.patterns import matched_by
from requiretls_milter.model import Mode, RequiretlsPolicy
from requiretls_milter.rules import RuleSet
from requiretls_milter.syntax.names import patterns

TABLE = "/etc/postfix/requiretls_policy"
"""The table's path in the documentation."""

_HEAD = f"""\
# The domains for which a rule of requiretls-milter requires REQUIRETLS. Written by
# "requiretls-milter export postfix-requiretls-policy": to change it, change the rules and run
# that again. Postfix looks up the next hop, not the recipient's domain. In main.cf, put the table
# before all others:
#     smtp_requiretls_policy = texthash:{TABLE}, ...
"""


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """The entries of smtp_requiretls_policy, with a warning for each rule that they cannot express.

    The key of an entry is a domain, or ``.domain`` for its subdomains.
    """

    entries: Mapping[str, RequiretlsPolicy]
    warnings: tuple[str, ...]


def postfix_requiretls_policy(config: Config) -> PolicyTable:
    """Find the domains for which a rule requires REQUIRETLS."""
    rules = RuleSet(config.rules)
    found: dict[str, RequiretlsPolicy] = {}
    warnings: list[str] = []
    for section, pattern, table in config.rules.by_domain():
        if section == "sender":
            if table.require or (table.mode is not None and table.mode.acts):
                warnings.append(
                    f'rules.sender."{pattern}": Postfix has no policy by sender: left out'
                )
            continue
        # Any name that the pattern matches will do: it inherits what the pattern does.
        name = matched_by(pattern)
        if _protects(rules, recipient=name if section == "recipient" else "", nexthop=name):
            found[pattern] = RequiretlsPolicy.ENFORCE
    base = config.rules
    if base.require or base.mode.acts:
        warnings.append(
            '[rules] requires REQUIRETLS for every domain: end the list in main.cf with "enforce"'
        )
    warnings += _weaker(config, found)
    return PolicyTable(dict(sorted(found.items(), key=_by_domain)), tuple(warnings))


def _protects(rules: RuleSet, *, recipient: str, nexthop: str) -> bool:
    rule = rules.find("", recipient, nexthop)
    return rule.mode is not Mode.OFF and (rule.mode.acts or rule.require)


def _weaker(config: Config, found: Mapping[str, RequiretlsPolicy]) -> list[str]:
    """Find policies in main.cf, as ``[mta]`` mirrors them, that would win if looked up first."""
    policy = config.mta.requiretls_policy
    if isinstance(policy, RequiretlsPolicy):
        policy = {"*": policy}
    if isinstance(policy, str):
        return []
    weaker = []
    for pattern in found:
        key = next((key for key in (*patterns(pattern), "*") if key in policy), None)
        if key is not None and policy[key] is not RequiretlsPolicy.ENFORCE:
            weaker.append(
                f'mta.requiretls_policy."{key}" is {policy[key].value}, the rule for {pattern} '
                "needs enforce: put the table first in smtp_requiretls_policy"
            )
    return weaker


def _by_domain(item: tuple[str, RequiretlsPolicy]) -> tuple[list[str], bool]:
    """Sort a domain before its pattern, and both before its subdomains."""
    name = item[0].removeprefix(".")
    return name.split(".")[::-1], item[0].startswith(".")


def to_text(table: PolicyTable) -> str:
    """Write the table as texthash: and postmap(1) read it, with the warnings as comments."""
    lines = [f"# {warning}\n" for warning in table.warnings]
    lines += [f"{pattern}\t{policy.value}\n" for pattern, policy in table.entries.items()]
    return _HEAD + "".join(lines)
