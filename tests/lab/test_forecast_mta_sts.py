"""The forecast is what the real Postfix does with what a live MTA-STS policy service tells it.

The service looks up the TXT record and fetches the policy over HTTPS when Postfix asks, as the
milter's engine does by itself: both see the same policy host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.labconfig import STYLES, transports
from tests.lab.milter import Milter
from tests.lab.policyservice import PORT, LivePolicies, OutOfOrder, PolicyService
from tests.lab.sweep import mirroring, send, sweep
from tests.lab.versions import as_recorded
from tests.support.scenario import Domain, Message, Mx, Scenario, Server, Sts

pytestmark = pytest.mark.lab

PORTS = {style: PORT + number for number, style in enumerate((*STYLES, "broken"))}
WAYS = ("dane/enforce", "dane/opportunistic", "may/enforce")
"""smtp_tls_security_level and smtp_requiretls_policy."""

PROFILES = {
    f"live/{way}/{style}": {
        "smtp_tls_security_level": way.partition("/")[0],
        "smtp_requiretls_policy": way.partition("/")[2],
        "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{PORTS[style]}:sts",
        "smtp_tls_enforce_sts_mx_patterns": "yes" if style == "new" else "no",
    }
    for way in WAYS
    for style in STYLES
}
BROKEN = {
    "live/broken": {
        "smtp_tls_security_level": "may",
        "smtp_requiretls_policy": "enforce",
        "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{PORTS['broken']}:sts",
    }
}

MESSAGES = {
    "required": Message(),
    "ordinary": Message(requiretls=False),
    "optional": Message(requiretls=False, tls_required_no=True),
}

GOOD = Mx(zone="uns", tlsa=())
ELSEWHERE = ("mail.elsewhere.uns.test",)


def presenting(certificate: str) -> Mx:
    return replace(GOOD, server=Server(cert=certificate))  # type: ignore[arg-type]


LACKING = replace(GOOD, server=Server(requiretls="none"))
CLEAR = replace(GOOD, server=Server(starttls="none"))
BROKEN_TLS = replace(GOOD, server=Server(handshake="garbage"))
SIGNED = Mx()
"""With signed TLSA records that match."""

DOMAINS: dict[str, tuple[tuple[Mx, ...], dict[str, Any]]] = {
    # the one server is named by the policy
    "good": ((GOOD,), {}),
    "lacking": ((LACKING,), {}),
    "clear": ((CLEAR,), {}),
    "broken": ((BROKEN_TLS,), {}),
    "wrongname": ((presenting("wrongname"),), {}),
    "expired": ((presenting("expired"),), {}),
    "selfsigned": ((presenting("selfsigned"),), {}),
    "untrusted": ((presenting("untrusted"),), {}),
    "cnonly": ((presenting("cnonly"),), {}),
    # patterns
    "wildcard": ((GOOD,), {"patterns": ("*.@DOM@",)}),
    "wildcard-two-labels": ((GOOD,), {"patterns": ("*.uns.test",)}),
    "elsewhere": ((GOOD,), {"patterns": ELSEWHERE}),
    "second": ((LACKING, replace(GOOD, pref=20)), {"patterns": ("@MX2@",)}),
    "first": ((LACKING, replace(GOOD, pref=20)), {}),
    "both": ((presenting("wrongname"), replace(LACKING, pref=20)), {"patterns": ("*.@DOM@",)}),
    "neither": ((GOOD, replace(GOOD, pref=20)), {"patterns": ELSEWHERE}),
    # a policy that is not in force
    "testing": ((GOOD,), {"mode": "testing"}),
    "testing-elsewhere": ((GOOD,), {"mode": "testing", "patterns": ELSEWHERE}),
    "none": ((GOOD,), {"mode": "none"}),
    "testing-signed": ((SIGNED,), {"mode": "testing"}),
    # no policy to be had
    "404": ((GOOD,), {"https": "404"}),
    "500-signed": ((SIGNED,), {"https": "500"}),
    "redirect": ((GOOD,), {"https": "redirect"}),
    "garbage": ((GOOD,), {"https": "garbage"}),
    "big": ((GOOD,), {"https": "big"}),
    "close": ((GOOD,), {"https": "close"}),
    "https-wrongname": ((GOOD,), {"https": "wrongname"}),
    "https-expired": ((GOOD,), {"https": "expired"}),
    "https-untrusted": ((GOOD,), {"https": "untrusted"}),
    # beside DANE: the policy takes its place
    "signed": ((SIGNED,), {}),
    "signed-mismatch": ((Mx(tlsa=("3 1 1 bad",)),), {}),
    "signed-wrongname": ((replace(SIGNED, server=Server(cert="wrongname")),), {}),
}


def scenarios(style: str, kind: str) -> tuple[Scenario, ...]:
    """Mail of one kind to each of the domains, over each transport where that matters."""
    made = []
    for way in WAYS if kind == "required" else WAYS[:1]:
        for name, (hosts, words) in DOMAINS.items():
            signed = any(mx.tlsa for mx in hosts)
            sts = Sts(style=style, **words)  # type: ignore[arg-type]
            domain = Domain(zone="sig" if signed else "uns", sts=sts, mx=hosts)
            made.append(
                Scenario(
                    f"sts-{style}-{kind[:3]}-{way.replace('/', '-')}-{name}",
                    f"live/{way}/{style}",
                    domains=(domain,),
                    message=MESSAGES[kind],
                )
            )
    return tuple(made)


ALL = {(style, kind): scenarios(style, kind) for style in STYLES for kind in MESSAGES}
OUT_OF_ORDER = Scenario(
    "sts-out-of-order", "live/broken", (Domain(zone="uns", sts=Sts(https="500"), mx=(GOOD,)),)
)


@pytest.fixture(scope="module")
def live(lab: Lab) -> Iterator[dict[str, LivePolicies]]:
    """The policy services, running."""
    policies = {style: LivePolicies(style, lab.ca_file) for style in STYLES}

    def broken(key: str) -> str:
        raise OutOfOrder(f"no answer for {key}")

    with (
        PolicyService(policies["old"], PORTS["old"]),
        PolicyService(policies["new"], PORTS["new"]),
        PolicyService(broken, PORTS["broken"]),
    ):
        yield policies


@pytest.fixture(scope="module")
def milter(lab: Lab, live: dict[str, LivePolicies]) -> Iterator[Milter]:
    """A milter that mirrors the transports of these tests."""
    lab.add([scenario for group in ALL.values() for scenario in group])
    lab.add([OUT_OF_ORDER])
    lab.add_transports({**PROFILES, **BROKEN})
    mirror = {**transports(PROFILES), **transports(BROKEN)}
    with mirroring(lab, mirror) as running:
        yield running


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", MESSAGES)
def test_r57_a_policy_that_a_live_service_fetches_is_forecast(
    lab: Lab, live: dict[str, LivePolicies], milter: Milter, style: str, kind: str
) -> None:
    as_recorded(sweep(lab, milter, ALL[style, kind]))
    # Of TLS-Required: No Postfix asks no policy service (RFC 8689 section 4.2.2).
    fetched = set(live[style].fetched)
    with_policy = {
        scenario.domain_name(domain)
        for scenario in ALL[style, kind]
        for domain in scenario.domains
        if domain.sts and domain.sts.https == "ok"
    }
    assert (fetched & with_policy) == (set() if kind == "optional" else with_policy)


@pytest.mark.parametrize("style", STYLES)
def test_r56_compliant_is_what_the_policy_confirms_and_the_certificate_names(
    lab: Lab, milter: Milter, style: str
) -> None:
    told = {}
    for name in ("good", "wildcard", "wildcard-two-labels", "second", "first", "signed"):
        scenario = lab.plan.scenarios[f"sts-{style}-req-dane-enforce-{name}"]
        accepted = lab.send(scenario, authenticated=True)
        line = milter.recipient(accepted.queue_id)
        told[name] = (line["forecast"], line["compliant"])
    none = ""
    good = ("2.0.0", "true")
    assert told == {
        "good": good,
        "wildcard": good,
        "signed": good,
        # the old style has no patterns that match one label only, and passes no server over
        "wildcard-two-labels": ("2.0.0", "false") if style == "old" else ("4.3.0", none),
        "second": good,
        "first": ("5.7.10" if style == "old" else "5.7.30", none),
    }


def test_a_policy_service_that_is_out_of_order_is_not_foreseen(lab: Lab, milter: Milter) -> None:
    """Nobody but Postfix asks it: it defers what is forecast by TLS level."""
    _, forecasts, deliveries = send(lab, milter, OUT_OF_ORDER)
    (recipient,) = lab.recipients(OUT_OF_ORDER)
    assert forecasts == {recipient: ("5.7.10", "may?/!requiretls:nocertmatch")}
    assert deliveries == {recipient: ("4.7.5", "unknown?/requiretls?")}
