"""The configuration's schema; the description of each field is its reference manual.

Sections and fields have the names and the order of the TOML file, in one module: read from top to
bottom it is the manual, from which docs/configuration.md and ``config show --defaults`` are made.
How a value is read is told in :mod:`requiretls_milter.config.fields`.

Every value is frozen, canonical (domains are A-labels; addresses, paths and sockets have one form)
and complete: a key that the file leaves out has its default. In the tables by domain of
``[rules]`` and by transport of ``[mta]`` None means "inherited".
"""

from __future__ import annotations

import enum
import hashlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from requiretls_milter import model
from requiretls_milter.config import fields
from requiretls_milter.config import routes as routing
from requiretls_milter.config.domainlist import MAX_DOMAINS
from requiretls_milter.config.fields import (
    MILTER_COMMAND_TIMEOUT,
    Count,
    Flag,
    Seconds,
    Wait,
    as_list,
    word,
)
from requiretls_milter.config.reading import Origin
from requiretls_milter.config.removed import without_removed
from requiretls_milter.syntax import endpoint, names, nexthop

RESTART: JsonDict = {"restart": True}
"""Marks a field that takes effect only when the service is started again."""


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


class Section(BaseModel):
    """A table of the file: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- milter, metrics, engine, log


class Milter(Section):
    """The side that faces the MTA: where the milter listens, and with how many processes."""

    socket: fields.MilterSocketField = Field(
        endpoint.parse_milter_socket("unix:/run/requiretls-milter/milter.sock"),
        description=(
            "The socket on which the MTA calls the milter: unix:/PATH, inet:PORT@HOST or "
            "inet6:PORT@HOST. For a chrooted Postfix: "
            "unix:/var/spool/postfix/requiretls-milter/milter.sock, which main.cf names "
            "unix:requiretls-milter/milter.sock. Over TCP everyone who can reach the address can "
            "call the milter, including every user of this host."
        ),
        json_schema_extra=RESTART,
    )
    socket_owner: fields.OptionalUser = Field(
        "",
        description=(
            "Owner of a unix socket, as the name or number of a user. Empty: the user that the "
            "service runs as. Only root may give the socket to another user."
        ),
        json_schema_extra=RESTART,
    )
    socket_group: fields.OptionalGroup = Field(
        "",
        description=(
            'Group of a unix socket, such as "postfix", as a name or number. Empty: the group that '
            "the service runs with. The MTA needs write permission on the socket and search "
            "permission on its directory."
        ),
        json_schema_extra=RESTART,
    )
    socket_mode: fields.FileMode = Field(
        "0660",
        description=(
            "Permissions of a unix socket, in octal. Users outside the group need none: only the "
            "MTA calls."
        ),
        json_schema_extra=RESTART,
    )
    workers: Annotated[Count, Field(ge=0, le=64)] = Field(
        0,
        description=(
            "Number of processes that answer the MTA. 0: two for each core that the service may "
            "use (by its affinity and the quota of its control group), at least 2 and at most 8. "
            "A Python process uses one core however many threads it has, and spends most of a "
            "message in system calls: with two for each core a quarter more messages are answered "
            "in a second than with one. More bring nothing, and each takes some 10 MB."
        ),
        json_schema_extra=RESTART,
    )
    trusted_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (fields.network("127.0.0.0/8"), fields.network("::1/128")),
        description=(
            "Networks, in CIDR notation, whose clients are trusted without authentication "
            "(enforce_for = trusted). By default this is only this host: strangers must not learn "
            "forecasts."
        ),
    )
    drain_timeout: Seconds = Field(
        10,
        description=(
            "Seconds that open transactions have to finish when the service stops. Then libmilter "
            "closes them, and the MTA asks the client to try again later."
        ),
    )
    header_name: fields.FieldName = Field(
        "X-RequireTLS",
        description=(
            "Name of the header field that carries the tag. Fields of this name in incoming mail "
            "are removed."
        ),
    )
    by: fields.OptionalDomain = Field(
        "",
        description=(
            "Value of by= in the tag. Empty: the name that the MTA gives itself (macro j)."
        ),
    )
    tag_leaving: Flag = Field(
        True,
        description=(
            "Whether a message is tagged if it has a recipient that is not local. Set this to "
            "false if the MTA cannot remove a header field from mail that leaves the site "
            "(Sendmail): the tag reveals your rules."
        ),
    )
    headers_only_bounces: Flag = Field(
        False,
        description=(
            "Whether a message for which REQUIRETLS is asked gets the parameter RET=HDRS (RFC 8689 "
            "section 5), whatever its sender said. A bounce of it then returns no body, here and "
            "at later hops. Off by default: the milter has to set the sender again as it was in "
            "MAIL, which undoes a change that an earlier milter made to it (SRS, BATV). The null "
            "sender is never changed."
        ),
    )
    envid_mark: fields.EnvidMark = Field(
        "",
        description=(
            'A word, such as "REQUIRETLS", that is appended to the ENVID of a message with '
            "route=requiretls, together with RET=HDRS. By this word a ruleset of Sendmail knows "
            "that the message must go over verified TLS. The next server sees the word too. "
            "Empty: nothing is appended. The milter sets the sender again, as for "
            "headers_only_bounces."
        ),
    )


class Metrics(Section):
    """Metrics for Prometheus."""

    listen: fields.OptionalEndpoint = Field(
        endpoint.parse_endpoint("127.0.0.1:9894"),
        description=(
            "ADDRESS:PORT of the endpoint /metrics, which also serves a status page (/) and "
            "answers probes (/healthz, /readyz). Empty: no endpoint. Its only access control is "
            "tls_client_ca, so that by default only this host can reach it."
        ),
        json_schema_extra=RESTART,
    )
    tls_certificate: fields.OptionalPath = Field(
        "",
        description=(
            "File with the certificate of the endpoint and its chain (PEM). With it the endpoint "
            "speaks only TLS, version 1.2 or later. Empty: HTTP without TLS. The file is read "
            "again at SIGHUP."
        ),
    )
    tls_key: fields.OptionalPath = Field(
        "",
        description=(
            "File with the key of that certificate (PEM, without a passphrase). It may be the same "
            "file. The user that the service runs as must be able to read it."
        ),
    )
    tls_client_ca: fields.OptionalPath = Field(
        "",
        description=(
            "File of CA certificates (PEM). Only a client with a certificate from one of them gets "
            "an answer. Empty: every client gets one."
        ),
    )


class Engine(Section):
    """The process that looks things up: DNS, MTA-STS, probes."""

    socket: fields.UnixPath = Field(
        "/run/requiretls-milter/engine.sock",
        description="Unix socket on which workers and the command line reach the engine.",
        json_schema_extra=RESTART,
    )
    stale_for: Annotated[Count, Field(ge=0, le=604_800)] = Field(
        86_400,
        description=(
            "Seconds for which a forecast is still the answer after its life is over, while a new "
            "one is made behind it (RFC 8767). It is used only where it can do no harm: if rules "
            "act, only for a delivery of which the MTA carries the requirement; never past the end "
            "of a certificate or of an MTA-STS policy; never after a failure or a downgrade of "
            "anything on which it rests. Until then no message waits for the network. 0: never. "
            "The default is a day: mail of yesterday's correspondents does not wait."
        ),
    )


class Log(Section):
    """The log: on standard error, from which journald takes it, in a file or at a syslog daemon."""

    format: Annotated[LogFormat, BeforeValidator(word(LogFormat))] = Field(
        LogFormat.LOGFMT,
        description='"logfmt" (key=value, for people and grep) or "json" (one object per line).',
    )
    level: Annotated[LogLevel, BeforeValidator(word(LogLevel))] = Field(
        LogLevel.INFO,
        description=(
            'The least severity that is logged: "debug", "info", "warning" or "error". At info '
            "there is one line for each recipient of a message for which something is asked."
        ),
    )


# ---------------------------------------------------------------- how the MTA delivers


class TransportOverrides(Section):
    """What one transport of master.cf does differently; the other keys are those of [mta]."""

    tls_security_level: fields.TlsLevelWord | None = Field(
        None, description="smtp_tls_security_level of this transport."
    )
    requiretls_policy: fields.RequiretlsPolicyField | None = Field(
        None, description="smtp_requiretls_policy of this transport."
    )
    tls_policy: fields.TlsPolicyField | None = Field(
        None, description="smtp_tls_policy_maps of this transport: a whole table, {} for none."
    )
    mta_sts: fields.MtaStsWord | None = Field(None, description="MTA-STS over this transport.")
    mta_sts_service: fields.MtaStsServiceWord | None = Field(
        None, description="The policy service of this transport."
    )
    insecure_mx_policy: fields.InsecureMxWord | None = Field(
        None, description="smtp_tls_dane_insecure_mx_policy of this transport."
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] | None = Field(
        None, description="smtp_mx_address_limit of this transport."
    )
    inet_protocols: fields.InetProtocols | None = Field(
        None, description="inet_protocols of this transport."
    )
    address_preference: fields.AddressPreferenceWord | None = Field(
        None, description="smtp_address_preference of this transport."
    )
    use_srv_lookup: Annotated[tuple[fields.ServiceName, ...], as_list] | None = Field(
        None, description="use_srv_lookup of this transport."
    )
    protocol: fields.ProtocolWord | None = Field(
        None,
        description=(
            'What this transport speaks: "smtp", or "lmtp" for a service of master.cf that runs '
            "lmtp(8). Unless set, the transport named lmtp speaks LMTP and all others SMTP."
        ),
    )


class Mta(Section):
    """How the MTA that calls the milter delivers; the defaults are those of Postfix 3.11."""

    profile: fields.ProfileWord = Field(
        model.ProfileName.POSTFIX,
        description=(
            'Whose behaviour is forecast. "postfix": what Postfix 3.11 does with the settings '
            'below. "rfc8689": what the RFC demands, for Sendmail and other MTAs that do not '
            "implement REQUIRETLS."
        ),
    )
    carries: fields.CapabilityWord = Field(
        model.Capability.AUTO,
        description=(
            "What the MTA acts on by itself: requiretls (Postfix 3.11 and later), tls-required "
            "(only the header field TLS-Required: No; Postfix 3.10) or nothing. auto: the version "
            "in macro v decides."
        ),
    )
    mydomain: fields.OptionalDomain = Field(
        "",
        description=(
            "mydomain of Postfix. Its default policy exempts this domain and its subdomains. "
            "Empty: no domain is exempt."
        ),
    )
    myhostname: fields.OptionalDomain = Field(
        "",
        description=(
            "myhostname of Postfix. A server on port 25 that gives this name in its EHLO reply is "
            "the MTA itself, and Postfix sees a mail loop: 5.4.6, or 4.4.6 if it tried a better MX "
            "before. Empty: no server is recognized by its name."
        ),
    )
    tls_security_level: fields.TlsLevelWord = Field(
        model.TlsLevel.MAY,
        description=(
            "smtp_tls_security_level: none, may, encrypt, dane, dane-only, verify or secure. "
            "Postfix keeps REQUIRETLS only at the levels that verify certificates: dane, "
            "dane-only, verify and secure."
        ),
    )
    requiretls_policy: fields.RequiretlsPolicyField = Field(
        fields.DEFAULT_POLICY,
        description=(
            'smtp_requiretls_policy. "default": the list that Postfix has by itself (opportunistic '
            "for mydomain, localhost and address literals, enforce for all others). Or one policy "
            "for all: enforce, opportunistic+starttls, opportunistic or disable. Or a table: "
            '{ "example.org" = "enforce", ".example.net" = "opportunistic", "*" = "enforce" }. '
            'As in tables of Postfix the name itself comes first, then its parents as ".parent", '
            'then "*"; without a match the policy is enforce. "invalid" stands for a word that '
            "Postfix does not know, for which it defers with 4.7.10."
        ),
    )
    tls_policy: fields.TlsPolicyField = Field(
        {},
        description=(
            "The static tables of smtp_tls_policy_maps, by next hop. An entry is a level, and the "
            "names to match if the level is verify or secure: "
            '{ "example.org" = "dane-only", ".example.net" = "encrypt", '
            '"[mail.example.com]:587" = "secure match=example.com:.example.com" }. As in Postfix '
            'the name of a domain comes first, then its parents as ".parent". An entry for the '
            "name comes before MTA-STS, an entry for a parent after it."
        ),
    )
    mta_sts: fields.MtaStsWord = Field(
        model.MtaSts.OFF,
        description=(
            'How the MTA applies MTA-STS: "off", "match" (smtp_tls_policy_maps answers "secure '
            'match=..."), or "mx-patterns" (smtp_tls_enforce_sts_mx_patterns, Postfix 3.10.5 and '
            "later with a resolver plug-in that sends policy attributes)."
        ),
    )
    mta_sts_service: fields.MtaStsServiceWord = Field(
        model.MtaStsService.RESOLVER,
        description=(
            'The policy service behind smtp_tls_policy_maps. "postfix-mta-sts-resolver" has the '
            "policy of a smart host's domain in brackets and with a port too ([mx.example.org]:25, "
            'RFC 8461 section 3.4), "postfix-tlspol" that of a bare name only.'
        ),
    )
    insecure_mx_policy: fields.InsecureMxWord = Field(
        model.TlsLevel.DANE,
        description=(
            "smtp_tls_dane_insecure_mx_policy: dane, encrypt or may. This level is used if the MX "
            "record is not signed, but the TLSA records of the host are."
        ),
    )
    requiretls_esmtp_header: Flag = Field(
        True,
        description=(
            "requiretls_esmtp_header: whether the MTA obeys the header field Require-TLS-ESMTP: "
            "yes, which any sender can write."
        ),
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] = Field(
        5, description="smtp_mx_address_limit: how many addresses the MTA tries. 0: all."
    )
    inet_protocols: fields.InetProtocols = Field(
        ("ipv4", "ipv6"),
        description=(
            'inet_protocols: "ipv4", "ipv6" or both. Name only what the MTA can really use: a '
            "forecast for an address that the MTA never tries is worth nothing."
        ),
    )
    address_preference: fields.AddressPreferenceWord = Field(
        model.AddressPreference.ANY,
        description=(
            'smtp_address_preference: which address family the MTA tries first, "ipv4" or "ipv6". '
            '"any": chance decides among servers of equal preference.'
        ),
    )
    use_srv_lookup: Annotated[tuple[fields.ServiceName, ...], as_list] = Field(
        (),
        description=(
            "use_srv_lookup of Postfix: the services for which SRV records name the servers of a "
            'next hop without brackets: "submission" for example.org:submission, "smtp" for '
            "example.org itself."
        ),
    )
    local_transports: Annotated[tuple[fields.TransportName, ...], as_list] = Field(
        ("local", "virtual", "lmtp", "discard", "error", "retry"),
        description=(
            "Transports ({rcpt_mailer}) that do not send mail over SMTP to another site. Their "
            "recipients are local, and no forecast is made for them."
        ),
    )
    local_domains: Annotated[tuple[fields.DomainPattern, ...], as_list] = Field(
        (),
        description=(
            "Recipient domains that are delivered here; .example.org stands for the subdomains. "
            "Only for mail whose transport the MTA does not name, such as that of sendmail(1): "
            "what it names always comes first."
        ),
    )
    default_transport: Annotated[fields.Text, AfterValidator(fields.destination)] = Field(
        "smtp",
        description=(
            "default_transport of Postfix, with or without a next hop: the way of mail whose "
            "transport the MTA does not name, such as that of sendmail(1), and the transport that "
            "check assumes."
        ),
    )
    relayhost: Annotated[fields.Text, AfterValidator(fields.relay)] = Field(
        "",
        description=(
            "relayhost of Postfix, word for word: the next hop of mail for which the MTA names "
            "none and nothing else does."
        ),
    )
    routes: fields.Routes = Field(
        {},
        description=(
            "Where mail goes whose transport the MTA does not name, by recipient: transport_maps, "
            "and the domains of relay_domains, virtual_mailbox_domains and mydestination that are "
            'not delivered here. Keys as in transport(5): "user@example.org", "example.org", '
            '".example.org" for subdomains, "*". Values: "smtp:[gateway.example.org]:587"; "smtp:" '
            'for the recipient\'s own domain; "relay" without a colon for relayhost, if there is '
            'one; ":[host]" keeps the default transport. The most specific key of this table and '
            "of local_domains decides."
        ),
    )
    sender_transports: fields.SenderTransports = Field(
        {},
        description=(
            "sender_dependent_default_transport_maps of Postfix, for mail whose transport the MTA "
            'does not name. Keys: "user@example.org", "@example.org", "<>" for the null sender, '
            '"*" for any other sender, as a static table: then no address extension is cut off.'
        ),
    )
    sender_relayhosts: fields.SenderRelayhosts = Field(
        {},
        description=(
            "sender_dependent_relayhost_maps of Postfix, for mail whose next hop the MTA does not "
            "name. Keys as in sender_transports."
        ),
    )
    recipient_delimiter: Annotated[fields.Text, Field(max_length=16)] = Field(
        "",
        description=(
            "recipient_delimiter of Postfix: what separates a user's name from its extension in "
            "addresses that are looked up in these tables."
        ),
    )
    hand_over: fields.HandOver = Field(
        {},
        description=(
            "Transports of this host that hand their mail over to another one, as local(8) does "
            'with mailbox_transport: { local = "smtp:[192.0.2.30]" }, or "user@local" for one '
            "user (mailbox_transport_maps). The recipient is then forecast at that next hop."
        ),
    )
    route_transport: fields.OptionalTransport = Field(
        "",
        description=(
            "The transport to which a recipe moves a message with the tag's route=requiretls "
            '(milter_header_checks: "FILTER smtp-strict:"). What [mta.transport."NAME"] says of '
            "it then holds for every recipient for whom REQUIRETLS is asked, whatever transport "
            "the MTA named at RCPT. A message with route=mixed stays on its way, and is forecast "
            "all the same as if it were moved. Empty: no recipe moves such mail."
        ),
    )
    aliases: fields.AliasesWord = Field(
        model.Aliases.OFF,
        description=(
            'Whether a recipient is expanded as Postfix does it after the milter was asked. "off": '
            "a forecast is for the next hop of the address that the client gave; a virtual alias "
            'that leaves by SMTP looks local. "static": canonical_maps, recipient_canonical_maps '
            "and virtual_alias_maps below are applied as far as their text can be read, and the "
            "forecast is the worst one of the addresses that a recipient becomes. A table that "
            "cannot be read, or a circle in it, makes that recipient one that is not expanded; it "
            'is never refused for that. "ask": tables that are no text are asked too, with '
            "postmap -q as the service's user; a recipient whose tables do not answer in time is "
            "not expanded. Needs profile postfix."
        ),
    )
    postmap: fields.OptionalCommand = Field(
        "",
        description=(
            'The postmap command of Postfix that is run with aliases = "ask": an absolute path '
            "and arguments, split as a shell does, but run without one. With several instances: "
            '"/usr/sbin/postmap -c /etc/postfix-out". Empty: postmap in /usr/sbin and the like.'
        ),
    )
    alias_life: Annotated[Count, Field(ge=1, le=86_400)] = Field(
        60,
        description=(
            'Seconds for which an answer of postmap is used again with aliases = "ask", also that '
            "there is no entry. Postfix itself looks up each time: so long a changed entry may be "
            "forecast as it was."
        ),
    )
    virtual_alias_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (),
        description=(
            "virtual_alias_maps of Postfix, in its order: "
            '["hash:/etc/postfix/virtual", "inline:{ { a@example.org = b@example.net } }"]. Read '
            "are tables of the types hash, btree, lmdb, cdb, dbm and sdbm, whose source, the text "
            "that postmap made them of, lies beside them, and texthash, inline and static. All "
            "others are asked, or not read at all (aliases)."
        ),
    )
    recipient_canonical_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (), description="recipient_canonical_maps of Postfix, in the same way."
    )
    canonical_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (),
        description="canonical_maps of Postfix, in the same way, if they apply to recipients.",
    )
    myorigin: fields.OptionalDomain = Field(
        "",
        description=(
            "myorigin of Postfix: the domain of an address that has none. Empty: myhostname."
        ),
    )
    mydestination: Annotated[tuple[fields.Domain, ...], as_list] = Field(
        (),
        description=(
            "mydestination of Postfix, names only: the domains whose users are looked up in these "
            "tables without a domain too."
        ),
    )
    append_dot_mydomain: Flag = Field(
        False,
        description=(
            "append_dot_mydomain of Postfix: whether mydomain is appended to a domain without a "
            "dot, in these tables and in recipients."
        ),
    )
    propagate_unmatched_extensions: Annotated[tuple[fields.ExtendedWord, ...], as_list] = Field(
        ("canonical", "virtual"),
        description=(
            "propagate_unmatched_extensions of Postfix: in the results of which tables an "
            "extension (recipient_delimiter) is kept that the key has not."
        ),
    )
    virtual_alias_expansion_limit: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        1_000,
        description=(
            "virtual_alias_expansion_limit of Postfix: with more addresses for one recipient it "
            "takes no message."
        ),
    )
    virtual_alias_recursion_limit: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        1_000,
        description=(
            "virtual_alias_recursion_limit of Postfix: with more steps, as in a circle of "
            "aliases, it takes no message."
        ),
    )
    virtual_alias_address_length_limit: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        1_000,
        description=(
            "virtual_alias_address_length_limit of Postfix: octets of an address, beyond which it "
            "takes no message."
        ),
    )
    my_addresses: Annotated[tuple[fields.Address, ...], as_list] = Field(
        (),
        description=(
            "inet_interfaces and proxy_interfaces, as the addresses of the MTA. An MX that leads "
            "back to one of them is a mail loop (5.4.6)."
        ),
    )
    testing_policies_count: bool = Field(
        False,
        description=(
            'Whether an MTA-STS policy in mode "testing" confirms an MX name as one in mode '
            '"enforce" does. RFC 8461 section 5 gives it no force.'
        ),
    )
    pkix_beside_unusable_tlsa: bool = Field(
        False,
        description=(
            "Whether a certificate chain to a trusted authority is enough for a host that has TLSA "
            "records of which none is usable. If false, nothing authenticates such a host."
        ),
    )
    tlsa_vouches_for_unsigned_mx: bool = Field(
        False,
        description=(
            "Whether signed TLSA records of a host make up for MX records that are not signed, as "
            'at the level "halfdane" of Postfix. RFC 8689 section 2 demands a secure MX lookup.'
        ),
    )
    every_mx: bool = Field(
        False,
        description=(
            "Whether every server of a domain has to satisfy the requirement. If false, one server "
            "is enough, as in RFC 8689 section 4.2.1. For profile rfc8689."
        ),
    )
    weak_tls_counts: bool = Field(
        False,
        description=(
            "Whether TLS satisfies that RFC 9325 forbids: RSA or DHE of less than 2048 bits (keys "
            "of less than 112 bits of security), or no forward secrecy. Postfix delivers over it, "
            "which the forecast of profile postfix says either way. If false, as RFC 8689 section "
            "4.2.1 recommends, such a delivery does not comply, and profile rfc8689 makes none."
        ),
    )
    transport: Mapping[fields.TransportName, TransportOverrides] = Field(
        {},
        description=(
            "Overrides by transport ({rcpt_mailer}), like -o in master.cf: "
            '[mta.transport."smtp-strict"] with the keys that differ.'
        ),
    )

    def destination_of(self, recipient: str, sender: str) -> routing.Destination | None:
        """Where mail goes if the MTA does not say it; None if it is delivered here."""
        return routing.find(self, recipient, sender)

    def handed_over(self, to: routing.Destination, recipient: str) -> routing.Destination:
        """Where the mail of a transport that hands it over goes in the end."""
        return routing.handed_over(self, to, recipient)

    @property
    def postmap_command(self) -> tuple[str, ...]:
        """``postmap`` as program and arguments; () if the usual one is to be run."""
        return tuple(shlex.split(self.postmap))

    @property
    def usual_transport(self) -> str:
        """The transport of mail for which nothing else is configured."""
        return routing.Destination.parse(self.default_transport).transport

    def carrier(self, transport: str, asked: model.Requirement) -> str:
        """The transport by which a message goes in the end.

        Args:
            transport: which the MTA named ({rcpt_mailer}; any text).
            asked: what is asked for the message: it decides about its route.
        """
        if asked is model.Requirement.REQUIRETLS and self.route_transport:
            return self.route_transport
        return transport

    def speaks_lmtp(self, transport: str) -> bool:
        """Whether *transport* is an lmtp(8) of Postfix."""
        over = self.transport.get(transport)
        if over is not None and over.protocol is not None:
            return over.protocol is model.MailProtocol.LMTP
        return transport == model.MailProtocol.LMTP

    def nexthop_of(self, text: str, transport: str, *, postfix: bool) -> model.NextHop:
        """Read one next hop as *transport* takes it.

        Args:
            text: the next hop.
            transport: ({rcpt_mailer}; any text).
            postfix: whether it is Postfix that reads it.

        Raises:
            NextHopError: it is none.
        """
        protocol = model.MailProtocol.LMTP if self.speaks_lmtp(transport) else None
        hop = nexthop.parse(text, protocol or model.MailProtocol.SMTP, postfix=postfix)
        over = self.transport.get(transport)
        services = self.use_srv_lookup
        if over is not None and over.use_srv_lookup is not None:
            services = over.use_srv_lookup
        return nexthop.as_srv(hop) if hop.service in services else hop

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
            mta_sts_service=chosen("mta_sts_service"),
            insecure_mx_policy=chosen("insecure_mx_policy"),
            mydomain=self.mydomain,
            myhostname=self.myhostname,
            mx_address_limit=chosen("mx_address_limit"),
            inet_protocols=chosen("inet_protocols"),
            address_preference=chosen("address_preference"),
            my_addresses=self.my_addresses,
            relayhost=self.relayhost.lower(),
            use_srv_lookup=chosen("use_srv_lookup"),
            reading=model.Reading(
                testing_policies_count=self.testing_policies_count,
                pkix_beside_unusable_tlsa=self.pkix_beside_unusable_tlsa,
                tlsa_vouches_for_unsigned_mx=self.tlsa_vouches_for_unsigned_mx,
                every_mx=self.every_mx,
                weak_tls_counts=self.weak_tls_counts,
            ),
        )


def _policy_pairs(
    policy: str | model.RequiretlsPolicy | Mapping[str, model.RequiretlsPolicy],
) -> tuple[tuple[str, model.RequiretlsPolicy], ...] | None:
    """The policy in the form of :class:`model.MtaProfile`; None is Postfix's own list."""
    if isinstance(policy, model.RequiretlsPolicy):
        return (("*", policy),)
    if isinstance(policy, str):
        return None
    return tuple(policy.items())


