"""What mail of sendmail(1) needs of the server: Postfix asks for SMTPUTF8 by itself.

What comes by SMTP is in the vocabulary of scenarios (``tests/lab/further.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.milter import Milter
from tests.lab.submission import SENDER
from tests.lab.sweep import knowing_all
from tests.support.scenario import Domain, Mx, Scenario, Server

pytestmark = pytest.mark.lab

WITHOUT = Scenario("needs-without", domains=(Domain(mx=(Mx(server=Server(smtputf8="none")),)),))
OFFERING = Scenario("needs-offering")


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    lab.add((WITHOUT, OFFERING))
    # Postfix names no transport of such mail: the section [mta] itself mirrors the one it takes.
    with knowing_all(lab, mta={"tls_security_level": "dane"}) as running:
        yield running


@pytest.mark.parametrize(
    ("item", "note", "ends"),
    [
        (WITHOUT, "grün", ("5.6.7", "dane?/requiretls?")),
        (WITHOUT, "green", ("2.0.0", "dane/requiretls")),
        (OFFERING, "grün", ("2.0.0", "dane/requiretls")),
    ],
)
def test_mail_of_sendmail_with_an_encoded_header_is_forecast_as_postfix_delivers_it(
    lab: Lab, milter: Milter, item: Scenario, note: str, ends: tuple[str, str]
) -> None:
    recipient = f"{'utf8' if note == 'grün' else 'ascii'}@{item.domain_name(item.domains[0])}"
    lab.front.sendmail(
        ["-f", SENDER, "-O", "requiretls=yes", recipient],
        f"Subject: {note}\nTo: <{recipient}>\n\nhello\n",
    )
    (line,) = milter.wait("recipient", to=recipient, timeout=20)
    assert (line["forecast"], line["tls"]) == ends
    (delivery,) = lab.deliveries(line["queue_id"])
    assert (delivery.dsn, delivery.tls) == ends
