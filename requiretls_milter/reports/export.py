"""The operator's rules as tables of the MTA. Pure.

``postfix-requiretls-policy`` is a table for Postfix's smtp_requiretls_policy.
It says ``enforce`` of each domain whose rule wants REQUIRETLS kept (mode
``defer`` or ``reject``, or ``require = true``) and nothing of any other: a
policy is never relaxed by it, least of all by what was forecast once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.model import Mode, RequiretlsPolicy
from requiretls_milter.rules import RuleSet
from requiretls_milter.syntax.names import patterns

TABLE = "/etc/postfix/requiretls_policy"
"""Where the documentation puts the table."""

_HEAD = f"""\
# The domains for which a rule of requiretls-milter wants REQUIRETLS kept. Made by
# "requiretls-milter export postfix-requiretls-policy": change the rules, then make it anew.
# Postfix looks the next hop up, not the recipient's domain. In main.cf, before what else there is:
#     smtp_requiretls_policy = texthash:{TABLE}, ...
"""


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """What smtp_requiretls_policy is to say, and what a table by next hop cannot."""

    entries: Mapping[str, RequiretlsPolicy]
    """A domain, or ``.domain`` for its subdomains, to its policy."""
    warnings: tuple[str, ...]


def postfix_requiretls_policy(config: Config) -> PolicyTable:
    """Find the domains that a rule protects."""
    rules = RuleSet(config.rules)
    found: dict[str, RequiretlsPolicy] = {}
    warnings: list[str] = []
    for section, pattern, table in config.rules.tables():
        if section == "sender":
            if table.require or (table.mode is not None and table.mode.acts):
                warnings.append(
                    f'rules.sender."{pattern}": Postfix has no policy by sender; left out'
                )
            continue
        # Any name that the pattern stands for will do: it inherits what the pattern does.
        name = f"x{pattern}" if pattern.startswith(".") else pattern
        if _protects(rules, recipient=name if section == "recipient" else "", nexthop=name):
            found[pattern] = RequiretlsPolicy.ENFORCE
    base = config.rules
    if base.require or base.mode.acts:
        warnings.append('[rules] protects every domain: let the list of main.cf end with "enforce"')
    warnings += _weaker(config, found)
    return PolicyTable(dict(sorted(found.items(), key=_by_domain)), tuple(warnings))


def _protects(rules: RuleSet, *, recipient: str, nexthop: str) -> bool:
    rule = rules.find("", recipient, nexthop)
    return rule.mode is not Mode.OFF and (rule.mode.acts or rule.require)


def _weaker(config: Config, found: Mapping[str, RequiretlsPolicy]) -> list[str]:
    """What ``[mta]`` mirrors of main.cf that would say otherwise, were it asked first."""
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
                "wants enforce: the table has to come first in smtp_requiretls_policy"
            )
    return weaker


def _by_domain(item: tuple[str, RequiretlsPolicy]) -> tuple[list[str], bool]:
    """Domains beside their subdomains, the domain itself before its pattern."""
    name = item[0].removeprefix(".")
    return name.split(".")[::-1], item[0].startswith(".")


def to_text(table: PolicyTable) -> str:
    """The table as texthash: and postmap(1) read it, with the warnings as comments."""
    lines = [f"# {warning}\n" for warning in table.warnings]
    lines += [f"{pattern}\t{policy.value}\n" for pattern, policy in table.entries.items()]
    return _HEAD + "".join(lines)