# ---------------------------------------------------------------- evidence


class Dns(Section):
    """The resolver, on which everything that is said of DNSSEC rests."""

    nameservers: Annotated[tuple[fields.NameserverField, ...], as_list] = Field(
        (),
        description=(
            'Resolvers, as "ADDRESS" or "ADDRESS:PORT". Empty: those of /etc/resolv.conf, which is '
            "read at start and at reload. They must validate DNSSEC, and the path to them must be "
            "trusted (best: they run on this host), because their AD bit is believed (RFC 7672 "
            "section 2.1.3)."
        ),
    )
    timeout: Seconds = Field(
        5,
        description="Seconds for one lookup with all its tries; as long as resolvers usually wait.",
    )
    selftest_secure: fields.OptionalDomain = Field(
        "",
        description=(
            "A signed name, whose answer must have the AD bit. At start and every five minutes the "
            "service tests whether the resolver validates. Until this name and one of the two "
            "below have shown that, nothing counts as secure. Empty: the root zone. Behind a "
            "resolver without the public DNS, name one of your own."
        ),
    )
    selftest_bogus: fields.OptionalDomain = Field(
        "",
        description=(
            "A name with broken signatures: the resolver must refuse it with SERVFAIL, and give it "
            "out to a query with CD. Empty: public names that are kept broken for such tests."
        ),
    )
    selftest_insecure: fields.OptionalDomain = Field(
        "",
        description=(
            "A name that exists and is not signed, whose answer must not have the AD bit. Empty: "
            "large public domains that are not signed. This one is the easiest to have on an "
            "isolated network."
        ),
    )


