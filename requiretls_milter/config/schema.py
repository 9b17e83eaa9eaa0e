"""The configuration schema; the description of each field is its reference manual.

Names of sections and fields are the keys of the TOML file. All values are
frozen, canonical (A-labels, addresses and paths in one form) and complete:
what the file leaves out has its default, but for the per-domain tables of
``[rules]``, where None means "inherited".
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from requiretls_milter import model
from requiretls_milter.config import fields
from requiretls_milter.config.fields import (
    MILTER_COMMAND_TIMEOUT,
    Count,
    Flag,
    Seconds,
    Wait,
    as_list,
    word,
)
from requiretls_milter.syntax import endpoint, tlspolicy

RESTART: JsonDict = {"restart": True}
"""Marks a field that only takes effect when the service is started anew."""


def needs_restart(field: FieldInfo) -> bool:
    """Whether a change of *field* waits for the next start of the service."""
    return field.json_schema_extra == RESTART


class PlainMail(enum.StrEnum):
    """How much is found out about the next hops of mail for which nothing is asked."""

    OFF = "off"
    DNS = "dns"
    FULL = "full"


class LogFormat(enum.StrEnum):
    """How a log line is written."""

    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


InetProtocol = Literal["ipv4", "ipv6"]

_CONFIGURABLE_LEVEL = word(model.TlsLevel, but_not=(model.TlsLevel.HALF_DANE,))
_INSECURE_MX_LEVEL = word(
    model.TlsLevel,
    but_not=set(model.TlsLevel) - {model.TlsLevel.MAY, model.TlsLevel.ENCRYPT, model.TlsLevel.DANE},
)
ConfigurableLevel = Annotated[model.TlsLevel, BeforeValidator(_CONFIGURABLE_LEVEL)]
InsecureMxLevel = Annotated[model.TlsLevel, BeforeValidator(_INSECURE_MX_LEVEL)]
MtaStsWord = Annotated[model.MtaSts, BeforeValidator(word(model.MtaSts))]
AddressPreferenceWord = Annotated[
    model.AddressPreference, BeforeValidator(word(model.AddressPreference))
]
ProfileWord = Annotated[model.ProfileName, BeforeValidator(word(model.ProfileName))]
CapabilityWord = Annotated[model.Capability, BeforeValidator(word(model.Capability))]


def _protocols(value: object) -> tuple[InetProtocol, ...]:
    known: tuple[InetProtocol, ...] = ("ipv4", "ipv6")
    listed = value if isinstance(value, (list, tuple)) else ()
    if not listed or any(item not in known for item in listed):
        raise ValueError(
            f'expected a list of "ipv4", "ipv6" or both, got {fields.given(value)}'
            if not listed
            else f'expected only "ipv4" and "ipv6" in the list, got {", ".join(map(str, listed))}'
        )
    return tuple(name for name in known if name in listed)


InetProtocols = Annotated[tuple[InetProtocol, ...], BeforeValidator(_protocols)]

_ENVID_MARK = re.compile("(?:[A-Za-z0-9][A-Za-z0-9_-]{0,31})?", re.ASCII)


def _envid_mark(value: object) -> str:
    """A word that is one token to Sendmail, and itself in xtext (RFC 3461 section 4)."""
    if not isinstance(value, str) or not _ENVID_MARK.fullmatch(value):
        raise ValueError(
            "expected a word of at most 32 letters, digits, '-' and '_', "
            f"or an empty text, got {fields.given(value)}"
        )
    return value


EnvidMark = Annotated[str, BeforeValidator(_envid_mark)]

DEFAULT_POLICY: Final = "default"
_policy_word = word(model.RequiretlsPolicy)


def _requiretls_policy(value: object) -> Any:
    """``default``, one policy for all, or a table of patterns in canonical form."""
    if value == DEFAULT_POLICY:
        return DEFAULT_POLICY
    if not isinstance(value, dict):
        try:
            return _policy_word(value)
        except ValueError as error:
            raise ValueError(f'{error} ("default" is Postfix\'s own list)') from None
    table: dict[str, model.RequiretlsPolicy] = {}
    wrong = []
    for key, policy in value.items():
        try:
            pattern = fields.policy_pattern(key)
            if pattern in table:
                raise ValueError(f'"{pattern}" stands there twice')
            table[pattern] = _policy_word(policy)
        except ValueError as error:
            wrong.append(f'"{key}": {error}')
    if wrong:
        raise ValueError("; ".join(wrong))
    return table


RequiretlsPolicyField = Annotated[
    Literal["default"] | model.RequiretlsPolicy | Mapping[str, model.RequiretlsPolicy],
    BeforeValidator(_requiretls_policy),
]


def _tls_policy(value: object) -> dict[str, model.TlsPolicy]:
    """A table of next hops and entries as smtp_tls_policy_maps has them."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table, got {fields.given(value)}")
    table: dict[str, model.TlsPolicy] = {}
    wrong = []
    for name, entry in value.items():
        try:
            key = tlspolicy.key(name)
            if key in table:
                raise ValueError(f'"{key}" stands there twice')
            if not isinstance(entry, str):
                raise ValueError(f"expected text, got {fields.given(entry)}")
            table[key] = tlspolicy.parse(entry)
        except ValueError as error:
            wrong.append(f'"{name}": {error}')
    if wrong:
        raise ValueError("; ".join(wrong))
    return table


