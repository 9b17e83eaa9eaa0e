"""Next hops in every notation: what Postfix takes is forecast as Postfix delivers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from requiretls_milter.config import Config
from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import mirror
from requiretls_milter.model import Requirement
from requiretls_milter.reports import assess
from tests.lab import submission
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.labconfig import settings
from tests.lab.postfix import Tables
from tests.support import addresses
from tests.support.asking import NEW_MTA
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

PROFILES = {
    "hop-dane": {"smtp_tls_security_level": "dane", "smtp_requiretls_policy": "enforce"},
    "hop-may": {"smtp_tls_security_level": "may", "smtp_requiretls_policy": "enforce"},
    "hop-lax": {"smtp_tls_security_level": "may", "smtp_requiretls_policy": "opportunistic"},
    "hop-srv": {
        "smtp_tls_security_level": "dane",
        "smtp_requiretls_policy": "enforce",
        "use_srv_lookup": "submission",
    },
    "hop-srv-all": {
        "smtp_tls_security_level": "dane",
        "smtp_requiretls_policy": "enforce",
        "use_srv_lookup": "smtp",
    },
    "hop-fatal": {"smtp_tls_security_level": "none"},
}

GOOD = Scenario("hop-good", "dane/enforce", (Domain(mx=(Mx(),)),))
LACKING = Scenario(
    "hop-lacking", "dane/enforce", (Domain(mx=(Mx(server=Server(requiretls="none")),)),)
)
UNSIGNED = Scenario("hop-unsigned", "dane/enforce", (Domain(zone="uns", mx=(Mx(zone="sig"),)),))
ANCHOR = Scenario("hop-anchor", "dane/enforce", (Domain(mx=(Mx(tlsa=("2 0 1 ca",)),)),))

SENT = ("2.0.0", "dane/requiretls")
LAX = ("2.0.0", "may/requiretls:nocertmatch")
UNVERIFIED = ("5.7.10", "may?/!requiretls:nocertmatch")
LACKS = ("5.7.30", "dane/!requiretls:none")
NOT_FOUND = ("5.4.4", None)
NEVER_FOUND = ("4.3.5", None)


@dataclass(frozen=True)
class Case:
    """A next hop of a profile, with what it ends with; ``relay`` is relayhost."""

    profile: str
    nexthop: str
    ends: tuple[str, str | None]


CASES = (
    # an address without brackets
    Case("hop-lax", "@ADDRESS@", LAX),
    Case("hop-lax", "@ADDRESS@:25", LAX),
    Case("hop-lax", "@ADDRESS@:smtp", LAX),
    Case("hop-lax", "@ADDRESS@:", LAX),
    Case("hop-may", "@ADDRESS@", UNVERIFIED),
    Case("hop-lax", "@ADDRESS@:lmtp", ("4.4.1", "may?/requiretls?")),
    Case("hop-lax", "2001:db8::1:25", NOT_FOUND),  # no IPv6 in this lab
    Case("hop-lax", "2001:db8:0:0:0:0:0:25", NOT_FOUND),
    Case("hop-lax", "inet:25", NOT_FOUND),
    # ports, brackets, capitals
    Case("hop-dane", "@DOMAIN@:25", SENT),
    Case("hop-dane", "@DOMAIN@:smtp", SENT),
    Case("hop-dane", "@DOMAIN@:", SENT),
    Case("hop-dane", "[@HOST@]:", SENT),
    Case("hop-dane", "[@HOST@]:smtp", SENT),
    Case("hop-dane", "@LACKING@:smtp", LACKS),
    # SRV records
    Case("hop-srv", "@DOMAIN@:submission", SENT),
    Case("hop-srv", "@LACKING@:submission", LACKS),
    Case("hop-srv", "@DOMAIN@", SENT),
    Case("hop-srv", "@UNSIGNED@:submission", ("2.0.0", "halfdane/requiretls")),
    Case("hop-srv", "@ANCHOR@:submission", SENT),
    Case("hop-srv", "none.sig.test:submission", NOT_FOUND),
    Case("hop-srv", "null.sig.test:submission", ("5.1.0", None)),
    Case("hop-srv", "broken.bogus.test:submission", ("4.4.3", None)),
    Case("hop-srv", "two.sig.test:submission", SENT),
    Case("hop-srv", "[@HOST@]:smtp", SENT),
    Case("hop-srv", "192.0.2.1:submission", NOT_FOUND),
    Case("hop-srv-all", "@DOMAIN@", NOT_FOUND),
    Case("hop-srv-all", "all.sig.test", SENT),
    Case("hop-srv-all", "@DOMAIN@:25", SENT),
)

RELAYS = {
    "[@ADDRESS@]": ("4.3.5", UNVERIFIED[1]),
    "@ADDRESS@": ("4.3.5", UNVERIFIED[1]),
    "[@HOST@]:25": ("4.3.5", UNVERIFIED[1]),
    "none.sig.test": NEVER_FOUND,
    "[none.sig.test]": NEVER_FOUND,
    addresses.FRONT: NEVER_FOUND,
}
"""relayhost, over smtp(8) at level may, and what mail for it ends with."""

FATAL = {
    "inet:[@ADDRESS@]": "unknown service: [@ADDRESS@]/tcp",
    "inet:@HOST@": "unknown service: @HOST@/tcp",
    "inet:@ADDRESS@:25": "valid hostname or network address required",
    "2001:db8::1": "valid hostname or network address required",
    "@HOST@.": "valid hostname or network address required",
    "@HOST@:nosuch": "unknown service: nosuch/tcp",
    "@HOST@:99999": "bad network port: 99999",
    "1234": "valid hostname or network address required",
}
"""Next hops of which smtp(8) dies, with what it says."""


@dataclass(frozen=True)
class Site:
    """The lab, with a transport for each profile, and what the words of a next hop stand for."""

    lab: Lab
    words: Mapping[str, str]

    def named(self, text: str) -> str:
        for word, name in self.words.items():
            text = text.replace(word, name)
        return text

    def config(self) -> Config:
        """The milter's configuration by ``mta import``."""
        command = f"chroot {self.lab.front.root} /usr/sbin/postconf"
        made = mirror(Postconf(command, self.lab.front.inside("etc")).read())
        return settings(self.lab, mta=dict(made.mta))

    def route(self, to: Mapping[str, tuple[str, str]], **parameters: str) -> None:
        inbox = {MYDOMAIN: ("inbox", f"[{addresses.MAILBOX}]")}
        table = Tables({**self.lab.plan.transport, **to, **inbox}, self.lab.plan.tls_policy)
        self.lab.front.reload(table, parameters or None)

    def send(self, recipient: str) -> str:
        return submission.send(
            self.lab.front.address,
            [recipient],
            submission.message("next hop", [recipient]),
            ca_file=self.lab.ca_file,
            parameters=("REQUIRETLS",),
        ).queue_id

    def ends(self, recipient: str) -> tuple[str, str | None]:
        (delivery,) = self.lab.deliveries(self.send(recipient))
        return delivery.dsn, delivery.tls


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    before = lab.front.parameters
    lab.add([GOOD, LACKING, UNSIGNED, ANCHOR])
    names = {item.id: item.domain_name(item.domains[0]) for item in lab.plan.scenarios.values()}
    hosts = {item.id: lab.hosts(item)[0] for item in (GOOD, LACKING, UNSIGNED, ANCHOR)}
    for item in (GOOD, LACKING, UNSIGNED, ANCHOR):
        add_srv(lab, names[item.id], f"10 0 25 {hosts[item.id].name}.")
    add_srv(lab, "null.sig.test", "0 0 0 .")
    add_srv(lab, "broken.bogus.test", f"10 0 25 {hosts[GOOD.id].name}.")
    add_srv(lab, "two.sig.test", f"10 0 2626 {hosts[GOOD.id].name}.")
    add_srv(lab, "two.sig.test", f"20 0 25 {hosts[GOOD.id].name}.")
    add_srv(lab, "all.sig.test", f"10 0 25 {hosts[GOOD.id].name}.", service="smtp")
    lab.update()
    lab.add_transports(PROFILES)
    words = {
        "@DOMAIN@": names[GOOD.id],
        "@LACKING@": names[LACKING.id],
        "@UNSIGNED@": names[UNSIGNED.id],
        "@ANCHOR@": names[ANCHOR.id],
        "@HOST@": hosts[GOOD.id].name,
        "@ADDRESS@": hosts[GOOD.id].address,
    }
    yield Site(lab, words)
    lab.front.restore(before)