class Probe(Section):
    """SMTP sessions with the servers of a next hop, up to the EHLO inside TLS; no mail is sent."""

    enabled: Flag = Field(
        True,
        description=(
            "Whether servers are contacted at all. Without probes only DNS and MTA-STS are known, "
            "and most forecasts are unknown."
        ),
    )
    plain_mail: Annotated[PlainMail, BeforeValidator(word(PlainMail))] = Field(
        PlainMail.OFF,
        description=(
            'Whether forecasts are made for ordinary mail too, as a survey: "off", "dns" (from DNS '
            'and MTA-STS only) or "full" (with probes). With "off" such mail gets no tag.'
        ),
    )
    port: Annotated[Count, Field(ge=1, le=endpoint.MAX_PORT)] = Field(
        model.SMTP_PORT, description="Port of a next hop that names none."
    )
    helo: fields.OptionalDomain = Field(
        "",
        description=(
            "Name that a probe gives in EHLO. Empty: the name of the host. It should resolve to "
            "the address that the probe comes from: many servers check this."
        ),
    )
    ca_file: fields.OptionalPath = Field(
        "",
        description=(
            "File of trusted CA certificates (PEM) for probes and MTA-STS. Empty: the store of the "
            "system. It should hold what the MTA trusts (smtp_tls_CAfile). The file, or the store, "
            "is read again at SIGHUP; if other certificates are in it then, MTA-STS policies that "
            "were kept do not count any more."
        ),
    )
    allow_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (),
        description=(
            "Networks outside the public internet that probes and MTA-STS may contact, for example "
            "that of your own relay. None by default: strangers write the DNS records that lead to "
            "a server, and must not lead probes into an internal network."
        ),
    )
    connect_timeout: Seconds = Field(
        10, description="Seconds for a TCP connection. smtp_connect_timeout of Postfix is 30."
    )
    command_timeout: Seconds = Field(
        15,
        description=(
            "Seconds for the greeting, for each reply and for the handshake. More than the 6 s for "
            "which postscreen lets its clients wait."
        ),
    )
    retry_after: Seconds = Field(
        60,
        description=(
            "Seconds until a server with a temporary failure is tried again. The time doubles with "
            "each failure, up to 15 minutes."
        ),
    )


