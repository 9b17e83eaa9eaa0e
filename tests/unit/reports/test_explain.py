"""``config explain`` finds the rule of a message, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config.places import scan
from requiretls_milter.reports.explain import Explanation, explain, to_text
from requiretls_milter.syntax.names import DomainNameError
from requiretls_milter.syntax.nexthop import NextHopError

TEXT = """\
[mta]
local_domains = ["here.example"]
[rules]
mode = "monitor"
[rules.recipient."a.example"]
mode = "reject"
[rules.recipient.".example"]
mode = "defer"
require = true
[rules.nexthop."relay.example"]
on_temporary = "defer"
"""


def explained(sender: str, recipient: str, nexthop: str | None = None) -> Explanation:
    return explain(config.parse(TEXT.encode(), "test"), sender, recipient, nexthop)


def text_of(explanation: Explanation) -> str:
    return " ".join(to_text(explanation, scan(TEXT).places(Path("config.toml")), width=120).split())


def test_domains_are_taken_from_addresses_and_become_a_labels() -> None:
    found = explained("<bob@B\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example>", "Eve@A.Example")
    assert (found.sender, found.recipient) == ("xn--bcher-kva.example", "a.example")
    assert str(found.nexthop) == "a.example"


@pytest.mark.parametrize("sender", ["", "<>", " <> "])
def test_r07_the_null_sender_is_the_empty_one(sender: str) -> None:
    found = explained(sender, "a.example")
    assert found.sender == ""
    assert text_of(found).startswith("from the null sender to a.example")
    assert "never refused" in text_of(found)


def test_the_strongest_table_comes_first() -> None:
    found = explained("bob@b.test", "a.example", "[relay.example]")
    tables = [next(iter(table.values())).table for table in found.matching]
    assert tables == [
        'rules.recipient."a.example"',
        'rules.recipient.".example"',
        'rules.nexthop."relay.example"',
        # relay.example is in .example too, but that is a table of recipients
    ]
    assert found.values["mode"].value == "reject"
    assert found.values["require"].table == 'rules.recipient.".example"'


@pytest.mark.parametrize(
    ("recipient", "meaning"),
    [
        ("a.example", "a delivery that would fail permanently is answered with 550, from authent"),
        ("b.example", "a delivery that would fail is answered with 451, from authenticated"),
        ("c.test", "REQUIRETLS is required only if the sender requires it; the message is tagged"),
        ("here.example", "Local delivery: nothing is assessed and nothing refused."),
    ],
)
def test_the_rule_is_put_in_a_sentence(recipient: str, meaning: str) -> None:
    assert meaning in text_of(explained("bob@b.test", recipient))


def test_what_refuses_a_delivery_that_is_made_otherwise_than_required_is_said() -> None:
    """It is why a message is refused whose forecast is 2.0.0."""
    also = "so is one that would be made, but not as RFC 8689 requires it"
    assert also in text_of(explained("bob@b.test", "b.example"))
    assert also not in text_of(explained("bob@b.test", "c.test"))
    accepts = TEXT.replace("require = true", 'require = true\non_noncompliant = "accept"')
    found = explain(config.parse(accepts.encode(), "test"), "bob@b.test", "b.example", None)
    assert also not in text_of(found)


def test_an_empty_recipient_is_a_mistake() -> None:
    with pytest.raises(DomainNameError):
        explained("bob@b.test", "<>")


def test_each_value_names_its_table_and_line() -> None:
    text = text_of(explained("bob@b.test", "a.example"))
    assert 'mode "reject" [rules.recipient."a.example"], line 6' in text
    assert 'mode = "defer" (line 8)' in text
    assert 'enforce_for "trusted" [rules], default' in text


def test_what_a_rule_requires_while_no_server_can_be_reached_is_told() -> None:
    assert "while no server can be reached, the message is accepted" in text_of(
        explained("bob@b.test", "a.example")
    )
    defers = TEXT.replace('mode = "reject"', 'mode = "reject"\non_unreachable = "defer"')
    found = explain(config.parse(defers.encode(), "test"), "bob@b.test", "a.example", None)
    assert "while no server can be reached, the answer is 451" in text_of(found)
    assert "can be reached" not in text_of(explained("bob@b.test", "c.test"))


def test_what_is_no_domain_is_an_error() -> None:
    for sender, recipient in (("a..b", "c.test"), ("a.test", "b c")):
        with pytest.raises(DomainNameError):
            explained(sender, recipient)
    with pytest.raises(NextHopError):
        explained("a.test", "b.test", "[")