TlsPolicyField = Annotated[
    Mapping[str, Annotated[model.TlsPolicy, PlainSerializer(str)]], BeforeValidator(_tls_policy)
]


def _no_twins(value: object) -> object:
    """Refuse two keys that are the same domain, such as Example.org and example.org."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, got {fields.given(value)}")
    seen: dict[str, str] = {}
    for key in value:
        try:
            canonical = fields.domain_pattern(key)
        except ValueError:
            continue  # a mistake of its own, found where the key is validated
        if canonical in seen:
            raise ValueError(f'"{seen[canonical]}" and "{key}" are the same domain')
        seen[canonical] = key
    return value


class Section(BaseModel):
    """A table of the file: frozen, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- milter, metrics, engine, log


class Milter(Section):
    """The side that faces the MTA: where it listens, with how many processes."""

    socket: fields.MilterSocketField = Field(
        endpoint.parse_milter_socket("unix:/run/requiretls-milter/milter.sock"),
        description=(
            "Where the MTA finds us: unix:/PATH, inet:PORT@HOST or inet6:PORT@HOST. For a "
            "chrooted Postfix: unix:/var/spool/postfix/requiretls-milter/milter.sock, which "
            "main.cf names unix:requiretls-milter/milter.sock. Over TCP whoever reaches the "
            "address can call the milter, every user of this host included."
        ),
        json_schema_extra=RESTART,
    )
    socket_owner: fields.OptionalUser = Field(
        "",
        description=(
            "Owner of a unix socket, a user's name or number; empty: the user that we run as. Only "
            "root may give a socket away."
        ),
        json_schema_extra=RESTART,
    )
    socket_group: fields.OptionalGroup = Field(
        "",
        description=(
            'Group of a unix socket, e.g. "postfix", or its number; empty: the group that we run '
            "with. The MTA needs write permission on the socket and search permission on its "
            "directory."
        ),
        json_schema_extra=RESTART,
    )
    socket_mode: fields.FileMode = Field(
        "0660",
        description="Permissions of a unix socket, in octal. Others need none: only the MTA calls.",
        json_schema_extra=RESTART,
    )
    workers: Annotated[Count, Field(ge=1, le=64)] = Field(
        2,
        description=(
            "Processes that answer the MTA. Threads of one Python process do not add up: two "
            "processes answer twice as many messages as one; more than one for each core is waste."
        ),
        json_schema_extra=RESTART,
    )
    trusted_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (fields.network("127.0.0.0/8"), fields.network("::1/128")),
        description=(
            "Clients that count as ours without authentication (enforce_for = trusted), in CIDR "
            "notation. By default only this host: a stranger must not learn our forecasts."
        ),
    )
    drain_timeout: Seconds = Field(
        10,
        description=(
            "Seconds that running transactions get to finish when we stop; libmilter then cuts "
            "them, and the MTA asks the client to come again."
        ),
    )
    header_name: fields.FieldName = Field(
        "X-RequireTLS",
        description=(
            "Name of the header field that carries the tag. Fields of this name that come from "
            "outside are removed."
        ),
    )
    by: fields.OptionalDomain = Field(
        "",
        description="What by= of the tag says; empty: the MTA's own name for itself (macro j).",
    )
    tag_leaving: Flag = Field(
        True,
        description=(
            "Whether a message gets its tag, if a recipient is not local. false for an MTA that "
            "cannot remove a header field on the way out of the site (Sendmail): the tag tells of "
            "your rules."
        ),
    )
    headers_only_bounces: Flag = Field(
        False,
        description=(
            "Give a message for which REQUIRETLS is asked the parameter RET=HDRS (RFC 8689 section "
            "5), so that a bounce of it returns no body, here and at later hops, whatever its "
            "sender said. Off by default: it sets the sender anew, as it was in MAIL, and so "
            "undoes what a milter before this one made of it (SRS, BATV). Never for the null "
            "sender."
        ),
    )
    envid_mark: EnvidMark = Field(
        "",
        description=(
            'A word, such as "REQUIRETLS", that is put at the end of the ENVID of a message with '
            "route=requiretls, together with RET=HDRS: how a ruleset of Sendmail knows that the "
            "message has to go over verified TLS. Empty: none. The mark goes along to the next "
            "server. It sets the sender anew, as headers_only_bounces does."
        ),
    )


