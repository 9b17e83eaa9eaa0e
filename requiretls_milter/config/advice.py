"""What a configuration may say, but probably does not mean: a sentence for each."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from requiretls_milter.config.mistakes import dotted
from requiretls_milter.config.schema.dns import Dns
from requiretls_milter.config.schema.metrics import Metrics
from requiretls_milter.config.schema.milter import Milter
from requiretls_milter.config.schema.mta import Mta
from requiretls_milter.config.schema.rules import Rules
from requiretls_milter.config.schema.store import Store
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.model import Aliases, Mode, ProfileName
from requiretls_milter.syntax.secrecy import HIDDEN, MASK, has_secrets, table_name

SMTPD_TIMEOUT = 300
"""Seconds: Postfix's default of smtpd_timeout."""


def warnings(config: Config) -> tuple[str, ...]:
    """What is allowed but probably not meant, dangerous or of no effect, a sentence for each."""
    return (
        *config.removed,
        *config.origin.warnings,
        *_of_rules(config.rules),
        *_of_tables(config.mta),
        *_of_aliases(config.mta),
        *_of_waits(config),
        *_of_the_milters_socket(config.milter),
        *_of_the_route(config),
        *_of_metrics(config.metrics),
        *_of_the_resolver(config.dns),
        *_of_the_store(config.store),
    )


def _of_rules(rules: Rules) -> Iterator[str]:
    if rules.suspended:
        yield (
            "rules.suspended: no rule defers or refuses any mail, whatever its mode; take the line "
            "out to enforce again"
        )
    if rules.require and not rules.mode.acts:
        yield _promise("rules", rules.mode)
    for section, name, table in rules.tables():
        if table.require:
            mode = rules.mode_of(section, name)
            if not mode.acts:
                yield _promise(dotted(("rules", section, name)), mode)


def _promise(key: str, mode: Mode) -> str:
    return (
        f'{key}: require = true with mode "{mode}" is a promise that nothing keeps: the MTA does '
        'not know of it; use "defer" or "reject"'
    )


def _of_tables(mta: Mta) -> Iterator[str]:
    for key in ("virtual_alias_maps", "recipient_canonical_maps", "canonical_maps"):
        for item in getattr(mta, key):
            if has_secrets(item):
                yield (
                    f"mta.{key}: {table_name(item)}: whenever it is asked, every user of this host "
                    "can see its password in the list of processes: write the settings into a "
                    "file, and name that (mysql:/etc/postfix/aliases.cf)"
                )
            elif HIDDEN in item or MASK in item:
                yield (
                    f"mta.{key}: {table_name(item)}: what it lacks is left out, as config show "
                    "leaves it out: name a file with the settings, or use config show --secrets"
                )


def _of_aliases(mta: Mta) -> Iterator[str]:
    if mta.aliases is Aliases.OFF:
        return
    if mta.profile is not ProfileName.POSTFIX:
        yield "mta.aliases: without effect, since mta.profile is not postfix"
    elif not any((mta.virtual_alias_maps, mta.canonical_maps, mta.recipient_canonical_maps)):
        yield (
            "mta.aliases: without effect, since mta.virtual_alias_maps and the canonical maps "
            "are empty; mta import names those of Postfix"
        )


def _of_waits(config: Config) -> Iterator[str]:
    limits, longest = config.limits, config.rules.longest_decide_wait
    if longest > limits.message_wait:
        yield (
            f"limits.message_wait: a message waits {limits.message_wait:g} s at most, so "
            f"that the {longest:g} s of decide_wait are never waited"
        )
    if limits.mta_silence < SMTPD_TIMEOUT:
        yield (
            f"limits.mta_silence: Postfix lets a client be silent for {SMTPD_TIMEOUT} s "
            f"(smtpd_timeout), and after {limits.mta_silence} s it may lose the milter"
        )


def _of_the_milters_socket(milter: Milter) -> Iterator[str]:
    if milter.socket.family != "unix":
        yield (
            "milter.socket: over TCP everyone who can reach the address can call the milter, "
            "including every user of this host; with a unix socket, socket_group and mode 0660 "
            "only the MTA can"
        )
    elif int(milter.socket_mode, 8) & 0o002:
        yield (
            f"milter.socket_mode: {milter.socket_mode} lets every user of this host call "
            "the milter; with socket_group and mode 0660 only the MTA can"
        )


def _of_the_route(config: Config) -> Iterator[str]:
    if config.mta.route_transport and not config.milter.tag_leaving:
        yield (
            "mta.route_transport: with milter.tag_leaving = false no message that leaves has a "
            "tag, so that no table of the MTA can move it to this transport"
        )


def _of_metrics(metrics: Metrics) -> Iterator[str]:
    listen = metrics.listen
    if listen is not None and not listen.is_loopback and not metrics.tls_certificate:
        yield (
            f"metrics.listen: {listen.address} can be reached from other hosts, and everyone there "
            "can read the metrics, which are sent in clear; with tls_certificate and tls_client_ca "
            "only your own clients can"
        )


def _of_the_resolver(dns: Dns) -> Iterator[str]:
    for index, nameserver in enumerate(dns.nameservers):
        if not nameserver.is_loopback:
            yield (
                f"dns.nameservers[{index}]: {nameserver.address} is not on this host; an "
                "attacker on the path to it can forge the AD bit of DNSSEC"
            )


def _of_the_store(store: Store) -> Iterator[str]:
    if store.url.crosses_network_in_clear:
        yield (
            "store.url: what is kept, and a password, cross the network in clear: an attacker on "
            "the path can remove it and, without store.secret_file, forge it, so that a server "
            "seems to offer what it does not; use rediss://"
        )
    if store.url.is_masked:
        yield (
            f"store.url: the password is {MASK}, as config show masks it: write the password "
            "there, or use config show --secrets"
        )


def exposures(config: Config) -> tuple[str, ...]:
    """Files with secrets that every user of this host may read, a sentence for each."""
    found = []
    path = config.origin.password_file
    has_password = config.store.url.has_password and not config.store.url.is_masked
    if path is not None and has_password and _is_public(path):
        found.append(
            f"{path}: holds the password in store.url, and every user of this host may read it; "
            "make root its owner, the service's group its group, and 0640 its mode"
        )
    secrets = {
        "metrics.tls_key": config.metrics.tls_key,
        "store.secret_file": config.store.secret_file,
    }
    found.extend(
        f"{name}: every user of this host may read {key}; make 0640 its mode"
        for name, key in secrets.items()
        if key and _is_public(Path(key))
    )
    return tuple(found)


def _is_public(path: Path) -> bool:
    """Say whether all users may read a file; a pipe is none, and what is gone is not read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)
