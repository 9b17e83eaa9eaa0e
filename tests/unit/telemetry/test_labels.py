"""Label values come from closed sets, whatever strangers send."""

from __future__ import annotations

import pytest

from requiretls_milter import config
from requiretls_milter.config import Rules
from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.model import Reason
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import configured_domains, named_domains, status_label


@pytest.mark.parametrize(
    ("status", "label"),
    [
        ("2.0.0", "2.0.0"),
        ("2.1.5", "2.0.0"),
        ("4.7.5", "4.7.5"),
        ("4.2.1", "4.other"),
        ("5.1.1", "5.other"),
        ("5.7.300", "5.other"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ('5.7.1"}\n', "5.other"),
        ("9.9.9", "unknown"),
    ],
)
def test_r62_a_status_outside_the_list_counts_as_other_of_its_class(
    status: str, label: str
) -> None:
    assert status_label(status) == label
    counters = Counters()
    counters.inc("forecasts_total", ("none", status, Reason.SERVER_REJECTS))
    assert counters.totals().counters == (
        ("forecasts_total", ("none", label, "server_rejects"), 1.0),
    )


def test_domains_of_lists_are_among_them_but_not_senders() -> None:
    rules = Rules.model_validate(
        {
            "recipient": {"a.example": {}},
            "list": {
                "p": {"domains_file": DomainList("p.txt", ("b.example", "a.example"))},
                "s": {"domains_file": DomainList("s.txt", ("s.example",)), "match": "sender"},
                "n": {"domains_file": DomainList("n.txt", ("n.example",)), "match": "nexthop"},
            },
        }
    )
    assert configured_domains(config.Config(rules=rules)) == (
        "a.example",
        "b.example",
        "n.example",
    )


def test_domains_are_the_keys_of_recipient_and_next_hop_rules() -> None:
    text = "".join(
        f'[rules.{table}."{domain}"]\nmode = "monitor"\n'
        for table, domain in (
            ("recipient", "example.org"),
            ("nexthop", ".example.net"),
            ("nexthop", "example.org"),
            ("sender", "bank.example"),
        )
    )
    found = config.parse(text.encode(), "test")
    assert configured_domains(found) == ("example.org", ".example.net")
    assert named_domains(found) == ("example.org",)