# ---------------------------------------------------------------- rules


class RuleTable(Section):
    """A rule for one domain; None is inherited from the next table that matches."""

    mode: fields.ModeWord | None = Field(None, description="As [rules] mode.")
    require: Flag | None = Field(
        None, description="As [rules] require; true in any table that matches is enough."
    )
    honour_lost: Flag | None = Field(None, description="As [rules] honour_lost.")
    enforce_for: fields.EnforceForWord | None = Field(None, description="As [rules] enforce_for.")
    decide_wait: Wait | None = Field(None, description="As [rules] decide_wait.")
    on_temporary: fields.OnTemporaryWord | None = Field(
        None, description="As [rules] on_temporary."
    )
    on_unknown: fields.OnUnknownWord | None = Field(None, description="As [rules] on_unknown.")
    on_noncompliant: fields.OnNoncompliantWord | None = Field(
        None, description="As [rules] on_noncompliant."
    )
    downgrade_grace: fields.Grace | None = Field(None, description="As [rules] downgrade_grace.")
    watch: Flag | None = Field(None, description="As [rules] watch.")


class RuleList(RuleTable):
    """A rule for every domain of a list."""

    domains_file: fields.DomainListField = Field(
        description=(
            "Text file with the domains, one a line. A relative path begins where this file lies."
        ),
    )
    match: fields.MatchWord = Field(
        model.Match.RECIPIENT,
        description='By what the domains are looked up: "recipient", "nexthop" or "sender".',
    )


