"""Public configurations (tests/data/public), on the versions that they were made for.

What is expected of ``mta import``: where mail goes, how it is protected, and each of its warnings,
by the parameter that it is about. No warning more, and none less.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import mta as doctor
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.mirror.postconf import Postconf, Postfix
from requiretls_milter.mirror.section import mirror
from tests.lab import netns, roots, runs
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.paths import REPOSITORY
from tests.support.postfixes import mta_of

pytestmark = pytest.mark.lab

PUBLIC = REPOSITORY / "tests/data/public"

ALIASES, CANONICAL = "virtual_alias_maps = ", "recipient_canonical_maps = "
NO_TEXT = "virtual_alias_maps: "
NO_TEXT_EITHER = "recipient_canonical_maps: "
TLS_TABLE, SASL, UTF8 = "smtp_tls_policy_maps", "smtp_sasl_auth_enable", "smtputf8_enable"
MAILBOXES, RELAYS, ROUTES = "virtual_mailbox_domains", "relay_domains", "transport_maps"


@dataclass(frozen=True)
class Expected:
    """What ``mta import`` must make of a configuration, and of which parameters it must warn."""

    recipe: roots.Recipe
    level: str
    ways: Mapping[str, str]
    """Recipient of sendmail(1) to ``transport:next hop``, or ``local``."""
    warnings: tuple[str, ...] = ()
    section: Mapping[str, Any] = field(default_factory=dict)


EXPECTED = {
    "dane-how-to": Expected(
        roots.POSTFIX_3_10,
        "dane",
        {"user@mx.example.nl": "local", "user@example.org": "smtp:example.org"},
    ),
    "debian-internet-site": Expected(
        roots.POSTFIX_3_7,
        "may",
        {"user@example.org": "local", "user@example.net": "smtp:example.net"},
    ),
    "docker-mailserver": Expected(
        roots.POSTFIX_3_10,
        "may",
        {
            "user@example.com": "local",
            "user@example.net": "local",
            "user@example.org": "smtp:example.org",
        },
        (ALIASES, "smtp_tls_protocols", "transport smtp-amavis: DNS lookups are disabled"),
    ),
    "iredmail": Expected(
        roots.POSTFIX_3_7,
        "may",
        {"user@example.org": "smtp:example.org"},
        (
            ALIASES,
            NO_TEXT,
            "smtp_tls_protocols",
            "content_filter = smtp-amavis:[127.0.0.1]:10024",
            "content_filter = smtp-amavis:[127.0.0.1]:10026",
            *(f"{ROUTES}: proxy:mysql:/etc/postfix/mysql/transport_maps_" for _ in range(3)),
            f"{MAILBOXES}: proxy:mysql",
            f"{RELAYS}: proxy:mysql",
            f"mydestination, {MAILBOXES}: not mirrored",
            "sender_dependent_relayhost_maps: proxy:mysql",
            "transport smtp-amavis: DNS lookups are disabled",
        ),
    ),
    "ispmail": Expected(
        roots.POSTFIX_3_7,
        "may",
        {"user@localhost": "local", "user@example.net": "smtp:example.net"},
        (ALIASES, NO_TEXT, f"{MAILBOXES}: mysql"),
    ),
    "mail-in-a-box": Expected(
        roots.POSTFIX_3_7,
        "dane",
        {"user@localhost": "local", "user@example.net": "smtp:example.net"},
        (
            ALIASES,
            NO_TEXT,
            "smtp_tls_mandatory_protocols",
            "smtp_tls_mandatory_ciphers",
            "smtp_tls_exclude_ciphers",
            "smtp_bind_address",
            "tls_high_cipherlist",
            "tls_medium_cipherlist",
            f"{MAILBOXES}: sqlite",
        ),
        # spampd takes mailboxes' mail over TCP: a next hop, though on this host.
        {"transport": {"lmtp": {"tls_security_level": "none", "protocol": "lmtp"}}},
    ),
    "mailcow": Expected(
        roots.POSTFIX_3_7,
        "dane",
        {"user@example.net": "smtp:example.net"},
        (
            UTF8,
            CANONICAL,
            NO_TEXT_EITHER,
            ALIASES,
            NO_TEXT,
            f"{TLS_TABLE}: proxy:mysql",
            "smtp_tls_mandatory_protocols",
            SASL,
            "smtp_tls_cert_file",
            f"{ROUTES}: pcre:",
            f"{ROUTES}: pcre:",
            f"{ROUTES}: proxy:mysql",
            f"{MAILBOXES}: proxy:mysql",
            f"{RELAYS}: proxy:mysql",
            f"mydestination, {MAILBOXES}: not mirrored",
            "sender_dependent_default_transport_maps: proxy:mysql",
            "transport lmtp: lmtp_tls_protocols",
            "transport smtp_enforced_tls: smtp_delivery_status_filter",
        ),
        {"address_preference": "ipv4"},
    ),
    "mailu": Expected(
        roots.POSTFIX_3_10,
        "dane",
        {"user@example.net": "smtp:[smtp.relay.example]:587"},
        (
            "relayhost",
            UTF8,
            CANONICAL,
            NO_TEXT_EITHER,
            ALIASES,
            NO_TEXT,
            f"{TLS_TABLE}: socketmap:unix:/tmp/podop.socket:dane is taken for",
            SASL,
            f"{ROUTES}: socketmap",
            f"{MAILBOXES}: socketmap",
            f"{RELAYS}: socketmap",
            "transport lmtp: lmtp_host_lookup has native",
        ),
        {"mta_sts": "mx-patterns", "tls_policy": {"insecure.example": "none"}},
    ),
    "modoboa": Expected(
        roots.POSTFIX_3_7,
        "none",  # its compatibility_level is 0, at which Postfix sends without TLS
        {"user@example.net": "smtp:example.net"},
        (
            UTF8,
            ALIASES,
            NO_TEXT,
            "content_filter = smtp-amavis:[127.0.0.1]:10024",
            *(f"{ROUTES}: pgsql:/etc/postfix/sql-" for _ in range(3)),
            "virtual_alias_domains: pgsql",
            f"{MAILBOXES}: pgsql",
            f"{RELAYS}: pgsql",
            "transport smtp-amavis: DNS lookups are disabled",
        ),
    ),
    "mta-sts-resolver": Expected(
        roots.POSTFIX_3_10,
        "dane",
        {"user@example.net": "smtp:example.net"},
        (f"{TLS_TABLE}: socketmap:inet:127.0.0.1:8461:postfix is taken for",),
        {"mta_sts": "mx-patterns", "mta_sts_service": "postfix-mta-sts-resolver"},
    ),
    "null-client": Expected(
        roots.POSTFIX_3_11,
        "may",
        {"user@host.example.com": "smtp:example.com", "user@example.net": "smtp:example.com"},
        ("relayhost",),
    ),
    "perimeter-relay": Expected(
        roots.POSTFIX_3_11,
        "may",
        {
            "user@example.com": "smtp:[inside-gateway.example.com]",
            "user@example.net": "smtp:example.net",
        },
        (ALIASES,),
    ),
    "provider-smarthost": Expected(
        roots.POSTFIX_3_7,
        "encrypt",
        {
            "user@web.example.org": "local",
            "user@example.net": "smtp:[email-smtp.eu-central-1.amazonaws.com]:587",
        },
        ("relayhost", SASL),
    ),
    "smtps-smarthost": Expected(
        roots.POSTFIX_3_7,
        "encrypt",
        {"user@example.net": "smtp:[smtp.provider.example]:465"},
        ("relayhost", "smtp_tls_wrappermode", SASL),
    ),
    "tlspol": Expected(
        roots.POSTFIX_3_11,
        "dane",
        {"user@example.net": "smtp:example.net"},
        (
            f"{TLS_TABLE}: socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT is taken for",
            "smtp_tls_CAfile and smtp_tls_CApath are empty",
        ),
        {"mta_sts": "mx-patterns", "mta_sts_service": "postfix-tlspol"},
    ),
}

Read = Callable[[str], Postfix]


@pytest.fixture
def read() -> Iterator[Read]:
    """Have postconf of the right version read a configuration of tests/data/public."""
    used: list[runs.Run] = []

    def reading(name: str) -> Postfix:
        recipe = EXPECTED[name].recipe
        try:
            with netns.outside():
                root = roots.ensure(recipe)
        except LabUnavailable as reason:
            unavailable(reason)
            raise
        used.append(run := runs.make(root))
        shutil.copy(PUBLIC / "master.cf.default", run.outside / "master.cf")
        for path in (PUBLIC / name).iterdir():
            shutil.copy(path, run.outside / path.name)
        return Postconf(f"chroot {root} /usr/sbin/postconf", run.inside).read()

    yield reading
    for run in used:
        run.remove()


def test_each_configuration_has_its_expectation() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in PUBLIC.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_public_configuration_is_mirrored_and_each_warning_is_true(read: Read, name: str) -> None:
    expected = EXPECTED[name]
    postfix = read(name)
    made = mirror(postfix)
    mta = mta_of(made)
    assert made.mta["tls_security_level"] == expected.level
    assert {key: made.mta[key] for key in expected.section} == expected.section
    left = list(made.warnings)
    for begin in expected.warnings:
        told = next((text for text in left if text.startswith(begin)), None)
        assert told is not None, f"no warning of {begin}: {left}"
        left.remove(told)
    assert left == []
    for recipient, way in expected.ways.items():
        found = from_macros("", "", recipient, "user@example.org", mta)
        local = str(found.nexthop) == "local"
        assert ("local" if local else f"{found.transport}:{found.nexthop}") == way, recipient
    complaints = [one.found for one in doctor.differences(_config(made.mta), postfix, made)]
    assert complaints[0] == "[mta] agrees with Postfix"


def _config(section: Mapping[str, Any]) -> Config:
    return Config.model_validate({"mta": section})
