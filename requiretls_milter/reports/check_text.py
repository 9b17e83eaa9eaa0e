"""What ``check`` reports on a next hop, as text: host by host, then forecast and reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from requiretls_milter.model import Reason, Requirement
from requiretls_milter.reports.ages import ago
from requiretls_milter.reports.carrying import ToldBy
from requiretls_milter.reports.printing import BAD, GOOD, UNSURE, bare_table, printed

if TYPE_CHECKING:
    from requiretls_milter.reports.check import (
        HostReport,
        NextHopReport,
        ServerReport,
    )
    from requiretls_milter.reports.details import AddressDetails

SHOWN_DIGITS = 16
"""Hexadecimal digits shown of a TLSA record's data: enough to tell records apart."""

MAX_PATTERNS = 4
"""Patterns of an MTA-STS policy that are shown."""

OUTCOME = {
    "deliver": ("would be delivered", GOOD),
    "bounce": ("would fail permanently", BAD),
    "defer": ("would be deferred", UNSURE),
    "unknown": ("unknown", UNSURE),
}
"""What is said of each outcome, and its colour."""


def to_text(
    reports: Sequence[NextHopReport], *, now: float | None = None, width: int | None = None
) -> str:
    """Print the reports one below the other, in colour if the output is a terminal.

    Args:
        reports: they say themselves whether details were asked for.
        now: seconds since the epoch, for the ages; None if everything was seen just now.
        width: columns; None for those of the terminal.
    """
    parts: list[RenderableType] = []
    for report in reports:
        parts += ["", _report(report, now or 0.0)] if parts else [_report(report, now or 0.0)]
    return printed(*parts, width=width)


RESOLVER = "The resolver does not validate DNSSEC: nothing that it says counts as secure"
"""The first line of the text, if it is so; ``doctor`` says why."""


def resolver_line() -> str:
    """:data:`RESOLVER`, in colour if the output is a terminal."""
    return printed(Text(f"{RESOLVER} (see requiretls-milter doctor).", BAD))


def _report(report: NextHopReport, now: float) -> RenderableType:
    by_mx = report["mx_lookup_secure"] is not None
    hosts = [_host(host, now, by_mx=by_mx) for host in report["hosts"]]
    head = Text(report["nexthop"], "bold")
    if report["observed_at"] is not None:
        by = "the running service" if report["observed_by"] == "service" else "this command"
        seen = ago(report["observed_at"], now) or "just now"
        head.append(f"  seen {seen} by {by}", "not bold dim")
    return Group(
        head,
        Padding(Group(_domain(report, now), *hosts), (0, 0, 0, 2)),
        "",
        Padding(_forecasts(report), (0, 0, 0, 2)),
    )


def _age(observed_at: str | None, now: float) -> str:
    """The age of one piece of evidence, in brackets; "" if it was seen just now."""
    text = ago(observed_at, now)
    return f" ({text})" if text else ""


def _domain(report: NextHopReport, now: float) -> Text:
    secure = report["mx_lookup_secure"]
    if secure is None:
        return Text("no MX lookup: the next hop names the server")
    text = Text("MX lookup ")
    if not report["hosts"] and report["rfc8689"]["reason"] == Reason.DNS_FAILURE:
        text.append("failed", BAD)
    else:
        text.append("signed" if secure else "not signed", GOOD if secure else UNSURE)
    text.append(f"{_age(report['mx_observed_at'], now)}, MTA-STS ")
    policy, error = report["mta_sts"], report["mta_sts_error"]
    if policy is None:
        text.append("none" if error is None else f"failed: {error}", BAD if error else "")
        return text
    text.append(policy["mode"], GOOD if policy["mode"] == "enforce" else UNSURE)
    patterns = policy["mx"][:MAX_PATTERNS]
    if len(policy["mx"]) > MAX_PATTERNS:
        patterns.append("...")
    text.append(f": {' '.join(patterns)}" if patterns else "")
    text.append(_age(policy["observed_at"], now))
    if error is not None:
        text.append(f", not renewed: {error}", BAD)
    return text


def _host(host: HostReport, now: float, *, by_mx: bool) -> RenderableType:
    """Show the host's own line, its TLSA records and a table of its addresses."""
    preference = host["preference"] if by_mx else ""
    head = Text.assemble("\n", f"{preference:>3}  ", (host["host"], "bold"))
    head.append("  address " + ("signed" if host["secure"] else "not signed"))
    head.append(_age(host["addresses_observed_at"], now))
    if host["mta_sts_match"] is not None:
        named = host["mta_sts_match"]
        head.append(", ")
        head.append("in" if named else "not in", "" if named else BAD)
        head.append(" the MTA-STS policy")
    lines: list[RenderableType] = [head]
    if host["tlsa"] is None:
        lines.append(Text("     TLSA lookup failed", BAD))
    age = _age(host["tlsa_observed_at"], now)
    lines.extend(Text(f"     TLSA {_short(record)}{age}") for record in host["tlsa"] or ())
    if not host["addresses"]:
        lines.append(Text(f"     no address: {host['status']} {host['reason']}", BAD))
        return Group(*lines)
    table = bare_table()
    # A narrow terminal folds between words alone: the status and its reason stay in one piece.
    offers = any(address["requiretls"] is not None for address in host["addresses"])
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", min_width=len("REQUIRETLS") if offers else None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    below: list[RenderableType] = []
    for address in host["addresses"]:
        table.add_row(
            address["address"],
            _starttls(address),
            _certificate(address),
            _requiretls(address),
            _status(address["status"], address["reason"]),
            Text(ago(address["observed_at"], now), "dim"),
        )
        error = address["certificate"]["error"]
        if error:
            below.append(Text(f"     {address['address']}: certificate: {error}", BAD))
        if address["details"] is not None:
            details = detail_lines(address["address"], address["tls_version"], address["details"])
            below.append(Padding(Text("\n".join(details), "dim"), (0, 0, 0, 5)))
    return Group(*lines, Padding(table, (0, 0, 0, 5)), *below)