RuleTables = Annotated[Mapping[fields.DomainPattern, RuleTable], BeforeValidator(fields.no_twins)]

_TABLES = (
    'By {what}: [rules.{key}."example.org"], or ".example.org" for its subdomains. The exact '
    "name comes first, then the longest pattern. {order} A key that a table leaves out is "
    "inherited."
)


class Rules(Section):
    """What follows from a forecast. Only mail for which REQUIRETLS is asked is ever acted on."""

    mode: fields.ModeWord = Field(
        model.Mode.MONITOR,
        description=(
            'What the milter does: "off" (no tag, no count), "monitor" (tag and count), "defer" '
            '(also answer 451 if the delivery would fail), "reject" (also answer 550 if it would '
            "fail for good). monitor by default: look first, act later. No mode lets a message "
            "with more forged tags than limits.tags pass."
        ),
    )
    suspended: Flag = Field(
        False,
        description=(
            "Whether every rule that would act (mode defer or reject, in any table) is as if its "
            'mode were "monitor", and no recipient is put off by on_mixed: one line that switches '
            "all enforcement off. requiretls-milter suspend does the same to the running service, "
            "until the next reload. The MTA goes on doing what it does with REQUIRETLS itself."
        ),
    )
    require: Flag = Field(
        False,
        description=(
            "Whether REQUIRETLS is asked on behalf of the sender, whatever the message says. True "
            "in any table that matches is enough: a narrower table cannot take it back. The MTA "
            "does not know of this requirement, so that only modes defer and reject keep it."
        ),
    )
    honour_lost: Flag = Field(
        False,
        description=(
            "Whether REQUIRETLS is asked if an earlier hop was asked for it and the requirement "
            "was lost on the way (RFC 8689 section 6). If false, such mail is only counted and "
            "logged."
        ),
    )
    enforce_for: fields.EnforceForWord = Field(
        model.EnforceFor.TRUSTED,
        description=(
            'Whose mail may be deferred or refused: that of clients that are "authenticated" '
            '(SASL), "trusted" (these, and those in milter.trusted_networks) or "all". A stranger '
            "whose mail is refused learns a forecast."
        ),
    )
    decide_wait: Wait = Field(
        10,
        description=(
            "Seconds that a recipient may wait for its forecast in modes defer and reject. After "
            "them the forecast is unknown. Less than milter_command_timeout of Postfix "
            f"({MILTER_COMMAND_TIMEOUT} s), or the MTA gives the milter up."
        ),
    )
    tag_wait: Wait = Field(
        2,
        description=(
            "Seconds that the end of a message may wait for the forecasts in its tag. The number "
            "holds for the whole message, so that it is not in the tables by domain."
        ),
    )
    on_temporary: fields.OnTemporaryWord = Field(
        model.OnTemporary.ACCEPT,
        description=(
            'What mode reject does if the forecast is 4.7.x: "accept" (the MTA queues the mail and '
            'tries again) or "defer" (the client tries again).'
        ),
    )
    on_unknown: fields.OnUnknownWord = Field(
        model.OnUnknown.AUTO,
        description=(
            'What modes defer and reject do without a forecast: "accept" or "defer". "auto": '
            "accept if the MTA itself keeps the requirement, else defer."
        ),
    )
    on_noncompliant: fields.OnNoncompliantWord = Field(
        model.OnNoncompliant.AUTO,
        description=(
            "What modes defer and reject do if the MTA would deliver, but not as RFC 8689 demands: "
            '"accept" or "refuse". "auto": accept if the MTA itself keeps the requirement, else '
            "refuse."
        ),
    )
    on_mixed: fields.OnMixedWord = Field(
        model.OnMixed.ACCEPT,
        description=(
            'What becomes of a message whose recipients take different routes: "accept" (its tag '
            'has route=mixed, on which no recipe matches), or "split": a recipient whose route is '
            "not that of those accepted before is put off (452 4.5.3), so that the client brings "
            "it in a transaction of its own (RFC 5321 section 4.5.3.1.10), and a recipe binds "
            "exactly the recipients for whom something is asked. Clients that authenticate are "
            "never put off: a mail program does not try again. Needed only with recipes that "
            "match on the route. It holds for all mail, so that it is not in the tables by domain."
        ),
    )
    downgrade_grace: fields.Grace = Field(
        432_000,
        description=(
            "Seconds for which mail is deferred instead of refused after a next hop stopped "
            "offering STARTTLS, REQUIRETLS, TLSA or MTA-STS. 0: it is refused at once. The "
            "default is five days, as long as mail is queued: a failed renewal should delay mail, "
            "and an attack should not look like a final answer."
        ),
    )
    watch: Flag = Field(
        False,
        description=(
            "Whether the servers of a domain that has a table by recipient or next hop are watched "
            "as our own are: see [watch]. For partners whose postmasters want to be told."
        ),
    )
    recipient: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the recipient",
            key="recipient",
            order="These tables take precedence over [rules.nexthop].",
        ),
    )
    nexthop: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the next hop",
            key="nexthop",
            order="These tables take precedence over [rules.sender].",
        ),
    )
    sender: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the envelope sender",
            key="sender",
            order="These tables take precedence over [rules].",
        ),
    )

    list: Mapping[fields.ListName, RuleList] = Field(
        {},
        description=(
            "One rule for many domains: [rules.list.NAME], where NAME is yours. domains_file names "
            "a text file with a domain on each line, in Unicode or as A-labels, or .example.org "
            "for subdomains; what follows a # is a comment. A relative path begins where the file "
            'lies that has it. match says by what the domains are looked up: "recipient" (the '
            'default), "nexthop" or "sender". A domain of a list is as one with a table of these '
            "keys; a table of its own takes precedence over the list, key by key. A domain may "
            "stand in one list of each match only. All lists together have at most "
            f"{MAX_DOMAINS:,} domains. The files are read at start and at reload."
        ),
    )

    def tables(self) -> Iterator[tuple[str, str, RuleTable]]:
        """Each table below [rules] as (section, name, rule), in order of precedence."""
        sections: tuple[tuple[str, Mapping[str, RuleTable]], ...] = (
            ("recipient", self.recipient),
            ("nexthop", self.nexthop),
            ("sender", self.sender),
            ("list", self.list),
        )
        for section, tables in sections:
            for name, table in tables.items():
                yield section, name, table

    def by_domain(self) -> Iterator[tuple[str, str, RuleTable]]:
        """Each rule of a domain as (section, pattern, rule): those of lists once for each domain.

        A domain with a table of its own that stands in a list as well comes twice, its table first.
        """
        for section, name, table in self.tables():
            if isinstance(table, RuleList):
                for pattern in table.domains_file.domains:
                    yield table.match, pattern, table
            else:
                yield section, name, table

    def mode_of(self, section: str, name: str) -> model.Mode:
        """The mode of a table: its own, or that which it inherits from others of its section.

        Args:
            section: "recipient", "nexthop", "sender" or "list".
            name: of the table.
        """
        tables: Mapping[str, RuleTable] = getattr(self, section)
        inherited = (
            table.mode
            for pattern in ([name] if section == "list" else names.patterns(name))
            for table in (tables.get(pattern), self._list_of(section, pattern))
            if table is not None and table.mode is not None
        )
        return next(inherited, self.mode)

    def _list_of(self, match: str, pattern: str) -> RuleList | None:
        found = (one for one in self.list.values() if one.match == match)
        return next((one for one in found if pattern in one.domains_file.domains), None)

    @property
    def acts(self) -> bool:
        """Whether any rule may defer or refuse mail."""
        if self.suspended:
            return False
        modes = (table.mode for _, _, table in self.tables())
        return self.mode.acts or any(mode is not None and mode.acts for mode in modes)

    @property
    def longest_decide_wait(self) -> float:
        """The largest ``decide_wait`` of any rule, in seconds."""
        waits = (table.decide_wait for _, _, table in self.tables())
        return max([self.decide_wait, *(wait for wait in waits if wait is not None)])


