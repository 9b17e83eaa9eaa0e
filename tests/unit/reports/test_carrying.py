"""What the MTA of this host carries, and who says so."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config
from requiretls_milter.reports.carrying import host_mta


@pytest.mark.parametrize(
    ("mta", "service", "postconf", "expected"),
    [
        ({}, "Postfix 3.7.11", "Postfix 3.11.7", ("nothing", "service", "Postfix 3.7.11")),
        ({}, "8.18.2", "", ("nothing", "service", "8.18.2")),
        ({}, "", "Postfix 3.10.2", ("tls-required", "postconf", "Postfix 3.10.2")),
        ({"carries": "requiretls"}, "8.18.2", "", ("requiretls", "configuration", "8.18.2")),
        ({}, "", "", ("requiretls", "assumed", "")),
        ({"profile": "rfc8689"}, "", "", ("nothing", "assumed", "")),
    ],
)
def test_the_configuration_says_it_or_the_mta_or_postconf(
    mta: dict[str, str], service: str, postconf: str, expected: tuple[str, str, str]
) -> None:
    config = Config.model_validate({"mta": mta})
    found = host_mta(config, service=service, postconf=postconf)
    assert (found.capability, found.told_by, found.version) == expected
