"""From a file to a :class:`Config`, with every mistake told at once.

There are three steps: the TOML of all files becomes tables (:mod:`.sources`), the schema makes
values of them, and then what no single key can know is checked (keys that contradict each other,
files that are not there).
:func:`warnings` tells what is allowed but probably not meant.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from requiretls_milter.config.domainlist import MAX_LISTED_MISTAKES
from requiretls_milter.config.mistakes import ConfigError, Mistake, dotted, explain
from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.config.places import KeyPath, Place
from requiretls_milter.config.reading import Origin, Reading
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.config.secret import SecretError, read_secret
from requiretls_milter.config.sources import (
    LISTS,
    MAX_FILE_BYTES,
    ListFile,
    Sources,
    read_sources,
)
from requiretls_milter.model import Aliases, Mode, ProfileName
from requiretls_milter.syntax.endpoint import MASK

DEFAULT_PATH = Path("/etc/requiretls-milter/config.toml")

SMTPD_TIMEOUT = 300
"""Seconds: Postfix's default of smtpd_timeout."""

MAX_PEM_FILE_BYTES = 16 * 1024 * 1024
"""Bytes of a PEM file such as probe.ca_file; the whole bundle of Debian has 0.2 MiB."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?P<label>(?:TRUSTED |X509 )?CERTIFICATE)-----(?P<body>[A-Za-z0-9+/=\s]+)"
    rb"-----END (?P=label)-----"
)
_KEY = re.compile(
    rb"-----BEGIN (?P<label>(?:RSA |EC )?PRIVATE KEY)-----(?P<body>[A-Za-z0-9+/=\s]+)"
    rb"-----END (?P=label)-----"
)
_DER_SEQUENCE = 0x30


def load(path: Path | None = None, instead: Mapping[Path, bytes] | None = None) -> Config:
    """Read and validate a configuration: the file, and what it includes.

    Args:
        path: the file; None is :data:`DEFAULT_PATH`, and all defaults if that does not exist.
        instead: what is to be taken for the content of some of the files.

    Raises:
        ConfigError: a file cannot be read, is not TOML, or has mistakes.
    """
    reading = Reading(instead or {})
    main = DEFAULT_PATH if path is None else path
    try:
        try:
            content = reading.any_file(main, MAX_FILE_BYTES)
        except FileNotFoundError:
            if path is not None:
                raise
            config = Config()
            config.read_from(Origin(reading.watched))
            return config
    except OSError as error:
        raise ConfigError(_unreadable(main, error).mistakes, reading.watched) from None
    return _parse(reading, main, content)


def parse(content: bytes, name: str) -> Config:
    """Validate the *content* of a file called *name*; raises ConfigError."""
    return _parse(Reading(), Path(name), content)


def texts(path: Path | None) -> Mapping[Path, str]:
    """The text of each file of a configuration, the main file first; raises ConfigError."""
    reading, main = Reading(), path or DEFAULT_PATH
    try:
        content = reading.any_file(main, MAX_FILE_BYTES)
    except FileNotFoundError:
        return {main: ""}
    except OSError as error:
        raise _unreadable(main, error) from None
    return {file.path: file.text for file in read_sources(reading, main, content).files}


def places(path: Path | None) -> Mapping[KeyPath, Place]:
    """Where each key of a configuration stands, which :func:`load` accepts; raises ConfigError.

    Names of domains are as the configuration has them: A-labels, in lower case.
    """
    reading, main = Reading(), path or DEFAULT_PATH
    try:
        content = reading.any_file(main, MAX_FILE_BYTES)
    except OSError:
        return {}
    found = read_sources(reading, main, content).places()
    return {_canonical(key): place for key, place in found.items()}


def _canonical(path: KeyPath) -> KeyPath:
    if path[0] != "rules" or len(path) < 3 or path[1] == LISTS[1]:
        return path
    try:
        return (*path[:2], domain_pattern(str(path[2])), *path[3:])
    except PatternError:
        return path


def _parse(reading: Reading, main: Path, content: bytes) -> Config:
    try:
        sources = read_sources(reading, main, content)
    except ConfigError as error:
        raise ConfigError(error.mistakes, reading.watched) from None
    raw = sources.raw
    mistakes: tuple[Mistake, ...] = ()
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        mistakes = explain(error, Config)
    else:
        mistakes = (*_contradictions(config), *_in_two_lists(config, sources))
    for section, key in (("probe", "ca_file"), ("metrics", "tls_client_ca")):
        mistakes += _pem_mistakes(raw, section, key, _CERTIFICATE)
    mistakes += _pem_mistakes(raw, "metrics", "tls_certificate", _CERTIFICATE)
    mistakes += _secret_mistakes(raw)
    mistakes += _pem_mistakes(raw, "metrics", "tls_key", _KEY, "key without a passphrase")
    told = (*sources.mistakes, *mistakes)
    if told:
        texts = (
            str(one if one.place else replace(one, place=sources.place(one.path))) for one in told
        )
        raise ConfigError(tuple(texts), reading.watched)
    config.read_from(
        Origin(
            reading.watched,
            tuple(file.path for file in sources.files[1:]),
            sources.file_of(("store", "url")),
            tuple(sources.warnings),
        )
    )
    return config


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError((f"{path}: cannot be read: {error.strerror or error}",))


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _contradictions(config: Config) -> tuple[Mistake, ...]:
    """Values that are good by themselves, but not together."""
    found = []
    if config.milter.socket.path == config.engine.socket:
        found.append(Mistake(("engine", "socket"), "this is the path of milter.socket too"))
    metrics = config.metrics
    if bool(metrics.tls_certificate) is not bool(metrics.tls_key):
        missing = "tls_key" if metrics.tls_certificate else "tls_certificate"
        found.append(
            Mistake(
                ("metrics", missing), "empty, but a certificate and its key are needed together"
            )
        )
    elif metrics.tls_client_ca and not metrics.tls_certificate:
        found.append(
            Mistake(("metrics", "tls_client_ca"), "needs TLS, but metrics.tls_certificate is empty")
        )
    found.extend(
        Mistake(
            ("mta", "transport", name),
            f"{name} is one of mta.local_transports, for which no forecast is made",
        )
        for name in config.mta.transport
        if name in config.mta.local_transports
    )
    if config.mta.route_transport in config.mta.local_transports:
        found.append(
            Mistake(
                ("mta", "route_transport"),
                f"{config.mta.route_transport} is one of mta.local_transports, which send nothing "
                "to another site",
            )
        )
    return tuple(found)


def _in_two_lists(config: Config, sources: Sources) -> Iterator[Mistake]:
    """Domains for which two lists have a rule, so that nobody could say which one is in force."""
    seen: dict[tuple[str, str], ListFile] = {}
    wrong = 0
    for file in sources.lists:
        match = config.rules.list[file.name].match
        for domain, line in file.lines.domains.items():
            first = seen.setdefault((match, domain), file)
            if first is file:
                continue
            wrong += 1
            if wrong <= MAX_LISTED_MISTAKES:
                yield Mistake(
                    (),
                    f"{domain} stands in [rules.list.{first.name}] already, at "
                    f"{Place(first.path, first.lines.domains[domain], 1)}: take it out of one of "
                    "the two lists",
                    Place(file.path, line, 1),
                )
    if wrong > MAX_LISTED_MISTAKES:
        more = wrong - MAX_LISTED_MISTAKES
        yield Mistake(LISTS, f"{more} more domains stand in two lists")


def _pem_mistakes(
    raw: dict[str, Any], section: str, key: str, block: re.Pattern[bytes], what: str = "certificate"
) -> tuple[Mistake, ...]:
    """What is wrong with a PEM file; from *raw*, to tell it together with all other mistakes."""
    table = raw.get(section)
    path = table.get(key) if isinstance(table, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return ()
    where = (section, key)
    try:
        content = _read(Path(path), MAX_PEM_FILE_BYTES)
    except OSError as error:
        return (Mistake(where, f"{path} cannot be read: {error.strerror or error}"),)
    if len(content) > MAX_PEM_FILE_BYTES:
        return (Mistake(where, f"{path} is larger than {MAX_PEM_FILE_BYTES} bytes"),)
    if not any(map(_is_der, block.finditer(content))):
        return (Mistake(where, f"{path} holds no {what} in PEM form"),)
    return ()


def _secret_mistakes(raw: dict[str, Any]) -> tuple[Mistake, ...]:
    """What is wrong with the file of the store's secret."""
    table = raw.get("store")
    path = table.get("secret_file") if isinstance(table, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return ()
    try:
        read_secret(path)
    except SecretError as error:
        return (Mistake(("store", "secret_file"), str(error)),)
    return ()


def _is_der(block: re.Match[bytes]) -> bool:
    """Whether a PEM block holds DER at all; what it says is judged when it is loaded."""
    try:
        der = base64.b64decode(b"".join(block["body"].split()), validate=True)
    except binascii.Error:
        return False
    return der[:1] == bytes([_DER_SEQUENCE])


def warnings(config: Config) -> tuple[str, ...]:
    """What is allowed but probably not meant, dangerous or of no effect, a sentence for each."""
    found = [*config.removed, *config.origin.warnings]
    if config.rules.suspended:
        found.append(
            "rules.suspended: no rule defers or refuses any mail, whatever its mode; take the line "
            "out to enforce again"
        )
    if config.rules.require and not config.rules.mode.acts:
        found.append(_promise("rules", config.rules.mode))
    for section, name, table in config.rules.tables():
        if table.require:
            mode = config.rules.mode_of(section, name)
            if not mode.acts:
                found.append(_promise(dotted(("rules", section, name)), mode))
    if config.mta.aliases is not Aliases.OFF:
        if config.mta.profile is not ProfileName.POSTFIX:
            found.append("mta.aliases: without effect, since mta.profile is not postfix")
        elif not any(
            (
                config.mta.virtual_alias_maps,
                config.mta.canonical_maps,
                config.mta.recipient_canonical_maps,
            )
        ):
            found.append(
                "mta.aliases: without effect, since mta.virtual_alias_maps and the canonical maps "
                "are empty; mta import names those of Postfix"
            )
    longest = config.rules.longest_decide_wait
    if longest > config.limits.message_wait:
        found.append(
            f"limits.message_wait: a message waits {config.limits.message_wait:g} s at most, so "
            f"that the {longest:g} s of decide_wait are never waited"
        )
    if config.limits.mta_silence < SMTPD_TIMEOUT:
        found.append(
            f"limits.mta_silence: Postfix lets a client be silent for {SMTPD_TIMEOUT} s "
            f"(smtpd_timeout), and after {config.limits.mta_silence} s it may lose the milter"
        )
    if config.milter.socket.family != "unix":
        found.append(
            "milter.socket: over TCP everyone who can reach the address can call the milter, "
            "including every user of this host; with a unix socket, socket_group and mode 0660 "
            "only the MTA can"
        )
    elif int(config.milter.socket_mode, 8) & 0o002:
        found.append(
            f"milter.socket_mode: {config.milter.socket_mode} lets every user of this host call "
            "the milter; with socket_group and mode 0660 only the MTA can"
        )
    if config.mta.route_transport and not config.milter.tag_leaving:
        found.append(
            "mta.route_transport: with milter.tag_leaving = false no message that leaves has a "
            "tag, so that no table of the MTA can move it to this transport"
        )
    metrics = config.metrics
    listen = metrics.listen
    if listen is not None and not listen.is_loopback and not metrics.tls_certificate:
        found.append(
            f"metrics.listen: {listen.address} can be reached from other hosts, and everyone there "
            "can read the metrics, which are sent in clear; with tls_certificate and tls_client_ca "
            "only your own clients can"
        )
    for index, nameserver in enumerate(config.dns.nameservers):
        if not nameserver.is_loopback:
            found.append(
                f"dns.nameservers[{index}]: {nameserver.address} is not on this host; an "
                "attacker on the path to it can forge the AD bit of DNSSEC"
            )
    if config.store.url.crosses_network_in_clear:
        found.append(
            "store.url: what is kept, and a password, cross the network in clear: an attacker on "
            "the path can remove it and, without store.secret_file, forge it, so that a server "
            "seems to offer what it does not; use rediss://"
        )
    if config.store.url.is_masked:
        found.append(
            f"store.url: the password is {MASK}, as config show masks it: write the password "
            "there, or use config show --secrets"
        )
    return tuple(found)


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


def _promise(key: str, mode: Mode) -> str:
    return (
        f'{key}: require = true with mode "{mode}" is a promise that nothing keeps: the MTA does '
        'not know of it; use "defer" or "reject"'
    )