# ---------------------------------------------------------------- watch


class Watch(Section):
    """Our own domains, watched as those see them that send mail to them."""

    domains: Annotated[tuple[fields.Domain, ...], as_list, Field(max_length=1_000)] = Field(
        (),
        description=(
            "The domains. Domains of partners are watched if their rule has watch = true. Each is "
            "looked at anew, within the budgets of [limits]: lookups, a session with each address, "
            "and at most every five minutes a fetch of the MTA-STS policy."
        ),
    )
    interval: Annotated[float, Field(strict=True, ge=5, le=86_400, allow_inf_nan=False)] = Field(
        300,
        description=(
            "Seconds between two looks at a domain: what breaks is told within them. With many "
            "domains a round takes longer."
        ),
    )
    notify: fields.OptionalCommand = Field(
        "",
        description=(
            "A command that is told of each change: an absolute path and arguments, split as a "
            "shell does, but run without one. It gets a JSON object on its standard input, has 30 "
            "seconds, and runs once at a time as the service's own user. Empty: none."
        ),
    )
    mail_to: Annotated[tuple[fields.MailAddress, ...], as_list, Field(max_length=20)] = Field(
        (),
        description=(
            "Addresses that get a mail about each change: what changes within ten seconds comes in "
            "one. A mail that cannot be handed over is tried again every five minutes, with what "
            "has changed since."
        ),
    )
    mail_from: fields.OptionalMailAddress = Field(
        "",
        description="The sender of these mails. Empty: requiretls-milter at the name of this host.",
    )
    mail_server: fields.EndpointField = Field(
        endpoint.parse_endpoint("127.0.0.1:25"),
        description=(
            "ADDRESS:PORT of the MTA to which these mails are handed over, by SMTP and without "
            "TLS: that of this host, which need not trust the network for it."
        ),
    )
    digest_at: fields.OptionalTimeOfDay = Field(
        "",
        description=(
            "HH:MM, local time, at which mail_to gets a digest each day: how all watched domains "
            "are, those with problems first. Empty: none."
        ),
    )

    @property
    def command(self) -> tuple[str, ...]:
        """``notify`` as program and arguments; () for none."""
        return tuple(shlex.split(self.notify))


# ---------------------------------------------------------------- store, limits