class Metrics(Section):
    """Numbers for Prometheus."""

    listen: fields.OptionalEndpoint = Field(
        endpoint.parse_endpoint("127.0.0.1:9894"),
        description=(
            "ADDRESS:PORT of the endpoint /metrics; empty: none. It has no access control of its "
            "own but tls_client_ca, therefore only this host by default."
        ),
        json_schema_extra=RESTART,
    )
    tls_certificate: fields.OptionalPath = Field(
        "",
        description=(
            "File with the endpoint's certificate and its chain (PEM): it then speaks TLS, 1.2 or "
            "later, and nothing else. Empty: HTTP in clear. Read again at SIGHUP."
        ),
    )
    tls_key: fields.OptionalPath = Field(
        "",
        description=(
            "File with the key of that certificate (PEM, without a passphrase); the same file "
            "where it holds both. Our user has to be able to read it."
        ),
    )
    tls_client_ca: fields.OptionalPath = Field(
        "",
        description=(
            "File of CA certificates (PEM): only clients with a certificate of one of these are "
            "answered. Empty: whoever comes."
        ),
    )


class Engine(Section):
    """The process that looks around: DNS, MTA-STS, probes."""

    socket: fields.UnixPath = Field(
        "/run/requiretls-milter/engine.sock",
        description="Unix socket on which workers and the command line reach the engine.",
        json_schema_extra=RESTART,
    )


class Log(Section):
    """What is written to standard error, for journald to pick up."""

    format: Annotated[LogFormat, BeforeValidator(word(LogFormat))] = Field(
        LogFormat.LOGFMT,
        description='"logfmt" (key=value, for people and grep) or "json" (one object a line).',
    )
    level: Annotated[LogLevel, BeforeValidator(word(LogLevel))] = Field(
        LogLevel.INFO,
        description=(
            'The least severity that is logged: "debug", "info", "warning" or "error". info is '
            "one line for each recipient of a message for which something is asked."
        ),
    )


# ---------------------------------------------------------------- how the MTA delivers


class TransportOverrides(Section):
    """What one transport of master.cf does otherwise; unset keys are those of [mta]."""

    tls_security_level: ConfigurableLevel | None = Field(
        None, description="smtp_tls_security_level of this transport."
    )
    requiretls_policy: RequiretlsPolicyField | None = Field(
        None, description="smtp_requiretls_policy of this transport."
    )
    tls_policy: TlsPolicyField | None = Field(
        None, description="smtp_tls_policy_maps of this transport: a whole table, {} for none."
    )
    mta_sts: MtaStsWord | None = Field(None, description="MTA-STS over this transport.")
    insecure_mx_policy: InsecureMxLevel | None = Field(
        None, description="smtp_tls_dane_insecure_mx_policy of this transport."
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] | None = Field(
        None, description="smtp_mx_address_limit of this transport."
    )
    mx_session_limit: Annotated[Count, Field(ge=0, le=1000)] | None = Field(
        None, description="smtp_mx_session_limit of this transport."
    )
    inet_protocols: InetProtocols | None = Field(
        None, description="inet_protocols of this transport."
    )
    address_preference: AddressPreferenceWord | None = Field(
        None, description="smtp_address_preference of this transport."
    )


