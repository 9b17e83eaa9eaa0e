"""The forecast is what the real Postfix then does, over IPv6 and where a host has both families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.labconfig import transports
from tests.lab.milter import Milter
from tests.lab.sweep import differences, mirroring, send
from tests.support.scenario import Domain, Message, Mx, Scenario, Server

pytestmark = pytest.mark.lab

_DANE = {"smtp_tls_security_level": "dane", "smtp_requiretls_policy": "enforce"}
PROFILES = {
    "dual": {**_DANE, "inet_protocols": "ipv4 ipv6"},
    # proxy_interfaces has an address that such an smtp(8) cannot read
    "six": {**_DANE, "inet_protocols": "ipv6", "proxy_interfaces": ""},
    "four": {**_DANE, "inet_protocols": "ipv4"},
    "prefer-six": {**_DANE, "inet_protocols": "ipv4 ipv6", "smtp_address_preference": "ipv6"},
    "prefer-four": {**_DANE, "inet_protocols": "ipv4 ipv6", "smtp_address_preference": "ipv4"},
    "prefer-six-of-3": {
        **_DANE,
        "inet_protocols": "ipv4 ipv6",
        "smtp_address_preference": "ipv6",
        "smtp_mx_address_limit": "3",
    },
    "dual-default": {"smtp_tls_security_level": "may", "inet_protocols": "ipv4 ipv6"},
}

GOOD = Server()
NO_REQUIRETLS = Server(requiretls="none")
NO_STARTTLS = Server(starttls="none")
NO_HANDSHAKE = Server(handshake="garbage")
WRONG_NAME = Server(cert="wrongname")
"""Of DANE-EE records another key."""

SIX_ONLY: dict[str, Any] = {"addr": "none", "addr6": "listen"}


def at(name: str, *mx: Mx, profile: str = "dual", **domain: Any) -> Scenario:
    message = domain.pop("message", Message())
    return Scenario(
        f"six-{name}",
        profile,
        domains=(Domain(mx=mx or (Mx(**SIX_ONLY),), **domain),),
        message=message,
    )


def dual(server: Server, server6: Server, **more: Any) -> Mx:
    return Mx(server=server, addr6="listen", server6=server6, **more)


def _only_six() -> Iterator[Scenario]:
    for name, server in (
        ("good", GOOD),
        ("noreq", NO_REQUIRETLS),
        ("nostarttls", NO_STARTTLS),
        ("nohandshake", NO_HANDSHAKE),
        ("454", Server(starttls_reply="454 4.7.0 no TLS now")),
        ("banner", Server(banner="554 5.3.2 no")),
    ):
        yield at(name, Mx(server=server, **SIX_ONLY))
    yield at("mismatch", Mx(tlsa=("3 1 1 bad",), **SIX_ONLY))
    yield at("ta", Mx(tlsa=("2 1 1 ca",), **SIX_ONLY))
    yield at("ta-wrongname", Mx(tlsa=("2 1 1 ca",), server=WRONG_NAME, **SIX_ONLY))
    yield at("unsigned", Mx(zone="uns", **SIX_ONLY), zone="uns")
    yield at("refused", Mx(addr="none", addr6="refused"))
    yield at("tlsa-lame", Mx(tlsa=("deleg-lame",), **SIX_ONLY))
    yield at("implicit", Mx(**SIX_ONLY), kind="implicit")
    yield at("alias", Mx(alias="sig", **SIX_ONLY))
    yield at("brackets", Mx(**SIX_ONLY), nexthop="[@MX1@]")
    yield at("ordinary", Mx(tlsa=("3 1 1 bad",), **SIX_ONLY), message=Message(requiretls=False))
    yield at(
        "optional",
        Mx(tlsa=("3 1 1 bad",), **SIX_ONLY),
        message=Message(requiretls=False, tls_required_no=True),
    )


def _protocols() -> Iterator[Scenario]:
    """What inet_protocols leaves of a host's addresses."""
    yield at("four-of-both", dual(GOOD, NO_REQUIRETLS), profile="four")
    yield at("six-of-both", dual(NO_REQUIRETLS, GOOD), profile="six")
    yield at("six-lacking", dual(GOOD, NO_REQUIRETLS), profile="six")
    yield at("four-at-six-only", profile="four")
    yield at("six-at-four-only", Mx(), profile="six")
    yield at("four-next-mx", Mx(**SIX_ONLY), Mx(pref=20, server=NO_REQUIRETLS), profile="four")