class Store(Section):
    """What has to outlive a restart: MTA-STS policies, evidence, what was last known good."""

    url: fields.StoreUrlField = Field(
        endpoint.parse_store_url("sqlite:///var/lib/requiretls-milter/state.db"),
        description=(
            'Where state is kept: "sqlite:///PATH" (a file of this host, which the service '
            'creates, in a directory that exists), "redis://HOST:PORT/DB" or "rediss://..." (for '
            'a fleet; Redis or Valkey, extra "redis"), or "memory:" (nothing is kept). While the '
            "store fails memory stands in for it."
        ),
        json_schema_extra=RESTART,
    )
    secret_file: fields.OptionalPath = Field(
        "",
        description=(
            "File with a secret that the milters on one Redis share, of 32 to 1,024 octets. "
            "They believe only records that were written with it, so that no other client of that "
            "Redis and nobody on the way to it can make a server or a policy seem what it is not. "
            "Empty: each record of that Redis is believed. Other stores need none."
        ),
        json_schema_extra=RESTART,
    )
    max_records: Annotated[Count, Field(ge=1_000, le=10_000_000)] = Field(
        100_000,
        description=(
            "Records in memory or in the file. Beyond this limit the least used records go first, "
            "those of the most frequent kind. The default is about the number of domains and "
            "servers to which a large site sends mail in a month. Redis has a limit of its own "
            "(maxmemory)."
        ),
        json_schema_extra=RESTART,
    )
    max_bytes: Annotated[Count, Field(ge=1 << 20, le=1 << 40)] = Field(
        67_108_864,
        description=(
            "Octets of these records; beyond this limit records go in the same order. The file may "
            "take two to three times as much. 64 MiB hold about 10,000 certificate chains."
        ),
        json_schema_extra=RESTART,
    )
    key_prefix: fields.KeyPrefix = Field(
        "requiretls-milter:",
        description=(
            "What each key in Redis begins with. Milters that share what they know have the same "
            "prefix. An access list of Redis need allow only keys with this prefix."
        ),
        json_schema_extra=RESTART,
    )


