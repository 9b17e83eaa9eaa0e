"""``make demo``: what the milter forecasts, beside what a real Postfix then does.

Brings up the lab (DNS with DNSSEC, scripted next hops, an MTA-STS policy host,
Postfix 3.11), attaches the milter to Postfix, submits messages, and compares
the forecast of each with Postfix's own log. Then it reports what stricter rules would have done to
this mail and whether REQUIRETLS could be switched on for it, and shows a picture of the milter's
status page. Exit status 0 if all forecasts are equal.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.lab import labconfig, submission
from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.lab.log import Delivery
from tests.lab.milter import METRICS, Milter, Sample
from tests.support import browser
from tests.support.scenario import Domain, Mx, Scenario, Server, load

SHOWN = (
    "a-ok",
    "a-ok-211",
    "e-old-ok",
    "c-hsfail-ok",
    "a-unusable-mtype99",
    "b-unsmx-sigtlsa",
    "h-os-noreq",
    "g-mismatch",
    "a-noreq",
    "a-nostarttls",
    "a-starttls-454",
    "a-mismatch",
    "e-old-selfsigned",
    "b-uns-all-refused",
    "h-op-st454",
    "f-st454",
    "f-nostarttls",
    "a-hs-close",
    "f-mismatch",
    "e-new-mxnotmatch",
    "a-refused",
    "c-noreq-refused",
    "b-mx-bogus",
    "b-nullmx-sig",
    "b-nxdomain-sig",
)
"""All statuses of RFC 8689 and of Postfix's TLS policy, and what else can go wrong."""

REJECTED = Scenario(
    "demo-refused",
    desc="REQUIRETLS never offered; rule: reject",
    domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),),
)
DEFERRED = Scenario(
    "demo-deferred",
    desc="TLSA record does not match; rule: defer",
    domains=(Domain(mx=(Mx(tlsa=("3 1 1 bad",)),)),),
)

PICTURE = Path(".run/status-page.png")
"""Of the status page, where Chromium is installed."""

REPORT = Path(".run/report.html")
"""Whether REQUIRETLS could be switched on for the mail of the demo."""

TEMPORARY_LIMIT = 25.0
"""Seconds that the demo lets SMTP wait, so that it sees the slow next hops' forecasts too."""


@dataclass(frozen=True)
class Row:
    """One message: what was forecast and what came of it."""

    scenario: Scenario
    forecast: Mapping[str, Any]
    delivery: Delivery

    @property
    def equal(self) -> bool:
        """Whether status code and, where Postfix logs one, the tls= token are the same."""
        forecast = self.forecast
        return (forecast["forecast"], forecast.get("tls") or "") == (
            self.delivery.dsn,
            self.delivery.tls or "",
        )