class Mta(Section):
    """How the MTA behind us delivers; the defaults are those of Postfix 3.11."""

    profile: ProfileWord = Field(
        model.ProfileName.POSTFIX,
        description=(
            '"postfix": what Postfix 3.11 would do, with the settings below; "rfc8689": what the '
            "RFC demands (for Sendmail and other MTAs that do not implement REQUIRETLS)."
        ),
    )
    carries: CapabilityWord = Field(
        model.Capability.AUTO,
        description=(
            "What the MTA acts on by itself: requiretls (Postfix 3.11 and later), tls-required "
            "(only the header field TLS-Required: No; Postfix 3.10), nothing, or auto: decided "
            "by the version in macro v."
        ),
    )
    mydomain: fields.OptionalDomain = Field(
        "",
        description=(
            "Postfix's mydomain: its default policy exempts this domain and its subdomains. "
            "Empty: none is exempt."
        ),
    )
    myhostname: fields.OptionalDomain = Field(
        "",
        description=(
            "Postfix's myhostname: a server on port 25 that calls itself so in its EHLO reply is "
            "the MTA itself, and a mail loop (5.4.6; 4.4.6 where a better MX was tried before). "
            "Empty: no server is known by its name."
        ),
    )
    tls_security_level: ConfigurableLevel = Field(
        model.TlsLevel.MAY,
        description=(
            "smtp_tls_security_level: none, may, encrypt, dane, dane-only, verify or secure. "
            "Postfix keeps REQUIRETLS only at levels that verify certificates: dane and above."
        ),
    )
    requiretls_policy: RequiretlsPolicyField = Field(
        DEFAULT_POLICY,
        description=(
            'smtp_requiretls_policy: "default" (Postfix\'s own list: opportunistic for mydomain, '
            "localhost and address literals, else enforce), one of enforce, "
            "opportunistic+starttls, opportunistic, disable, or a table "
            '{ "example.org" = "enforce", ".example.net" = "opportunistic", "*" = "enforce" }. '
            'As in Postfix\'s tables the name itself comes first, then its parents as ".parent", '
            'then "*"; no match is enforce. "invalid" stands for a word that Postfix does not '
            "know (it then defers with 4.7.10)."
        ),
    )
    tls_policy: TlsPolicyField = Field(
        {},
        description=(
            "The static tables of smtp_tls_policy_maps, by next hop: a level, and the names to "
            'match where it is verify or secure. { "example.org" = "dane-only", ".example.net" = '
            '"encrypt", "[mail.example.com]:587" = "secure match=example.com:.example.com" }. As '
            'in Postfix a domain\'s own name comes first, then its parents as ".parent"; an entry '
            "for the name comes before MTA-STS, one for a parent after it."
        ),
    )
    mta_sts: MtaStsWord = Field(
        model.MtaSts.OFF,
        description=(
            'How the MTA applies MTA-STS: "off", "match" (smtp_tls_policy_maps answers "secure '
            'match=..."), or "mx-patterns" (smtp_tls_enforce_sts_mx_patterns, Postfix 3.10.5 and '
            "later with a resolver plug-in that sends policy attributes)."
        ),
    )
    insecure_mx_policy: InsecureMxLevel = Field(
        model.TlsLevel.DANE,
        description=(
            "smtp_tls_dane_insecure_mx_policy: the level where the MX record is not signed, but "
            "the TLSA records of the host are: dane, encrypt or may."
        ),
    )
    requiretls_esmtp_header: Flag = Field(
        True,
        description=(
            "requiretls_esmtp_header: whether the MTA obeys the header field Require-TLS-ESMTP: "
            "yes (from anyone)."
        ),
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] = Field(
        5, description="smtp_mx_address_limit: how many addresses are tried; 0: all."
    )
    mx_session_limit: Annotated[Count, Field(ge=0, le=1000)] = Field(
        2,
        description=(
            "smtp_mx_session_limit: after how many sessions that reached MAIL no further server "
            "is tried; 0: no limit."
        ),
    )
    inet_protocols: InetProtocols = Field(
        ("ipv4", "ipv6"),
        description=(
            'inet_protocols: "ipv4", "ipv6" or both. Must be what the MTA can really use: a '
            "forecast over an address that the MTA never tries is worth nothing."
        ),
    )
    address_preference: AddressPreferenceWord = Field(
        model.AddressPreference.ANY,
        description=(
            'smtp_address_preference: "any" (among servers of equal preference chance decides), '
            '"ipv4" or "ipv6" (they come first).'
        ),
    )
    local_transports: Annotated[tuple[fields.TransportName, ...], as_list] = Field(
        ("local", "virtual", "lmtp", "discard", "error", "retry"),
        description=(
            "Transports ({rcpt_mailer}) that do not go over SMTP to another site: their "
            "recipients are local, and nothing is assessed."
        ),
    )
    local_domains: Annotated[tuple[fields.DomainPattern, ...], as_list] = Field(
        (),
        description=(
            "Recipient domains that are local whatever the transport; .example.org for "
            "subdomains. For MTAs that do not tell the transport."
        ),
    )
    my_addresses: Annotated[tuple[fields.Address, ...], as_list] = Field(
        (),
        description=(
            "inet_interfaces and proxy_interfaces: the MTA's own addresses. An MX that leads "
            "back to one of them is a mail loop (5.4.6)."
        ),
    )
    testing_policies_count: bool = Field(
        False,
        description=(
            'An MTA-STS policy in mode "testing" confirms an MX name as one in mode "enforce" '
            "does (RFC 8461 section 5 gives it no force)."
        ),
    )
    pkix_beside_unusable_tlsa: bool = Field(
        False,
        description=(
            "Where a host has TLSA records but none is usable, a certificate chain to a trusted "
            "authority is enough; else nothing authenticates such a host."
        ),
    )
    tlsa_vouches_for_unsigned_mx: bool = Field(
        False,
        description=(
            "Signed TLSA records of a host make up for MX records that are not signed, as "
            'Postfix\'s level "halfdane" has it (RFC 8689 section 2 wants the MX lookup secure).'
        ),
    )
    every_mx: bool = Field(
        False,
        description=(
            "Forecast success only where every server of the domain satisfies; else one is "
            "enough, as section 4.2.1 has it. For profile rfc8689."
        ),
    )
    transport: Mapping[fields.TransportName, TransportOverrides] = Field(
        {},
        description=(
            "Overrides by transport ({rcpt_mailer}), as -o in master.cf: "
            '[mta.transport."smtp-strict"] with the keys that differ.'
        ),
    )

    def profile_for(self, transport: str) -> model.MtaProfile:
        """How mail over *transport* ({rcpt_mailer}; any text) is delivered."""
        over = self.transport.get(transport, TransportOverrides())

        def chosen(key: str) -> Any:
            value = getattr(over, key)
            return getattr(self, key) if value is None else value

        return model.MtaProfile(
            name=self.profile,
            tls_security_level=chosen("tls_security_level"),
            requiretls_policy=_policy_pairs(chosen("requiretls_policy")),
            tls_policy=tuple(chosen("tls_policy").items()),
            mta_sts=chosen("mta_sts"),
            insecure_mx_policy=chosen("insecure_mx_policy"),
            mydomain=self.mydomain,
            myhostname=self.myhostname,
            mx_address_limit=chosen("mx_address_limit"),
            mx_session_limit=chosen("mx_session_limit"),
            inet_protocols=chosen("inet_protocols"),
            address_preference=chosen("address_preference"),
            my_addresses=self.my_addresses,
            reading=model.Reading(
                testing_policies_count=self.testing_policies_count,
                pkix_beside_unusable_tlsa=self.pkix_beside_unusable_tlsa,
                tlsa_vouches_for_unsigned_mx=self.tlsa_vouches_for_unsigned_mx,
                every_mx=self.every_mx,
            ),
        )


