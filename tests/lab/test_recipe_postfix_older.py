"""The recipe for Postfix 3.7 to 3.10: what rules ask goes by a strict transport.

docs/recipes/postfix.md explains it; its files are what runs here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.policyservice import PolicyService
from tests.lab.postfix import Postfix
from tests.lab.recipes import LOCAL_DOMAIN, LOCAL_RECIPIENT, POSTFIX, Site, scenario, server
from tests.support.scenario import Domain, Message, Mx, Scenario, Sts, Zone

pytestmark = pytest.mark.lab

RECIPE = "postfix-3.7"
VERSIONS = ("postfix-3.7", "postfix-3.10")

CLEAR = server(tlsa=[], starttls="none")


def unsigned(name: str, host: Zone, sts: Sts | None = None) -> Scenario:
    """A domain without DNSSEC; its host has a name in zone *host*."""
    return Scenario(
        name,
        profile="may/opportunistic",
        message=Message(requiretls=False),
        domains=(Domain(zone="uns", sts=sts, mx=(Mx(zone=host, tlsa=()),)),),
    )


DOMAINS = (
    GOOD := scenario("old-good"),
    NOT_KNOWN := scenario("old-notknown", server(requiretls="none")),
    DEMANDING := scenario("old-demanding", server(requiretls="none")),
    TRAP := scenario("old-trap", server(starttls="none")),
    REFUSED := scenario("old-refused", server(starttls="none")),
    MISMATCH := scenario("old-mismatch", server(tlsa=["3 1 1 bad"])),
    BESIDE := scenario("old-beside"),
    BYSTANDER := scenario("old-bystander", CLEAR),
    BACK := scenario("old-back", CLEAR),
    BOUNCING := scenario("old-bouncing", server(rcpt_reply={"u": "550 5.1.1 no such user"})),
    RELAY := scenario("old-relay"),
    RELAYED := scenario("old-relayed", CLEAR),
    SECOND := scenario("old-second", CLEAR, server(pref=20)),
    PLAIN_RELAYED := scenario("old-plainrelayed", CLEAR),
    STS := unsigned("old-sts", "sig", Sts("old", ("@MX1@",))),
    NO_STS := unsigned("old-nosts", "sig"),
    CONTRADICTED := scenario("old-contradicted"),
    FORGED := scenario("old-forged", CLEAR),
)

ALIAS = f"alias@{LOCAL_DOMAIN}"
"""A virtual alias for a recipient elsewhere."""

WATCHED = {"require": True, "mode": "monitor"}
"""Accepted whatever the forecast: what then happens is the doing of the transport."""


def rules() -> dict[str, dict[str, object]]:
    """The recipe's rule for the domains of the tests."""
    rule = recipes.sections(f"{RECIPE}/config.toml")["rules"]["recipient"]["bank.example"]
    as_it_stands = (GOOD, NOT_KNOWN, REFUSED, BESIDE, RELAYED, SECOND)
    demanding = {key: value for key, value in rule.items() if key != "on_noncompliant"}
    return {
        **{domain(item): rule for item in as_it_stands},
        **{domain(item): WATCHED for item in (TRAP, BOUNCING, STS, NO_STS)},
        domain(DEMANDING): demanding,
        domain(CONTRADICTED): {**rule, "mode": "reject"},
    }


def domain(item: Scenario) -> str:
    return item.domain_name(item.domains[0])


@pytest.fixture(scope="module", params=VERSIONS)
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix]]:
    if DOMAINS[0].id not in lab.plan.scenarios:
        lab.add(DOMAINS)
    site = recipes.postfix(
        lab,
        POSTFIX[request.param],
        RECIPE,
        main={
            "smtp_tls_security_level": "dane",
            "virtual_alias_maps": f"inline:{{ {{ {ALIAS} = u@{domain(BYSTANDER)} }} }}",
        },
        services=recipes.text(f"{RECIPE}/master-verified.cf"),
        rules={"recipient": rules()},
    )
    with site as running:
        yield running


