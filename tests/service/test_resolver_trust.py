"""A running service tests its resolver again and again, and acts on each change at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.dnsserver import failure, found
from tests.support.internet import Internet, loopback_internet
from tests.support.service import Service
from tests.support.waiting import eventually

OFTEN = {
    "engine.process.RESOLVER_TICK": 0.05,
    "evidence.selftest.PASSED_INTERVAL": 0.2,
    "evidence.selftest.FAILED_INTERVAL": 0.2,
}

HONEST = found("unsigned.test. 60 IN A 192.0.2.1", ad=False)
LIE = found("unsigned.test. 60 IN A 192.0.2.1", ad=True)


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        one.dns.set("signed.test", "A", found("signed.test. 60 IN A 192.0.2.1", ad=True))
        one.dns.set("bogus.test", "A", failure())
        one.dns.set("unsigned.test", "A", HONEST)
        yield one


def test_r20_what_was_kept_from_a_resolver_is_forgotten_when_it_is_found_to_lie(
    make: Callable[..., Service], internet: Internet
) -> None:
    names = (
        '[dns]\nselftest_secure = "signed.test"\nselftest_bogus = "bogus.test"\n'
        'selftest_insecure = "unsigned.test"\n'
    )
    service = make(internet.config.replace("[dns]\n", names), limits=OFTEN).start()

    def forecast(status: str) -> bool:
        (tag,) = service.send("<bob@good.test>")
        return f"forecast={status}; " in tag

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
