"""A running service tests its resolver again and again, and acts on each change at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from requiretls_milter.config import load
from requiretls_milter.doctor import service as doctor_service
from requiretls_milter.doctor import trust
from requiretls_milter.doctor.finding import Severity
from tests.support.dnsserver import bogus, found
from tests.support.internet import Internet, loopback_internet
from tests.support.service import Service
from tests.support.waiting import eventually

OFTEN = {
    "engine.process.RESOLVER_TICK": 0.05,
    "evidence.selftest.PASSED_INTERVAL": 0.2,
    "evidence.selftest.FAILED_INTERVAL": 0.2,
    "evidence.selftest.UNPROVEN_INTERVAL": 0.2,
}

HONEST = found("unsigned.test. 60 IN A 192.0.2.1", ad=False)
LIE = found("unsigned.test. 60 IN A 192.0.2.1", ad=True)


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        one.dns.set("signed.test", "A", found("signed.test. 60 IN A 192.0.2.1", ad=True))
        one.dns.set("bogus.test", "A", bogus("bogus.test. 60 IN A 192.0.2.1"))
        one.dns.set("unsigned.test", "A", HONEST)
        yield one


def config(internet: Internet, *, secure: str, bogus: str, insecure: str) -> str:
    """A configuration with these names for the self-test."""
    names = (
        f'[dns]\nselftest_secure = "{secure}"\nselftest_bogus = "{bogus}"\n'
        f'selftest_insecure = "{insecure}"\n'
    )
    return internet.config.replace("[dns]\n", names)


def forecasts(service: Service, status: str) -> bool:
    """Whether the next message's tag has this forecast."""
    (tag,) = service.send("<bob@good.test>")
    return f"forecast={status}; " in tag


def test_r20_what_was_kept_from_a_resolver_is_forgotten_when_it_is_found_to_lie(
    make: Callable[..., Service], internet: Internet
) -> None:
    named = config(internet, secure="signed.test", bogus="bogus.test", insecure="unsigned.test")
    service = make(named, limits=OFTEN).start()
    forecast = partial(forecasts, service)

    eventually(lambda: service.metric("resolver_validates") == 1)
    assert all("forecast=2.0.0; " in tag for tag in service.send("<bob@good.test>", count=8))
    internet.dns.set("unsigned.test", "A", LIE)
    eventually(lambda: service.metric("resolver_validates") == 0)
    # Every record has a TTL of 300 s, in the engine as in the forecasts that both workers keep:
    # only what is looked up anew can be called insecure.
    eventually(lambda: forecast("5.7.10"), wait=2)
    assert all("forecast=5.7.10; " in tag for tag in service.send("<bob@good.test>", count=8))
    internet.dns.set("unsigned.test", "A", HONEST)
    eventually(lambda: service.metric("resolver_validates") == 1)
    eventually(lambda: forecast("2.0.0"))
    assert len(service.events("resolver_does_not_validate")) == 1
    assert len(service.events("resolver_validates")) == 2


def test_r20_until_something_was_shown_gauge_log_doctor_and_behaviour_agree(
    make: Callable[..., Service], internet: Internet
) -> None:
    """A forwarder that sets AD in each answer, with which none of the controls can be seen."""
    unseen = config(internet, secure="signed.test", bogus="none.test", insecure="later.test")
    service = make(unseen, limits=OFTEN).start()
    eventually(lambda: bool(service.events("resolver_not_tested")))
    assert forecasts(service, "unknown")
    assert service.metric("resolver_validates") == 0
    assert service.metric("resolver_selftest_last_success_timestamp_seconds") == 0
    (line,) = service.events("resolver_not_tested")
    assert (line["level"], line["effect"]) == ("warning", "nothing is called secure")
    assert diagnosis(service) == {"resolver": "warning", "service": "warning"}

    # As soon as one control can be seen, all four change at once, forecasts that are kept too.
    internet.dns.set("later.test", "A", found("later.test. 60 IN A 192.0.2.1", ad=False))
    eventually(lambda: service.metric("resolver_validates") == 1)
    eventually(lambda: forecasts(service, "2.0.0"), wait=2)
    assert service.metric("resolver_selftest_last_success_timestamp_seconds") > time.time() - 60
    assert len(service.events("resolver_validates")) == 1
    assert diagnosis(service) == {"resolver": "ok", "service": "ok"}


def diagnosis(service: Service) -> dict[str, str]:
    """What ``doctor`` says of resolver and service: the worst of each."""
    in_force = load(service.config_path)
    findings = [*doctor_service.examine(in_force), *trust.resolvers(in_force, None, None)]
    worst: dict[str, str] = {}
    for finding in sorted(findings, key=lambda one: list(Severity).index(one.severity)):
        worst[finding.check] = str(finding.severity)
    return {check: worst[check] for check in ("resolver", "service")}