class Limits(Section):
    """How much is done at once, and for how long. No stranger can make anything grow beyond it.

    Each time a limit is reached it counts in limit_reached_total, under the name of its key. If
    one is reached all day, find out what causes that before you raise it.
    """

    callbacks: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        200,
        description=(
            "Callbacks of one worker that wait for a forecast at the same time. Beyond this limit "
            "a callback does not wait, and its forecast is unknown. Each one holds a thread: those "
            "of eight workers fit into the 2048 that the systemd unit allows (TasksMax). Postfix "
            "has 100 smtpd processes by default."
        ),
    )
    message_wait: Seconds = Field(
        30,
        description=(
            "Seconds that one message may wait for forecasts in all, at RCPT TO and at its end. "
            "Beyond this limit no recipient of it waits, and what is not known yet is unknown. "
            "rules.decide_wait bounds the wait of each recipient: two hundred with slow domains "
            "would hold an SMTP session for half an hour. RFC 5321 section 4.5.3.2 has a client "
            "wait five minutes for a reply; many wait less for all of them."
        ),
    )
    mta_silence: Annotated[Count, Field(ge=1, le=86_400)] = Field(
        3_660,
        description=(
            "Seconds that the MTA may leave a connection silent, or an event half sent, which "
            "holds a thread. Beyond this limit libmilter closes the connection; a silent one it "
            "closes up to ten minutes later. While a client sends a message the MTA says nothing: "
            "in an hour 10 MB come in over a line of 3 kB/s. Sendmail also waits an hour for each "
            "command (Timeout.command), Postfix five minutes (smtpd_timeout). libmilter's own "
            "limit is two hours."
        ),
        json_schema_extra=RESTART,
    )
    questions: Annotated[Count, Field(ge=16, le=100_000)] = Field(
        4_096,
        description=(
            "Questions of one worker that the engine has not answered yet. Beyond this limit the "
            "forecast is unknown. The engine accepts twice as many from one connection."
        ),
        json_schema_extra=RESTART,
    )
    tags: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        100,
        description=(
            "Copies of the tag's field (milter.header_name) in the header of one message. All are "
            "removed, and the MTA reads the header from its top for each of them. Beyond this "
            "limit the message is refused (550 5.7.1), whatever its rule says. Each milter on the "
            "path removes the tags of the others, so that honest mail has one or two."
        ),
    )
    expansions: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description=(
            "Addresses into which the recipients of one message are expanded (mta.aliases). "
            "Beyond this limit the next recipient is not expanded. Each takes half a kibibyte."
        ),
    )
    alias_entries: Annotated[Count, Field(ge=1, le=10_000_000)] = Field(
        200_000,
        description=(
            "Entries of all tables of mta.aliases together. Each worker keeps them in memory: "
            "28 MiB for 100,000 of usual length, and twice that while they are read anew, which "
            "takes half a second. Beyond this limit a table counts as one that cannot be read. "
            'With mta.aliases = "ask" the engine alone keeps them.'
        ),
    )
    alias_processes: Annotated[Count, Field(ge=1, le=100)] = Field(
        4,
        description=(
            'Runs of postmap at the same time (mta.aliases = "ask"), of which one table has half. '
            "Beyond this limit keys wait for their turn. A run looks up as many keys as wait, so "
            "that four at a time answer some thousand keys a second."
        ),
    )
    alias_timeout: Annotated[Count, Field(ge=1, le=600)] = Field(
        5,
        description=(
            "Seconds for one run of postmap. Beyond this limit it is killed, its table is not "
            "asked for five seconds, and recipients that could be in it are not expanded."
        ),
    )
    alias_keys: Annotated[Count, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description=(
            "Keys that wait for postmap. An address has up to five keys in each table. Beyond this "
            "limit a recipient is not expanded."
        ),
    )
    alias_answers: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Answers of postmap that the engine keeps, with their keys 1 KiB each on average at "
            "most. Beyond this limit the least used one is dropped."
        ),
    )
    forecast_cache: Annotated[Count, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description=(
            "Forecasts that one worker keeps; with their questions they take 1.5 KiB each on "
            "average at most. Beyond this limit the least used one is dropped."
        ),
    )
    gatherings: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        500,
        description=(
            "Next hops for which the engine gathers evidence at the same time, each with up to 16 "
            "sessions. Beyond this limit the one that has taken longest makes room: what is known "
            "of it is judged. If none has taken 5 s the forecast of the new one is unknown."
        ),
    )
    flights: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        4_000,
        description=(
            "Lookups, fetches and sessions that run or wait for their turn: eight for each "
            "gathering, which asks no more at once. Beyond this limit the forecast is unknown."
        ),
    )
    probes: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        40,
        description=(
            "SMTP sessions at the same time, with all servers together. Beyond this limit a "
            "session waits for its turn: a burst of handshakes must not starve the engine. With "
            "sessions of 0.3 s, 40 at a time reach more than a hundred new servers each second "
            "(docs/benchmarks.md)."
        ),
    )
    probes_per_host: Annotated[Count, Field(ge=1, le=100)] = Field(
        1,
        description=(
            "SMTP sessions at the same time with one address. Beyond this limit a session waits "
            "for its turn. One by default: servers limit the connections of a client, and the MTA "
            "needs them for mail."
        ),
    )
    probes_per_minute: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        12_000,
        description=(
            "SMTP sessions that begin within any minute. Beyond this limit a session waits for its "
            "turn. The default is more than 40 sessions at a time reach over the internet, so that "
            "it matters only if servers answer at once or if probes was raised. Lower it if a "
            "firewall or provider counts connections to port 25."
        ),
    )
    address_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        120,
        description=(
            "Connections with one address within any minute: SMTP sessions, and fetches of MTA-STS "
            "policies. Strangers' names may all lead to an address of somebody else, and must not "
            "make us flood it. Half of them may begin at once, the other half spread over the "
            "minute; the names of one zone (example.org) get half of each. Beyond this limit no "
            "connection is made, and the forecast is unknown. A server is called once an hour for "
            "each of its names, so that the default matters only with hundreds of names at one "
            "address."
        ),
    )
    address_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        1_200,
        description=(
            "The same within any hour. The default is for a busy site: of 2,000 tenants of one "
            "provider, each with its own MX name, no address of the provider's twenty is called "
            "by more than 600 names."
        ),
    )
    network_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        960,
        description=(
            "The same for all addresses of one network (IPv4: /24, IPv6: /64) together. The "
            "default is that of eight addresses: a large provider has some servers in a network."
        ),
    )
    network_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        9_600,
        description="The same for a network within any hour: eight times that of an address.",
    )
    zone_lookups_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        1_200,
        description=(
            "DNS lookups of names in one zone (example.org, example.co.uk) within any minute. MX "
            "records may name thousands of hosts in the zone of somebody else, whose name servers "
            "would be asked for each. Half of them may begin at once. Beyond this limit no lookup "
            "is made, and the forecast is unknown. A host takes two to four lookups, and they are "
            "kept for their TTL."
        ),
    )
    zone_lookups_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        20_000,
        description=(
            "The same within any hour. The default is some five a second, for the tenants of one "
            "large provider, whose names have a short TTL."
        ),
    )
    lookups: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        64,
        description=(
            "DNS lookups at the same time. Beyond this limit a lookup waits for its turn. The "
            "default is what one resolver answers without dropping queries; each lookup takes a "
            "socket."
        ),
    )
    fetches: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        20,
        description=(
            "MTA-STS policies that are fetched at the same time. Beyond this limit a fetch waits "
            "for its turn. Policies are kept for weeks, so that many are fetched at once only in "
            "the beginning."
        ),
    )
    slow_after: Annotated[float, Field(strict=True, ge=0.1, le=60, allow_inf_nan=False)] = Field(
        1,
        description=(
            "Seconds after which a lookup, fetch or session is slow; or three times as long as is "
            "usual, if that is longer, up to five times this value. While others wait, slow ones "
            "may hold half of the places (probes, lookups, fetches); beyond that they are broken "
            "off and begin again later. For ten minutes what was slow waits with its like. Longer "
            "than almost all sessions take: raise it where every server is far away."
        ),
    )
    evidence_wait: Wait = Field(
        8,
        description=(
            "Seconds for which a question waits for all the evidence of its next hop. After them "
            "what is known is judged: if that is enough for a forecast, it is the answer; else the "
            "question waits until assessment_timeout. A little less than rules.decide_wait; at "
            "most half of assessment_timeout."
        ),
    )
    assessment_timeout: Wait = Field(
        25,
        description=(
            "Seconds after which the engine answers a question with unknown, unless what is known "
            "is enough; it goes on gathering the evidence. The waits of [rules] may be shorter. "
            "The MTA does not wait longer."
        ),
    )
    gathering_timeout: Seconds = Field(
        300,
        description=(
            "Seconds for all the evidence of one next hop, even if no message waits for it any "
            "more; then what is known is judged. The default is enough for 16 sessions with silent "
            "servers, one after the other if they share an address."
        ),
    )
    flight_timeout: Seconds = Field(
        180,
        description=(
            "Seconds for one lookup, fetch or probe (a session, or two if TLS fails in the first), "
            "including the time that it waits for its turn. Each step has a limit of its own too "
            "(dns.timeout, probe.command_timeout)."
        ),
    )
    fetch_timeout: Annotated[float, Field(strict=True, gt=0, le=60, allow_inf_nan=False)] = Field(
        30,
        description=(
            "Seconds for the fetch of one MTA-STS policy. RFC 8461 section 3.3 suggests a minute "
            "at most."
        ),
    )
    host_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Entries of evidence by host and address that the engine keeps in memory; with their "
            "keys and certificate chains they take 8 KiB each on average at most. Beyond this "
            "limit the least used one is dropped."
        ),
    )
    domain_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Entries of evidence by domain that the engine keeps in memory; with their keys they "
            "take 8 KiB each on average at most. Beyond this limit the least used one is dropped."
        ),
    )
    store_queue: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description=(
            "Changes that wait for a store that is slow or away, 16 MiB of them at most. Beyond "
            "this limit the oldest one is given up and stays in memory only."
        ),
        json_schema_extra=RESTART,
    )
    metrics_connections: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        32,
        description=(
            "Connections to the metrics endpoint: enough for a few Prometheus servers and people. "
            "Beyond this limit the longest idle one of the client with most connections is closed."
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
    watch: Watch = Watch()
    store: Store = Store()
    limits: Limits = Limits()

    _removed: tuple[str, ...] = PrivateAttr(())
    _origin: Origin = PrivateAttr(Origin())

    @property
    def removed(self) -> tuple[str, ...]:
        """A warning for each key of the file that is accepted, but has no effect any more."""
        return self._removed

    @property
    def origin(self) -> Origin:
        """The files that it was read from; none for one that came another way."""
        return self._origin

    def read_from(self, origin: Origin) -> None:
        """Note the files that it was read from, which are no values of it."""
        self._origin = origin

    def __eq__(self, other: object) -> bool:
        """Whether all values are the same; a removed key has no value."""
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    @model_validator(mode="wrap")
    @classmethod
    def _let_removed_pass(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(raw, dict):
            return handler(raw)
        kept, warnings = without_removed(raw)
        config = handler(kept)
        config._removed = warnings
        return config

    def assessment_digest(self, authorities: str) -> str:
        """A digest of all that a forecast depends on: [mta], [dns], [probe] and the authorities.

        Two processes with the same digest make the same forecast from the same evidence, so that
        each may use the forecasts of the other.

        Args:
            authorities: the digest of the certification authorities that count, since files of
                one name may hold different ones.
        """
        text = self.model_dump_json(include={"mta", "dns", "probe"}) + authorities
        return hashlib.sha256(text.encode()).hexdigest()

    def digests(self) -> dict[str, str]:
        """A digest of each section, by which two processes can tell what differs.

        A digest says nothing of a password in it to others than the service's own user and root,
        who may read the file as well.
        """
        return {
            section: hashlib.sha256(getattr(self, section).model_dump_json().encode()).hexdigest()
            for section in type(self).model_fields
        }

    def with_suspension(self, suspended: bool) -> Config:
        """The same, but for ``rules.suspended``."""
        rules = self.rules.model_copy(update={"suspended": suspended})
        return self.model_copy(update={"rules": rules})

    def changes_at_restart(self, new: Config) -> tuple[str, ...]:
        """The dotted keys that differ in *new* and take effect only at a restart."""
        changed = []
        for section in type(self).model_fields:
            old_values, new_values = getattr(self, section), getattr(new, section)
            for key, field in type(old_values).model_fields.items():
                differs = getattr(old_values, key) != getattr(new_values, key)
                if differs and needs_restart(field):
                    changed.append(f"{section}.{key}")
        return tuple(changed)