def _policy_pairs(
    policy: str | model.RequiretlsPolicy | Mapping[str, model.RequiretlsPolicy],
) -> tuple[tuple[str, model.RequiretlsPolicy], ...] | None:
    """The configured policy as :class:`model.MtaProfile` wants it; None is Postfix's list."""
    if isinstance(policy, model.RequiretlsPolicy):
        return (("*", policy),)
    if isinstance(policy, str):
        return None
    return tuple(policy.items())


# ---------------------------------------------------------------- finding out


class Dns(Section):
    """The resolver, whose word on DNSSEC we take."""

    nameservers: Annotated[tuple[fields.NameserverField, ...], as_list] = Field(
        (),
        description=(
            'Resolvers, "ADDRESS" or "ADDRESS:PORT"; empty: those of /etc/resolv.conf, which is '
            "read at start and reload. They must validate DNSSEC, and the path to them must be "
            "trusted (best: on this host), as their AD bit is believed (RFC 7672 section 2.1.3)."
        ),
    )
    timeout: Seconds = Field(
        5, description="Seconds for one lookup, with all tries; as long as resolvers wait by habit."
    )
    selftest_secure: fields.OptionalDomain = Field(
        "",
        description=(
            "A signed name, which must come with AD: at start and hourly it is tested whether the "
            "resolver validates, and where it does not, nothing is called secure. Empty: the root "
            "zone. For a resolver without the public DNS name one of your own."
        ),
    )
    selftest_bogus: fields.OptionalDomain = Field(
        "",
        description=(
            "A name with broken signatures, which must not be answered. Empty: public names that "
            "are kept broken for such tests."
        ),
    )
    selftest_insecure: fields.OptionalDomain = Field(
        "",
        description=(
            "A name that exists and is not signed, which must come without AD. Empty: large public "
            "domains that are not signed."
        ),
    )


