"""From a file to a :class:`Config`, with every mistake told at once.

A file is read in three steps: TOML becomes tables, the schema makes values of them, and then what
no single key can know is checked (keys that contradict each other, files that are not there).
:func:`warnings` tells what is allowed but probably not meant.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from requiretls_milter.config.mistakes import ConfigError, dotted, explain
from requiretls_milter.config.schema import Config
from requiretls_milter.config.secret import SecretError, read_secret
from requiretls_milter.model import Mode
from requiretls_milter.syntax.endpoint import MASK

DEFAULT_PATH = Path("/etc/requiretls-milter/config.toml")

SMTPD_TIMEOUT = 300
"""Seconds: Postfix's default of smtpd_timeout."""

MAX_FILE_BYTES = 1024 * 1024
"""Bytes of the configuration: beyond it the path is wrong (a log, a device)."""

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


def load(path: Path | None = None) -> Config:
    """Read and validate a configuration file.

    Args:
        path: the file; None is :data:`DEFAULT_PATH`, and all defaults if that does not exist.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has mistakes.
    """
    if path is not None:
        return parse(read(path), str(path))
    try:
        content = _read(DEFAULT_PATH, MAX_FILE_BYTES)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise _unreadable(DEFAULT_PATH, error) from None
    return parse(content, str(DEFAULT_PATH))


def read(path: Path) -> bytes:
    """Return the content of a configuration file; raises ConfigError."""
    try:
        return _read(path, MAX_FILE_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def parse(content: bytes, name: str) -> Config:
    """Validate the *content* of a file called *name*; raises ConfigError."""
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError((f"{name}: larger than {MAX_FILE_BYTES} bytes",))
    raw = _toml(content, name)
    mistakes: tuple[str, ...] = ()
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        mistakes = explain(error, Config)
    else:
        mistakes = _contradictions(config)
    for section, key in (("probe", "ca_file"), ("metrics", "tls_client_ca")):
        mistakes += _pem_mistakes(raw, section, key, _CERTIFICATE)
    mistakes += _pem_mistakes(raw, "metrics", "tls_certificate", _CERTIFICATE)
    mistakes += _secret_mistakes(raw)
    mistakes += _pem_mistakes(raw, "metrics", "tls_key", _KEY, "key without a passphrase")
    if mistakes:
        raise ConfigError(mistakes)
    return config


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError((f"{path}: cannot be read: {error.strerror or error}",))


def _toml(content: bytes, name: str) -> dict[str, Any]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{name}: line {line} is not UTF-8, which TOML has to be",)) from None
    if text.startswith("\N{BYTE ORDER MARK}"):
        raise ConfigError((f"{name}: begins with a byte order mark: save it without one",))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((f"{name}: not valid TOML: {error}",)) from None
    except RecursionError:
        raise ConfigError((f"{name}: not valid TOML: nested too deeply",)) from None


def _contradictions(config: Config) -> tuple[str, ...]:
    """Values that are good by themselves, but not together."""
    found = []
    if config.milter.socket.path == config.engine.socket:
        found.append("engine.socket: this is the path of milter.socket too")
    metrics = config.metrics
    if bool(metrics.tls_certificate) is not bool(metrics.tls_key):
        missing = "tls_key" if metrics.tls_certificate else "tls_certificate"
        found.append(f"metrics.{missing}: empty, but a certificate and its key are needed together")
    elif metrics.tls_client_ca and not metrics.tls_certificate:
        found.append("metrics.tls_client_ca: needs TLS, but metrics.tls_certificate is empty")
    found.extend(
        f"{dotted(('mta', 'transport', name))}: {name} is one of mta.local_transports, for "
        "which no forecast is made"
        for name in config.mta.transport
        if name in config.mta.local_transports
    )
    return tuple(found)


def _pem_mistakes(
    raw: dict[str, Any], section: str, key: str, block: re.Pattern[bytes], what: str = "certificate"
) -> tuple[str, ...]:
    """What is wrong with a PEM file; from *raw*, to tell it together with all other mistakes."""
    table = raw.get(section)
    path = table.get(key) if isinstance(table, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return ()
    where = f"{section}.{key}: {path}"
    try:
        content = _read(Path(path), MAX_PEM_FILE_BYTES)
    except OSError as error:
        return (f"{where} cannot be read: {error.strerror or error}",)
    if len(content) > MAX_PEM_FILE_BYTES:
        return (f"{where} is larger than {MAX_PEM_FILE_BYTES} bytes",)
    if not any(map(_is_der, block.finditer(content))):
        return (f"{where} holds no {what} in PEM form",)
    return ()


def _secret_mistakes(raw: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with the file of the store's secret."""
    table = raw.get("store")
    path = table.get("secret_file") if isinstance(table, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return ()
    try:
        read_secret(path)
    except SecretError as error:
        return (f"store.secret_file: {error}",)
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
    found = list(config.removed)
    if config.rules.suspended:
        found.append(
            "rules.suspended: no rule defers or refuses any mail, whatever its mode; take the line "
            "out to enforce again"
        )
    if config.rules.require and not config.rules.mode.acts:
        found.append(_promise("rules", config.rules.mode))
    for section, pattern, table in config.rules.tables():
        mode = table.mode or config.rules.mode
        if table.require and not mode.acts:
            found.append(_promise(dotted(("rules", section, pattern)), mode))
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


def exposures(config: Config, path: Path) -> tuple[str, ...]:
    """Files with secrets that every user of this host may read, a sentence for each.

    Args:
        config: what was read from the file.
        path: the configuration file.
    """
    found = []
    if config.store.url.has_password and not config.store.url.is_masked and _is_public(path):
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
