"""From a file to a :class:`Config`, with every mistake told at once."""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from requiretls_milter.config.mistakes import ConfigError, dotted, explain
from requiretls_milter.config.schema import Config
from requiretls_milter.model import Mode

DEFAULT_PATH = Path("/etc/requiretls-milter/config.toml")

MAX_FILE_BYTES = 1024 * 1024
"""Of the configuration, so that a wrong path (a log, a device) is a clear error."""

MAX_PEM_FILE_BYTES = 16 * 1024 * 1024
"""Of probe.ca_file and the like; Debian's whole bundle has 0.2 MiB."""

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
        path: the file; None is :data:`DEFAULT_PATH` where it exists, else all
            defaults.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds mistakes.
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
    """The content of a configuration file; raises ConfigError."""
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
        raise ConfigError((f"{name}: line {line} is not UTF-8, as TOML has to be",)) from None
    if text.startswith("\N{BYTE ORDER MARK}"):
        raise ConfigError((f"{name}: begins with a byte order mark: save it without",))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((f"{name}: no valid TOML: {error}",)) from None
    except RecursionError:
        raise ConfigError((f"{name}: no valid TOML: nested too deeply",)) from None


def _contradictions(config: Config) -> tuple[str, ...]:
    """What each key for itself allows, but not together."""
    found = []
    if config.milter.socket.path == config.engine.socket:
        found.append("engine.socket: the same path as milter.socket")
    metrics = config.metrics
    if bool(metrics.tls_certificate) is not bool(metrics.tls_key):
        missing = "tls_key" if metrics.tls_certificate else "tls_certificate"
        found.append(f"metrics.{missing}: a certificate and its key go together; it is empty")
    elif metrics.tls_client_ca and not metrics.tls_certificate:
        found.append("metrics.tls_client_ca: wants TLS; metrics.tls_certificate is empty")
    found.extend(
        f"{dotted(('mta', 'transport', name))}: {name} is one of mta.local_transports, whose "
        "mail is never assessed"
        for name in config.mta.transport
        if name in config.mta.local_transports
    )
    return tuple(found)


def _pem_mistakes(
    raw: dict[str, Any], section: str, key: str, block: re.Pattern[bytes], what: str = "certificate"
) -> tuple[str, ...]:
    """Whether a file is there; of the unvalidated configuration, to tell this with all else."""
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


def _is_der(block: re.Match[bytes]) -> bool:
    """Whether a PEM block holds DER at all. Its content is judged by who loads it."""
    try:
        der = base64.b64decode(b"".join(block["body"].split()), validate=True)
    except binascii.Error:
        return False
    return der[:1] == bytes([_DER_SEQUENCE])


def warnings(config: Config) -> tuple[str, ...]:
    """What is allowed, but probably not meant or costly; a sentence for each."""
    found = []
    if config.rules.require and not config.rules.mode.acts:
        found.append(_promise("rules", config.rules.mode))
    for section, pattern, table in config.rules.tables():
        mode = table.mode or config.rules.mode
        if table.require and not mode.acts:
            found.append(_promise(dotted(("rules", section, pattern)), mode))
    if config.milter.socket.family != "unix":
        found.append(
            "milter.socket: over TCP whoever reaches the address can call the milter, every user "
            "of this host included; a unix socket with socket_group and 0660 lets the MTA only"
        )
    elif int(config.milter.socket_mode, 8) & 0o002:
        found.append(
            f"milter.socket_mode: {config.milter.socket_mode} lets every user of this host call "
            "the milter; socket_group with 0660 lets the MTA only"
        )
    metrics = config.metrics
    listen = metrics.listen
    if listen is not None and not listen.is_loopback and not metrics.tls_certificate:
        found.append(
            f"metrics.listen: {listen.address} is not only this host's, and whoever reaches it "
            "reads the metrics, in clear; tls_certificate with tls_client_ca lets your own in only"
        )
    for index, nameserver in enumerate(config.dns.nameservers):
        if not nameserver.is_loopback:
            found.append(
                f"dns.nameservers[{index}]: {nameserver.address} is not on this host; whoever is "
                "on the path to it can forge DNSSEC's AD bit"
            )
    return tuple(found)


def _promise(key: str, mode: Mode) -> str:
    return (
        f'{key}: require = true with mode "{mode}" promises what nobody keeps: the MTA does not '
        'know of it; use "defer" or "reject"'
    )