def connection(site: Site[Postfix], transport: str, item: Scenario) -> str:
    """What a transport said of its last TLS session with the server of *item*."""
    mark = f"postfix/{transport}/smtp"
    lines = site.mta.log.grep(rf"{mark}\[\d+\]: .* TLS connection .* mx1\.{item.id}\.")
    return list(lines)[-1].partition("]: ")[2]


def subject(site: Site[Postfix], word: str) -> str:
    """A subject that no other test has, with either version."""
    return f"{word}-{site.mta.name}"


# ---------------------------------------------------------------- what comes in


def test_the_parameter_is_refused_before_the_milter_hears_of_it(site: Site[Postfix]) -> None:
    refused = site.refusal(site.rcpt(GOOD), parameters=["REQUIRETLS"])
    assert refused.stage == "mail"
    assert (refused.reply.code, refused.reply.text) == (
        555,
        "5.5.4 Unsupported option: REQUIRETLS",
    )


def test_a_recipient_whose_delivery_would_fail_is_deferred_at_rcpt(site: Site[Postfix]) -> None:
    refused = site.refusal(site.rcpt(REFUSED))
    assert refused.stage == "rcpt"
    assert (refused.reply.code, refused.reply.text) == (
        451,
        f"4.7.4 REQUIRETLS cannot be honoured now for {domain(REFUSED)}: "
        f"mx1.{domain(REFUSED)} does not offer STARTTLS; a rule of this system requires REQUIRETLS",
    )
    assert site.saw_no_mail(REFUSED)


def test_a_next_hop_without_requiretls_is_enough_where_the_rule_says_so(
    site: Site[Postfix],
) -> None:
    sent = site.send(site.rcpt(NOT_KNOWN))
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp-strict", "sent")
    refused = site.refusal(site.rcpt(DEMANDING))
    assert (refused.stage, refused.reply.code) == ("rcpt", 451)
    assert refused.reply.text.startswith("4.7.30 ")


def test_r13_no_and_a_rule_refused_where_the_mta_would_obey_no(site: Site[Postfix]) -> None:
    """Postfix 3.10 obeys the field on every transport: nothing else keeps the promise."""
    name, headers = subject(site, "both"), ["TLS-Required: No"]
    if site.mta.name == "postfix-3.10":
        refused = site.refusal(site.rcpt(CONTRADICTED), headers=headers, subject=name)
        assert (refused.stage, refused.reply.code) == ("data", 550)
        assert refused.reply.text == (
            "5.7.10 TLS-Required: No contradicts what a rule of this system requires for mail to "
            + domain(CONTRADICTED)
        )
    else:
        sent = site.send(site.rcpt(CONTRADICTED), headers=headers, subject=name)
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert (delivery.transport, delivery.status) == ("smtp-strict", "sent")
        assert connection(site, "smtp-strict", CONTRADICTED).startswith("Verified TLS connection")


# ---------------------------------------------------------------- route=requiretls


def test_what_a_rule_asks_goes_over_the_strict_transport_verified(site: Site[Postfix]) -> None:
    name = subject(site, "strict")
    sent = site.send(site.rcpt(GOOD), subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status, delivery.dsn) == ("smtp-strict", "sent", "2.0.0")
    assert delivery.relay.endswith(f"[{site.address(GOOD)}]:25")
    assert connection(site, "smtp-strict", GOOD).startswith("Verified TLS connection")
    arrival = site.arrival(GOOD, name)
    assert arrival.session.tls == "TLSv1.3"
    assert not any("REQUIRETLS" in command for command in arrival.session.mail)
    assert site.milter.recipient(sent.queue_id)["source"] == "rule"


def test_the_header_field_of_a_front_mta_counts_as_well(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(BYSTANDER), headers=["Require-TLS-ESMTP: yes"])
    assert site.milter.recipient(sent.queue_id)["source"] == "require-tls-esmtp"
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp-strict", "deferred")


def test_the_strict_transport_sends_nothing_in_clear(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(TRAP))
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status, delivery.dsn) == (
        "smtp-strict",
        "deferred",
        "4.7.4",
    )
    assert site.saw_no_mail(TRAP)