class Probe(Section):
    """SMTP sessions with the servers of a next hop, up to the EHLO inside TLS; no mail is sent."""

    enabled: Flag = Field(
        True,
        description=(
            "Whether servers are contacted at all. Without probes only DNS and MTA-STS are "
            "known, and most forecasts are unknown."
        ),
    )
    plain_mail: Annotated[PlainMail, BeforeValidator(word(PlainMail))] = Field(
        PlainMail.OFF,
        description=(
            'Whether next hops of ordinary mail are assessed too, as a survey: "off", "dns" '
            '(DNS and MTA-STS only) or "full" (with probes). With "off" such mail gets no tag.'
        ),
    )
    port: Annotated[Count, Field(ge=1, le=endpoint.MAX_PORT)] = Field(
        25, description="Port of a next hop that names none."
    )
    helo: fields.OptionalDomain = Field(
        "",
        description=(
            "Name in EHLO; empty: the host's name. It should resolve to the address that the "
            "probe comes from: many servers look."
        ),
    )
    ca_file: fields.OptionalPath = Field(
        "",
        description=(
            "File of trusted CA certificates (PEM) for probes and MTA-STS; empty: the system's "
            "store. It should hold what the MTA trusts (smtp_tls_CAfile). Read again at SIGHUP."
        ),
    )
    allow_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (),
        description=(
            "Networks that are not of the public internet and may be contacted all the same "
            "(probes and MTA-STS), e.g. those of an own relay. None by default: DNS is written by "
            "strangers, and must not make us knock at internal doors."
        ),
    )
    connect_timeout: Seconds = Field(
        10, description="Seconds for a TCP connection; smtp_connect_timeout is 30 in Postfix."
    )
    command_timeout: Seconds = Field(
        15,
        description=(
            "Seconds for the greeting, for each reply and for the handshake. More than the 6 s "
            "that a greeter such as postscreen lets its clients wait."
        ),
    )
    retry_after: Seconds = Field(
        60,
        description=(
            "Seconds for which a temporary result stands before the host is tried again; "
            "doubles with each failure, up to 15 minutes."
        ),
    )


# ---------------------------------------------------------------- rules

Grace = Annotated[float, Field(strict=True, ge=0, le=31_536_000, allow_inf_nan=False)]

ModeWord = Annotated[model.Mode, BeforeValidator(word(model.Mode))]
EnforceForWord = Annotated[model.EnforceFor, BeforeValidator(word(model.EnforceFor))]
OnTemporaryWord = Annotated[model.OnTemporary, BeforeValidator(word(model.OnTemporary))]
OnUnknownWord = Annotated[model.OnUnknown, BeforeValidator(word(model.OnUnknown))]
OnNoncompliantWord = Annotated[model.OnNoncompliant, BeforeValidator(word(model.OnNoncompliant))]


class RuleTable(Section):
    """A rule for one domain; None is inherited from the next section that matches."""

    mode: ModeWord | None = Field(None, description="As [rules] mode.")
    require: Flag | None = Field(
        None, description="As [rules] require; true in any rule that matches counts."
    )
    honour_lost: Flag | None = Field(None, description="As [rules] honour_lost.")
    enforce_for: EnforceForWord | None = Field(None, description="As [rules] enforce_for.")
    decide_wait: Wait | None = Field(None, description="As [rules] decide_wait.")
    on_temporary: OnTemporaryWord | None = Field(None, description="As [rules] on_temporary.")
    on_unknown: OnUnknownWord | None = Field(None, description="As [rules] on_unknown.")
    on_noncompliant: OnNoncompliantWord | None = Field(
        None, description="As [rules] on_noncompliant."
    )
    downgrade_grace: Grace | None = Field(None, description="As [rules] downgrade_grace.")


RuleTables = Annotated[Mapping[fields.DomainPattern, RuleTable], BeforeValidator(_no_twins)]

_TABLES = (
    'By {what}: [rules.{key}."example.org"], or ".example.org" for its subdomains. The exact '
    "name comes first, then the longest; {order}. Unset keys are inherited."
)