def add_srv(lab: Lab, name: str, data: str, service: str = "submission") -> None:
    zone = ".".join(name.split(".")[-2:])
    lab.plan.records[zone].append(f"_{service}._tcp.{name}. 300 SRV {data}")


def forecast(config: Config, nexthop: str, transport: str) -> tuple[str, str | None]:
    (report,) = assess.run(
        assess.parse_all([nexthop], config.mta, transport),
        config,
        Requirement.REQUIRETLS,
        mta=NEW_MTA,
        carried=None,
        transport=transport,
        refresh=False,
    )
    return report["forecast"]["status"], report["forecast"]["tls"]


def test_each_notation_is_forecast_as_postfix_takes_it(site: Site) -> None:
    ways = {
        f"hop{number}.hops.test": (case.profile, site.named(case.nexthop))
        for number, case in enumerate(CASES)
    }
    site.route(ways)
    config = site.config()

    def both(domain: str) -> tuple[object, object]:
        profile, nexthop = ways[domain]
        return forecast(config, nexthop, profile), site.ends(f"x@{domain}")

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(CASES, pool.map(both, ways), strict=True))
    assert {case: was for case, (_, was) in found.items()} == {case: case.ends for case in CASES}
    assert {case: ours for case, (ours, _) in found.items()} == {case: case.ends for case in CASES}