def test_the_next_server_is_tried_where_the_first_one_has_no_tls(site: Site[Postfix]) -> None:
    name = subject(site, "second")
    sent = site.send(site.rcpt(SECOND), subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp-strict", "sent")
    arrival = site.arrival(SECOND, name)
    assert (arrival.session.address, arrival.session.tls) == (site.address(SECOND, 1), "TLSv1.3")


def test_there_is_no_table_of_policies_for_requiretls(site: Site[Postfix]) -> None:
    assert "smtp_tls_policy_maps" in site.mta.defaults()
    assert "smtp_requiretls_policy" not in site.mta.defaults()


def test_the_tag_does_not_leave(site: Site[Postfix]) -> None:
    name = subject(site, "tag")
    sent = site.send(site.rcpt(GOOD), subject=name)
    site.mta.log.wait(sent.queue_id)
    (filtered,) = site.mta.log.grep(f"{sent.queue_id}: milter-header-filter: header X-RequireTLS")
    assert "requirement=requiretls; source=rule" in filtered
    assert site.arrival(GOOD, name).tags == []


def test_r63_a_forged_tag_chooses_no_route(site: Site[Postfix]) -> None:
    forged = "X-RequireTLS: requirement=requiretls; source=esmtp; route=requiretls; by=x"
    name = subject(site, "forged")
    sent = site.send(site.rcpt(FORGED), headers=[forged], subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp", "sent")
    assert site.arrival(FORGED, name).tags == []


@pytest.mark.parametrize("others", [["local"], ["bystander"], ["local", "bystander"]])
def test_a_recipient_who_asks_nothing_keeps_the_message_on_its_way(
    site: Site[Postfix], others: list[str]
) -> None:
    """FILTER would move all: the local one into a bounce, the bystander into a delay."""
    ways = {site.rcpt(BESIDE): "smtp"}
    if "local" in others:
        ways[LOCAL_RECIPIENT] = "virtual"
    if "bystander" in others:
        ways[site.rcpt(BYSTANDER)] = "smtp"
    sent = site.send(*ways)
    deliveries = site.mta.log.wait(sent.queue_id, recipients=len(ways))
    assert {item.status for item in deliveries} == {"sent"}
    assert {item.to: item.transport for item in deliveries} == ways
    assert not list(site.mta.log.grep(f"{sent.queue_id}: milter-header-filter"))
    # The forecast is that of the way which the message really takes.
    to = f"<{site.rcpt(BESIDE)}>"
    line = site.milter.wait("recipient", queue_id=sent.queue_id, to=to)[-1]
    assert (line["forecast"], line["tls"]) == ("2.0.0", "dane")


def test_an_alias_that_leaves_looks_local_and_keeps_its_way(site: Site[Postfix]) -> None:
    sent = site.send(ALIAS, headers=["Require-TLS-ESMTP: yes"])
    line = site.milter.recipient(sent.queue_id)
    assert (line["nexthop"], line["reason"]) == ("local", "local")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.to, delivery.orig_to) == (site.rcpt(BYSTANDER), ALIAS)
    assert (delivery.transport, delivery.status) == ("smtp", "sent")


def test_a_local_recipient_alone_is_delivered_here(site: Site[Postfix]) -> None:
    sent = site.send(LOCAL_RECIPIENT)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("virtual", "sent")


def test_r14_a_bounce_of_what_a_rule_asks_has_no_body(site: Site[Postfix]) -> None:
    name = subject(site, "bounce")
    sent = site.send(site.rcpt(BOUNCING), sender=site.rcpt(BACK), subject=name, body="SECRET\n")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp-strict", "bounced")
    bounce = site.bounce(BACK, name)
    assert bounce.session.tls is None
    assert "Content-Type: text/rfc822-headers" in bounce.text
    assert "SECRET" not in bounce.text


@pytest.mark.parametrize("item", [GOOD, TRAP, NO_STS], ids=lambda item: str(item.id))
def test_what_is_forecast_is_what_the_strict_transport_does(
    site: Site[Postfix], item: Scenario
) -> None:
    """Postfix itself names smtp, at whose level the unsigned domain would be delivered to."""
    sent = site.send(site.rcpt(item))
    (delivery, *_) = site.mta.log.wait(sent.queue_id)
    line = site.milter.recipient(sent.queue_id)
    assert (line["transport"], delivery.transport) == ("smtp", "smtp-strict")
    assert line["forecast"] == delivery.dsn
    assert (delivery.status == "sent") is (item is GOOD)


def test_the_strict_route_keeps_the_relayhost(site: Site[Postfix]) -> None:
    (relay,) = site.lab.hosts(RELAY)
    site.mta.reload(parameters={"relayhost": f"[{relay.name}]"})
    try:
        for item, transport in ((RELAYED, "smtp-strict"), (PLAIN_RELAYED, "smtp")):
            name = subject(site, item.id)
            sent = site.send(site.rcpt(item), subject=name)
            (delivery,) = site.mta.log.wait(sent.queue_id)
            assert (delivery.transport, delivery.status) == (transport, "sent")
            assert delivery.relay == f"{relay.name}[{relay.address}]:25"
            assert site.arrival(RELAY, name).session.tls == "TLSv1.3"
    finally:
        site.mta.reload(parameters={"relayhost": ""})


# ------------------------------------------- route=requiretls, with a policy service


def test_a_policy_service_and_certificates_do_as_well_as_dane(site: Site[Postfix]) -> None:
    checks = recipes.text(f"{RECIPE}/milter_header_checks")
    recipes.install(
        site.mta, "milter_header_checks", checks.replace("smtp-strict:", "smtp-verified:")
    )
    site.mta.reload()
    try:
        with PolicyService(site.lab.plan.tls_policy.get) as service:
            name = subject(site, "sts")
            sent = site.send(site.rcpt(STS), subject=name)
            (delivery,) = site.mta.log.wait(sent.queue_id)
            assert (delivery.transport, delivery.status) == ("smtp-verified", "sent")
            assert connection(site, "smtp-verified", STS).startswith("Verified TLS connection")
            assert site.arrival(STS, name).session.tls == "TLSv1.3"

            sent = site.send(site.rcpt(NO_STS))
            (delivery,) = site.mta.log.wait(sent.queue_id)
            assert (delivery.transport, delivery.status, delivery.dsn) == (
                "smtp-verified",
                "deferred",
                "4.7.5",
            )
            assert site.saw_no_mail(NO_STS)
        assert {domain(STS), domain(NO_STS)} <= set(service.asked)
    finally:
        recipes.install(site.mta, "milter_header_checks", checks)
        site.mta.reload()


# ---------------------------------------------------------------- route=tls-optional


def test_r13_no_lifts_dane_on_the_optional_transport(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(MISMATCH))
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status, delivery.dsn) == ("smtp", "deferred", "4.7.5")

    name = subject(site, "optional")
    sent = site.send(site.rcpt(MISMATCH), headers=["TLS-Required: No"], subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("smtp-optional", "sent")
    # what the MTA itself does with the field is known, what a route makes of it is not
    forecast = "2.0.0" if site.mta.name == "postfix-3.10" else "4.7.5"
    assert site.milter.recipient(sent.queue_id)["forecast"] == forecast
    arrival = site.arrival(MISMATCH, name)
    assert arrival.session.tls == "TLSv1.3"
    assert "TLS-Required: No\n" in arrival.text
    assert arrival.tags == []


def test_r13_by_itself_only_postfix_3_10_obeys_no(site: Site[Postfix]) -> None:
    checks = site.mta.inside("etc/milter_header_checks")
    site.mta.reload(parameters={"milter_header_checks": ""})
    try:
        sent = site.send(site.rcpt(MISMATCH), headers=["TLS-Required: No"])
        (delivery,) = site.mta.log.wait(sent.queue_id)
        obeys = site.mta.name == "postfix-3.10"
        assert (delivery.transport, delivery.status) == ("smtp", "sent" if obeys else "deferred")
    finally:
        site.mta.reload(parameters={"milter_header_checks": f"regexp:{checks}"})


def test_no_moves_no_local_recipient(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(BYSTANDER), LOCAL_RECIPIENT, headers=["TLS-Required: No"])
    deliveries = {item.to: item for item in site.mta.log.wait(sent.queue_id, recipients=2)}
    assert {item.status for item in deliveries.values()} == {"sent"}
    assert deliveries[LOCAL_RECIPIENT].transport == "virtual"
