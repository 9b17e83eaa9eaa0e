"""Evidence that is gathered now and judged in this process: nothing of it was kept from before."""

from __future__ import annotations

import time

from requiretls_milter.config import Config
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.postfix import Delivery
from requiretls_milter.model import Forecast
from requiretls_milter.syntax.nexthop import parse
from tests.lab.postfix import transport_name
from tests.support.gathered import gather
from tests.support.limiters import limiters
from tests.support.scenario import Scenario
from tests.support.scenarioevidence import requirement_of


async def delivery(config: Config, scenario: Scenario) -> Delivery:
    """The delivery of *scenario*'s message to its first domain, as the judge is told of it."""
    trust = load_trust_store(config.probe.ca_file)
    source = Collector(config, trust, limiters=limiters())
    try:
        domain = scenario.domain_name(scenario.domains[0])
        evidence = await gather(parse(domain), source, config, time.time())
    finally:
        await source.close()
    profile = config.mta.profile_for(transport_name(scenario.profile))
    return Delivery(evidence, requirement_of(scenario), profile, trust, evidence.gathered_at)


async def forecast(config: Config, scenario: Scenario) -> Forecast:
    """What that delivery would end with."""
    made = await delivery(config, scenario)
    return judge(
        made.evidence,
        asked=made.carried,
        carried=made.carried,
        profile=made.profile,
        trust=made.trust,
        now=made.now,
    )
