"""Mistakes that no key can know of by itself: contradictions, and files that cannot be used."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from requiretls_milter.config.domainlist import MAX_LISTED_MISTAKES
from requiretls_milter.config.mistakes import Mistake
from requiretls_milter.config.places import Place
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.config.secret import SecretError, read_secret
from requiretls_milter.config.sources import LISTS, ListFile, Sources

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


def contradictions(config: Config) -> tuple[Mistake, ...]:
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


def in_two_lists(config: Config, sources: Sources) -> Iterator[Mistake]:
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


def unusable_files(raw: dict[str, Any]) -> tuple[Mistake, ...]:
    """Files that the configuration names and that are not what they should be.

    Args:
        raw: the tables of the file, so that these mistakes are told together with all others.
    """
    mistakes: tuple[Mistake, ...] = ()
    for section, key in (("probe", "ca_file"), ("metrics", "tls_client_ca")):
        mistakes += _pem_mistakes(raw, section, key, _CERTIFICATE)
    mistakes += _pem_mistakes(raw, "metrics", "tls_certificate", _CERTIFICATE)
    mistakes += _secret_mistakes(raw)
    mistakes += _pem_mistakes(raw, "metrics", "tls_key", _KEY, "key without a passphrase")
    return mistakes


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


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)
