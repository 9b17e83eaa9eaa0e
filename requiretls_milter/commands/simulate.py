"""``simulate``."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import (
    CONFIG_DIR_OPTION,
    CONFIG_OPTION,
    FORMAT_OPTION,
    POSTCONF_OPTION,
    beside_service,
    fail,
    installed_postfix,
    load_or_fail,
    log_only_warnings,
    mta_of,
    running_service,
)

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.milter.settings import Expander
    from requiretls_milter.mirror.postconf import Postfix
    from requiretls_milter.reports.assess import Answered
    from requiretls_milter.reports.check import NextHopReport
    from requiretls_milter.reports.simulate import Message, Simulated, Told
    from requiretls_milter.syntax.expansion import Expansion


@click.command()
@click.argument("sender", metavar="FROM")
@click.argument("recipient", metavar="TO")
@click.option(
    "--parameter",
    "parameters",
    metavar="P",
    multiple=True,
    help="Parameter of MAIL, such as REQUIRETLS or SIZE=1000; may be given several times.",
)
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    help="Header field, such as 'TLS-Required: No'; may be given several times.",
)
@click.option(
    "--client",
    type=click.Choice(["authenticated", "trusted", "other"]),
    default="authenticated",
    show_default=True,
    help="What the client is to the milter: enforce_for tells them apart.",
)
@click.option(
    "--sendmail",
    "locally",
    is_flag=True,
    help="The message comes by sendmail(1), and not by SMTP: it is never deferred.",
)
@click.option(
    "--nexthop",
    metavar="[TRANSPORT:]NEXTHOP",
    default="",
    help="Where the mail goes. Without it Postfix is asked, or [mta] decides.",
)
@CONFIG_OPTION
@POSTCONF_OPTION
@CONFIG_DIR_OPTION
@FORMAT_OPTION
def simulate(
    sender: str,
    recipient: str,
    parameters: tuple[str, ...],
    headers: tuple[str, ...],
    client: str,
    locally: bool,
    nexthop: str,
    config_path: Path | None,
    postconf: str,
    config_dir: str,
    output: str,
) -> int:
    """Show what would happen to a message on this host now.

    It shows what is asked, the rule in force and where it stands, where the MTA
    sends the mail, the evidence, the forecast, the SMTP reply, the tag and the
    route. No mail is sent. Without --parameter and --header the message asks for
    nothing. FROM may be '' or '<>', for a bounce. --config tries a configuration
    that is not in force yet.

    \b
    Exit status, as of check:
      0   would be delivered (perhaps not as RFC 8689 requires: see the output)
      1   would be refused, or would fail permanently
      75  would be deferred, or the forecast is unknown
      2   wrong usage or configuration
    """
    from requiretls_milter.config import places
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.model import Forecast, Question, Standing
    from requiretls_milter.reports import simulate as simulating
    from requiretls_milter.reports.assess import answer
    from requiretls_milter.reports.simulate_text import as_text
    from requiretls_milter.syntax.nexthop import parse

    loaded = load_or_fail(config_path)
    log_only_warnings(loaded)
    running = running_service(loaded)
    config, notes = beside_service(loaded, config_path, running)
    postfix = installed_postfix(postconf, config_dir)
    mta = mta_of(config, running, lambda: postfix)
    own_name = postfix.settings.get("myhostname", "") if postfix is not None else ""
    message = simulating.Message(
        _address(sender, "FROM") if sender not in ("", "<>") else "",
        _address(recipient, "TO"),
        tuple(map(_parameter, parameters)),
        tuple(map(_field, headers)),
        Standing.TRUSTED if locally else Standing(client),
        config.milter.by or own_name or socket.gethostname(),
        not locally,
    )
    # Postfix tells nothing of where the mail of sendmail(1) goes.
    asked = None if locally else postfix
    told = _told(message.sender, message.recipient, nexthop, asked, notes)
    if nexthop:
        _check_nexthop(told, message, config, postfix=mta.is_postfix(config))
    notes += simulating.unread(message)
    answers: dict[Question, Answered] = {}

    def ask(question: Question) -> Forecast:
        if question not in answers:
            answers[question] = answer(question, parse(question.nexthop), config)
        return answers[question].forecast

    try:
        found = simulating.simulate(
            message, told, config, mta, ask, time.time(), _expander(config, nexthop, notes)
        )
    except TrustStoreError as error:
        fail(str(error))
    last = list(answers.values())[-1] if answers else None
    if last is not None and not last.by_service:
        notes.append("the evidence was gathered by this command, not by a running service")
    report = _report(found, last, config)
    where = places(config_path)
    if output == "json":
        click.echo(json.dumps(simulating.as_json(found, report, where, notes), indent=2))
    else:
        click.echo(as_text(found, report, where, notes))
    return simulating.exit_status(found)


def _address(text: str, name: str) -> str:
    """An address of the envelope, without ``<>``."""
    from requiretls_milter.syntax.mailbox import AddressError, Origin, read_one
    from requiretls_milter.syntax.names import DomainNameError, domain_of, to_alabel

    address = text.removeprefix("<").removesuffix(">")
    if any(ord(character) < 0x20 for character in address):
        raise click.UsageError(f"{name}: an address holds no control characters")
    try:
        read_one(address, Origin(""))
        domain = domain_of(address)
        if domain and not domain.startswith("["):
            to_alabel(domain)
    except (AddressError, DomainNameError) as error:
        raise click.UsageError(f"{name}: {error}") from None
    if address.endswith("@"):
        raise click.UsageError(f"{name}: {address} has no domain")
    return address


def _parameter(text: str) -> str:
    if not text or len(text.split()) != 1 or text != text.strip():
        raise click.UsageError(f"--parameter: {text!r} is not one parameter of MAIL")
    return text


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"{text}: a header field is written 'Name: value'")
    return name, value.lstrip(" ")


def _told(
    sender: str, recipient: str, nexthop: str, postfix: Postfix | None, notes: list[str]
) -> Told:
    """Find out what the MTA would tell the milter about the recipient."""
    from requiretls_milter.mirror.resolve import ResolveError, resolve
    from requiretls_milter.reports.simulate import RoutedBy, Told

    if nexthop:
        transport, colon, host = nexthop.partition(":")
        named = bool(colon) and not transport.startswith("[") and not host.isdecimal()
        mailer, host = (transport, host) if named else ("smtp", nexthop)
        return Told(RoutedBy.OPTION, mailer, host)
    if postfix is None:
        return Told(RoutedBy.CONFIGURATION)
    try:
        to = resolve(postfix.queue, sender, recipient)
        own = resolve(postfix.queue, "", sender).recipient if sender else ""
    except ResolveError as error:
        notes.append(f"Postfix was not asked where the mail goes: {error}")
        return Told(RoutedBy.CONFIGURATION)
    return Told(RoutedBy.POSTFIX, to.transport, to.nexthop, to.recipient, own)


def _check_nexthop(told: Told, message: Message, config: Config, *, postfix: bool) -> None:
    """End if ``--nexthop`` names none."""
    from requiretls_milter.config.routes import Destination
    from requiretls_milter.syntax.nexthop import NextHopError

    to = Destination(told.mailer, told.host)
    try:
        config.mta.way(message.recipient, message.sender, told=to, postfix=postfix)
    except NextHopError as error:
        raise click.UsageError(f"--nexthop: {error}") from None


def _expander(config: Config, nexthop: str, notes: list[str]) -> Expander | None:
    """What expands the recipient; ``--nexthop`` says where its mail goes, whatever it is."""
    from requiretls_milter.aliases import AliasTables
    from requiretls_milter.model import Aliases
    from requiretls_milter.telemetry.counting import Counters

    if config.mta.aliases is Aliases.OFF or nexthop:
        return None
    if config.mta.aliases is Aliases.ASK:
        return lambda recipient: _asked(config, recipient, notes)
    tables = AliasTables(config.mta, config.limits.alias_entries, Counters())
    tables.texts.look()
    notes += (f"{name}: {why}" for name, why in tables.texts.unreadable.items())
    return tables.expand


def _asked(config: Config, recipient: str, notes: list[str]) -> Expansion:
    """What a recipient becomes by tables that are asked: by a running service if there is one."""
    from requiretls_milter.reports.expanding import expand
    from requiretls_milter.syntax.expansion import ExpansionError

    found = expand(recipient, config)
    if found.why_not_service:
        notes.append(
            "the tables of aliases were asked by this command, not by a running service: "
            f"{found.why_not_service}"
        )
    if isinstance(found.result, ExpansionError):
        notes.append(f"the recipient is not expanded: {found.result}")
        raise found.result
    return found.result


def _report(found: Simulated, last: Answered | None, config: Config) -> NextHopReport | None:
    """The evidence, with what is really decided in the place of what the rule would do."""
    from requiretls_milter.reports.check import next_hop_report

    if last is None:
        return None
    asking = found.asking
    report = next_hop_report(
        str(last.evidence.nexthop),
        last.found,
        asking=asking,
        profile=config.mta.profile_for(config.mta.carrier(found.transport, asking.requirement)),
        trust=last.trust,
        now=time.time(),
    )
    decision = found.decision
    report["rule"]["action"] = decision.action.value
    report["rule"]["why"] = str(decision.why)
    report["rule"]["reply"] = str(decision.reply) if decision.reply is not None else None
    return report
