"""The forecast is what the real Postfix does with static TLS policies (smtp_tls_policy_maps)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.labconfig import transports
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.lab.sweep import mirroring, sweep
from tests.lab.versions import as_recorded
from tests.support.scenario import Domain, Message, Mx, Scenario, Server

pytestmark = pytest.mark.lab

UNSIGNED = Mx(zone="uns", tlsa=())
HOSTS = {
    "good": UNSIGNED,
    "lacking": replace(UNSIGNED, server=Server(requiretls="none")),
    "clear": replace(UNSIGNED, server=Server(starttls="none")),
    "wrongname": replace(UNSIGNED, server=Server(cert="wrongname")),
    "signed": Mx(),
    "mismatch": Mx(tlsa=("3 1 1 bad",)),
    "unusable": Mx(tlsa=("1 1 1 match",)),
}
MESSAGES = {
    "required": Message(),
    "ordinary": Message(requiretls=False),
    "optional": Message(requiretls=False, tls_required_no=True),
}
LEVELS = ("none", "may", "encrypt", "dane", "dane-only", "verify", "secure")
MATCHES = {
    "hostname": "hostname",
    "nexthop": "nexthop",
    "dot-nexthop": "dot-nexthop",
    "literal": "elsewhere.test:mx1.policy-match-literal.uns.test",
    "parent": ".policy-match-parent.uns.test",
    "other": "elsewhere.test",
    "verify": "nexthop:hostname",
}

OWN: dict[str, str] = {}
"""Entries of the table, by next hop; filled with the scenarios."""
PARENTS = {".uns.test": "verify", "policy-parent-own.uns.test": "none", ".policy.test": "none"}
WAYS = {"may/enforce": OWN, "dane/enforce": OWN, "may/opportunistic": OWN, "parent": PARENTS}


def at(name: str, host: str, message: str, way: str, entry: str, **more: Any) -> Scenario:
    """A message to a domain of its own, for which the table has *entry*."""
    mx = HOSTS[host]
    domain = Domain(zone=mx.zone, mx=(mx,), **more)
    made = Scenario(f"policy-{name}", f"policy/{way}", domains=(domain,), message=MESSAGES[message])
    if entry:
        OWN[made.domain_name(domain)] = entry
    return made


def _scenarios() -> Iterator[Scenario]:
    for level in LEVELS:
        for host in HOSTS:
            for message in MESSAGES:
                ways = ("may/enforce", "may/opportunistic") if message == "required" else ()
                for way in ways or ("dane/enforce",):
                    name = f"{level}-{host}-{message}-{way.replace('/', '-')}"
                    yield at(name, host, message, way, level)
    for name, match in MATCHES.items():
        level = "verify" if name == "verify" else "secure"
        entry = f"{level} match={match} connection_reuse=no"
        yield at(f"match-{name}", "good", "required", "may/enforce", entry)
        yield at(f"match-{name}-ordinary", "good", "ordinary", "may/enforce", entry)
    for host in ("good", "clear", "wrongname"):
        yield at(f"parent-{host}", host, "required", "parent", "")
        yield at(f"parent-{host}-ordinary", host, "ordinary", "parent", "")
    yield at("parent-own", "clear", "ordinary", "parent", "")
    # what has brackets is sought by its own name only
    for name, nexthop in (("host", "[@MX1@]"), ("both", "[@MX1@]:25")):
        yield at(f"{name}-bare", "clear", "ordinary", "may/enforce", "encrypt", nexthop=nexthop)
    OWN["[mx1.policy-host-entry.uns.test]"] = "encrypt"
    yield at("host-entry", "clear", "ordinary", "may/enforce", "", nexthop="[@MX1@]")


SCENARIOS = tuple(_scenarios())


def _inline(table: Mapping[str, str]) -> str:
    return "inline:{ " + ", ".join(f"{{ {key} = {value} }}" for key, value in table.items()) + " }"


PROFILES = {
    way: {
        "smtp_tls_security_level": "dane" if way.startswith("dane") else "may",
        "smtp_requiretls_policy": "opportunistic" if way.endswith("opportunistic") else "enforce",
    }
    for way in WAYS
}


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that has the tables of these transports."""
    lab.add(SCENARIOS)
    lab.add_transports(
        {
            f"policy/{way}": {**parameters, "smtp_tls_policy_maps": _inline(WAYS[way])}
            for way, parameters in PROFILES.items()
        }
    )
    overrides = {
        transport_name(f"policy/{way}"): {
            **transports(PROFILES)[transport_name(way)],
            "tls_policy": WAYS[way],
        }
        for way in WAYS
    }
    with mirroring(lab, overrides) as running:
        yield running


def test_each_delivery_ends_as_forecast(lab: Lab, milter: Milter) -> None:
    as_recorded(sweep(lab, milter, SCENARIOS))
