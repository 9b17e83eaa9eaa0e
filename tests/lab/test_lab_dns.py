"""The zones have the DNSSEC states that they claim."""

from __future__ import annotations

import dns.flags
import dns.rcode
import pytest

from tests.lab.dns import query
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.support.scenario import Domain, Mx, Scenario

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "secure"),
    [
        (".", "NS", dns.rcode.NOERROR, True),
        ("a-ok.sig.test", "MX", dns.rcode.NOERROR, True),
        ("_25._tcp.mx1.a-ok.sig.test", "TLSA", dns.rcode.NOERROR, True),
        ("no-such-name.sig.test", "MX", dns.rcode.NXDOMAIN, True),
        ("b-nodata-sig.sig.test", "MX", dns.rcode.NOERROR, True),
        ("e-new-2mx-second.uns.test", "MX", dns.rcode.NOERROR, False),
        ("no-such-name.uns.test", "MX", dns.rcode.NXDOMAIN, False),
        ("b-mx-bogus.bogus.test", "MX", dns.rcode.SERVFAIL, False),
        ("b-mx-lame.lame.test", "MX", dns.rcode.SERVFAIL, False),
        ("d-default-mydomain.sender.test", "MX", dns.rcode.NOERROR, False),
    ],
)
def test_zone_is_in_the_state_that_it_claims(
    lab: Lab, name: str, rdtype: str, rcode: dns.rcode.Rcode, secure: bool
) -> None:
    answer = query(name, rdtype, timeout=10)
    assert answer.rcode() == rcode
    assert bool(answer.flags & dns.flags.AD) is secure


def _fails(name: str, rdtype: str) -> bool:
    """Whether the resolver says that it cannot know, or says nothing for long."""
    try:
        return query(name, rdtype, timeout=5).rcode() == dns.rcode.SERVFAIL
    except LabError:
        return True


def test_dead_zone_gives_no_answer_or_servfail(lab: Lab) -> None:
    assert _fails("x.dead.test", "MX")


@pytest.mark.parametrize("how", ["deleg-lame", "deleg-dead"])
def test_tlsa_below_a_useless_server_fails_while_its_host_resolves(lab: Lab, how: str) -> None:
    scenario = Scenario(id=f"z-{how}", domains=(Domain(mx=(Mx(tlsa=(how,)),)),))
    lab.add([scenario])
    assert query(f"mx1.z-{how}.sig.test", "A").rcode() == dns.rcode.NOERROR
    assert _fails(f"_25._tcp.mx1.z-{how}.sig.test", "TLSA")
    # 4.7.5 and not 5.7.10: the record's absence is not proven (RFC 7672 §2.1.1).
    accepted = lab.send(scenario)
    (delivery,) = lab.deliveries(accepted.queue_id)
    assert (delivery.status, delivery.dsn) == ("deferred", "4.7.5")