class Rules(Section):
    """What a forecast leads to. Only mail for which REQUIRETLS is asked is ever acted on."""

    mode: ModeWord = Field(
        model.Mode.MONITOR,
        description=(
            '"off" (no tag, not counted), "monitor" (tag and count), "defer" (answer 451 where '
            'the delivery would fail), "reject" (answer 550 where it would fail for good). '
            "monitor by default: look first, act later."
        ),
    )
    require: Flag = Field(
        False,
        description=(
            "Ask for REQUIRETLS on behalf of the sender, whatever the message says. True in any "
            "table that matches is enough: no narrower one takes it back. The MTA does not know "
            "of it, therefore only modes defer and reject keep the promise."
        ),
    )
    honour_lost: Flag = Field(
        False,
        description=(
            "Ask for REQUIRETLS where an earlier hop was asked for it and the requirement got "
            "lost on the way (RFC 8689 section 6). Otherwise this is only counted and logged."
        ),
    )
    enforce_for: EnforceForWord = Field(
        model.EnforceFor.TRUSTED,
        description=(
            'Whose mail may be deferred or refused: "authenticated" (SASL), "trusted" (also '
            'milter.trusted_networks) or "all". A stranger who may ask learns our forecasts.'
        ),
    )
    decide_wait: Wait = Field(
        10,
        description=(
            "Seconds that a recipient may wait for its forecast in modes defer and reject; then "
            f"it is unknown. Less than Postfix's milter_command_timeout ({MILTER_COMMAND_TIMEOUT} "
            "s), or the MTA gives the milter up."
        ),
    )
    tag_wait: Wait = Field(
        2,
        description=(
            "Seconds that the end of a message may wait for the forecasts that its tag tells. "
            "One number for the whole message, therefore not in the tables by domain."
        ),
    )
    on_temporary: OnTemporaryWord = Field(
        model.OnTemporary.ACCEPT,
        description=(
            'What mode reject does with a temporary 4.7.x: "accept" (the MTA queues and tries '
            'again) or "defer" (the client does).'
        ),
    )
    on_unknown: OnUnknownWord = Field(
        model.OnUnknown.AUTO,
        description=(
            'What modes defer and reject do without a forecast: "accept", "defer", or "auto": '
            "accept where the MTA itself keeps the requirement, else defer."
        ),
    )
    on_noncompliant: OnNoncompliantWord = Field(
        model.OnNoncompliant.AUTO,
        description=(
            "What modes defer and reject do where the MTA would deliver, but not as RFC 8689 "
            'wants: "accept", "refuse", or "auto": accept where the MTA itself keeps the '
            "requirement, else refuse."
        ),
    )
    downgrade_grace: Grace = Field(
        432_000,
        description=(
            "Seconds for which mail is deferred rather than refused after a next hop lost "
            "STARTTLS, REQUIRETLS, TLSA or MTA-STS that it had; 0: none. Five days, as long as "
            "mail is queued: a failed renewal should delay mail, an attack should not look like "
            "an answer."
        ),
    )
    recipient: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the recipient",
            key="recipient",
            order="these go over [rules.nexthop]",
        ),
    )
    nexthop: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the next hop", key="nexthop", order="these go over [rules.sender]"
        ),
    )
    sender: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the envelope sender", key="sender", order="these go over [rules]"
        ),
    )

    def tables(self) -> Iterator[tuple[str, str, RuleTable]]:
        """Each rule of a domain as (section, pattern, rule), in order of precedence."""
        sections = (
            ("recipient", self.recipient),
            ("nexthop", self.nexthop),
            ("sender", self.sender),
        )
        for section, tables in sections:
            for pattern, table in tables.items():
                yield section, pattern, table

    @property
    def acts(self) -> bool:
        """Whether any rule may defer or refuse mail."""
        modes = (table.mode for _, _, table in self.tables())
        return self.mode.acts or any(mode is not None and mode.acts for mode in modes)

    @property
    def longest_decide_wait(self) -> float:
        """The largest ``decide_wait`` of any rule, in seconds."""
        waits = (table.decide_wait for _, _, table in self.tables())
        return max([self.decide_wait, *(wait for wait in waits if wait is not None)])


# ---------------------------------------------------------------- store, and all of it


class Store(Section):
    """What has to outlive a restart: policies, evidence, last known good."""

    url: fields.StoreUrlField = Field(
        endpoint.parse_store_url("sqlite:///var/lib/requiretls-milter/state.db"),
        description=(
            '"sqlite:///PATH" (a file of this host; it is made, its directory is not), '
            '"redis://HOST:PORT/DB" or "rediss://..." (a fleet; Redis or Valkey, extra "redis"), '
            'or "memory:" (nothing is kept). Where it fails memory stands in for it.'
        ),
        json_schema_extra=RESTART,
    )
    max_records: Annotated[Count, Field(ge=1_000, le=10_000_000)] = Field(
        100_000,
        description=(
            "Records in memory or in the file; the least used of the kind that has most go "
            "first. About as many domains and servers as mail of a large site goes to in a month. "
            "Redis has a bound of its own (maxmemory)."
        ),
        json_schema_extra=RESTART,
    )
    max_bytes: Annotated[Count, Field(ge=1 << 20, le=1 << 40)] = Field(
        67_108_864,
        description=(
            "Octets of these records, likewise; the file may take two to three times as much. "
            "64 MiB: some 10,000 certificate chains."
        ),
        json_schema_extra=RESTART,
    )
    key_prefix: fields.KeyPrefix = Field(
        "requiretls-milter:",
        description=(
            "Before our keys in Redis. Milters that share what they know have the same one; "
            "it is all that an access list need allow."
        ),
        json_schema_extra=RESTART,
    )