@pytest.mark.parametrize("relayhost", RELAYS)
def test_what_fails_for_good_at_relayhost_is_deferred(site: Site, relayhost: str) -> None:
    nexthop = site.named(relayhost)
    site.route(
        {},
        relayhost=nexthop,
        smtp_tls_security_level="may",
        smtp_requiretls_policy="enforce",
    )
    assert site.ends("x@relayed.hops.test") == RELAYS[relayhost]
    assert forecast(site.config(), nexthop, "smtp") == RELAYS[relayhost]


def test_another_text_than_relayhost_is_another_next_hop(site: Site) -> None:
    site.route(
        {
            "same.hops.test": ("hop-dane", "[none.sig.test]"),
            "port.hops.test": ("hop-dane", "[none.sig.test]:25"),
        },
        relayhost="[none.sig.test]",
    )
    config = site.config()
    assert site.ends("x@same.hops.test") == NEVER_FOUND
    assert forecast(config, "[none.sig.test]", "hop-dane") == NEVER_FOUND
    assert site.ends("x@port.hops.test") == NOT_FOUND
    assert forecast(config, "[none.sig.test]:25", "hop-dane") == NOT_FOUND


def test_check_says_what_smtp_cannot_use(site: Site) -> None:
    ways = {
        f"fatal{number}.hops.test": ("hop-fatal", site.named(nexthop))
        for number, nexthop in enumerate(FATAL)
    }
    site.route(ways, relayhost="")
    config = site.config()
    queued = [site.send(f"x@{domain}") for domain in ways]

    def dies() -> bool:
        log = site.lab.front.log
        log.read()
        fatal = [line for line in log.lines if "/hop-fatal/smtp[" in line and " fatal: " in line]
        return all(any(site.named(words) in line for line in fatal) for words in FATAL.values())

    eventually(dies, "smtp(8) has died of each", wait=30)
    for profile, nexthop in ways.values():
        with pytest.raises(assess.MalformedError, match="Postfix cannot use such a next hop"):
            assess.parse_all([nexthop], config.mta, profile)
    for queue_id in queued:
        site.lab.front.discard(queue_id)