def _literals() -> Iterator[Scenario]:
    """``user@[IPv6:...]``, and ``[IPv6:...]`` as a next hop: no name, so no TLSA records."""
    for profile in ("dual", "dual-default"):
        yield at(f"literal-{profile}", kind="literal6", profile=profile)
        yield at(f"nexthop-{profile}", nexthop="[IPv6:@ADDR61@]", profile=profile)
        yield at(f"port-{profile}", nexthop="[IPv6:@ADDR61@]:25", profile=profile)
        yield at(f"bare-{profile}", nexthop="[@ADDR61@]", profile=profile)
    yield at(
        "literal-refused", Mx(addr="none", addr6="refused"), kind="literal6", profile="dual-default"
    )
    yield at(
        "literal-clear", Mx(server=NO_STARTTLS, **SIX_ONLY), kind="literal6", profile="dual-default"
    )
    yield at("literal-four", kind="literal6", profile="four")
    yield at("literal-six", Mx(), kind="literal", profile="six")


def _one_family_fails() -> Iterator[Scenario]:
    """A host with both: where one satisfies, it decides whatever the order."""
    for name, server in (("noreq", NO_REQUIRETLS), ("nohandshake", NO_HANDSHAKE)):
        yield at(f"four-{name}", dual(server, GOOD))
        yield at(f"six-{name}", dual(GOOD, server))
        yield at(f"both-{name}", dual(server, server))
    yield at("four-refused", Mx(addr="refused", addr6="listen"))
    yield at("six-refused", Mx(addr6="refused"))
    yield at("both-refused", Mx(addr="refused", addr6="refused"))
    yield at("wrong-ta", dual(WRONG_NAME, GOOD, tlsa=("2 1 1 ca",)))
    yield at("next-mx", Mx(addr="refused", addr6="refused"), Mx(pref=20, server=NO_REQUIRETLS))


def _preferred() -> Iterator[Scenario]:
    """A preferred family comes first: the other one's failure is the last, and is reported."""
    for profile in ("prefer-four", "prefer-six"):
        yield at(f"{profile}-1", dual(NO_REQUIRETLS, NO_HANDSHAKE), profile=profile)
        yield at(f"{profile}-2", dual(NO_HANDSHAKE, NO_REQUIRETLS), profile=profile)
        yield at(f"{profile}-3", Mx(addr6="refused", server=NO_REQUIRETLS), profile=profile)
        yield at(f"{profile}-4", dual(GOOD, NO_REQUIRETLS), profile=profile)
        yield at(
            f"{profile}-two-hosts",
            Mx(server=NO_REQUIRETLS),
            Mx(server=NO_HANDSHAKE, **SIX_ONLY),
            profile=profile,
        )
        yield at(  # but the MX preference comes before the family
            f"{profile}-by-mx",
            Mx(server=NO_REQUIRETLS, pref=20),
            Mx(server=NO_HANDSHAKE, **SIX_ONLY),
            profile=profile,
        )
        yield at(  # and a host without MX records has families, too
            f"{profile}-host",
            dual(NO_REQUIRETLS, NO_HANDSHAKE),
            kind="implicit",
            profile=profile,
        )
    # Three of five addresses: two of the preferred family and one of the other
    # (smtp_balance_inet_protocols), which is tried last.
    yield at(
        "balance",
        Mx(server=NO_HANDSHAKE, **SIX_ONLY),
        Mx(server=NO_HANDSHAKE, **SIX_ONLY),
        Mx(server=NO_HANDSHAKE, **SIX_ONLY),
        Mx(server=NO_REQUIRETLS),
        Mx(server=NO_REQUIRETLS),
        profile="prefer-six-of-3",
    )


SCENARIOS = (
    *_only_six(),
    *_protocols(),
    *_literals(),
    *_one_family_fails(),
    *_preferred(),
)


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that mirrors the transports of these tests."""
    lab.add(SCENARIOS)
    lab.add_transports(PROFILES)
    with mirroring(lab, transports(PROFILES)) as running:
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.id)
def test_forecast(lab: Lab, milter: Milter, scenario: Scenario) -> None:
    if scenario.id == "six-literal-four" and not lab.isolated:
        pytest.skip("an IPv4-mapped address in brackets is an IPv4 address to Postfix")
    assert differences([send(lab, milter, scenario)]) == []
