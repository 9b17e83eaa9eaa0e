"""The trust store: whose authorities count where no file is named."""

from __future__ import annotations

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.judge import judge
from requiretls_milter.model import Requirement
from tests.support.build import NOW, RFC8689, domain, forecast, host


def test_the_systems_authorities_count_where_no_file_is_named() -> None:
    """None of them is the tests' own."""
    asked = Requirement.REQUIRETLS
    evidence = domain(host())
    result = judge(
        evidence, asked=asked, carried=asked, profile=RFC8689, trust=load_trust_store(), now=NOW
    )
    assert forecast(evidence, RFC8689).status == "2.0.0"
    assert result.status == "5.7.10"
    assert "self-signed certificate in certificate chain" in result.text