def detail_lines(address: str, tls_version: str | None, details: AddressDetails) -> list[str]:
    """Tell, line by line, what the session with an address was like."""
    lines = [f"{address}:"]
    if details["cipher"] is not None:
        group = f", group {details['group']}" if details["group"] else ""
        lines.append(f"  {tls_version} {details['cipher']}{group}")
    certificate = details["certificate"]
    if certificate is not None:
        lines += [
            f"  certificate {certificate['subject'] or '(no subject)'}",
            f"    issuer {certificate['issuer']}",
            f"    names  {' '.join(certificate['names']) or '(none)'}",
            f"    valid  {certificate['not_before']} to {certificate['not_after']}",
            f"    key    {certificate['key']}",
        ]
    return [*lines, *(f"  {line}" for line in details["dialogue"])]


def _short(record: str) -> str:
    usage, selector, matching, data, *remark = record.split(" ")
    shown = data if len(data) <= SHOWN_DIGITS else data[:SHOWN_DIGITS] + "..."
    return " ".join((usage, selector, matching, shown, *remark))


def _starttls(server: ServerReport) -> Text:
    word = server["starttls"]
    if word == "offered":
        return Text(server["tls_version"] or "TLS", GOOD)
    if word in ("unknown", "unreachable"):
        return Text("not probed" if word == "unknown" else word, UNSURE)
    return Text("STARTTLS " + word.replace("_", " "), BAD)


def _certificate(server: ServerReport) -> Text:
    by = server["certificate"]["verified_by"]
    if by:
        return Text(f"verified by {by.upper()}", GOOD)
    return Text("not verified", BAD) if server["certificate"]["error"] else Text()


def _requiretls(server: ServerReport) -> Text:
    offered = server["requiretls"]
    if offered is None:
        return Text()
    return Text("REQUIRETLS", GOOD) if offered else Text("no REQUIRETLS", BAD)


def _status(status: str, reason: str) -> Text:
    return Text(f"{status} {reason}" if status != reason else status, _style(status))


def _forecasts(report: NextHopReport) -> Table:
    forecast, strict = report["forecast"], report["rfc8689"]
    words, style = OUTCOME[forecast["outcome"]]
    said = Text.assemble((words, style), f": {forecast['reason']}")
    if forecast["compliant"] is False:
        said.append(" (not a delivery as RFC 8689 requires it)", BAD)
    table = bare_table()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Forecast", Text(forecast["status"], f"bold {style}"), said)
    table.add_row("RFC 8689", Text(strict["status"], _style(strict["status"])), strict["reason"])
    if forecast["tls"]:
        table.add_row("Log", "", f"tls={forecast['tls']}")
    table.add_row("Asked", "", asked_text(report))
    table.add_row("Rule", "", _rule(report))
    table.add_row("Why", "", _sentence(forecast["text"]))
    return table


def asked_text(report: NextHopReport) -> str:
    """Say what is asked, what the MTA acts on, and who says so."""
    requirement, carried, told_by = report["requirement"], report["carried"], report["carried_by"]
    if requirement == carried == Requirement.NONE:
        return "nothing"
    mta = report["mta"] or "the MTA"
    acts = "acts on it" if carried == requirement else "does not act on it"
    if carried not in (requirement, Requirement.NONE):
        acts = f"acts on {carried}"
    source = {
        ToldBy.OPTION: "as --carried says",
        ToldBy.RULE: "since a rule asks, and not the message",
        ToldBy.CONFIGURATION: "as mta.carries says",
        ToldBy.SERVICE: "as the running service knows",
        ToldBy.POSTCONF: "as postconf says",
        ToldBy.ASSUMED: "as is assumed: no MTA was found here",
    }[ToldBy(told_by)]
    return f"{requirement}; {mta} {acts}, {source}"


def _rule(report: NextHopReport) -> Text:
    rule = report["rule"]
    text = Text(f"mode {rule['mode']}: ")
    if rule["reply"] is not None:
        text.append(f"the milter answers {rule['reply']}", BAD)
        return text
    text.append("accepted by the milter")
    if report["forecast"]["compliant"] is False and rule["on_noncompliant"] == "refuse":
        text.append(" (modes defer and reject would not: on_noncompliant)", UNSURE)
    return text


def _style(status: str) -> str:
    return {"2": GOOD, "5": BAD}.get(status[:1], UNSURE)


def _sentence(text: str) -> str:
    """Capitalise the text and end it with a full stop; a leading host name stays as it is."""
    first = text.split(" ", 1)[0]
    return f"{text[:1].upper() + text[1:] if first.isalpha() else text}." if text else ""