class Limits(Section):
    """How much is done at once, and for how long: nothing that a stranger causes grows beyond it.

    Each limit that is met counts in saturated_total, under the name of its key. One that is met
    all day wants a look at who causes it before it wants to be raised.
    """

    callbacks: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        200,
        description=(
            "Callbacks of one worker that wait for a forecast at the same time; a further one "
            "does not wait, its forecast is unknown. Each holds a thread: those of two workers "
            "fit into the 512 that the systemd unit allows (TasksMax), and a Postfix has 100 "
            "smtpd processes by default."
        ),
    )
    questions: Annotated[Count, Field(ge=16, le=100_000)] = Field(
        4_096,
        description=(
            "Questions of one worker that the engine has not answered; the forecast of a further "
            "one is unknown. The engine takes twice as many of one connection."
        ),
        json_schema_extra=RESTART,
    )
    forecast_cache: Annotated[Count, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description="Forecasts that one worker keeps, some 10 MiB; the least used makes room.",
    )
    gatherings: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        500,
        description=(
            "Next hops that the engine looks at at once, each with up to 16 sessions to wait for; "
            "the forecast of a further one is unknown."
        ),
    )
    flights: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        4_000,
        description=(
            "Lookups, fetches and sessions under way or waiting for their turn: eight for each "
            "gathering. Who needs a further one gets an unknown forecast."
        ),
    )
    probes: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        40,
        description=(
            "SMTP sessions at once, to all servers together; further ones wait their turn. A "
            "burst of handshakes must not starve the engine; a session of 0.3 s makes 40 some "
            "hundred new servers a second (docs/benchmarks.md)."
        ),
    )
    probes_per_host: Annotated[Count, Field(ge=1, le=100)] = Field(
        1,
        description=(
            "SMTP sessions at once to one address; further ones wait their turn. One: servers "
            "count connections of a stranger, and the MTA wants to have its own."
        ),
    )
    probes_per_minute: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        12_000,
        description=(
            "SMTP sessions that begin within any minute; further ones wait their turn. More than "
            "40 at once come to over the internet: it only holds back where servers answer at "
            "once, or where probes was raised. Lower it where a firewall or provider counts "
            "connections to port 25."
        ),
    )
    lookups: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        64,
        description=(
            "DNS lookups at once; further ones wait their turn. What one resolver answers without "
            "dropping, and a socket each."
        ),
    )
    fetches: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        20,
        description=(
            "MTA-STS policies that are fetched at once; further ones wait their turn. Policies "
            "are kept for weeks, so that few are fetched at the same time but at first."
        ),
    )
    assessment_timeout: Wait = Field(
        25,
        description=(
            "Seconds after which the engine answers a question with unknown; what it is about "
            "goes on being looked at. The waits of [rules] may be shorter; no MTA waits longer."
        ),
    )
    gathering_timeout: Seconds = Field(
        300,
        description=(
            "Seconds for all evidence of one next hop, also when nobody waits for it any more: 16 "
            "sessions with silent servers, one after the other where they share an address."
        ),
    )
    flight_timeout: Seconds = Field(
        180,
        description=(
            "Seconds for one lookup, fetch or look at a server (a session, or two where TLS fails "
            "in the first), with the time that it waits for its turn; each step has a limit of its "
            "own besides (dns.timeout, probe.command_timeout)."
        ),
    )
    fetch_timeout: Annotated[float, Field(strict=True, gt=0, le=60, allow_inf_nan=False)] = Field(
        30,
        description=(
            "Seconds for fetching one MTA-STS policy; RFC 8461 section 3.3 suggests a minute at "
            "most."
        ),
    )
    host_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Entries of evidence by host and address that the engine keeps in memory, with their "
            "certificate chains 8 KiB each on average at most; the least used makes room."
        ),
    )
    domain_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Entries of evidence by domain, 8 KiB each on average at most; the least used makes "
            "room."
        ),
    )
    store_queue: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description=(
            "Changes that wait for a store that is slow or gone, up to 10 KiB each; the oldest is "
            "given up then, and stays in memory only."
        ),
        json_schema_extra=RESTART,
    )
    metrics_connections: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        32,
        description=(
            "Connections to the metrics endpoint: a few Prometheus servers, and people; a further "
            "one is refused."
        ),
        json_schema_extra=RESTART,
    )


class Config(Section):
    """The whole configuration."""

    milter: Milter = Milter()
    metrics: Metrics = Metrics()
    engine: Engine = Engine()
    log: Log = Log()
    mta: Mta = Mta()
    dns: Dns = Dns()
    probe: Probe = Probe()
    rules: Rules = Rules()
    store: Store = Store()
    limits: Limits = Limits()

    def assessment_digest(self) -> str:
        """A digest of all that an assessment depends on: [mta], [dns] and [probe].

        Two processes with the same digest give the same forecast for the same
        evidence, so that one may use the other's.
        """
        text = self.model_dump_json(include={"mta", "dns", "probe"})
        return hashlib.sha256(text.encode()).hexdigest()

    def changes_at_restart(self, new: Config) -> tuple[str, ...]:
        """The dotted keys that differ in *new* and only take effect at a restart."""
        changed = []
        for section in type(self).model_fields:
            old_values, new_values = getattr(self, section), getattr(new, section)
            for key, field in type(old_values).model_fields.items():
                differs = getattr(old_values, key) != getattr(new_values, key)
                if differs and needs_restart(field):
                    changed.append(f"{section}.{key}")
        return tuple(changed)
