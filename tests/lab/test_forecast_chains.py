"""Long certificate chains: the forecast is what the real Postfix does, up to its limit and beyond.

Postfix verifies a path with at most ten certificates between the server's own and the trust anchor
(smtp_tls_scert_verifydepth = 9).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from requiretls_milter.forecast.path import MAX_INTERMEDIATES
from tests.lab.hostile import HostileServer
from tests.lab.lab import Lab
from tests.lab.labconfig import told_apart
from tests.lab.milter import Milter
from tests.lab.sweep import knowing_all, send
from tests.support.scenario import Domain, Mx, Scenario, Sts

pytestmark = pytest.mark.lab

WAYS = {
    # what the domain has, and whether the server sends the authority along
    "dane-ta": (Domain(mx=(Mx(addr="refused", tlsa=("2 1 1 ca",)),)), True),
    "mta-sts": (
        Domain(zone="uns", sts=Sts(), mx=(Mx(addr="refused", zone="uns", tlsa=()),)),
        False,
    ),
    "mta-sts-all": (
        Domain(zone="uns", sts=Sts(), mx=(Mx(addr="refused", zone="uns", tlsa=()),)),
        True,
    ),
}

LENGTHS = (0, 1, *range(MAX_INTERMEDIATES - 2, MAX_INTERMEDIATES + 4))

PLACES = {
    (way, length): told_apart(
        Scenario(
            f"chain-{way}-{length}",
            "sts/enforce" if domain.sts else "dane/enforce",
            domains=(domain,),
        )
    )
    for way, (domain, _) in WAYS.items()
    for length in LENGTHS
}


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    lab.add(PLACES.values())
    with contextlib.ExitStack() as stack:
        for (way, length), scenario in PLACES.items():
            (host,) = lab.hosts(scenario)
            issued = lab.plan.pki.issue(host.name, chain=WAYS[way][1], intermediates=length)
            stack.enter_context(HostileServer(host.address, issued.path))
        yield stack.enter_context(knowing_all(lab))


@pytest.mark.parametrize("way", WAYS)
def test_a_long_chain_is_verified_as_far_as_postfix_does(
    lab: Lab, milter: Milter, way: str
) -> None:
    here = [PLACES[way, length] for length in LENGTHS]
    with ThreadPoolExecutor(len(here)) as pool:
        made = list(pool.map(lambda scenario: send(lab, milter, scenario), here))
    for _, forecasts, deliveries in made:
        assert forecasts == deliveries
    codes = [next(iter(forecasts.values()))[0] for _, forecasts, _ in made]
    wanted = ["2.0.0" if length <= MAX_INTERMEDIATES else "5.7.10" for length in LENGTHS]
    assert codes == wanted
