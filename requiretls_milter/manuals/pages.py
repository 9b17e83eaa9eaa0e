"""requiretls-milter(1), requiretls-milter.toml(5) and requiretls-milter-metrics(7)."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping

import click
from pydantic import BaseModel

from requiretls_milter import __version__
from requiretls_milter.cli import INTERRUPTED, PROGRAM, SOFTWARE, UNWRITTEN, commands
from requiretls_milter.config import DEFAULT_PATH, Config
from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.config.schema.section import needs_restart
from requiretls_milter.config.text import EXAMPLES, value_text
from requiretls_milter.manuals.roff import ManPage, bold, literal
from requiretls_milter.telemetry.catalogue import AUDIT_METRICS, METRICS, PREFIX, Metric

CONFIGURATION, METRICS_PAGE = f"{PROGRAM}.toml", f"{PROGRAM}-metrics"

_PAGES = (f"{PROGRAM}(1)", f"{CONFIGURATION}(5)", f"{METRICS_PAGE}(7)")


def pages(date: str) -> Mapping[str, str]:
    """Make all pages: the name of the file, and what is in it.

    Args:
        date: of the release that they describe, ISO 8601.
    """
    return {
        f"{PROGRAM}.1": _program(date),
        f"{CONFIGURATION}.5": _configuration(date),
        f"{METRICS_PAGE}.7": _metrics(date),
    }


def _page(name: str, section: int, date: str, title: str, about: str) -> ManPage:
    source = f"{PROGRAM} {__version__}"
    return ManPage(name, section, date=date, source=source, title=title, about=about)


# ---------------------------------------------------------------- requiretls-milter(1)


def _program(date: str) -> str:
    page = _page(PROGRAM, 1, date, "User Commands", "forecast whether REQUIRETLS mail is delivered")
    page.heading("SYNOPSIS")
    page.paragraphs(f"`{PROGRAM}` COMMAND [ARGUMENT...]")
    page.heading("DESCRIPTION")
    page.paragraphs(
        "A milter for Postfix and Sendmail. While the mail server (MTA) receives a message, the "
        "milter forecasts whether the MTA can deliver it over TLS as RFC 8689 (REQUIRETLS) "
        "demands. It tags the message with the forecast, counts it for Prometheus and, if a rule "
        "says so, refuses or defers the recipient in the SMTP dialogue.",
        "`serve` is the service, which usually systemd starts. The other commands look at what it "
        "does, at its configuration, and at what it forecasts.",
    )
    page.heading("COMMANDS")
    for path, command in _leaves(commands, ()):
        _describe(page, path, command)
    page.heading("EXIT STATUS")
    page.paragraphs("Beside what each command says:")
    for status, text in (
        (SOFTWARE, "an internal error; it is no verdict"),
        (UNWRITTEN, "the output could not be written"),
        (INTERRUPTED, "the command was interrupted"),
    ):
        page.item(bold(str(status)), text)
    page.heading("SIGNALS")
    page.paragraphs("The main process of `serve` takes:")
    page.item(bold("SIGHUP"), "Read the configuration again; one with mistakes changes nothing.")
    page.item(
        f"{bold('SIGTERM')}, {bold('SIGINT')}",
        "Take no new connections, finish open transactions within `milter.drain_timeout`, and end.",
    )
    page.heading("FILES")
    page.item(bold(str(DEFAULT_PATH)), f"The configuration: see {CONFIGURATION}(5).")
    page.item(bold("/run/requiretls-milter/"), "The sockets of the milter and of its engine.")
    page.item(bold("/var/lib/requiretls-milter/state.db"), "What outlives a restart.")
    page.see_also(*_PAGES[1:], "postconf(1)", "postfix(1)", "systemctl(1)")
    return page.text()


def _leaves(
    group: click.Group, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """List the commands that do something, with the words that call them."""
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


def _describe(page: ManPage, path: tuple[str, ...], command: click.Command) -> None:
    words = " ".join((PROGRAM, *path))
    context = click.Context(command, info_name=words)
    page.subheading(" ".join((*path, *command.collect_usage_pieces(context))))
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        if block.startswith("\b"):
            page.example(block.removeprefix("\b").strip("\n").splitlines())
        else:
            page.paragraphs(_marked(block))
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            page.item(bold(record[0]), record[1])


def _marked(text: str) -> str:
    """Mark nothing: help is plain text, in which an accent grave would be a literal one."""
    return text.replace("`", "'")


# ---------------------------------------------------------------- requiretls-milter.toml(5)


def _configuration(date: str) -> str:
    page = _page(CONFIGURATION, 5, date, "File Formats", f"the configuration of {PROGRAM}")
    page.heading("DESCRIPTION")
    page.paragraphs(
        "One TOML file, `/etc/requiretls-milter/config.toml` unless `--config` says otherwise. "
        "Without that file, and for every key that it leaves out, the defaults below hold. An "
        "unknown key is an error.",
        'At its top, before the first section, `include = ["conf.d/*.toml"]` includes other files: '
        "by name, which have to be there, or by pattern, below the directory of this file or by an "
        "absolute path. Tables may be spread over the files; a key stands in one of them only. An "
        "included file includes no others. At most 100 files, 1 MiB each, 4 MiB together.",
        f"`{PROGRAM} config check` tells every mistake with file, line, column and key. At SIGHUP "
        "the service reads all files again; one with mistakes changes nothing. A change of a key "
        "that is marked (restart) takes effect at the next start. Durations are in seconds.",
    )
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            page.heading(f"[{name}]")
            page.paragraphs(*(inspect.getdoc(section) or "").split("\n\n"))
            _section(page, name, section)
        else:
            page.heading(name)
            page.paragraphs(str(field.description))
    page.heading("EXAMPLE")
    page.example(_EXAMPLE.splitlines())
    page.see_also(_PAGES[0], _PAGES[2], "postconf(5)")
    return page.text()


_EXAMPLE = textwrap.dedent("""\
    [milter]
    socket = "unix:/var/spool/postfix/requiretls-milter/milter.sock"
    socket_group = "postfix"

    [mta]
    mydomain = "example.org"
    myhostname = "mail.example.org"
    tls_security_level = "dane"

    [rules.recipient."bank.example"]
    require = true
    mode = "reject"
    """)


def _section(page: ManPage, name: str, section: type[BaseModel]) -> None:
    defaults = section().model_dump(mode="json")
    tables = tables_of(section)
    for key, field in section.model_fields.items():
        if key not in tables:
            mark = " (restart)" if needs_restart(field) else ""
            page.item(bold(f"{key} = {value_text(defaults[key])}") + mark, str(field.description))
    for key, (inner, _) in tables.items():
        page.paragraphs(str(section.model_fields[key].description))
        page.example(EXAMPLES[name, key].splitlines())
        page.paragraphs(f"Keys: {', '.join(f'`{each}`' for each in inner.model_fields)}.")


# ---------------------------------------------------------------- requiretls-milter-metrics(7)


def _metrics(date: str) -> str:
    page = _page(METRICS_PAGE, 7, date, "Miscellaneous", f"what {PROGRAM} counts for Prometheus")
    page.heading("DESCRIPTION")
    page.paragraphs(
        "Prometheus reads them at `/metrics` of the address `metrics.listen`. All names begin with "
        f"`{PREFIX}`. Labels have values from closed sets only; `domain` is a domain of a rule.",
    )
    page.heading("METRICS")
    _listed(page, METRICS.values())
    page.heading("METRICS OF AUDIT --FOLLOW")
    page.paragraphs("They are in the file, or at the port, that its options name.")
    _listed(page, AUDIT_METRICS.values())
    page.see_also(_PAGES[0], _PAGES[1])
    return page.text()


def _listed(page: ManPage, metrics: Iterable[Metric]) -> None:
    for metric in metrics:
        page.item(bold(metric.name) + _labels(metric), f"{metric.kind}: {metric.help}")
        for label, values in metric.labels:
            if values and len(values) <= _SHOWN:
                listed = ", ".join(f"`{value}`" for value in values)
                page.more_of_item(f"{label}: {listed}.")


_SHOWN = 24
"""Values of a label that are listed: codes and reasons have pages of their own."""


def _labels(metric: Metric) -> str:
    names = ",".join(metric.label_names)
    return literal(f"{{{names}}}") if names else ""