def main() -> int:
    """Run the demo; the exit status of ``make demo``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=max(Console().width, 180))
    scenarios = [labconfig.told_apart(item) for item in load().scenarios if item.id in SHOWN]
    scenarios.sort(key=lambda item: SHOWN.index(item.id))
    console.print("Starting the lab …")
    try:
        planned = [*scenarios, REJECTED, DEFERRED]
        with Lab(planned, profiles=labconfig.profiles_told_apart()) as lab:
            network = "a network namespace of its own" if lab.isolated else "the bare loopback"
            console.print(f"The lab is up in {lab.timings['all']:.1f} s, in {network}.")
            return _demonstrate(console, lab, scenarios)
    except LabUnavailable as reason:
        console.print(f"no lab on this machine: {reason}")
        return 69


def _demonstrate(console: Console, lab: Lab, scenarios: Sequence[Scenario]) -> int:
    modes = ((scenarios[0], "reject"), (REJECTED, "reject"), (DEFERRED, "defer"))
    rules = {
        "tag_wait": TEMPORARY_LIMIT,
        "recipient": {one.domain_name(one.domains[0]): {"mode": mode} for one, mode in modes},
    }
    with Milter(
        lab,
        transport=labconfig.all_transports(),
        probe={"plain_mail": "full"},
        rules=rules,
        mta={"tls_security_level": "dane"},  # for the status page: no mail goes without a transport
    ) as milter:
        before = milter.metrics()
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda item: _send(lab, milter, item), scenarios))
        console.print(_table(rows))
        for scenario in (REJECTED, DEFERRED):
            _show_refusal(console, lab, scenario)
        milter.await_metric("recipients_total", len(rows) + 2)
        console.print(_changes(before, milter.metrics()))
        _show_reports(console, lab, milter)
        _show_page(console)
    different = [row.scenario.id for row in rows if not row.equal]
    if different:
        console.print(f"{len(different)} of {len(rows)} differ: {', '.join(different)}")
        return 1
    console.print(f"All {len(rows)} forecasts are what Postfix then did.")
    return 0


def _send(lab: Lab, milter: Milter, scenario: Scenario) -> Row:
    accepted = lab.send(scenario, authenticated=True)
    forecast = milter.recipient(accepted.queue_id)
    return Row(scenario, forecast, lab.deliveries(accepted.queue_id)[0])


def _show_refusal(console: Console, lab: Lab, scenario: Scenario) -> None:
    try:
        lab.send(scenario, authenticated=True)
    except submission.Refused as refused:
        console.print(f"\n{scenario.desc}:\n  RCPT TO: {refused.reply.code} {refused.reply.text}")
    else:
        raise SystemExit(f"{scenario.id} was accepted, though its rule refuses it")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="What was forecast, and what Postfix then did")
    table.add_column("scenario", min_width=24)
    for name in ("asked", "forecast", "reason", "compliant", "Postfix logged", "tls=", "equal"):
        table.add_column(name, no_wrap=True)
    table.add_column("SMTP\nwaited", justify="right", no_wrap=True)
    words = {"true": "yes", "false": "NO", "": "-"}
    for row in rows:
        forecast, delivery = row.forecast, row.delivery
        table.add_row(
            row.scenario.desc,
            forecast["requirement"],
            forecast["forecast"],
            forecast["reason"],
            words[forecast["compliant"]],
            f"{delivery.dsn} {delivery.status}",
            delivery.tls or "-",
            "yes" if row.equal else "NO",
            f"{float(forecast['waited']) * 1000:.0f} ms",
        )
    return table


def _changes(before: Mapping[Sample, float], after: Mapping[Sample, float]) -> Table:
    table = Table(title="Metrics that changed")
    table.add_column("metric")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for (name, labels), value in sorted(after.items()):
        old = before.get((name, labels), 0.0)
        if not name.startswith("requiretls_milter_") or value == old:
            continue
        if "_bucket" in name or name.startswith("requiretls_milter_process_"):
            continue  # many, and of mail they say nothing
        words = ",".join(f'{key}="{text}"' for key, text in labels)
        table.add_row(f"{name}{{{words}}}" if words else name, f"{old:g}", f"{value:g}")
    return table


def _show_reports(console: Console, lab: Lab, milter: Milter) -> None:
    """What stricter rules would have done to the mail of the demo, and what all of it lacks."""
    REPORT.parent.mkdir(exist_ok=True)
    for options in (("--would-have",), (), ("--format", "html", "--output", str(REPORT))):
        words = ("report", *options)
        console.print(f"\nrequiretls-milter {' '.join(words)}, over the logs of this mail:")
        logs = (milter.log_file, lab.front.log.path)
        command = [*milter.program, *words, *logs, "--config", milter.config_file]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        console.print(done.stdout, markup=False)


def _show_page(console: Console) -> None:
    """The service's own page, at this moment."""
    console.print(f"Status page, while the milter of the demo ran: http://{METRICS}/")
    if reason := browser.missing():
        console.print(f"  no picture of it: {reason}")
        return
    PICTURE.parent.mkdir(exist_ok=True)
    try:
        browser.screenshot(f"http://{METRICS}/", PICTURE.absolute(), 1100, 950)
    except subprocess.SubprocessError as error:
        console.print(f"  no picture of it: {error}", markup=False)
    else:
        console.print(f"  its picture: {PICTURE}")
    console.print("  where requiretls-milter runs by default: http://127.0.0.1:9894/")


if __name__ == "__main__":
    sys.exit(main())
