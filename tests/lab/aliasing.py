"""What the tests of aliases share: who writes, what ends how, and a message to one recipient."""

from __future__ import annotations

from tests.lab import submission
from tests.lab.lab import MYDOMAIN, Lab
from tests.support.scenario import Scenario

HOME = "home.test"
"""The domain of this host's users."""
SENDER = f"user@{MYDOMAIN}"
STRICT = f"user@strict.{MYDOMAIN}"
"""A sender for whose mail the rule refuses."""
ENTRIES = 100_000
SENT = ("2.0.0", "dane/requiretls")
LACKS = ("5.7.30", "dane/!requiretls:none")


MAIN = {
    "myorigin": HOME,
    "mydestination": HOME,
    "local_recipient_maps": "",
    "smtp_tls_security_level": "dane",
    "smtp_requiretls_policy": "enforce",
}
"""What main.cf of a Postfix says that has aliases, beside its tables."""


def at(scenario: Scenario, user: str) -> str:
    """An address at the domain of a scenario."""
    return f"{user}@{scenario.domain_name(scenario.domains[0])}"


def send(address: str, recipient: str, lab: Lab, sender: str = SENDER) -> submission.Accepted:
    """Send a message that asks for REQUIRETLS to an MTA."""
    return submission.send(
        address,
        [recipient],
        submission.message("alias", [recipient]),
        ca_file=lab.ca_file,
        sender=sender,
        parameters=("REQUIRETLS",),
    )
