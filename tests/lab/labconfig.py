"""A configuration of the milter that mirrors the lab's MTA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from requiretls_milter.config import Config
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.postfix import transport_name
from tests.support import addresses
from tests.support.scenario import Scenario, load

STYLES = ("old", "new")

NO_BUDGETS = {
    f"{what}_per_{unit}": 1_000_000
    for what in ("address", "network", "zone_lookups")
    for unit in ("minute", "hour")
}
"""``[limits]`` of a sweep: hundreds of domains in a few zones and one network, within a minute."""

SELFTEST_NAMES = {
    "selftest_secure": "sig.test",
    "selftest_bogus": "bogus.test",
    "selftest_insecure": "uns.test",
}
"""Names of the lab's own: without the public DNS, nothing else shows that Unbound validates."""


def transport_overrides(profile: Mapping[str, str], style: str | None) -> dict[str, Any]:
    """The ``[mta.transport.NAME]`` table that mirrors the parameters of one smtp(8)."""
    overrides: dict[str, Any] = {"tls_security_level": profile["smtp_tls_security_level"]}
    word = profile.get("smtp_requiretls_policy")
    if word is not None:
        known = ("enforce", "opportunistic+starttls", "opportunistic", "disable")
        overrides["requiretls_policy"] = word if word in known else "invalid"
    if "smtp_tls_dane_insecure_mx_policy" in profile:
        overrides["insecure_mx_policy"] = profile["smtp_tls_dane_insecure_mx_policy"]
    if "inet_protocols" in profile:
        overrides["inet_protocols"] = profile["inet_protocols"].split()
    if "smtp_mx_address_limit" in profile:
        overrides["mx_address_limit"] = int(profile["smtp_mx_address_limit"])
    if "smtp_address_preference" in profile:
        overrides["address_preference"] = profile["smtp_address_preference"]
    if "smtp_tls_policy_maps" in profile:
        overrides["mta_sts"] = "mx-patterns" if style == "new" else "match"
    return overrides


def style_of(scenario: Scenario) -> str | None:
    """How the MTA hears of the scenario's MTA-STS policy."""
    return next((domain.sts.style for domain in scenario.domains if domain.sts), None)


def settings(lab: Lab, transport: Mapping[str, Any] | None = None, **sections: Any) -> Config:
    """The configuration for this lab, as one would write it in TOML; *sections* come on top."""
    data: dict[str, Any] = {
        "mta": {
            "mydomain": MYDOMAIN,
            "myhostname": f"mta.{MYDOMAIN}",
            "my_addresses": [addresses.FRONT, "127.0.0.1"],  # inet_interfaces = loopback-only
            "transport": dict(transport or {}),
        },
        "dns": {"nameservers": [lab.resolver], "timeout": 4, **SELFTEST_NAMES},
        "probe": {
            "ca_file": str(lab.ca_file),
            "allow_networks": list(addresses.NETWORKS),
            "connect_timeout": 4,
            "command_timeout": 4,
            "helo": f"probe.{MYDOMAIN}",
        },
    }
    for name, values in sections.items():
        data.setdefault(name, {}).update(values)
    return Config.model_validate(data)


def told_apart(scenario: Scenario) -> Scenario:
    """*scenario* with a transport that knows which style its MTA-STS policy comes in.

    A policy table tells Postfix the style domain by domain; we know it by transport.
    """
    style = style_of(scenario)
    return scenario if style is None else replace(scenario, profile=f"{scenario.profile}/{style}")


def profiles_told_apart() -> dict[str, Mapping[str, str]]:
    """The recorded profiles, and those that :func:`told_apart` names."""
    profiles = dict(load().profiles)
    for name, parameters in load().profiles.items():
        if "smtp_tls_policy_maps" in parameters:
            profiles |= {f"{name}/{style}": parameters for style in STYLES}
    return profiles


def all_transports() -> dict[str, dict[str, Any]]:
    """``[mta.transport]`` for all of these profiles, by the names in master.cf."""
    return transports(profiles_told_apart())


def transports(profiles: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """``[mta.transport]`` for *profiles*, by the names in master.cf."""
    return {
        transport_name(name): transport_overrides(
            parameters, name.rpartition("/")[2] if name.endswith(STYLES) else None
        )
        for name, parameters in profiles.items()
    }


def profile_settings(scenario: Scenario) -> dict[str, Any]:
    """The overrides for the scenario's own smtp(8)."""
    return transport_overrides(load().profiles[scenario.profile], style_of(scenario))
